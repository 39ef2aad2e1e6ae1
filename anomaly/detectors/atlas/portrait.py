"""The normal twin as a picture a reader can look at.

The atlas compares films on few pixels after equalising them. A twin is a combination of normal films; the same
combination of the films as they were gives the picture that belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from anomaly.prepare.resize import resize
from anomaly.records import Float32
from anomaly.runs import Arrays

SIDE = 112
_AT_ONCE = 256  # films, as float64 in memory


@dataclass(frozen=True, slots=True)
class Portrait:
    """Mean normal film float32 (P,) in [-1, 1] and what one unit of each coordinate adds to it, float32 (K, P)."""

    mean: Float32
    loadings: Float32

    @staticmethod
    def room(count: int, size: int) -> NDArray[np.float16]:
        """Return where `shrink` of `count` films of this size goes."""
        return np.empty((count, min(size, SIDE) ** 2), np.float16)

    @staticmethod
    def shrink(images: Float32) -> NDArray[np.float16]:
        """Return films small enough to keep them all: float32 (N, C, S, S) -> float16 (N, P), P = min(S, 112) ** 2."""
        side = min(images.shape[-1], SIDE)
        return np.stack([resize(image.mean(axis=0), side).ravel() for image in images]).astype(np.float16)

    @classmethod
    def fit(cls, coordinates: Float32, films: NDArray[np.float16]) -> Self:
        """Regress the pixels of normal films, (N, P), on their coordinates, (N, K), of mean 0."""
        mean = films.mean(axis=0, dtype=np.float64)
        gram = coordinates.T.astype(np.float64) @ coordinates
        crossed = -coordinates.sum(axis=0, dtype=np.float64)[:, None] * mean
        for start in range(0, len(films), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            crossed += coordinates[part].T.astype(np.float64) @ films[part].astype(np.float64)
        loadings = np.linalg.lstsq(gram, crossed, rcond=None)[0]
        return cls(mean.astype(np.float32), loadings.astype(np.float32))

    def draw(self, coordinates: Float32, size: int) -> Float32:
        """Return pictures: coordinates (N, K) -> float32 (N, size, size) in [-1, 1]."""
        side = round(len(self.mean) ** 0.5)
        pictures = np.clip(self.mean + coordinates @ self.loadings, -1.0, 1.0).reshape(-1, side, side)
        return np.stack([resize(picture, size) for picture in pictures])

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"portrait.mean": self.mean, "portrait.loadings": self.loadings}

    @classmethod
    def from_arrays(cls, arrays: Arrays, rank: int) -> Self:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: Arrays of shapes that do not belong together.
        """
        mean, loadings = arrays["portrait.mean"], arrays["portrait.loadings"]
        if loadings.shape != (rank, len(mean)) or round(len(mean) ** 0.5) ** 2 != len(mean):
            raise ValueError(f"a portrait of shapes {mean.shape} and {loadings.shape}")
        return cls(mean, loadings)
