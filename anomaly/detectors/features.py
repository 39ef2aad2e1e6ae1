"""Where a film lies among normals in the discriminator's features, for the picture of Schlegl et al. 2017, figure 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from anomaly.records import Float32
from anomaly.runs import Arrays

_MOST = 32


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """The principal components of normals' pooled features: `mean` float32 (F,), `axes` float32 (K, F), K <= 32."""

    mean: Float32
    axes: Float32

    @classmethod
    def fit(cls, maps: Float32) -> Self:
        """Learn from the last feature map of normals, float32 (N, F, h, w)."""
        pooled = maps.mean(axis=(2, 3))
        mean = pooled.mean(axis=0)
        axes = np.linalg.svd(pooled - mean, full_matrices=False)[2][:_MOST]
        return cls(mean.astype(np.float32), np.ascontiguousarray(axes, dtype=np.float32))

    def place(self, maps: Float32) -> Float32:
        """Return where films lie, (N, F, h, w) -> float32 (N, K)."""
        placed: Float32 = np.einsum("nf,kf->nk", maps.mean(axis=(2, 3)) - self.mean, self.axes).astype(np.float32)
        return placed

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"mean": self.mean, "axes": self.axes}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float32]) -> Self:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: Arrays that do not go together.
        """
        mean, axes = arrays["mean"], arrays["axes"]
        if mean.ndim != 1 or axes.ndim != 2 or axes.shape[1] != len(mean):
            raise ValueError(f"features of shapes {mean.shape} and {axes.shape}")
        return cls(mean, axes)
