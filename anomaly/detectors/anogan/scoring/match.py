"""Scans beside their normal twins, as the search leaves them: what the score terms compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Int64


@dataclass(frozen=True, slots=True)
class Match:
    """N scans and their twins.

    `scan`, `twin`: float32 (N, C, S, S) in [-1, 1]. `inside`: bool (N, S, S), which pixels show film, at least one a
    scan. `scan_features`, `twin_features`: the discriminator's feature maps of each, float32 (N, F, h, w), fine to
    coarse; the last is f(x) of Schlegl et al. `log_variance`: float32 (N, S, S), the logarithm of the squared residual
    that a variance head expects at each pixel; None where there is no such head.
    """

    scan: Float32
    twin: Float32
    inside: NDArray[np.bool_]
    scan_features: tuple[Float32, ...]
    twin_features: tuple[Float32, ...]
    log_variance: Float32 | None = None

    def __len__(self) -> int:
        return len(self.scan)

    def of(self, index: slice | Int64 | NDArray[np.bool_]) -> Match:
        """Return the match of some scans."""
        return Match(
            self.scan[index],
            self.twin[index],
            self.inside[index],
            tuple(features[index] for features in self.scan_features),
            tuple(features[index] for features in self.twin_features),
            None if self.log_variance is None else self.log_variance[index],
        )

    def residual(self) -> Float32:
        """Return scan minus twin, mean over channels, 0 outside the film: float32 (N, S, S) in [-2, 2]."""
        return self.masked((self.scan - self.twin).mean(axis=1))

    def masked(self, maps: Float32) -> Float32:
        """Return maps (N, S, S) with 0 outside the film: what is not there cannot be abnormal."""
        return np.where(self.inside, maps, np.float32(0.0))

    def exposure(self) -> Float32:
        """Return brightness and contrast of each scan, mean and standard deviation of its film: float32 (N, 2)."""
        told = np.empty((len(self), 2), np.float32)
        for row, (film, shown) in enumerate(zip(self.scan.mean(axis=1), self.inside, strict=True)):
            pixels = film[shown]
            told[row] = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)
        return told

    def differences(self, level: int) -> Float32:
        """Return features of the scan minus those of the twin, f(x) - f(G(z)), at one level: float32 (N, F, h, w)."""
        # in one order in memory, since sums over it are taken in that order
        return np.subtract(self.scan_features[level], self.twin_features[level], order="C")


def join(matches: Sequence[Match]) -> Match:
    """Put matches one after the other; all with a variance head, or all without."""
    variances = [match.log_variance for match in matches if match.log_variance is not None]
    return Match(
        np.concatenate([match.scan for match in matches]),
        np.concatenate([match.twin for match in matches]),
        np.concatenate([match.inside for match in matches]),
        tuple(np.concatenate(level) for level in zip(*(match.scan_features for match in matches), strict=True)),
        tuple(np.concatenate(level) for level in zip(*(match.twin_features for match in matches), strict=True)),
        np.concatenate(variances) if variances else None,
    )
