"""`unet`: lungs or lesions, pixel by pixel, learnt from masks drawn by people (Ronneberger et al., MICCAI 2015).

The encoder starts from weights of a network that was trained to classify pictures; the threshold that its chances are
cut at is chosen on films of patients that are held out of the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly.config import validate
from anomaly.errors import DataError, ModelError, UsageError
from anomaly.nets.device import freeze, open_fabric, resolve_device, seeded
from anomaly.nets.state import arrays_of, tensors_of
from anomaly.prepare.images import CheckedSource, check_images
from anomaly.records import Float32, ImageSource, Int64
from anomaly.runs import Arrays, NullRecorder, Recorder, read_tensors, under, write_tensors
from anomaly.scans.split import split_test
from anomaly.segmenters.curve import IouCurve, count, cut, mean_curve
from anomaly.segmenters.network import Network
from anomaly.segmenters.settings import UNetConfig
from anomaly.segmenters.training import Outlined, Training
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple, find_weights

WEIGHTS = "weights.safetensors"
_NET = "net"
_SETTLING = 8  # batches that folded norms are given statistics from


class UNet:
    """A U-Net over prepared images.

    Args:
        config: Its settings; None for the defaults.
        size: Side S of the images.
        device: "auto", "cpu" or "cuda".
        seed: Of everything random inside.
    """

    name: ClassVar[str] = "unet"
    Config: ClassVar[type[UNetConfig]] = UNetConfig

    _net: Network
    _curve: IouCurve
    _mean_mask: Float32
    _input: tuple[Triple, Triple]
    _sha256: str

    def __init__(self, config: Any = None, *, size: int, device: str = "auto", seed: int = 0) -> None:
        self.config: UNetConfig = UNetConfig() if config is None else config
        self.size = size
        self.device = device
        self.seed = seed
        self.channels: int | None = None
        """C of the images, known once fitted."""

    @property
    def backbone(self) -> str | None:
        """The network whose pretrained weights a fit takes from the weights folder; None for none."""
        return self.config.encoder if self.config.backbone_weights == "pretrained" else None

    @property
    def curve(self) -> IouCurve:
        """Mean IoU over thresholds on the films held out for validation."""
        return self._curve

    @property
    def threshold(self) -> float:
        """The chance from which on a pixel belongs, chosen on those films."""
        return self._curve.best

    @property
    def mean_mask(self) -> Float32:
        """Share of the training masks that hold each pixel, float32 (S, S) in [0, 1]: a guess that sees no film."""
        return self._mean_mask

    def made_of(self) -> dict[str, str]:
        """Return the encoder, its weights' sha256, the threshold, and the IoU it reaches on validation films."""
        return {
            "encoder": self.config.encoder,
            "encoder_sha256": self._sha256 or "none: random weights",
            "threshold": f"{self.threshold:.2f}",
            "validation_iou": f"{self._curve.highest:.4f}",
        }

    def runs_on(self) -> str:
        """Return the device; masks are computed in fp32."""
        return f"{resolve_device(self.device)} fp32"

    def check(self) -> None:
        """Make sure, before anything is read, that a fit can be begun.

        Raises:
            MissingError: The weights folder has none of the encoder.
            ModelError: They are damaged, or do not fit.
            UsageError: No such encoder, or none for images of this size.
        """
        self._open()

    def parts(self, groups: Int64) -> tuple[Int64, Int64]:
        """Return which films are trained on and which held out, whole patients, as a fit draws them.

        Args:
            groups: int64 (N,), patient of each film.

        Returns:
            Indices, int64 (n,) and (m,), each ascending.

        Raises:
            DataError: All films are of one patient.
        """
        try:
            return split_test(groups.tolist(), [0] * len(groups), self.config.validation, self.seed)
        except DataError as error:
            raise DataError(
                f"All {len(groups)} films with masks are of one patient, who cannot be both trained on and validated "
                "on: give films of more patients."
            ) from error

    def fit(self, images: ImageSource, masks: NDArray[np.bool_], *, recorder: Recorder | None = None) -> Self:
        """Learn masks from images; forgets any earlier fit.

        Args:
            images: Prepared images, (N, C, S, S) in [-1, 1].
            masks: bool (N, S, S), at least one pixel set in each.
            recorder: Progress, history and checkpoints; None records nothing.

        Raises:
            DataError: No image, images or masks of a wrong shape or dtype, an empty mask, or a single patient.
            MissingError, ModelError, UsageError: As `check`; or the training died.
        """
        recorder = recorder or NullRecorder()
        if len(images) == 0:
            raise DataError("unet needs images to fit.")
        _check_masks(masks, len(images), self.size)
        self.channels = None
        films = np.concatenate(list(CheckedSource(images, self.size).batches()))
        net, random = self._open()
        if random:
            recorder.warn(
                f"The weights of {self.config.encoder} lack {', '.join(random)}, which start from random values: "
                "expect less of it than of a whole one."
            )
        train, held = self.parts(images.groups)
        if len(train) < 2:
            raise DataError(f"unet cannot learn from {len(train)} film: give more, of more patients.")
        learnt, held_out = (Outlined(films[part], masks[part]) for part in (train, held))
        net.unfold_norms(self._first(learnt))
        fabric = open_fabric(self.device, self.config.precision)
        Training(net, self.config, (learnt, held_out), seed=self.seed, fabric=fabric).run(recorder)
        self._place(net)
        self.channels = films.shape[1]
        self._mean_mask = learnt.masks.mean(axis=0, dtype=np.float64).astype(np.float32)
        self._choose(held_out, recorder)
        return self

    def _open(self) -> tuple[Network, list[str]]:
        """Return the network to train, and which parts of its encoder the pretrained weights leave random."""
        with seeded(self.seed):
            net = Network(self.config, size=self.size)
        self._input, self._sha256 = (IMAGENET_MEAN, IMAGENET_STD), ""
        if self.backbone is None:
            return net, []
        stored = find_weights(self.backbone)
        try:
            random = net.take(stored.tensors())
        except ValueError as error:
            raise ModelError(
                f"{stored.path} does not fit the encoder {self.backbone}: {error}. Choose an encoder that is called "
                "as in torchvision, or detector.backbone_weights=none."
            ) from error
        self._input, self._sha256 = (stored.facts.mean, stored.facts.std), stored.sha256
        net.set_input(*self._input)
        return net, random

    def _first(self, train: Outlined) -> Iterator[torch.Tensor]:
        """Yield batches to settle norms on, drawn at random: films sorted by name come kind by kind."""
        order = np.random.default_rng(self.seed).permutation(len(train))
        for start in range(0, min(len(order), _SETTLING * self.config.batch), self.config.batch):
            yield torch.tensor(train.films[order[start : start + self.config.batch]])

    def _choose(self, held_out: Outlined, recorder: Recorder) -> None:
        """Choose the threshold by the mean IoU of validation films, and hold the network to the mean mask."""
        chances = self.chances(held_out.films)
        self._curve = mean_curve(count(film, mask) for film, mask in zip(chances, held_out.masks, strict=True))
        guess = mean_curve(count(self._mean_mask, mask) for mask in held_out.masks)
        if self._curve.highest <= guess.highest:
            recorder.warn(
                f"The network's masks are no better on validation films (IoU {self._curve.highest:.3f}) than the mean "
                f"training mask, which looks at no film ({guess.highest:.3f}): train longer, on more films, or at "
                "another detector.learning_rate."
            )

    def _place(self, net: Network) -> None:
        freeze(net)
        self._net = net.to(device=resolve_device(self.device)).to(memory_format=torch.channels_last)

    def chances(self, images: Float32) -> Float32:
        """Return each pixel's chance to belong, float32 (N, S, S) in [0, 1]; no image's depends on the others.

        Args:
            images: float32 (N, C, S, S) in [-1, 1].

        Raises:
            ModelError: Not fitted yet.
            DataError: A wrong shape, dtype or range, or not finite.
        """
        if self.channels is None:
            raise ModelError("This unet has not been fitted: call fit or load first.")
        check_images(images, self.size, self.channels)
        batch = self.config.segment_batch
        found = np.zeros((len(images), self.size, self.size), np.float32)
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            padded = np.zeros((batch, *images.shape[1:]), np.float32)
            padded[: len(chunk)] = chunk
            with torch.inference_mode():
                logits = self._net(torch.tensor(padded, device=resolve_device(self.device)))
            found[start : start + batch] = logits.sigmoid().cpu().numpy()[: len(chunk)]
        return found

    def segment(self, images: Float32) -> NDArray[np.bool_]:
        """Return masks, bool (N, S, S): where `chances` reach the threshold. Raises as it does."""
        return cut(self.chances(images), self.threshold)

    def save(self, folder: Path) -> None:
        """Write the fitted network as one self-describing safetensors file in `folder`.

        Raises:
            ModelError: Not fitted yet.
        """
        if self.channels is None:
            raise ModelError("This unet has not been fitted: there is nothing to save.")
        meta = {
            "method": self.name,
            "config": self.config.model_dump(mode="json"),
            "size": self.size,
            "channels": self.channels,
            "seed": self.seed,
        }
        arrays = {f"{_NET}/{name}": array for name, array in arrays_of(self._net.state_dict()).items()}
        arrays |= {
            "thresholds": self._curve.thresholds,
            "iou": self._curve.iou,
            "mean_mask": self._mean_mask,
            "input": np.array(self._input, np.float64),
            "sha256": np.frombuffer(bytes.fromhex(self._sha256), np.uint8),
        }
        write_tensors(folder / WEIGHTS, arrays, meta)

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Self:
        """Load what `save` wrote. No pickle, no network.

        Raises:
            ModelError: The file is missing, damaged or of another method.
        """
        file = folder / WEIGHTS
        try:
            arrays, meta = read_tensors(file)
        except DataError as error:
            raise ModelError(f"{error} Fit the model again, or copy its folder again.") from error
        if meta.get("method") != cls.name:
            raise ModelError(f"{file} holds a {meta.get('method')!r} model, not {cls.name!r}.")
        try:
            config = validate(cls.Config, meta["config"], str(file))
            size, channels, seed = (int(meta[key]) for key in ("size", "channels", "seed"))
            unet = cls(config, size=size, device=device, seed=seed)
            unet._restore(arrays)
        except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
            raise ModelError(f"{file} does not describe its model: {error}. Fit the model again.") from error
        unet.channels = channels
        return unet

    def _restore(self, arrays: Arrays) -> None:
        """Take back what `save` wrote.

        Raises:
            KeyError, RuntimeError, ValueError: Arrays that do not go together.
        """
        thresholds, iou, mean_mask = (arrays[name] for name in ("thresholds", "iou", "mean_mask"))
        if mean_mask.shape != (self.size, self.size) or thresholds.shape != iou.shape:
            raise ValueError(f"a mean mask {mean_mask.shape}, thresholds {thresholds.shape} and an IoU {iou.shape}")
        self._curve, self._mean_mask = IouCurve(thresholds, iou), mean_mask
        self._sha256 = arrays["sha256"].tobytes().hex()
        mean, std = ((float(a), float(b), float(c)) for a, b, c in arrays["input"])
        self._input = (mean, std)
        with seeded(self.seed):
            net = Network(self.config, size=self.size)
        net.load_state_dict(tensors_of(under(arrays, _NET)))
        net.set_input(*self._input)
        self._place(net)


def _check_masks(masks: NDArray[Any], number: int, size: int) -> None:
    wanted = f"Masks must be bool ({number}, {size}, {size}), one an image"
    if masks.dtype != np.bool_ or masks.shape != (number, size, size):
        raise DataError(f"{wanted}; these are {masks.dtype} {masks.shape}.")
    empty = int((~masks.any(axis=(1, 2))).sum())
    if empty:
        raise DataError(f"{wanted}, with at least one pixel in each; {empty} are empty.")
