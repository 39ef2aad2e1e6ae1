"""Detection metrics for scores where higher is more abnormal; flagged always means `score > threshold`.

Every metric here depends on the data through one table only: how many normal and how many abnormal films
have each distinct score (`Tally`). So a metric is written once, as a function of a tally, and serves both
the films as they are (`auroc(labels, scores)`) and a bootstrap replicate of them, which is the same table
with other counts (`auroc_of(tally)`; see `intervals.py`).

Nothing here yields a threshold to deploy: an operating point read off test normals describes these films.
A deployable threshold comes from held-out training normals (`anomaly.calibrate`).

AUROC: Hanley & McNeil, Radiology 143 (1982), with ties counted one half. Average precision: the step sum
sum_t (R_t - R_{t-1}) P_t, without interpolation, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError, UsageError
from anomaly.records import ABNORMAL, NORMAL, Float64, Int64

NO_ABNORMAL = "not computable: no abnormal labels"
NO_NORMAL = "not computable: no normal labels"
ROUNDING = 1e-9  # 0.1 * 30 is 3.0000000000000004: counts are compared with this much slack, relative


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of films at each distinct score.

    `scores` float64 (T,), strictly ascending; `normal` and `abnormal` float64 (T,), whole numbers >= 0, both
    with a positive sum.
    """

    scores: Float64
    normal: Float64
    abnormal: Float64


Metric = Callable[[Tally], float]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What the rule `score > threshold` does on the films it was read from; a description, not a setting to deploy."""

    threshold: float
    specificity: float
    sensitivity: float


def check(labels: ArrayLike, scores: ArrayLike) -> tuple[Int64, Float64]:
    """Return labels as int64 (N,) of 0 and 1, and scores as float64 (N,), or say what is wrong with them.

    Args:
        labels: (N,), 0 normal, 1 abnormal; films of unknown label are left out by the caller.
        scores: (N,), finite, higher is more abnormal.

    Raises:
        DataError: a wrong shape or value, a score that is not finite, or a class that is missing.
    """
    truth, values = np.asarray(labels), np.asarray(scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise DataError(f"labels {truth.shape} and scores {values.shape} must both be (N,); give one of each a film")
    if truth.dtype.kind not in "biuf" or not np.isin(truth, (NORMAL, ABNORMAL)).all():
        raise DataError("labels must be 0 (normal) or 1 (abnormal); leave out films of unknown label")
    if values.dtype.kind not in "biuf":
        raise DataError(f"scores must be numbers, not {values.dtype}")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise DataError(f"{bad} of {len(values)} scores are not finite; leave out the films that have none")
    truth = truth.astype(np.int64)
    if not np.any(truth == ABNORMAL):
        raise DataError(NO_ABNORMAL)
    if not np.any(truth == NORMAL):
        raise DataError(NO_NORMAL)
    return truth, values.astype(np.float64)


def tally(labels: ArrayLike, scores: ArrayLike) -> Tally:
    """Count the films of each class at each distinct score.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), finite.

    Raises:
        DataError: as `check`.
    """
    truth, values = check(labels, scores)
    distinct, index = np.unique(values, return_inverse=True)
    normal = np.bincount(index[truth == NORMAL], minlength=len(distinct)).astype(np.float64)
    abnormal = np.bincount(index[truth == ABNORMAL], minlength=len(distinct)).astype(np.float64)
    return Tally(distinct, normal, abnormal)


def auroc_of(counts: Tally) -> float:
    """P(abnormal score > normal score) + P(equal) / 2, by one pass over the ranks."""
    below = np.cumsum(counts.normal)
    total = below[-1]
    won = counts.abnormal @ (below - 0.5 * counts.normal)  # below - normal + normal / 2: ties at one half
    return float(won / (total * counts.abnormal.sum()))


def average_precision_of(counts: Tally) -> float:
    """sum_t (R_t - R_{t-1}) P_t over the distinct scores, highest first; depends on the prevalence."""
    hits = _from_above(counts.abnormal)
    flagged = hits + _from_above(counts.normal)
    # A replicate may have drawn nothing yet at its highest scores; those steps have no recall to weigh.
    return float(counts.abnormal @ (hits / np.maximum(flagged, 1.0)) / hits[0])


def operating_point_of(counts: Tally, specificity: float = 0.95) -> OperatingPoint:
    """See `operating_point`."""
    if not 0.0 < specificity <= 1.0:
        raise UsageError(f"specificity must lie in (0, 1], not {specificity}")
    not_flagged = np.cumsum(counts.normal)
    total = not_flagged[-1]
    at = int(np.searchsorted(not_flagged, specificity * total * (1.0 - ROUNDING)))
    caught = counts.abnormal[at + 1 :].sum() / counts.abnormal.sum()
    return OperatingPoint(float(counts.scores[at]), float(not_flagged[at] / total), float(caught))


def sensitivity_at_specificity_of(counts: Tally, specificity: float = 0.95) -> float:
    """See `sensitivity_at_specificity`."""
    return operating_point_of(counts, specificity).sensitivity


def fpr_at_sensitivity_of(counts: Tally, sensitivity: float = 0.95) -> float:
    """See `fpr_at_sensitivity`."""
    if not 0.0 < sensitivity <= 1.0:
        raise UsageError(f"sensitivity must lie in (0, 1], not {sensitivity}")
    hits = _from_above(counts.abnormal)  # non-increasing: the last place that still catches enough is wanted
    enough = np.flatnonzero(hits >= sensitivity * hits[0] * (1.0 - ROUNDING))
    return float(counts.normal[enough[-1] :].sum() / counts.normal.sum())


def f1_max_of(counts: Tally) -> float:
    """See `f1_max`."""
    hits = _from_above(counts.abnormal)
    flagged = hits + _from_above(counts.normal)
    return float(np.max(2.0 * hits / (flagged + hits[0])))  # 2 TP / (2 TP + FP + FN)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, ties at one half: 0.5 is chance, below it the scores point the wrong way.

    Args:
        labels: (N,), 0 normal or 1 abnormal.
        scores: (N,), finite, higher is more abnormal.

    Raises:
        DataError: as `check`; one class missing reads "not computable: no abnormal labels".
    """
    return auroc_of(tally(labels, scores))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall steps, without interpolation. Chance is the prevalence: report it beside.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), finite.

    Raises:
        DataError: as `check`.
    """
    return average_precision_of(tally(labels, scores))


def prevalence(labels: ArrayLike) -> float:
    """Share of abnormal among the labelled films, in [0, 1].

    Args:
        labels: (N,), 0 or 1; one class may be missing.

    Raises:
        DataError: no films, or a label that is neither 0 nor 1.
    """
    truth: NDArray[Any] = np.asarray(labels)
    if truth.ndim != 1 or truth.size == 0 or not np.isin(truth, (NORMAL, ABNORMAL)).all():
        raise DataError("labels must be (N,), N >= 1, of 0 (normal) and 1 (abnormal)")
    return float(np.mean(truth == ABNORMAL))


def operating_point(labels: ArrayLike, scores: ArrayLike, specificity: float = 0.95) -> OperatingPoint:
    """Describe the rule that leaves at least `specificity` of these normals unflagged and catches most.

    A film is flagged when score > threshold. The threshold is the smallest number t for which at least
    `specificity` of the normals have score <= t; that is a normal's score, the ceil(specificity * n)-th smallest.
    Films tied with it, abnormal ones too, are not flagged, so ties can only raise the specificity reached
    (returned) above the one asked for.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), finite.
        specificity: in (0, 1].

    Raises:
        DataError: as `check`.
        UsageError: `specificity` out of range.
    """
    return operating_point_of(tally(labels, scores), specificity)


def sensitivity_at_specificity(labels: ArrayLike, scores: ArrayLike, specificity: float = 0.95) -> float:
    """Share of the abnormal films flagged at `operating_point`; its threshold describes these films only.

    Raises:
        DataError: as `check`.
        UsageError: `specificity` out of range.
    """
    return operating_point(labels, scores, specificity).sensitivity


def fpr_at_sensitivity(labels: ArrayLike, scores: ArrayLike, sensitivity: float = 0.95) -> float:
    """Share of the normals flagged by the strictest rule that still flags `sensitivity` of the abnormal films.

    That rule flags every film scoring at least as high as the ceil(sensitivity * n)-th highest abnormal film;
    normals tied with that film are flagged with it. Like `operating_point`, a description of these films.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), finite.
        sensitivity: in (0, 1].

    Raises:
        DataError: as `check`.
        UsageError: `sensitivity` out of range.
    """
    return fpr_at_sensitivity_of(tally(labels, scores), sensitivity)


def f1_max(labels: ArrayLike, scores: ArrayLike) -> float:
    """Best F1 any threshold could reach on these films: an ORACLE, as the threshold is picked with the answers.

    Never a result of its own; printed as "F1-max (oracle)" where a paper reports it. Depends on the prevalence.

    Raises:
        DataError: as `check`.
    """
    return f1_max_of(tally(labels, scores))


def _from_above(counts: Float64) -> Float64:
    """Films scoring at least as high, for each distinct score: float64 (T,), non-increasing."""
    return np.cumsum(counts[::-1])[::-1]
