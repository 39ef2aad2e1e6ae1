"""What methods on a frozen backbone share: its settings, its weights, and how it travels inside the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from anomaly.detectors.base import DetectorConfig
from anomaly.errors import ModelError
from anomaly.nets.backbone import Backbone
from anomaly.nets.device import resolve_device, seeded, uses_bf16
from anomaly.nets.patches import Resize, spreader
from anomaly.records import Float32
from anomaly.runs import Arrays, Recorder, under
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple, find_weights

_NAME = "backbone"
_INPUT, _SHA256 = "input", "sha256"
_WORKING = 5
"""Times its largest map that an image of a batch takes while a backbone runs (measured with resnet18)."""


Precision = Literal["auto", "fp32", "bf16"]
WeightsChoice = Literal["pretrained", "none"]


class Choice(Protocol):
    """What is to be known of a backbone: part of a method's settings."""

    @property
    def backbone(self) -> str:
        """A network of torchvision or timm."""
        ...

    @property
    def layers(self) -> tuple[str, ...]:
        """Modules of it whose feature maps are used, the largest maps first."""
        ...

    @property
    def backbone_weights(self) -> WeightsChoice:
        """From the weights folder, or random ones."""
        ...

    @property
    def precision(self) -> Precision:
        """Number format it runs in."""
        ...


class BackboneConfig(DetectorConfig):
    """Settings of a method that looks at films through a frozen backbone."""

    backbone: str = "resnet18"
    """A network of torchvision or timm."""
    layers: tuple[str, ...] = Field(default=("layer1", "layer2", "layer3"), min_length=1)
    """Modules of the backbone whose feature maps are used, the largest maps first."""
    backbone_weights: WeightsChoice = "pretrained"
    """From the weights folder (`anomaly weights`), or random ones, drawn by the seed."""
    precision: Precision = "auto"
    """Number format of the backbone; auto takes bf16 where the processor computes it."""
    smoothing: float = Field(default=4.0, ge=0)
    """Sigma of the map's blur, in pixels."""
    score_batch: int = Field(default=8, ge=1)
    """Images per chunk; more are no faster on a processor and take more memory."""


class FrozenBackbone:
    """A backbone with its weights, ready to run.

    Args:
        config: Which backbone, and how to run it.
        device: "auto", "cpu" or "cuda".
        seed: Draws random weights, where nothing else is asked for or known yet.

    Raises:
        UsageError: No such network or layer.
    """

    def __init__(self, config: Choice, *, device: str, seed: int) -> None:
        self._config = config
        self.device = resolve_device(device)
        self.bf16 = uses_bf16(self.device, config.precision)
        with seeded(seed):
            self._net = Backbone(config.backbone, config.layers)
        self._input: tuple[Triple, Triple] = (IMAGENET_MEAN, IMAGENET_STD)
        self._sha256 = ""

    @classmethod
    def for_fit(cls, config: Choice, *, device: str, seed: int, recorder: Recorder) -> FrozenBackbone:
        """Take weights from the weights folder, or random ones where the settings ask for them.

        Raises:
            MissingError: The folder has none of this backbone.
            ModelError: They are damaged, or do not fit the layers used.
            UsageError: No such network or layer.
        """
        made = cls(config, device=device, seed=seed)
        if config.backbone_weights == "none":
            recorder.warn(
                f"The backbone {config.backbone} has random weights (backbone_weights: none): it detects far less than "
                "a pretrained one."
            )
            return made._placed()
        stored = find_weights(config.backbone)
        try:
            made._net.take(stored.tensors())
        except ValueError as error:
            raise ModelError(f"{stored.path} does not serve layers {', '.join(config.layers)}: {error}.") from error
        made._input, made._sha256 = (stored.facts.mean, stored.facts.std), stored.sha256
        return made._placed()

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Choice, *, device: str) -> FrozenBackbone:
        """Build from what `to_arrays` returned; nothing but them is looked at.

        Raises:
            KeyError, ValueError: Arrays that do not go together.
        """
        own = under(arrays, _NAME)
        wants = own.pop(_INPUT)
        if wants.shape != (2, 3):
            raise ValueError(f"input of shape {wants.shape}")
        made = cls(config, device=device, seed=0)
        made._sha256 = own.pop(_SHA256).tobytes().hex()
        made._net.take(own)
        mean, std = ((float(a), float(b), float(c)) for a, b, c in wants)
        made._input = (mean, std)
        return made._placed()

    def _placed(self) -> FrozenBackbone:
        self._net.set_input(*self._input)
        self._net.place(self.device, bf16=self.bf16)
        return self

    def to_arrays(self) -> Arrays:
        """Return the weights of the layers used, what input they want, and the sha256 of the file they came in."""
        arrays = self._net.tensors()
        arrays[_INPUT] = np.array(self._input, np.float64)
        arrays[_SHA256] = np.frombuffer(bytes.fromhex(self._sha256), np.uint8)
        return {f"{_NAME}/{name}": array for name, array in arrays.items()}

    def made_of(self) -> dict[str, str]:
        """Return the name of the backbone and the sha256 of its file of weights."""
        return {"backbone": self._config.backbone, "backbone_sha256": self._sha256 or "none: random weights"}

    def shapes(self, size: int) -> list[tuple[int, int, int]]:
        """Return the (C, h, w) of each layer's maps; see `Backbone.shapes`."""
        return self._net.shapes(size)

    def spreader(self, size: int, how: Resize, sigma: float) -> Tensor:
        """Return what makes a map of pixels, (size, size), of one of the first layer's places; see `spreader`."""
        return spreader(self.shapes(size)[0][1], size, how, sigma).to(self.device)

    def maps(self, images: Float32) -> list[Tensor]:
        """Return the maps of each layer, fp32 or bf16 (N, C_l, h_l, w_l), of images float32 (N, 1 or 3, S, S)."""
        with torch.inference_mode():
            found: list[Tensor] = self._net(torch.tensor(images, device=self.device))
        return found

    def runs_on(self) -> str:
        """Return where and in which number format it runs."""
        return runs_on(self.device, self._config)

    def working(self, size: int) -> int:
        """Return about how many bytes an image of a batch takes while it runs."""
        return _WORKING * self._net.largest(size) * (2 if self.bf16 else 4)


def runs_on(device: str, config: Choice) -> str:
    """Return where and in which number format a backbone runs on "auto", "cpu" or "cuda"."""
    where = resolve_device(device)
    return f"{where} {'bf16' if uses_bf16(where, config.precision) else 'fp32'}"


def pooled(maps: Sequence[Tensor], inside: NDArray[np.bool_]) -> Float32:
    """Return the mean features of each film, layers one after the other: float32 (N, sum C_l).

    Args:
        maps: Of each layer, (N, C_l, h_l, w_l).
        inside: bool (N, S, S), which pixels show film; what is not film does not count.
    """
    with torch.inference_mode():
        film = torch.from_numpy(inside).to(maps[0].device, torch.float32)[:, None]
        means = []
        for layer in maps:
            share = functional.adaptive_avg_pool2d(film, (layer.shape[2], layer.shape[3]))
            means.append((layer.float() * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)))
        found: Float32 = torch.cat(means, dim=1).cpu().numpy()
    return found
