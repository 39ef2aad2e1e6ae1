"""One score and one map from several terms, each in standard deviations of what held-out normals show of it.

Schlegl et al. 2017, eq. 7: A(x) = (1 - lambda) R(x) + lambda D(x), with any terms in the place of R and D.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from anomaly.config import did_you_mean
from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.settings import TermSettings
from anomaly.detectors.anogan.scoring.term import Term, take
from anomaly.detectors.anogan.scoring.terms import TERMS
from anomaly.detectors.normality import patient_folds
from anomaly.detectors.pooling import Pooling, pool
from anomaly.records import Float32, Float64, Int64
from anomaly.runs import Arrays


@dataclass(frozen=True, slots=True)
class Scored:
    """`scores` float32 (N,); `terms` name -> float32 (N,), pooled, as they come; `heatmaps` float32 (N, S, S) >= 0.

    `term_maps` name -> float32 (N, S, S) >= 0, what each term with a weight adds to the heatmap.
    """

    scores: Float32
    terms: dict[str, Float32]
    heatmaps: Float32
    term_maps: dict[str, Float32]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Score = sum over terms of weight * (value - mean) / sd, the value being the term's map pooled over the film.

    The heatmap is the sum of what the terms add to the score, the first term with a weight counting 1: the map is the
    one that is pooled, but for what is negative in it. Not `standardise`d, mean is 0, sd 1 and the first term counts
    its weight: the sum of Schlegl et al. 2017. A term of weight 0 is computed, and adds nothing.

    `weights` and `terms` are in the order of `TERMS`; `scale` is float32 (T, 2), mean and sd of each on normals.
    """

    weights: dict[str, float]
    terms: dict[str, Term]
    scale: Float32
    pooling: Pooling
    top_share: float
    standardise: bool

    @staticmethod
    def check(
        groups: Int64, *, weights: Mapping[str, float], settings: TermSettings, standardise: bool, folds: int, seed: int
    ) -> None:
        """Refuse normals that `fit` would refuse for being too few, before anything is trained.

        Args:
            groups: int64 (N,), patients of the normals it will be given.
            weights: As for `fit`, like the rest.
            settings: Of the terms.
            standardise: Whether normals are held out in turn.
            folds: In how many turns.
            seed: Of dealing patients into them.

        Raises:
            ValueError: They are too few.
        """
        fewest, left = len(groups), ""
        if standardise:
            fewest -= int(np.bincount(_dealt(groups, folds, seed)).max())
            left = ", those of some patients left out in turn"
        for name in ordered(weights):
            least = TERMS[name].least(settings)
            if fewest < least:
                raise ValueError(f"{name} must be fitted on at least {least} normal scans{left}; {fewest} are too few.")

    @staticmethod
    def least(*, weights: Mapping[str, float], settings: TermSettings, standardise: bool, folds: int) -> int:
        """Return how many normals, one a patient, `fit` takes at the least."""
        least = max(TERMS[name].least(settings) for name in ordered(weights))
        return -(-least * folds // (folds - 1)) if standardise else least

    @classmethod
    def fit(
        cls,
        normals: Match,
        groups: Int64,
        *,
        weights: Mapping[str, float],
        settings: TermSettings,
        pooling: Pooling,
        top_share: float,
        standardise: bool,
        folds: int,
        seed: int,
    ) -> Scoring:
        """Learn the terms from all normals, and mean and sd of each from normals held out in turn.

        Args:
            normals: Normal scans and their twins.
            groups: int64 (N,), patients, each held out as a whole.
            weights: Term name -> weight >= 0, not all 0.
            settings: Of the terms.
            pooling: From maps to values.
            top_share: See `pool`.
            standardise: Put each term in standard deviations of held-out normals.
            folds: Parts of the normals that take turns in being held out, at least 2; as many as patients if fewer.
            seed: Of dealing patients into them.

        Raises:
            ValueError: An unknown term, weights that are negative or all 0, normals that are too few, that lack what
                a term compares, or that a weighted term does not tell apart.
        """
        cls.check(groups, weights=weights, settings=settings, standardise=standardise, folds=folds, seed=seed)
        listed = ordered(weights)
        if not any(TERMS[name].compares_features for name in listed):
            normals = replace(normals, scan_features=(), twin_features=())  # large, and copied for every fold
        scale = np.tile(np.array([0.0, 1.0], np.float32), (len(listed), 1))
        if standardise:
            held_out = np.empty((len(listed), len(normals)), np.float32)
            dealt = _dealt(groups, folds, seed)
            for fold in range(int(dealt.max()) + 1):
                own = dealt == fold
                others, rest = normals.of(~own), normals.of(own)
                for row, name in enumerate(listed):
                    maps = TERMS[name].fit(others, settings).maps(rest)
                    held_out[row, own] = pool(maps, rest.inside, pooling, top_share)
            scale = _scale(held_out, listed)
        terms = {name: TERMS[name].fit(normals, settings) for name in listed}
        return cls(listed, terms, scale, pooling, top_share, standardise)

    def score(self, match: Match) -> Scored:
        """Score scans beside their twins; the row of a scan depends on that scan alone, bit for bit."""
        maps = {name: term.maps(match) for name, term in self.terms.items()}
        values = {name: pool(maps[name], match.inside, self.pooling, self.top_share) for name in maps}
        scores: Float64 = np.zeros(len(match))
        for (name, weight), (mean, sd) in zip(self.weights.items(), self.scale.astype(np.float64), strict=True):
            if weight > 0:
                scores += weight * (values[name] - mean) / sd
        added = {name: np.maximum(maps[name], np.float32(0.0)) * share for name, share in self._shares().items()}
        heatmaps = np.zeros(match.inside.shape, np.float32)
        for heat in added.values():
            heatmaps += heat
        return Scored(scores.astype(np.float32), values, heatmaps, added)

    @property
    def heat_unit(self) -> str:
        """What one unit of heat is: that of the first term with a weight, to which the others are scaled.

        Terms that are not `standardise`d have one only where all with a weight are in the same.
        """
        units = [self.terms[name].unit for name in self._shares()]
        return units[0] if self.standardise or len(set(units)) == 1 else ""

    def _shares(self) -> dict[str, np.float32]:
        """Return by what the map of each term with a weight is multiplied in the heatmap."""
        each = zip(self.weights.items(), self.scale.astype(np.float64), strict=True)
        parts = {name: weight / sd for (name, weight), (_, sd) in each if weight > 0}
        unit = next(iter(parts.values())) if self.standardise else 1.0
        return {name: np.float32(part / unit) for name, part in parts.items()}

    def to_arrays(self) -> Arrays:
        """Return what was learned, float32 arrays by name."""
        arrays: Arrays = {"scale": self.scale}
        for name, term in self.terms.items():
            arrays |= {f"{name}.{key}": array for key, array in term.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Float32],
        *,
        weights: Mapping[str, float],
        settings: TermSettings,
        pooling: Pooling,
        top_share: float,
        standardise: bool,
        size: int,
    ) -> Scoring:
        """Build from what `to_arrays` returned, with the settings of `fit` and the side of the maps.

        Raises:
            ValueError: An array is missing or of another shape or type than these settings give.
        """
        listed = ordered(weights)
        terms = {}
        for name in listed:
            own = {key.removeprefix(f"{name}."): a for key, a in arrays.items() if key.startswith(f"{name}.")}
            try:
                terms[name] = TERMS[name].from_arrays(own, settings, size)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(listed, terms, take(arrays, "scale", (len(listed), 2)), pooling, top_share, standardise)


def ordered(weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights in the order of `TERMS`, so that no answer depends on how a recipe lists them.

    Raises:
        ValueError: An unknown term, or weights that are negative or all 0.
    """
    for name, weight in weights.items():
        if name not in TERMS:
            raise ValueError(f"No score term is called {name!r}{did_you_mean(name, TERMS)}")
        if weight < 0:
            raise ValueError(f"The weight of {name} is {weight:g}, but terms only add: use 0 to report it unscored.")
    if not any(weight > 0 for weight in weights.values()):
        raise ValueError("No score term has a weight above 0, so there is nothing to score by: give one a weight.")
    return {name: float(weights[name]) for name in TERMS if name in weights}


def _dealt(groups: Int64, folds: int, seed: int) -> Int64:
    patients = len(np.unique(groups))
    if patients < 2:
        raise ValueError(
            "Terms are put in standard deviations of held-out patients, and these normal scans are all of one: give "
            "scans of more patients, or set standardise to false."
        )
    return patient_folds(groups, min(folds, patients), seed)


def _scale(held_out: Float32, weights: Mapping[str, float]) -> Float32:
    """Return mean and sd of each term, (T, N) -> float32 (T, 2)."""
    sd = held_out.std(axis=1, dtype=np.float64)
    for (name, weight), spread in zip(weights.items(), sd, strict=True):
        if weight > 0 and spread < 1e-12:
            raise ValueError(
                f"The term {name} is the same for every normal scan, so it has no standard deviation to be put in: "
                "leave it out, or set standardise to false."
            )
    return np.stack([held_out.mean(axis=1, dtype=np.float64), sd], axis=1).astype(np.float32)
