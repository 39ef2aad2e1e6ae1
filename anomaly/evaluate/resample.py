"""Resamples of whole patients, and what a statistic is worth on each.

Films of one patient are not independent, so whole patients are drawn (Field & Welsh, JRSS B 69, 2007;
Obuchowski, Biometrics 53, 1997, for ROC areas). Where every patient has one class the drawing is stratified:
each replicate holds as many normal and abnormal patients as the data. Where some patient has films of both
classes all patients are drawn together, and a replicate that misses a class is drawn again.

A replicate is a count a patient. Scores are sorted once; each replicate only gathers its counts in that order,
so the cost is O(N) a replicate: 100,000 films x 2,000 replicates take a few seconds a statistic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.metrics import Tally, check
from anomaly.records import ABNORMAL, NORMAL, Float64, Int64

_ONE_PATIENT = "not computable: an interval needs at least two normal and two abnormal patients"

Statistic = Callable[..., float]
"""Takes one `Tally` a score column, in order, and returns one number: `auroc_of`, or a function of two."""


def replicates(
    statistics: Sequence[Statistic],
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    n: int = 2000,
    seed: int = 0,
) -> Float64:
    """Values of several statistics on the same resamples.

    Args:
        statistics: M of them, each taking K tallies.
        labels: (N,), 0 or 1.
        scores: (N,) or (N, K), finite.
        groups: (N,), numbers or strings; films with an equal entry belong to one patient.
        n: replicates.
        seed: the same seed, labels and groups give the same resamples, whatever the scores.

    Returns:
        float64 (n, M).

    Raises:
        DataError: shapes, values, a missing class, or fewer than two patients with films of a class.
        UsageError: `n` below 1.
    """
    truth, columns = columns_of(labels, scores)
    patients, drawn = resamples(truth, groups, n=n, seed=seed)
    tables = [_Sorted(truth, values, patients) for values in columns]
    out = np.empty((n, len(statistics)))
    for row, counts in zip(out, drawn, strict=True):
        tallies = [table.tally(counts) for table in tables]
        row[:] = [statistic(*tallies) for statistic in statistics]
    return out


def columns_of(labels: ArrayLike, scores: ArrayLike) -> tuple[Int64, list[Float64]]:
    """Check labels (N,) and scores (N,) or (N, K): int64 (N,), and K columns float64 (N,).

    Raises:
        DataError: shapes, values, or a missing class.
    """
    columns = np.asarray(scores)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise DataError(f"scores {columns.shape} must be (N,) or (N, K)")
    checked = [check(labels, column) for column in columns.T]
    return checked[0][0], [values for _, values in checked]


def resamples(labels: Int64, groups: ArrayLike, *, n: int, seed: int) -> tuple[Int64, Iterator[Float64]]:
    """Number the patients, and draw them `n` times with replacement.

    Args:
        labels: int64 (N,), 0 or 1.
        groups: (N,), patient of each film.
        n: replicates.
        seed: of the draws.

    Returns:
        Each film's patient, int64 (N,), 0..P-1; and an iterator over the draws, each the number of times every patient
        was drawn, float64 (P,).

    Raises:
        DataError: shapes, or fewer than two patients with films of a class.
        UsageError: `n` below 1.
    """
    patients = group_numbers(groups, len(labels))
    if fewest_patients(labels, patients) < 2:
        raise DataError(_ONE_PATIENT)
    return patients, _resamples(labels, patients, _at_least_one(n), seed)


def mean_replicates(values: Float64, groups: ArrayLike, *, n: int = 2000, seed: int = 0) -> Float64:
    """Mean of one number a film on resamples of whole patients: values float64 (N,), groups (N,) -> float64 (n,).

    Raises:
        DataError: shapes, or fewer than two patients.
        UsageError: `n` below 1.
    """
    patients = group_numbers(groups, len(values))
    films = np.bincount(patients).astype(np.float64)
    if len(films) < 2:
        raise DataError("not computable: an interval needs at least two patients")
    sums = np.bincount(patients, weights=values)
    one_class = np.full(len(values), NORMAL)
    return np.array([c @ sums / (c @ films) for c in _resamples(one_class, patients, _at_least_one(n), seed)])


def film_replicates(
    statistics: Sequence[Callable[[Float64], float]],
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    n: int = 2000,
    seed: int = 0,
) -> Float64:
    """Values of statistics that are told only how often each film is there, on the same resamples of whole patients.

    Args:
        statistics: M of them, each taking the films' counts, float64 (N,).
        labels: (N,), 0 or 1: kinds of films that are drawn apart, where no patient has both.
        groups: (N,), patient of each film.
        n: replicates.
        seed: as `replicates`.

    Returns:
        float64 (n, M).

    Raises:
        DataError: shapes, or fewer than two patients with films of a kind.
        UsageError: `n` below 1.
    """
    patients, draws = resamples(np.asarray(labels).astype(np.int64), groups, n=n, seed=seed)
    drawn = (counts[patients] for counts in draws)
    return np.array([[statistic(films) for statistic in statistics] for films in drawn])


def group_numbers(groups: ArrayLike, n: int) -> Int64:
    """Number the patients 0..P-1: any array (N,) of numbers or strings -> int64 (N,).

    Raises:
        DataError: not one entry a film.
    """
    keys: NDArray[Any] = np.asarray(groups)
    if keys.shape != (n,):
        raise DataError(f"groups {keys.shape} must be ({n},): one patient key a film")
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def fewest_patients(labels: Int64, patients: Int64) -> int:
    """Patients with films of the class that has fewer patients; labels and patients int64 (N,)."""
    return min(len(np.unique(patients[labels == label])) for label in (NORMAL, ABNORMAL))


class _Sorted:
    """One score column, sorted once: any replicate's `Tally` from its counts of patients, in O(N)."""

    def __init__(self, labels: Int64, scores: Float64, patients: Int64) -> None:
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        first = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)  # where each run of equal scores begins
        self._scores = ordered[first]
        self._starts = None if len(first) == len(ordered) else first
        self._patients = patients[order]
        self._abnormal = (labels[order] == ABNORMAL).astype(np.float64)

    def tally(self, counts: Float64) -> Tally:
        """Counts of patients float64 (P,) -> counts of films at each distinct score."""
        films = counts[self._patients]
        abnormal = films * self._abnormal
        films -= abnormal
        if self._starts is None:
            return Tally(self._scores, films, abnormal)
        return Tally(self._scores, np.add.reduceat(films, self._starts), np.add.reduceat(abnormal, self._starts))


def _resamples(labels: Int64, patients: Int64, n: int, seed: int) -> Iterator[Float64]:
    """Yield `n` draws with replacement, each the number of times every patient was drawn: float64 (P,)."""
    rng = np.random.default_rng(seed)
    films = np.bincount(patients)
    sick = np.bincount(patients, weights=labels)
    mixed = bool(np.any((sick > 0) & (sick < films)))
    # All patients as a slice: it is several times as fast as their numbers.
    strata: list[slice | Int64] = [slice(None)] if mixed else [np.flatnonzero(sick == 0), np.flatnonzero(sick > 0)]
    sizes = [len(films[stratum]) for stratum in strata]
    for _ in range(n):
        while True:
            counts = np.zeros(len(films))
            for stratum, size in zip(strata, sizes, strict=True):
                counts[stratum] = np.bincount(rng.integers(0, max(size, 1), size), minlength=size)
            if not mixed or 0 < counts @ sick < counts @ films:
                break
        yield counts


def _at_least_one(n: int) -> int:
    if n < 1:
        raise UsageError(f"a bootstrap needs at least one replicate, not {n}")
    return n
