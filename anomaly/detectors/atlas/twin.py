"""The normal twin: a film rebuilt from very few principal components of normal films.

What the components cannot rebuild is the residual. On the films they were fitted to it is too small, so what is normal
of it is learned out of fold: each film's residual comes from components of other patients' films (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anomaly.records import Float32, Float64, Int64


@dataclass(frozen=True, slots=True)
class LowRank:
    """Mean float32 (P,) and orthonormal components float32 (K, P), strongest first."""

    mean: Float32
    components: Float32

    def coordinates(self, films: Float32, rank: int) -> Float32:
        """Return what the twin is made of: float32 (N, P) -> (N, rank)."""
        return np.asarray((films - self.mean) @ self.components[:rank].T, dtype=np.float32)

    def residual(self, films: Float32, rank: int) -> Float32:
        """Return film minus twin, signed: float32 (N, P) -> (N, P)."""
        centred = films - self.mean
        return np.asarray(centred - (centred @ self.components[:rank].T) @ self.components[:rank], dtype=np.float32)


class Moments:
    """Sums and sums of products of films, by fold, from which components of any films but a fold's own follow.

    Args:
        films: float32 (N, P).
        folds: int64 (N,), the fold of each film.
    """

    def __init__(self, films: Float32, folds: Int64) -> None:
        self._shift = films.mean(axis=0, dtype=np.float64)  # products of centred values keep their digits
        self._parts = []
        for fold in range(int(folds.max()) + 1):
            centred = films[folds == fold] - self._shift
            self._parts.append((len(centred), centred.sum(axis=0), centred.T @ centred))

    def low_rank(self, rank: int, *, without: int | None = None) -> LowRank:
        """Return mean and `rank` principal components of all films, or of all but those of one fold."""
        from scipy.linalg import eigh

        kept = [part for fold, part in enumerate(self._parts) if fold != without]
        count = sum(part[0] for part in kept)
        mean = np.sum([part[1] for part in kept], axis=0) / count
        spread: Float64 = np.sum([part[2] for part in kept], axis=0) / count - np.outer(mean, mean)
        last = len(mean) - 1
        _, vectors = eigh(spread, subset_by_index=[last - rank + 1, last], overwrite_a=True, check_finite=False)
        components = np.ascontiguousarray(vectors[:, ::-1].T, dtype=np.float32)
        return LowRank(np.asarray(self._shift + mean, dtype=np.float32), components)


def out_of_fold(films: Float32, folds: Int64, ranks: Sequence[int]) -> tuple[LowRank, dict[int, Float32]]:
    """Fit components and give every film's residual from components it had no part in.

    Args:
        films: float32 (N, P), normal.
        folds: int64 (N,), 0..F-1, patients whole.
        ranks: How many components to rebuild from.

    Returns:
        Components of all films, and rank -> residuals float32 (N, P), out of fold.
    """
    moments = Moments(films, folds)
    residuals = {rank: np.empty_like(films) for rank in ranks}
    for fold in range(int(folds.max()) + 1):
        others = moments.low_rank(max(ranks), without=fold)
        own = folds == fold
        for rank in ranks:
            residuals[rank][own] = others.residual(films[own], rank)
    return moments.low_rank(max(ranks)), residuals
