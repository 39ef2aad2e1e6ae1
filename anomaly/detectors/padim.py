"""`padim`: at every place of the film a Gaussian of what a frozen backbone sees there on normals.

Defard et al., *PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization*, ICPR 2021. The
same numbers as anomalib's PadimModel to 1e-4 (a test holds that), with statistics gathered in one pass, so that memory
does not grow with the number of films.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from anomaly.detectors.backbone import BackboneConfig, FrozenBackbone, runs_on
from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.pooling import Pooling, pool
from anomaly.errors import DataError, UsageError
from anomaly.nets.patches import resize, spread
from anomaly.records import DetectorOutput, Float32, ImageSource, Int64, Target
from anomaly.runs import Arrays, NullRecorder, Recorder

_BATCH = 32  # films a step of the fit
_AT_ONCE = 128  # places whose matrices are at work at once
_STABLE = 1e-5  # beside the regularisation, as anomalib adds it


class PadimConfig(BackboneConfig):
    """Settings of `padim`."""

    features: int = Field(default=100, ge=1)
    """Channels drawn at random of those of all layers; 100 of 448 for ResNet18 in the paper."""
    regularisation: float = Field(default=0.01, gt=0)
    """Added to the diagonal of every covariance: epsilon in the paper's equation 1."""
    pooling: Pooling = "mean"
    """From the map to the score; max is the paper's."""
    top_share: float = Field(default=0.1, gt=0, le=1)
    """Share of the pixels that pooling `top` takes."""


class Padim(Detector):
    """Map = Mahalanobis distance at every place, blurred; score = its mean, maximum (the paper's) or top share."""

    name: ClassVar[str] = "padim"
    Config: ClassVar[type[DetectorConfig]] = PadimConfig
    config: PadimConfig

    _frozen: FrozenBackbone
    _channels: Int64
    _mean: Tensor
    _whiten: Tensor
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
        """Return the bytes of a fit, once it is clear that it can be done: images, matrices, one batch at work."""
        frozen = self._open(NullRecorder())
        _, height, width = frozen.shapes(self.size)[0]
        matrices = 4 * height * width * self.config.features**2
        images = 4 * count * channels * self.size**2
        at_work = _BATCH * (frozen.working(self.size) + 4 * height * width * self.config.features)
        return images + matrices + at_work

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        if len(images) < 2:
            raise DataError("padim needs at least 2 images to fit.")
        self._frozen = self._open(recorder)
        total = sum(shape[0] for shape in self._frozen.shapes(self.size))
        self._channels = np.sort(np.random.default_rng(self.seed).permutation(total)[: self.config.features])
        self._spread = self._frozen.spreader(self.size, "bilinear", self.config.smoothing)
        mean, moments = self._moments(images, recorder)
        self._mean = mean
        self._whiten = self._whitened(moments, len(images) - 1).to(self._number_format)

    @property
    def _number_format(self) -> torch.dtype:
        """That of the matrices: where the backbone runs in bf16, fp32 there would move distances by less than 1 %."""
        return torch.bfloat16 if self._frozen.bf16 else torch.float32

    def _open(self, recorder: Recorder) -> FrozenBackbone:
        """Return the backbone of a fit, once it is clear that all settings go together."""
        frozen = FrozenBackbone.for_fit(self.config, device=self.device, seed=self.seed, recorder=recorder)
        frozen.spreader(self.size, "bilinear", self.config.smoothing)
        total = sum(shape[0] for shape in frozen.shapes(self.size))
        if self.config.features > total:
            raise UsageError(
                f"detector.features is {self.config.features}, but layers {', '.join(self.config.layers)} of "
                f"{self.config.backbone} have {total} channels: choose at most that many."
            )
        return frozen

    def _moments(self, images: ImageSource, recorder: Recorder) -> tuple[Tensor, Tensor]:
        """Return the mean, float32 (P, d), and the sum of outer products about it, (P, d, d), over all images."""
        done = 0
        for batch in images.batches(_BATCH):
            seen = self._embedded(batch).float()  # (P, n, d)
            if done == 0:  # sums about a value near the mean lose no digits
                near = seen.mean(dim=1, keepdim=True)
                first = torch.zeros_like(near)
                moments = torch.zeros(*seen.shape[::2], seen.shape[2], device=seen.device)
            seen -= near
            first += seen.sum(dim=1, keepdim=True)
            moments.baddbmm_(seen.transpose(1, 2), seen)
            done += len(batch)
            recorder.progress(done, len(images), "fitting")
        shift = first / done
        moments.baddbmm_(shift.transpose(1, 2), shift, alpha=-done)
        return (near + shift)[:, 0], moments

    def _whitened(self, moments: Tensor, freedom: int) -> Tensor:
        """Return W, float32 (P, d, d), with W^T W the inverse covariance of each place; it overwrites `moments`."""
        eye = torch.eye(self.config.features, dtype=torch.float64, device=moments.device)
        for start in range(0, len(moments), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            covariance = moments[part].double() / freedom + (self.config.regularisation + _STABLE) * eye
            root = torch.linalg.cholesky(covariance)
            moments[part] = torch.linalg.solve_triangular(root, eye.expand_as(root), upper=False).float()
        return moments

    def _embedded(self, images: Float32) -> Tensor:
        """Return what the backbone sees at each place, (P, N, d) in memory, in the number format it runs in."""
        maps = self._frozen.maps(images)
        height, width = maps[0].shape[2:]
        parts, start = [], 0
        for layer in maps:  # channels are chosen before maps are enlarged: most are not wanted
            own = self._channels[(self._channels >= start) & (self._channels < start + layer.shape[1])] - start
            if len(own):
                parts.append(resize(layer[:, torch.from_numpy(own).to(layer.device)], (height, width), "nearest"))
            start += layer.shape[1]
        joined = torch.cat(parts, dim=1)
        return joined.permute(2, 3, 0, 1).reshape(height * width, len(images), -1).contiguous()

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        with torch.inference_mode():
            seen = self._embedded(images)
            distance = torch.empty(seen.shape[:2], device=seen.device)
            for start in range(0, len(seen), _AT_ONCE):  # what this takes is memory of a few places
                part = slice(start, start + _AT_ONCE)
                apart = (seen[part].float() - self._mean[part, None]).to(self._whiten.dtype)
                turned = torch.bmm(apart, self._whiten[part].transpose(1, 2)).float()
                distance[part] = turned.square_().sum(dim=2).sqrt_()
            side = self._spread.shape[1]
            maps = spread(distance.T.reshape(len(images), side, side), self._spread)
        heat: Float32 = maps.cpu().numpy()
        scores = pool(heat, inside, self.config.pooling, self.config.top_share)
        return DetectorOutput(scores, heat if heatmaps else None)

    def _state(self) -> Arrays:
        rows, columns = np.tril_indices(self.config.features)
        lower = np.stack([whiten.float().cpu().numpy()[rows, columns] for whiten in self._whiten])
        own: Arrays = {"channels": self._channels, "mean": self._mean.cpu().numpy(), "whiten": lower}
        return own | self._frozen.to_arrays()

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._frozen = FrozenBackbone.from_arrays(arrays, self.config, device=self.device)
        shapes, wanted = self._frozen.shapes(self.size), self.config.features
        places = shapes[0][1] * shapes[0][2]
        self._channels = arrays["channels"]
        mean, lower = arrays["mean"], arrays["whiten"]
        rows, columns = np.tril_indices(wanted)
        if self._channels.shape != (wanted,) or mean.shape != (places, wanted) or lower.shape != (places, len(rows)):
            raise ValueError(f"statistics of shapes {self._channels.shape}, {mean.shape} and {lower.shape}")
        device = self._frozen.device
        self._mean = torch.from_numpy(mean).to(device)
        self._whiten = torch.zeros(places, wanted, wanted, dtype=self._number_format, device=device)
        whole = np.zeros((wanted, wanted), np.float32)
        for place in range(places):  # one by one: an index of all of them at once takes more than they do
            whole[rows, columns] = lower[place]
            self._whiten[place] = torch.from_numpy(whole)
        self._spread = self._frozen.spreader(self.size, "bilinear", self.config.smoothing)
