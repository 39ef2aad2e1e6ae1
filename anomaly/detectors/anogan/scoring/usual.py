"""What is usual of a map at each pixel of normal films exposed alike, and terms that are deviations from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.settings import Direction, TermSettings
from anomaly.detectors.anogan.scoring.term import ENOUGH, Term, take
from anomaly.detectors.normality import ROWS, deviations, fit_normal, known_exposure, standard
from anomaly.records import Float32
from anomaly.runs import Arrays


@dataclass(frozen=True, slots=True)
class Usual:
    """`pixels` float32 (4, P) as of `fit_normal`; `exposure` float32 (2, 2) of normals; `limit` of exposure in sd."""

    pixels: Float32
    exposure: Float32
    limit: float

    @classmethod
    def fit(cls, values: Float32, normals: Match, settings: TermSettings, *, removed: int = 0) -> Usual:
        """Learn from maps (N, S, S) of normals, at each pixel from those that show film there.

        Of the same normals' maps `removed` components were taken out before, as the line is here: the spread is that
        of other normals, which neither was fitted to, so N must be larger than both together.

        The others take the mean's place, which flattens the line and is made up for in the spread; where none shows
        film the spread is infinite, so that nothing there is unusual.
        """
        told = normals.exposure()
        known, limit = known_exposure(told), settings.exposure_limit
        filled = np.where(normals.inside, values, mean_shown(values, normals))
        pixels = fit_normal(filled, standard(told, known, limit), settings.floor)
        fitted = removed + (3 if limit else 1)  # numbers a pixel; at limit 0 the line is level
        pixels[-1] *= np.sqrt(len(values) / (len(values) - fitted))
        share = normals.inside.mean(axis=0).ravel()
        seen = share > 0
        pixels[-1, seen] /= np.sqrt(share[seen])
        pixels[-1, ~seen] = np.inf
        return cls(pixels, known, limit)

    def z(self, values: Float32, match: Match) -> Float32:
        """Return maps (N, S, S) in standard deviations of those of normals exposed alike, 0 outside the film."""
        return match.masked(deviations(values, standard(match.exposure(), self.exposure, self.limit), self.pixels))

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"pixels": self.pixels, "exposure": self.exposure}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float32], settings: TermSettings, size: int) -> Usual:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: An array is missing or of another shape or type.
        """
        pixels, exposure = take(arrays, "pixels", (ROWS, size * size)), take(arrays, "exposure", (2, 2))
        return cls(pixels, exposure, settings.exposure_limit)


@dataclass(frozen=True, slots=True)
class Deviation(Term):
    """A term that measures something at each pixel and counts how far it lies from what is usual there."""

    usual: Usual

    @staticmethod
    @abstractmethod
    def measured(match: Match, settings: TermSettings) -> Float32:
        """Return what is compared with normals, float32 (N, S, S)."""

    @property
    def direction(self) -> Direction:
        """Which deviations count: those above what is usual, squared where all are."""
        return "squared_positive" if self.settings.direction == "squared_positive" else "positive"

    @classmethod
    def least(cls, settings: TermSettings) -> int:  # noqa: ARG003 (the same for all)
        """Return how many normals it must be fitted on."""
        return ENOUGH

    @classmethod
    def fit(cls, normals: Match, settings: TermSettings) -> Self:
        """Learn what is usual at each pixel."""
        return cls(settings, Usual.fit(cls.measured(normals, settings), normals, settings))

    def maps(self, match: Match) -> Float32:
        """Return deviations in sigma, or their squares, float32 (N, S, S); signed if `direction` is."""
        return directed(self.usual.z(self.measured(match, self.settings), match), self.direction)

    @property
    def unit(self) -> str:
        """What maps are in: standard deviations, or their squares."""
        return unit_of(self.direction)

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return self.usual.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Float32], settings: TermSettings, size: int) -> Self:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: An array is missing or of another shape or type.
        """
        return cls(settings, Usual.from_arrays(arrays, settings, size))


def directed(z: Float32, direction: Direction) -> Float32:
    """Return what of deviations counts."""
    if direction == "signed":
        return z
    if direction == "absolute":
        return np.abs(z)
    positive = np.maximum(z, np.float32(0.0))
    return positive if direction == "positive" else np.square(positive)


def unit_of(direction: Direction) -> str:
    """Return what `directed` deviations are in."""
    return "σ²" if direction == "squared_positive" else "σ"


def mean_shown(values: Float32, normals: Match) -> Float32:
    """Return the mean of maps (N, S, S) at each pixel over the films that show it, 0 where none does: (S, S)."""
    shown = np.maximum(normals.inside.sum(axis=0), 1)
    return np.asarray(normals.masked(values).sum(axis=0, dtype=np.float64) / shown, dtype=np.float32)
