"""Terms that compare grey values: the plain residual, and the blurred residual in units of normal variation.

Schlegl et al., Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker Discovery, IPMI
2017, eq. 4; Schlegl et al., f-AnoGAN, Medical Image Analysis 2019, for its square. Most of such a residual is ribs and
diaphragms a little out of place, and what the generator never learned to draw. The first cancels when the signed
residual is blurred *before* it is rectified, which leaves a diffuse opacity as it was; the second shows on normal
films too, so it is taken out as the principal components of their residuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.settings import Direction, TermSettings
from anomaly.detectors.anogan.scoring.term import ENOUGH, Term, take
from anomaly.detectors.anogan.scoring.usual import Deviation, Usual, directed, mean_shown, unit_of
from anomaly.detectors.normality import blur
from anomaly.records import Float32, Float64
from anomaly.runs import Arrays


@dataclass(frozen=True, slots=True)
class L1(Term):
    """|x - G(z)| (Schlegl et al. 2017, eq. 4, as a mean over pixels instead of their sum); mean over channels."""

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) in [0, 2]."""
        return match.masked(np.abs(match.scan - match.twin).mean(axis=1))


@dataclass(frozen=True, slots=True)
class L2(Term):
    """(x - G(z))^2 (Schlegl et al. 2019, the image term of f-AnoGAN's score); mean over channels."""

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) in [0, 4]."""
        return match.masked(np.square(match.scan - match.twin).mean(axis=1))


@dataclass(frozen=True, slots=True)
class Residual(Deviation):
    """The signed residual, blurred, in standard deviations of that of normals exposed alike, then `direction`."""

    @staticmethod
    def measured(match: Match, settings: TermSettings) -> Float32:
        """Return the blurred residual, float32 (N, S, S)."""
        return blur(match.residual(), settings.residual_sigma)

    @property
    def direction(self) -> Direction:
        """Which residuals count: as set."""
        return self.settings.direction


@dataclass(frozen=True, slots=True)
class ResidualPca(Term):
    """As `Residual`, after removal of the generator's systematic error.

    `mean` float32 (P,) of the normals' residuals and `components` float32 (K, P), orthonormal, their first principal
    components. A component that normals do not fill, having fewer kinds of error, is 0.
    """

    usual: Usual
    mean: Float32
    components: Float32

    @classmethod
    def least(cls, settings: TermSettings) -> int:
        """Return how many normals it must be fitted on: those components and lines leave nothing of tell no spread."""
        return ENOUGH + 2 * (settings.components - 1)

    @classmethod
    def fit(cls, normals: Match, settings: TermSettings) -> Self:
        """Learn the components, then what the blurred rest is at each pixel."""
        residual = normals.residual()
        mean = mean_shown(residual, normals)
        centred = normals.masked(residual - mean).reshape(len(normals), -1)
        mean, components = mean.ravel(), _principal(centred, settings.components)
        rest = _rest(normals, mean, components)
        blurred = blur(rest, settings.residual_sigma)
        return cls(settings, Usual.fit(blurred, normals, settings, removed=settings.components), mean, components)

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) in sigma, or its square; signed if `direction` is."""
        rest = _rest(match, self.mean, self.components)
        return directed(self.usual.z(blur(rest, self.settings.residual_sigma), match), self.settings.direction)

    @property
    def unit(self) -> str:
        """What maps are in: standard deviations, or their squares."""
        return unit_of(self.settings.direction)

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"mean": self.mean, "components": self.components, **self.usual.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float32], settings: TermSettings, size: int) -> Self:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: An array is missing or of another shape or type.
        """
        pixels = size * size
        return cls(
            settings,
            Usual.from_arrays(arrays, settings, size),
            take(arrays, "mean", (pixels,)),
            take(arrays, "components", (settings.components, pixels)),
        )


def _principal(centred: Float32, count: int) -> Float32:
    """Return the first `count` principal components of (N, P), N > count: float32 (count, P), strongest first."""
    from scipy.linalg import eigh

    wide = centred.astype(np.float64)
    few = len(wide) < wide.shape[1]  # films than pixels: the products of films have the same components
    products: Float64 = wide @ wide.T if few else wide.T @ wide
    last = len(products) - 1
    strengths, vectors = eigh(products, subset_by_index=[last - count + 1, last])
    found = vectors.T @ wide if few else vectors.T
    lengths = np.linalg.norm(found, axis=1)
    lengths[strengths <= 1e-10 * strengths[-1]] = np.inf  # nothing but rounding: no direction to remove
    return np.ascontiguousarray((found / lengths[:, None])[::-1], dtype=np.float32)


def _rest(match: Match, mean: Float32, components: Float32) -> Float32:
    """Return the residuals less their mean and their part along the components, 0 outside the film: (N, S, S)."""
    rest = match.masked(match.residual() - mean.reshape(match.inside.shape[1:]))
    for row in rest.reshape(len(rest), -1):  # one by one: a product of many differs in its last bits from that of one
        row -= (components @ row) @ components
    return match.masked(rest)
