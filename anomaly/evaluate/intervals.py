"""Intervals: the patient-clustered bootstrap for metrics, Wilson and Clopper-Pearson for proportions.

How patients are drawn: `resample.py`. The percentiles read off are a little further out than the level asks, as a
resample of m patients spreads less than m new ones would: the expanded percentile interval of Hesterberg, "What
Teachers Should Know About the Bootstrap", The American Statistician 69 (2015), section 5.3, with m the fewer of
the two classes' patients.

How often they hold what they should, by simulation, beside DeLong's: `benchmarks/coverage.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.metrics import Tally, auroc, auroc_of
from anomaly.evaluate.resample import Statistic, fewest_patients, group_numbers, mean_replicates, replicates
from anomaly.records import Float64


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval at confidence `level`, and the replicates it came from (0: a closed formula)."""

    low: float
    high: float
    level: float
    n_boot: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A metric of a minus that of b on the same films, its interval, and a two-sided bootstrap p-value."""

    difference: float
    interval: Interval
    p_value: float


def bootstrap(
    statistic: Statistic,
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic under resampling of whole patients.

    With one score column the statistic must be a proportion, in [0, 1] as all of `metrics` are: where every
    replicate is 1 (or 0), as with perfect separation, resampling says nothing of the spread, and the far end is
    Clopper-Pearson's for m hits in m (or 0 in m), m the fewer of the two classes' patients.

    Args:
        statistic: takes one tally a column, for example `auroc_of`.
        labels: (N,), 0 or 1.
        scores: (N,) or (N, K), finite.
        groups: (N,), patient of each film.
        n: replicates.
        seed: of the resamples.
        level: in (0, 1).

    Raises:
        DataError: as `replicates`.
        UsageError: `n` or `level` out of range.
    """
    values = replicates([statistic], labels, scores, groups, n=n, seed=seed)[:, 0]
    fewest = _fewest(labels, groups)
    return proportion(values, fewest, level) if np.asarray(scores).ndim == 1 else percentile(values, fewest, level)


def paired_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike,
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Compare two scores of the same films: AUROC(a) - AUROC(b), both taken on each resample.

    The p-value inverts the interval: it comes from the smaller share of replicates at or beyond zero, counting the
    data as one more replicate, so with many patients it is twice that share and never below 2 / (n + 1).

    Args:
        labels: (N,), 0 or 1.
        scores_a: (N,), finite.
        scores_b: (N,), finite.
        groups: (N,), patient of each film.
        n: replicates.
        seed: of the resamples.
        level: in (0, 1).

    Raises:
        DataError: as `replicates`.
        UsageError: `n` or `level` out of range.
    """
    first, second = np.asarray(scores_a), np.asarray(scores_b)
    if first.ndim != 1 or first.shape != second.shape:
        raise DataError(f"scores {first.shape} and {second.shape} must both be (N,), one a film")
    both = np.column_stack([first, second])
    values = replicates([_auroc_difference], labels, both, groups, n=n, seed=seed)[:, 0]
    return compared(auroc(labels, first) - auroc(labels, second), values, _fewest(labels, groups), level)


def compared(difference: float, values: Float64, patients: int, level: float = 0.95) -> PairedDifference:
    """Return a difference with what its replicates say of it.

    Args:
        difference: on the films as they are.
        values: float64 (n,), the same on each replicate.
        patients: the fewer of the two classes' patients, m >= 2.
        level: in (0, 1).

    Raises:
        UsageError: `level` out of range.
    """
    tails = int(min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0)))
    return PairedDifference(difference, percentile(values, patients, level), _p_value(tails, len(values), patients))


def least_p_value(replicates: int, patients: int) -> float:
    """Return the least p-value that `compared` can give from so many replicates."""
    return _p_value(0, replicates, patients)


def _p_value(tails: int, replicates: int, patients: int) -> float:
    from scipy.special import ndtri, stdtr  # not scipy.stats, which takes seconds to import

    share = min(0.5, (1 + tails) / (replicates + 1))
    return 2.0 * float(stdtr(patients - 1, ndtri(share) / math.sqrt(patients / (patients - 1))))


def mean_interval(
    values: ArrayLike, groups: ArrayLike, *, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of the mean of one number a film, resampling whole patients.

    Args:
        values: (N,), finite.
        groups: (N,), patient of each film.
        n: replicates.
        seed: of the resamples.
        level: in (0, 1).

    Raises:
        DataError: shapes, values that are not finite, or fewer than two patients.
        UsageError: `n` or `level` out of range.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise DataError(f"values {numbers.shape} must be (N,) and finite")
    means = mean_replicates(numbers, groups, n=n, seed=seed)
    return percentile(means, len(np.unique(group_numbers(groups, len(numbers)))), level)


def percentile(values: Float64, patients: int, level: float = 0.95) -> Interval:
    """Expanded percentile interval of replicates.

    Args:
        values: float64 (n,), replicates.
        patients: the fewer of the two classes' patients, m >= 2.
        level: in (0, 1).

    Raises:
        UsageError: `level` out of range.
    """
    from scipy.special import ndtr, stdtrit

    # Hesterberg 2015, section 5.3: alpha' / 2 = Phi(-sqrt(m / (m - 1)) t_{alpha / 2, m - 1})
    tail = float(ndtr(math.sqrt(patients / (patients - 1)) * stdtrit(patients - 1, _tail(level))))
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(float(low), float(high), level, len(values))


def proportion(values: Float64, patients: int, level: float = 0.95) -> Interval:
    """`percentile` for a statistic in [0, 1], wider where every replicate is 0 or every one is 1 (see `bootstrap`).

    Args:
        values: float64 (n,), replicates.
        patients: the fewer of the two classes' patients.
        level: in (0, 1).

    Raises:
        UsageError: `level` out of range.
    """
    interval = percentile(values, patients, level)
    edge = values[0]
    if edge not in (0.0, 1.0) or np.any(values != edge):
        return interval
    exact = clopper_pearson(patients if edge == 1.0 else 0, patients, level)
    return Interval(exact.low, exact.high, level, len(values))


def wilson(k: float, n: int, level: float = 0.95) -> Interval:
    """Score interval of a proportion, Wilson, JASA 22 (1927); `k` may be fractional (split hits of tied maxima).

    Raises:
        DataError: no trials, or `k` outside [0, n].
        UsageError: `level` out of range.
    """
    _trials(k, n)
    z = NormalDist().inv_cdf(1.0 - _tail(level))
    rate = k / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # Rounding must not leave the far end a hair inside 0 or 1.
    return Interval(0.0 if k == 0 else max(0.0, centre - half), 1.0 if k == n else min(1.0, centre + half), level, 0)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion, Clopper & Pearson, Biometrika 26 (1934): never too narrow, often too wide.

    Raises:
        DataError: no trials, or `k` outside [0, n].
        UsageError: `level` out of range.
    """
    from scipy.special import betaincinv

    _trials(k, n)
    tail = _tail(level)
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1.0 - tail))
    return Interval(low, high, level, 0)


def _fewest(labels: ArrayLike, groups: ArrayLike) -> int:
    truth = np.asarray(labels).astype(np.int64)
    return fewest_patients(truth, group_numbers(groups, len(truth)))


def _auroc_difference(first: Tally, second: Tally) -> float:
    return auroc_of(first) - auroc_of(second)


def _tail(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise UsageError(f"the level of an interval must lie in (0, 1), not {level}")
    return (1.0 - level) / 2.0


def _trials(k: float, n: int) -> None:
    if n < 1:
        raise DataError("not computable: a proportion of no films")
    if not 0 <= k <= n:
        raise DataError(f"{k} of {n} is not a proportion")
