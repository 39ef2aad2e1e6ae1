"""One page of the atlas: what one look at the normal chest varies by, and how far a film lies outside it.

Opacity and darkening: the signed difference between film and normal twin is blurred *before* it is rectified (shifted
ribs and vessels cancel under the blur, a diffuse opacity does not), then put in standard deviations of what the same
blur leaves of normal films out of fold. Contrast deficit: the local standard deviation of the film, in standard
deviations of that of normal films; consolidated lung hides the vessels and ribs that a normal chest shows there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.atlas.looks import Look
from anomaly.detectors.atlas.twin import LowRank, out_of_fold
from anomaly.records import Float32, Int64
from anomaly.runs import Arrays

_LEAST = 1e-4  # of the range of grey: a spread below what 8 bits can tell

TERMS = ("opacity", "deficit", "darker")
"""Brighter than the normal twin; less local contrast than normal; darker than the normal twin. All in sigma."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is normal under one look.

    `ranks` how many components each twin has; `blurs` for each of them mean and spread of the blurred residual,
    float32 (2, P); `windows` Gaussian widths of the local contrast, shares of the side; `contrasts` for each of them
    mean and spread of the contrast, float32 (2, P). `sigma` is the blur of the residual, a share of the side.
    """

    look: Look
    low_rank: LowRank
    sigma: float
    ranks: tuple[int, ...]
    blurs: tuple[Float32, ...]
    windows: tuple[float, ...]
    contrasts: tuple[Float32, ...]

    @classmethod
    def fit(
        cls,
        look: Look,
        films: Float32,
        folds: Int64,
        *,
        ranks: Sequence[int],
        sigma: float,
        windows: Sequence[float],
        floor: float,
    ) -> tuple[Page, Float32]:
        """Learn from normal films.

        Args:
            look: That took them.
            films: float32 (N, side, side) in [0, 1].
            folds: int64 (N,), patients whole.
            ranks: Components of the twins.
            sigma: Blur of the residual, share of the side.
            windows: Gaussian widths of the local contrast, shares of the side.
            floor: Added to each spread, in units of its mean, so that no pixel counts without bound.

        Returns:
            The page, and float32 (3, N): each film's `TERMS` in the spread of the films of the other folds, whose
            residuals come from components that this film may have had a part in.
        """
        low_rank, residuals = out_of_fold(films.reshape(len(films), -1), folds, ranks)
        signed = [_blur(residuals[rank].reshape(films.shape), sigma) for rank in ranks]
        contrast = [_local_contrast(films, window) for window in windows]
        z = [_z_by_others(values, folds, floor) for values in signed]
        told = _maps(z, [_z_by_others(values, folds, floor) for values in contrast]).mean(axis=(2, 3))
        blurs, contrasts = (tuple(_spread(v, floor) for v in values) for values in (signed, contrast))
        return cls(look, low_rank, sigma, tuple(ranks), blurs, tuple(windows), contrasts), told

    def read(self, films: Float32, shown: NDArray[np.bool_]) -> Float32:
        """Compare films, as its look sees them, with what is normal.

        Args:
            films: float32 (N, side, side) in [0, 1].
            shown: bool (N, side, side), which of their pixels are film.

        Returns:
            The map of each of `TERMS` in sigma: float32 (3, N, side, side) >= 0, 0 outside the film.
        """
        flat = films.reshape(len(films), -1)
        z = []
        for rank, normal in zip(self.ranks, self.blurs, strict=True):
            residual = np.where(shown, self.low_rank.residual(flat, rank).reshape(films.shape), np.float32(0.0))
            z.append(_z(_blur(residual, self.sigma), normal))
        contrast = [
            _z(_local_contrast(films, window, shown), normal)
            for window, normal in zip(self.windows, self.contrasts, strict=True)
        ]
        return np.where(shown, _maps(z, contrast), np.float32(0.0))

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {
            "mean": self.low_rank.mean,
            "components": self.low_rank.components,
            "blurs": np.stack(self.blurs),
            "contrasts": np.stack(self.contrasts),
        }

    @classmethod
    def from_arrays(
        cls, look: Look, arrays: Mapping[str, Float32], *, sigma: float, ranks: Sequence[int], windows: Sequence[float]
    ) -> Page:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: Arrays of other shapes than these settings give.
        """
        pixels = look.side**2
        shapes = {
            "mean": (pixels,),
            "components": (max(ranks), pixels),
            "blurs": (len(ranks), 2, pixels),
            "contrasts": (len(windows), 2, pixels),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} of shape {arrays[name].shape}, not {shape}")
        low_rank = LowRank(arrays["mean"], arrays["components"])
        blurs, contrasts = tuple(arrays["blurs"]), tuple(arrays["contrasts"])
        return cls(look, low_rank, sigma, tuple(ranks), blurs, tuple(windows), contrasts)


def _blur(films: Float32, share: float) -> Float32:
    """Blur each film (N, side, side) by a Gaussian of this share of the side."""
    import cv2

    sigma = share * films.shape[-1]
    return np.stack([cv2.GaussianBlur(film, (0, 0), sigma) for film in films])


def _local_contrast(films: Float32, share: float, shown: NDArray[np.bool_] | None = None) -> Float32:
    """Return the standard deviation of each film in a Gaussian window around each pixel: (N, side, side).

    Where `shown`, bool (N, side, side), says that not all of it is film, the window takes only what is: the border
    repeated outside has no contrast of its own.
    """
    if shown is None or shown.all():
        mean, square = _blur(films, share), _blur(films * films, share)
    else:
        weight = shown.astype(np.float32)
        total: Float32 = np.maximum(_blur(weight, share), np.float32(1e-3))
        mean, square = _blur(films * weight, share) / total, _blur(films * films * weight, share) / total
    return np.sqrt(np.maximum(square - mean * mean, np.float32(0.0)))


def _spread(values: Float32, floor: float) -> Float32:
    """Return mean and floored standard deviation of each pixel: (N, side, side) -> float32 (2, P)."""
    flat = values.reshape(len(values), -1)
    deviation = flat.std(axis=0, dtype=np.float64)
    spread = np.maximum(deviation + floor * deviation.mean(), _LEAST)
    return np.stack([flat.mean(axis=0, dtype=np.float64), spread]).astype(np.float32)


def _z(values: Float32, normal: Float32) -> Float32:
    """Return (N, side, side) in standard deviations of `normal`, (2, P)."""
    mean, spread = normal.reshape(2, *values.shape[1:])
    return np.asarray((values - mean) / spread, dtype=np.float32)


def _z_by_others(values: Float32, folds: Int64, floor: float) -> Float32:
    """As `_z`, each film in standard deviations of the films of the other folds."""
    z = np.empty_like(values)
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        z[own] = _z(values[own], _spread(values[~own], floor))
    return z


def _maps(residual: Sequence[Float32], contrast: Sequence[Float32]) -> Float32:
    """Return the map of each of `TERMS` from z maps (N, side, side): float32 (3, N, side, side)."""
    darker = [-z for z in residual]
    return np.stack([_positive(residual), _positive([-z for z in contrast]), _positive(darker)])


def _positive(z: Sequence[Float32]) -> Float32:
    """Return the mean over several z maps of their positive part."""
    return np.asarray(sum(np.maximum(values, np.float32(0.0)) for values in z) / np.float32(len(z)), dtype=np.float32)
