"""`feature-gaussian`: one Gaussian over what a frozen backbone says of whole films; fitted in seconds.

Lee et al., *A Simple Unified Framework for Detecting Out-of-Distribution Samples*, NeurIPS 2018, and Rippel et al.,
*Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly Detection*, ICPR 2021: the
Mahalanobis distance of pooled features, here with a shrunk covariance. The map compares each place with the same place
of normals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from anomaly.detectors.backbone import BackboneConfig, FrozenBackbone, pooled, runs_on
from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.features import FeatureSpace
from anomaly.detectors.gaussian import Gaussian, whitener
from anomaly.errors import DataError
from anomaly.nets.patches import join, spread
from anomaly.records import DetectorOutput, Float32, ImageSource, Target
from anomaly.runs import Arrays, NullRecorder, Recorder, under

_BATCH = 32  # films a step of the fit
_LEAST = 0.05  # of the mean spread: no place counts without bound


class FeatureGaussianConfig(BackboneConfig):
    """Settings of `feature-gaussian`."""

    layers: tuple[str, ...] = Field(default=("layer3",), min_length=1)
    """Modules of the backbone whose feature maps are used, the largest maps first."""


class FeatureGaussian(Detector):
    """Score = Mahalanobis distance of a film's mean features, over all layers.

    Heat is the Mahalanobis distance of the features at a place from that place's mean over normals, under one
    covariance for all places, in standard deviations above what normals show there.
    """

    name: ClassVar[str] = "feature-gaussian"
    Config: ClassVar[type[DetectorConfig]] = FeatureGaussianConfig
    config: FeatureGaussianConfig

    _frozen: FrozenBackbone
    _whole: Gaussian
    _space: FeatureSpace
    _mean: Tensor
    _whiten: Tensor
    _usual: Float32
    _spread: Tensor

    @property
    def backbone(self) -> str | None:
        """The backbone, where it is to be a pretrained one."""
        return self.config.backbone if self.config.backbone_weights == "pretrained" else None

    @property
    def heat_unit(self) -> str:
        """Return what one unit of heat is: a standard deviation of normals at the same place."""
        return "σ"

    def made_of(self) -> dict[str, str]:
        """Return the backbone and its weights' sha256."""
        return self._frozen.made_of()

    def runs_on(self) -> str:
        """Return where and in which number format the backbone runs."""
        return runs_on(self.device, self.config)

    def memory(self, count: int, channels: int) -> int:
        """Return the bytes of a fit, once it is clear that it can be done: images, and one batch at work."""
        frozen = FrozenBackbone.for_fit(self.config, device=self.device, seed=self.seed, recorder=NullRecorder())
        frozen.spreader(self.size, "bilinear", self.config.smoothing)
        shapes = frozen.shapes(self.size)
        features = 4 * shapes[0][1] * shapes[0][2] * sum(shape[0] for shape in shapes)
        return 4 * count * channels * self.size**2 + _BATCH * (frozen.working(self.size) + 4 * features)

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        if len(images) < 2:
            raise DataError("feature-gaussian needs at least 2 images to fit.")
        self._frozen = FrozenBackbone.for_fit(self.config, device=self.device, seed=self.seed, recorder=recorder)
        shapes = self._frozen.shapes(self.size)
        vectors = self._gather(images, shapes, recorder)
        self._whole = Gaussian.fit(vectors)
        self._space = FeatureSpace.fit(vectors[:, :, None, None])
        self._usual = self._look_again(images, recorder)
        self._spread = self._frozen.spreader(self.size, "bilinear", self.config.smoothing)

    def _gather(self, images: ImageSource, shapes: Sequence[tuple[int, int, int]], recorder: Recorder) -> Float32:
        """Learn each place's mean, and the covariance about it over all places; return each film's vector, (N, d)."""
        length, places = sum(shape[0] for shape in shapes), shapes[0][1] * shapes[0][2]
        vectors = np.empty((len(images), length), np.float32)
        moments = torch.zeros(length, length, dtype=torch.float64, device=self._frozen.device)
        near = first = torch.zeros(places, length, device=self._frozen.device)
        done = 0
        for batch in images.batches(_BATCH):
            maps = self._frozen.maps(batch)
            everywhere = np.ones((len(batch), self.size, self.size), np.bool_)
            vectors[done : done + len(batch)] = pooled(maps, everywhere)
            seen = _at_places(maps)
            if done == 0:  # sums about a value near the mean lose no digits
                near, first = seen.mean(dim=0), torch.zeros_like(near)
            apart = (seen - near).reshape(-1, length)
            first = first + apart.view(len(batch), places, length).sum(dim=0)
            moments += (apart.T @ apart).double()
            done += len(batch)
            recorder.progress(done, len(images), "looking")
        shift = (first / done).double()
        covariance = (moments - done * shift.T @ shift) / (done * places - places)
        self._mean = near + shift.float()
        self._whiten = torch.from_numpy(whitener(covariance.cpu().numpy())).float().to(self._frozen.device)
        return vectors

    def _look_again(self, images: ImageSource, recorder: Recorder) -> Float32:
        """Return mean and standard deviation of normals' distances at each place, float32 (2, P)."""
        total = squares = np.float64(0.0)
        done = 0
        for batch in images.batches(_BATCH):
            apart = self._apart(self._frozen.maps(batch)).cpu().numpy().astype(np.float64)
            total, squares = total + apart.sum(axis=0), squares + np.square(apart).sum(axis=0)
            done += len(batch)
            recorder.progress(done, len(images), "fitting")
        mean = np.asarray(total / done)
        sd = np.sqrt(np.maximum(np.asarray(squares / done) - mean**2, 0.0))
        return np.stack([mean, np.maximum(sd, max(_LEAST * sd.mean(), 1e-6))]).astype(np.float32)

    def _apart(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the Mahalanobis distance of every place, float32 (N, P)."""
        with torch.inference_mode():
            apart = _at_places(maps) - self._mean
            return (apart @ self._whiten.T).square_().sum(dim=2).sqrt_()

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        maps = self._frozen.maps(images)
        vectors = pooled(maps, inside)
        scores, features = self._whole.distance(vectors), self._space.place(vectors[:, :, None, None])
        if not heatmaps:
            return DetectorOutput(scores, features=features)
        with torch.inference_mode():
            mean, sd = torch.from_numpy(self._usual).to(self._frozen.device)
            above = ((self._apart(maps) - mean) / sd).clamp_(min=0.0)
            side = self._spread.shape[1]
            heat: Float32 = spread(above.view(-1, side, side), self._spread).cpu().numpy()
        return DetectorOutput(scores, heat, features=features)

    def _state(self) -> Arrays:
        own: Arrays = {"places/mean": self._mean.cpu().numpy(), "places/whiten": self._whiten.cpu().numpy()}
        own |= {"places/usual": self._usual}
        own |= {f"whole/{name}": array for name, array in self._whole.to_arrays().items()}
        own |= {f"space/{name}": array for name, array in self._space.to_arrays().items()}
        return own | self._frozen.to_arrays()

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._frozen = FrozenBackbone.from_arrays(arrays, self.config, device=self.device)
        shapes = self._frozen.shapes(self.size)
        length, places = sum(shape[0] for shape in shapes), shapes[0][1] * shapes[0][2]
        self._whole = Gaussian.from_arrays(under(arrays, "whole"), length)
        self._space = FeatureSpace.from_arrays(under(arrays, "space"))
        own = under(arrays, "places")
        mean, whiten, self._usual = own["mean"], own["whiten"], own["usual"]
        if (mean.shape, whiten.shape, self._usual.shape) != ((places, length), (length, length), (2, places)):
            raise ValueError(f"statistics of shapes {mean.shape}, {whiten.shape} and {self._usual.shape}")
        self._mean = torch.from_numpy(mean).to(self._frozen.device)
        self._whiten = torch.from_numpy(whiten).to(self._frozen.device)
        self._spread = self._frozen.spreader(self.size, "bilinear", self.config.smoothing)


def _at_places(maps: Sequence[Tensor]) -> Tensor:
    """Return the features of every place, float32 (N, P, d)."""
    return join(maps, "bilinear").flatten(2).transpose(1, 2).float()
