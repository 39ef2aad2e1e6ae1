"""The term `features`: how unusual a frozen backbone finds the whole film, as `feature-gaussian` tells it.

The only part of the atlas that wants torch, and weights; it is there when `features_weight` asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.gaussian import Gaussian
from anomaly.records import Float32, Float64, ImageSource, Int64
from anomaly.runs import Arrays, Recorder

if TYPE_CHECKING:
    from anomaly.detectors.backbone import Choice, FrozenBackbone


@dataclass(frozen=True, slots=True)
class Sight:
    """A backbone, the Gaussian of normals' mean features, and mean and sd of normals' distances out of fold."""

    frozen: FrozenBackbone
    gaussian: Gaussian
    scale: Float64

    @classmethod
    def fit(
        cls, images: ImageSource, folds: Int64, config: Choice, *, device: str, seed: int, recorder: Recorder
    ) -> Self:
        """Learn from images, whose patients are dealt into folds, int64 (N,).

        Raises:
            MissingError, ModelError, UsageError: See `FrozenBackbone.for_fit`.
        """
        from anomaly.detectors.backbone import FrozenBackbone, pooled

        frozen = FrozenBackbone.for_fit(config, device=device, seed=seed, recorder=recorder)
        parts: list[Float32] = []
        for batch in images.batches(32):
            parts.append(pooled(frozen.maps(batch), np.ones((len(batch), *batch.shape[2:]), np.bool_)))
            recorder.progress(sum(map(len, parts)), len(images), "features")
        vectors = np.concatenate(parts)
        distance = np.empty(len(vectors))
        for fold in np.unique(folds):
            own = folds == fold
            distance[own] = Gaussian.fit(vectors[~own]).distance(vectors[own])
        scale = np.array([distance.mean(), max(distance.std(), 1e-9)])
        return cls(frozen, Gaussian.fit(vectors), scale)

    def look(self, images: Float32, inside: NDArray[np.bool_]) -> tuple[Float32, Float32]:
        """Return each film's distance, and the same in standard deviations of normals, float32 (N,)."""
        from anomaly.detectors.backbone import pooled

        distance = self.gaussian.distance(pooled(self.frozen.maps(images), inside))
        mean, sd = self.scale
        return distance, ((distance - mean) / sd).astype(np.float32)

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"scale": self.scale, **self.gaussian.to_arrays(), **self.frozen.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Arrays, config: Choice, size: int, *, device: str) -> Self:
        """Build from what `to_arrays` returned, for images of side `size`.

        Raises:
            KeyError, ValueError: Arrays that do not go together.
        """
        from anomaly.detectors.backbone import FrozenBackbone

        frozen = FrozenBackbone.from_arrays(arrays, config, device=device)
        if arrays["scale"].shape != (2,):
            raise ValueError(f"scale of shape {arrays['scale'].shape}")
        length = sum(shape[0] for shape in frozen.shapes(size))
        return cls(frozen, Gaussian.from_arrays(arrays, length), arrays["scale"])
