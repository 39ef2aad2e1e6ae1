"""Areas under ROC curves with their covariance, and contrasts of them, by DeLong's method.

DeLong, DeLong & Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
Curves", Biometrics 44 (1988), computed from midranks as in Sun & Xu, "Fast Implementation of DeLong's Algorithm",
IEEE Signal Processing Letters 21 (2014): O(N log N) a column, ties at one half.

DeLong takes films as independent. Several films of one patient are not, and then its intervals are too short: the
bootstrap of whole patients (`intervals.py`) stands beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import Interval
from anomaly.evaluate.metrics import check
from anomaly.records import ABNORMAL, Float64

NO_SPREAD = "not computable: DeLong's variance is 0 and the difference is not"
_ONE_FILM = "not computable: DeLong's variance needs at least two normal and two abnormal films"
_ROUNDING = 1e-13  # of the weights' sum: far below 1 / (2 m n), the least that one pair of films can change


@dataclass(frozen=True, slots=True)
class DeLong:
    """AUROCs of K columns on the same films, and what their covariance is made of.

    `areas` float64 (K,), in [0, 1]; `covariance` float64 (K, K), of these estimates. The structural components:
    `abnormal` float64 (m, K), of each abnormal film the share of normals below it (V10 in the paper); `normal`
    float64 (n, K), of each normal film the share of abnormal films above it (V01). All in [0, 1], in the films' order.
    """

    areas: Float64
    covariance: Float64
    abnormal: Float64
    normal: Float64


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum of AUROCs: how far it is from 0.

    `interval` is difference +- z_{level} standard errors; `z` is difference / standard_error; `p_value` is two-sided.
    Where the variance is 0 (identical scores, perfect separation) a difference of 0 has z 0, p 1 and the interval
    [0, 0]; of any other difference nothing can be said: the three are None, and `note` says so.
    """

    difference: float
    standard_error: float
    z: float | None
    interval: Interval | None
    p_value: float | None
    note: str | None = None


def delong(labels: ArrayLike, scores: ArrayLike) -> DeLong:
    """AUROCs of one or several scores of the same films, and the covariance of these estimates.

    Films are taken as independent; where patients have several, see `intervals.bootstrap` and
    `intervals.paired_difference`, which belong beside this.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,) or (N, K), finite, higher is more abnormal.

    Raises:
        DataError: as `metrics.check`, or fewer than two films of a class.
    """
    columns = np.asarray(scores)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise DataError(f"scores {columns.shape} must be (N,) or (N, K)")
    parts = [_components(labels, column) for column in columns.T]
    abnormal, normal = (np.column_stack(kind) for kind in zip(*parts, strict=True))
    if min(len(abnormal), len(normal)) < 2:
        raise DataError(_ONE_FILM)
    areas = np.array([column.mean() for column in abnormal.T])  # a column at a time: equal ones give equal areas
    return DeLong(areas, _covariance(abnormal) + _covariance(normal), abnormal, normal)


def contrast(found: DeLong, weights: ArrayLike, *, level: float = 0.95) -> Contrast:
    """Test whether a weighted sum of AUROCs is 0: [1, -1] compares two, [1/3, 1/3, 1/3, -1/2, -1/2] means of seeds.

    Args:
        found: from `delong`.
        weights: (K,), finite, not all 0; they need not sum to 0.
        level: in (0, 1).

    Raises:
        DataError: weights of another shape, not finite, or all 0.
        UsageError: `level` out of range.
    """
    by = np.asarray(weights)
    if by.shape != found.areas.shape or by.dtype.kind not in "biuf" or not np.isfinite(by).all() or not by.any():
        raise DataError(f"weights {by.shape} must be one finite number an area {found.areas.shape}, not all 0")
    if not 0.0 < level < 1.0:
        raise UsageError(f"the level of an interval must lie in (0, 1), not {level}")
    by = by.astype(np.float64)
    nothing = _ROUNDING * float(np.abs(by).sum())
    difference = float(by @ found.areas)
    # From the components: w' S w of the covariance would lose small variances to rounding.
    variance = sum(float(np.var(part @ by, ddof=1)) / len(part) for part in (found.abnormal, found.normal))
    error = math.sqrt(variance)
    if abs(difference) <= nothing:
        difference = 0.0
    if error <= nothing:
        if difference:
            return Contrast(difference, 0.0, None, None, None, NO_SPREAD)
        return Contrast(0.0, 0.0, 0.0, Interval(0.0, 0.0, level, 0), 1.0)
    z = difference / error
    reach = NormalDist().inv_cdf((1.0 + level) / 2.0) * error
    interval = Interval(difference - reach, difference + reach, level, 0)
    return Contrast(difference, error, z, interval, math.erfc(abs(z) / math.sqrt(2.0)))


def _components(labels: ArrayLike, scores: ArrayLike) -> tuple[Float64, Float64]:
    """Return V10, float64 (m,), and V01, float64 (n,), of one score."""
    truth, values = check(labels, scores)
    sick = truth == ABNORMAL
    among_all = _midranks(values)
    m, n = int(sick.sum()), int((~sick).sum())
    # Sun & Xu, equations 5 and 6: a film's midrank among all, less that among its own class, counts the other class.
    below = (among_all[sick] - _midranks(values[sick])) / n
    above = 1.0 - (among_all[~sick] - _midranks(values[~sick])) / m
    return below, above


def _midranks(values: Float64) -> Float64:
    """Ranks from 1, tied values sharing the mean of theirs: float64 (N,) -> (N,)."""
    _, index, films = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(np.cumsum(films) - 0.5 * (films - 1), dtype=np.float64)[index]


def _covariance(part: Float64) -> Float64:
    """Covariance of the means of the columns, float64 (n, K) -> (K, K)."""
    spread = part - part.mean(axis=0)
    return np.asarray(spread.T @ spread / (len(part) - 1) / len(part), dtype=np.float64)
