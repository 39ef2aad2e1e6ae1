"""One Gaussian over the vectors of normal films, and how far a film's vector lies from its middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Float64
from anomaly.runs import Arrays


@dataclass(frozen=True, slots=True)
class Gaussian:
    """`mean` float64 (d,) and `whiten` float64 (d, d), with whiten^T whiten the inverse covariance."""

    mean: Float64
    whiten: Float64

    @classmethod
    def fit(cls, vectors: Float32) -> Self:
        """Learn from vectors of normals, (N, d), N >= 2.

        The covariance is shrunk towards a sphere as far as its own uncertainty asks for (Ledoit and Wolf, *A
        well-conditioned estimator for large-dimensional covariance matrices*, J. Multivar. Anal. 88, 2004), so that
        fewer films than numbers will do.
        """
        from sklearn.covariance import ledoit_wolf

        mean = vectors.mean(axis=0, dtype=np.float64)
        covariance, _ = ledoit_wolf(vectors - mean, assume_centered=True)
        return cls(mean, whitener(covariance))

    def distance(self, vectors: Float32) -> Float32:
        """Return the Mahalanobis distance of vectors (N, d), float32 (N,)."""
        # row by row: a product's last digits would hang on how many rows there are
        apart = np.einsum("ij,nj->ni", self.whiten, vectors - self.mean)
        return np.asarray(np.sqrt(np.square(apart).sum(axis=1)), dtype=np.float32)

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"mean": self.mean, "whiten": self.whiten}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]], length: int) -> Self:
        """Build from what `to_arrays` returned, for vectors of this length.

        Raises:
            KeyError, ValueError: Arrays that do not go together.
        """
        mean, whiten = arrays["mean"], arrays["whiten"]
        if mean.shape != (length,) or whiten.shape != (length, length):
            raise ValueError(f"a Gaussian of shapes {mean.shape} and {whiten.shape}, not of {length} numbers")
        return cls(mean, whiten)


def whitener(covariance: Float64) -> Float64:
    """Return W, float64 (d, d), with W^T W the inverse of a covariance; directions without spread count little."""
    ridge = 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-12)
    root = np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))
    return np.asarray(np.linalg.inv(root), dtype=np.float64)
