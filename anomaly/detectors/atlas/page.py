"""One page of the atlas: what one look at the normal chest varies by, and how far a film lies outside it.

Opacity and darkening: the signed difference between film and normal twin is blurred *before* it is rectified (shifted
ribs and vessels cancel under the blur, a diffuse opacity does not), then put in standard deviations of what the same
blur leaves of normal films out of fold. Contrast deficit: the local standard deviation of the film, in standard
deviations of that of normal films; consolidated lung hides the vessels and ribs that a normal chest shows there.

A film is compared with normal films exposed like it (see `normality`); its exposure is that of its middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.atlas.looks import Look
from anomaly.detectors.atlas.twin import LowRank, out_of_fold
from anomaly.detectors.normality import ROWS, blur, deviations, fit_normal, known_exposure, local_contrast, standard
from anomaly.records import Float32, Int64
from anomaly.runs import Arrays

TERMS = ("opacity", "deficit", "darker")
"""Brighter than the normal twin; less local contrast than normal; darker than the normal twin. All in sigma."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is normal under one look.

    `ranks` how many components each twin has; `blurs` for each of them what the blurred residual is, float32 (4, P):
    its value at mean exposure, the slopes over the two numbers of exposure, its spread. `windows` Gaussian widths of
    the local contrast, shares of the side; `contrasts` for each of them what the contrast is, float32 (4, P). `sigma`
    is the blur of the residual, a share of the side. `exposure` float32 (2, 2): mean and standard deviation of the
    normals' `Look.exposure`; films beyond `limit` standard deviations are compared with those at the limit.
    """

    look: Look
    low_rank: LowRank
    sigma: float
    ranks: tuple[int, ...]
    blurs: tuple[Float32, ...]
    windows: tuple[float, ...]
    contrasts: tuple[Float32, ...]
    exposure: Float32
    limit: float

    @classmethod
    def fit(
        cls,
        look: Look,
        films: Float32,
        exposure: Float32,
        folds: Int64,
        *,
        ranks: Sequence[int],
        sigma: float,
        windows: Sequence[float],
        floor: float,
        limit: float,
    ) -> tuple[Page, Float32]:
        """Learn from normal films.

        Args:
            look: That took them.
            films: float32 (N, side, side) in [0, 1].
            exposure: float32 (N, 2), of the look.
            folds: int64 (N,), patients whole.
            ranks: Components of the twins.
            sigma: Blur of the residual, share of the side.
            windows: Gaussian widths of the local contrast, shares of the side.
            floor: Added to each spread, in units of its mean, so that no pixel counts without bound.
            limit: Of exposure, in standard deviations; 0 takes no notice of it.

        Returns:
            The page, and float32 (3, N): each film's `TERMS` in the spread of the films of the other folds, whose
            residuals come from components that this film may have had a part in.
        """
        known = known_exposure(exposure)
        at = standard(exposure, known, limit)
        low_rank, residuals = out_of_fold(films.reshape(len(films), -1), folds, ranks)
        signed = [blur(residuals[rank].reshape(films.shape), sigma) for rank in ranks]
        contrast = [local_contrast(films, window) for window in windows]
        z = [_z_by_others(values, at, folds, floor) for values in signed]
        told = _maps(z, [_z_by_others(values, at, folds, floor) for values in contrast]).mean(axis=(2, 3))
        blurs, contrasts = (tuple(fit_normal(v, at, floor) for v in values) for values in (signed, contrast))
        page = cls(look, low_rank, sigma, tuple(ranks), blurs, tuple(windows), contrasts, known, limit)
        return page, told

    def read(self, films: Float32, exposure: Float32, shown: NDArray[np.bool_]) -> Float32:
        """Compare films, as its look sees them, with what is normal.

        Args:
            films: float32 (N, side, side) in [0, 1].
            exposure: float32 (N, 2), of the look.
            shown: bool (N, side, side), which of their pixels are film.

        Returns:
            The map of each of `TERMS` in sigma: float32 (3, N, side, side) >= 0, 0 outside the film.
        """
        at = standard(exposure, self.exposure, self.limit)
        flat = films.reshape(len(films), -1)
        z = []
        for rank, normal in zip(self.ranks, self.blurs, strict=True):
            residual = np.where(shown, self.low_rank.residual(flat, rank).reshape(films.shape), np.float32(0.0))
            z.append(deviations(blur(residual, self.sigma), at, normal))
        contrast = [
            deviations(local_contrast(films, window, shown), at, normal)
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
            "exposure": self.exposure,
        }

    @classmethod
    def from_arrays(
        cls,
        look: Look,
        arrays: Mapping[str, Float32],
        *,
        sigma: float,
        ranks: Sequence[int],
        windows: Sequence[float],
        limit: float,
    ) -> Page:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: Arrays of other shapes than these settings give.
        """
        pixels = look.side**2
        shapes = {
            "mean": (pixels,),
            "components": (max(ranks), pixels),
            "blurs": (len(ranks), ROWS, pixels),
            "contrasts": (len(windows), ROWS, pixels),
            "exposure": (2, 2),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} of shape {arrays[name].shape}, not {shape}")
        low_rank = LowRank(arrays["mean"], arrays["components"])
        blurs, contrasts = tuple(arrays["blurs"]), tuple(arrays["contrasts"])
        return cls(look, low_rank, sigma, tuple(ranks), blurs, tuple(windows), contrasts, arrays["exposure"], limit)


def _z_by_others(values: Float32, at: Float32, folds: Int64, floor: float) -> Float32:
    """As `_z`, each film in standard deviations of the films of the other folds."""
    z = np.empty_like(values)
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        z[own] = deviations(values[own], at[own], fit_normal(values[~own], at[~own], floor))
    return z


def _maps(residual: Sequence[Float32], contrast: Sequence[Float32]) -> Float32:
    """Return the map of each of `TERMS` from z maps (N, side, side): float32 (3, N, side, side)."""
    darker = [-z for z in residual]
    return np.stack([_positive(residual), _positive([-z for z in contrast]), _positive(darker)])


def _positive(z: Sequence[Float32]) -> Float32:
    """Return the mean over several z maps of their positive part."""
    return np.asarray(sum(np.maximum(values, np.float32(0.0)) for values in z) / np.float32(len(z)), dtype=np.float32)
