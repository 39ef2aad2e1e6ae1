"""`patchcore`: how far what a frozen backbone sees at a place lies from anything it saw on normals.

Roth et al., *Towards Total Recall in Industrial Anomaly Detection*, CVPR 2022. The same numbers as anomalib's
PatchcoreModel to 1e-4 with the same bank (a test holds that). The bank is chosen from at most `candidates` patches
drawn at random, and never takes more than `bank_mb`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from anomaly.detectors.backbone import BackboneConfig, FrozenBackbone, runs_on
from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.coreset import PROJECTED, k_centres
from anomaly.detectors.pooling import Pooling, pool
from anomaly.errors import UsageError
from anomaly.nets.neighbours import Neighbours
from anomaly.nets.patches import join, spread
from anomaly.records import DetectorOutput, Float32, ImageSource, Target
from anomaly.runs import Arrays, NullRecorder, Recorder

_BATCH = 32  # films a step of the fit


class PatchcoreConfig(BackboneConfig):
    """Settings of `patchcore`."""

    layers: tuple[str, ...] = Field(default=("layer2", "layer3"), min_length=1)
    """Modules of the backbone whose feature maps are used, the largest maps first."""
    share: float = Field(default=0.1, gt=0, le=1)
    """Of the training films' patches that the bank keeps, while it stays within `bank_mb`; 0.1 or 0.01 in the paper."""
    bank_mb: float = Field(default=16.0, gt=0)
    """Most MiB the bank may take, in memory and in the model."""
    candidates: int = Field(default=100_000, ge=1)
    """Patches, drawn at random, that the bank is chosen from."""
    neighbours: int = Field(default=9, ge=1)
    """Of the nearest patch's own neighbours, that pooling `max` weighs the score by; 1 weighs nothing."""
    pooling: Pooling = "mean"
    """From the map to the score; max is the paper's."""
    top_share: float = Field(default=0.1, gt=0, le=1)
    """Share of the pixels that pooling `top` takes."""


class Patchcore(Detector):
    """Map = distance of every patch to the nearest one of the bank, blurred.

    Score = the mean of the map or of its top share; or, for pooling `max`, the paper's: the farthest patch's distance,
    less so where its nearest neighbour is itself far from others of the bank (equations 6 and 7).
    """

    name: ClassVar[str] = "patchcore"
    Config: ClassVar[type[DetectorConfig]] = PatchcoreConfig
    config: PatchcoreConfig

    _frozen: FrozenBackbone
    _bank: Neighbours
    _spread: Tensor

    @property
    def backbone(self) -> str | None:
        """The backbone, where it is to be a pretrained one."""
        return self.config.backbone if self.config.backbone_weights == "pretrained" else None

    def made_of(self) -> dict[str, str]:
        """Return the backbone and its weights' sha256."""
        return self._frozen.made_of()

    def runs_on(self) -> str:
        """Return where and in which number format the backbone runs."""
        return runs_on(self.device, self.config)

    def memory(self, count: int, channels: int) -> int:
        """Return the bytes of a fit, once it is clear that it can be done: images, candidates, bank, one batch."""
        frozen = FrozenBackbone.for_fit(self.config, device=self.device, seed=self.seed, recorder=NullRecorder())
        frozen.spreader(self.size, "nearest", self.config.smoothing)
        shapes = frozen.shapes(self.size)
        length, patches = sum(shape[0] for shape in shapes), shapes[0][1] * shapes[0][2]
        candidates, kept = self._sizes(count * patches, length)
        at_work = _BATCH * (frozen.working(self.size) + 4 * patches * length)
        projected = min(length, PROJECTED)
        selecting = candidates * (projected + 4) + 2 * kept * length
        return 4 * (count * channels * self.size**2 + candidates * length) + max(at_work, 4 * selecting)

    def _sizes(self, patches: int, length: int) -> tuple[int, int]:
        """Return how many of so many patches of so many numbers are candidates, and how many the bank keeps.

        Raises:
            UsageError: Not one fits.
        """
        most = int(self.config.bank_mb * 2**20 / (4 * length))
        if most < 1:
            raise UsageError(
                f"detector.bank_mb: {self.config.bank_mb:g} MiB do not hold one patch of {length} numbers."
            )
        candidates = min(patches, self.config.candidates)
        return candidates, min(candidates, most, max(1, round(self.config.share * patches)))

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        self._frozen = FrozenBackbone.for_fit(self.config, device=self.device, seed=self.seed, recorder=recorder)
        shapes = self._frozen.shapes(self.size)
        length, patches = sum(shape[0] for shape in shapes), shapes[0][1] * shapes[0][2]
        candidates, kept = self._sizes(len(images) * patches, length)
        drawn = np.random.default_rng(self.seed).choice(len(images) * patches, candidates, replace=False)
        drawn.sort()
        pool_of = torch.empty(candidates, length, device=self._frozen.device)
        done = 0
        for batch in images.batches(_BATCH):
            first, last = np.searchsorted(drawn, [done * patches, (done + len(batch)) * patches])
            pool_of[first:last] = self._embedded(batch)[torch.from_numpy(drawn[first:last] - done * patches)]
            done += len(batch)
            recorder.progress(done, len(images), "looking")
        chosen = k_centres(pool_of, kept, seed=self.seed, recorder=recorder)
        self._take(pool_of[torch.from_numpy(chosen)])

    def _take(self, bank: Tensor) -> None:
        self._bank = Neighbours(bank.to(self._frozen.device), bf16=self._frozen.bf16)
        self._spread = self._frozen.spreader(self.size, "nearest", self.config.smoothing)

    def _embedded(self, images: Float32) -> Tensor:
        """Return every patch of every image, float32 (N * P, d)."""
        with torch.inference_mode():
            maps = [functional.avg_pool2d(layer, 3, 1, 1) for layer in self._frozen.maps(images)]
            joined = join(maps, "bilinear")
            return joined.permute(0, 2, 3, 1).reshape(-1, joined.shape[1]).float()

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        with torch.inference_mode():
            patches = self._embedded(images)
            distance = self._bank.nearest(patches)[0].view(len(images), -1)
            side = self._spread.shape[1]
            maps = spread(distance.view(-1, side, side), self._spread)
            heat: Float32 = maps.cpu().numpy()
            if self.config.pooling == "max":
                scores = self._published(patches.view(*distance.shape, -1), distance, inside)
            else:
                scores = pool(heat, inside, self.config.pooling, self.config.top_share)
        return DetectorOutput(scores, heat if heatmaps else None)

    def _published(self, patches: Tensor, distance: Tensor, inside: NDArray[np.bool_]) -> Float32:
        """Return the paper's score, float32 (N,), of patches (N, P, d) at these distances (N, P)."""
        side = self._spread.shape[1]
        film = functional.adaptive_avg_pool2d(torch.from_numpy(inside).float()[:, None], side).view(distance.shape)
        shown = film >= film.amax(dim=1, keepdim=True).clamp(max=0.5)  # patches that are film for the most part
        far, which = distance.masked_fill(~shown.to(distance.device), -1.0).max(dim=1)
        if self.config.neighbours > 1:
            row = torch.arange(len(which), device=which.device)
            support = self._bank.within(patches[row, which], self.config.neighbours)
            far = far * (1 - torch.softmax(support, dim=1)[:, 0])
        scores: Float32 = far.cpu().numpy()
        return scores

    def _state(self) -> Arrays:
        return {"bank": self._bank.bank.cpu().numpy(), **self._frozen.to_arrays()}

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._frozen = FrozenBackbone.from_arrays(arrays, self.config, device=self.device)
        bank, length = arrays["bank"], sum(shape[0] for shape in self._frozen.shapes(self.size))
        if bank.ndim != 2 or len(bank) == 0 or bank.shape[1] != length:
            raise ValueError(f"a bank of shape {bank.shape}, not (m, {length})")
        self._take(torch.tensor(bank))
