"""`anogan` as a Detector: train, search, compare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from anomaly.detectors.anogan.search import search
from anomaly.detectors.anogan.terms import Match, ScoringRule, schlegl_2017
from anomaly.detectors.anogan.training import TrainingSettings, train
from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.errors import UsageError
from anomaly.nets.dcgan import Discriminator, Generator, levels
from anomaly.nets.device import freeze, open_fabric, resolve_device, uses_bf16
from anomaly.records import DetectorOutput, Float32, ImageSource, Target
from anomaly.runs import Arrays, Recorder

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class AnoGanConfig(DetectorConfig):
    """Settings of `anogan`."""

    latent: int = Field(default=100, ge=1)
    """Length of z; 100 in Radford et al."""
    width: int = Field(default=32, ge=1)
    """Channels of the widest feature map's neighbour of the image (ngf = ndf); 64 in Radford et al."""
    steps: int = Field(default=3000, ge=1)
    """Training steps, one discriminator and one generator update each."""
    batch: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=2e-4, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Real films are labelled 1 minus this (Salimans et al. 2016)."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged generator that scores."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints and sample grids."""
    search_steps: int = Field(default=200, ge=0)
    """Adam steps on z per scan; 500 in Schlegl et al."""
    search_rate: float = Field(default=0.1, gt=0)
    """Learning rate of the search."""
    weight: float = Field(default=0.1, ge=0, le=1)
    """lambda: the share of the discriminator-feature term in loss and score."""
    residual_sigma: float = Field(default=0.03, ge=0, lt=0.5)
    """Blur of the signed difference to the twin, as a fraction of the width; 0 is the paper's."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the processor computes it, else fp32. The comparison itself is always fp32."""


class AnoGan(Detector):
    """DCGAN of normals; a scan's score is how far it is from the nearest image the generator can draw."""

    name: ClassVar[str] = "anogan"
    Config: ClassVar[type[DetectorConfig]] = AnoGanConfig
    config: AnoGanConfig

    _generator: Generator
    _discriminator: Discriminator

    def __init__(self, config: AnoGanConfig | None = None, *, size: int, device: str = "auto", seed: int = 0) -> None:
        super().__init__(config, size=size, device=resolve_device(device), seed=seed)
        try:
            levels(size)
        except ValueError as error:
            raise UsageError(f"anogan cannot work at size {size}: {error}. Use --set size=64.") from error

    @cached_property
    def _fabric(self) -> Fabric:
        return open_fabric(self.device, self.config.precision)

    @cached_property
    def _rule(self) -> ScoringRule:
        return partial(schlegl_2017, weight=self.config.weight, residual_sigma=self.config.residual_sigma)

    def runs_on(self) -> str:
        """Return the device and the search's number format, as resolved here."""
        return f"{self.device} {'bf16' if uses_bf16(self.device, self.config.precision) else 'fp32'}"

    def _shapes(self, channels: int) -> tuple[dict[str, int], dict[str, int]]:
        common = {"channels": channels, "size": self.size, "width": self.config.width}
        return {"latent": self.config.latent, **common}, common

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        films = np.concatenate(list(images.batches()))
        config = self.config
        settings = TrainingSettings(
            config.steps,
            config.batch,
            config.learning_rate,
            config.label_smoothing,
            config.ema,
            config.checkpoint_every,
        )
        generator, discriminator = train(
            films, *self._shapes(films.shape[1]), settings, seed=self.seed, fabric=self._fabric, recorder=recorder
        )
        self._take(generator, discriminator)

    def _take(self, generator: Generator, discriminator: Discriminator) -> None:
        for net in (generator, discriminator):
            freeze(net)
            # the layout of the training: kernels differ by it, so a loaded model would else score other last bits
            self._fabric.to_device(net).to(memory_format=torch.channels_last)
        self._generator, self._discriminator = generator, discriminator

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        scans = self._fabric.to_device(torch.from_numpy(images))
        z = search(
            self._generator,
            self._discriminator,
            scans,
            steps=self.config.search_steps,
            learning_rate=self.config.search_rate,
            weight=self.config.weight,
            autocast=self._fabric.autocast,
        )
        with torch.no_grad():
            twins = self._generator(z)
            match = Match(
                images,
                _numpy(twins),
                _numpy(self._discriminator.features(scans)),
                _numpy(self._discriminator.features(twins)),
                inside,
            )
        scored = self._rule(match)
        if not heatmaps:
            return DetectorOutput(scored.scores, terms=scored.terms)
        return DetectorOutput(scored.scores, scored.heatmaps, match.twin, scored.terms)

    def _state(self) -> Arrays:
        parts = {"generator": self._generator, "discriminator": self._discriminator}
        return {f"{part}/{k}": _numpy(v) for part, net in parts.items() for k, v in net.state_dict().items()}

    def _restore(self, arrays: Arrays, channels: int) -> None:
        generator_shape, discriminator_shape = self._shapes(channels)
        generator, discriminator = Generator(**generator_shape), Discriminator(**discriminator_shape)
        for part, net in (("generator", generator), ("discriminator", discriminator)):
            start = part + "/"
            net.load_state_dict(
                {k.removeprefix(start): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(start)}
            )
        self._take(generator, discriminator)


def _numpy(tensor: Tensor) -> Float32:
    array: Float32 = tensor.detach().cpu().numpy()
    return array
