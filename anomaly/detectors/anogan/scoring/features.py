"""Terms that compare the discriminator's features of scan and twin, f(x) and f(G(z)).

Schlegl et al. 2017, eq. 5, uses an intermediate layer's mean absolute difference; f-AnoGAN (Schlegl et al., Medical
Image Analysis 2019) its square. Channels differ in range and in how much normal films differ by in them, so the terms
in sigma count each channel in its own normal variation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.settings import TermSettings
from anomaly.detectors.anogan.scoring.term import ENOUGH, Term, take
from anomaly.detectors.normality import LEAST
from anomaly.prepare.resize import resize
from anomaly.records import Float32
from anomaly.runs import Arrays

_FINEST, _COARSEST = 0, -1  # of the levels in a match


@dataclass(frozen=True, slots=True)
class FeaturesRaw(Term):
    """Mean |f(x) - f(G(z))| of the coarsest features (Schlegl et al. 2017, eq. 5, as a mean instead of a sum).

    The map tells where these differences lie; its mean over the film is the mean over all features.
    """

    compares_features: ClassVar[bool] = True

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) >= 0."""
        places = np.abs(match.differences(_COARSEST)).mean(axis=1)
        return _drawn(places, _row_means(places), match.inside)


@dataclass(frozen=True, slots=True)
class InSigma(Term):
    """A term that counts differences of features in standard deviations of those of normals.

    `mean`, `spread`: float32 of normals, shaped as what is compared of one scan, in `axes` dimensions.
    """

    compares_features: ClassVar[bool] = True
    axes: ClassVar[int]

    mean: Float32
    spread: Float32

    @classmethod
    def least(cls, settings: TermSettings) -> int:  # noqa: ARG003 (the same for all)
        """Return how many normals it must be fitted on."""
        return ENOUGH

    @property
    def unit(self) -> str:
        """What maps are in: standard deviations."""
        return "σ"

    def to_arrays(self) -> Arrays:
        """Return what was learned, by name."""
        return {"mean": self.mean, "spread": self.spread}

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Float32],
        settings: TermSettings,
        size: int,  # noqa: ARG003 (features have a size of their own)
    ) -> Self:
        """Build from what `to_arrays` returned.

        Raises:
            ValueError: An array is missing or of another shape or type.
        """
        mean = take(arrays, "mean", (None,) * cls.axes)
        return cls(settings, mean, take(arrays, "spread", mean.shape))


@dataclass(frozen=True, slots=True)
class Features(InSigma):
    """Mean over channels of |z|, z the spatial mean of f(x) - f(G(z)) in sigma of that of normals; coarsest features.

    What is compared is (F,). The map tells where differences lie; its mean over the film is the term.
    """

    axes: ClassVar[int] = 1

    @classmethod
    def fit(cls, normals: Match, settings: TermSettings) -> Self:
        """Learn what each channel's pooled difference is on normals."""
        pooled = _pooled(normals.differences(_COARSEST))
        spread = np.maximum(pooled.std(axis=0, dtype=np.float64), LEAST)  # no floor: channels differ in range
        return cls(settings, pooled.mean(axis=0, dtype=np.float64).astype(np.float32), spread.astype(np.float32))

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) >= 0, in sigma on average."""
        differences = match.differences(_COARSEST)
        z = np.abs(_pooled(differences) - self.mean) / self.spread
        places = (np.abs(differences) / self.spread[:, None, None]).mean(axis=1)
        return _drawn(places, _row_means(z), match.inside)


@dataclass(frozen=True, slots=True)
class FeaturesMap(InSigma):
    """At each place of the finest features, the mean over channels of |z|, z in sigma of normals there.

    What is compared is (F, h, w). Each spread is raised by `floor` of its channel's mean spread, which holds up those
    that few normals tell too small.
    """

    axes: ClassVar[int] = 3

    @classmethod
    def fit(cls, normals: Match, settings: TermSettings) -> Self:
        """Learn what the difference is on normals, by channel and place."""
        differences = normals.differences(_FINEST)
        deviation = differences.std(axis=0, dtype=np.float64)
        spread = np.maximum(deviation + settings.floor * deviation.mean(axis=(1, 2), keepdims=True), LEAST)
        return cls(settings, differences.mean(axis=0, dtype=np.float64).astype(np.float32), spread.astype(np.float32))

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) >= 0 in sigma."""
        z = np.abs(match.differences(_FINEST) - self.mean) / self.spread
        return match.masked(_enlarged(z.mean(axis=1), match.inside.shape[-1]))


def _pooled(differences: Float32) -> Float32:
    """Return the spatial mean of each channel, (N, F, h, w) -> (N, F)."""
    return np.asarray(differences.reshape(*differences.shape[:2], -1).mean(axis=2), dtype=np.float32)


def _row_means(values: Float32) -> Float32:
    """Return the mean of each row, (N, ...) -> (N,)."""
    return np.asarray(values.reshape(len(values), -1).mean(axis=1), dtype=np.float32)


def _enlarged(places: Float32, size: int) -> Float32:
    """Return maps (N, h, w) drawn (N, size, size), linear between places."""
    return np.stack([resize(place, size) for place in places])


def _drawn(places: Float32, values: Float32, inside: NDArray[np.bool_]) -> Float32:
    """Return maps that lie where `places`, (N, h, w) >= 0, do and whose means over the film are `values`, (N,)."""
    maps = np.where(inside, _enlarged(places, inside.shape[-1]), np.float32(0.0))
    for heat, shown, value in zip(maps, inside, values, strict=True):
        found = heat[shown].mean()
        if found > 0:
            heat *= value / found
        else:  # no difference anywhere is as far from normal everywhere
            heat[shown] = value
    return maps
