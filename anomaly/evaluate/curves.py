"""The table's metrics on resamples of patients: the numbers of `metrics`, several times as fast as from a `Tally`.

All four depend on a replicate through two running counts only: of its normals and of its abnormal films, each in the
order of the scores. Where every abnormal film stands among the normals is found once. A replicate then costs one
gather and one running sum a class, into arrays that are kept: fresh ones would cost more than the sums.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.evaluate.metrics import (
    ROUNDING,
    Metric,
    auroc_of,
    average_precision_of,
    fpr_at_sensitivity_of,
    sensitivity_at_specificity_of,
)
from anomaly.evaluate.resample import columns_of, resamples
from anomaly.records import ABNORMAL, Float64, Int64

CURVE_METRICS: tuple[Metric, ...] = (
    auroc_of,
    average_precision_of,
    sensitivity_at_specificity_of,
    fpr_at_sensitivity_of,
)
"""What `curve_replicates` gives, in this order: each as `metrics` defines it, at its default operating point."""

_AT = 0.95  # the specificity, and the sensitivity, of the operating points


def curve_replicates(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, n: int = 2000, seed: int = 0
) -> Float64:
    """Values of `CURVE_METRICS` of each score column on the same resamples of whole patients.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,) or (N, K), finite.
        groups: (N,), patient of each film, numbers or strings.
        n: replicates.
        seed: of the resamples, which are those of `resample.replicates`.

    Returns:
        float64 (n, K, 4).

    Raises:
        DataError: shapes, values, a missing class, or fewer than two patients with films of a class.
        UsageError: `n` below 1.
    """
    truth, columns = columns_of(labels, scores)
    patients, drawn = resamples(truth, groups, n=n, seed=seed)
    curves = [_Curve(truth, values, patients) for values in columns]
    out = np.empty((n, len(curves), len(CURVE_METRICS)))
    for row, counts in zip(out, drawn, strict=True):
        whole = counts.astype(np.int32)
        for cell, curve in zip(row, curves, strict=True):
            cell[:] = curve.metrics(whole)
    return out


class _Curve:
    """One score column, sorted once: n normals and m abnormal films, each in ascending order of their scores."""

    def __init__(self, labels: Int64, scores: Float64, patients: Int64) -> None:
        order = np.argsort(scores, kind="stable")
        sick = labels[order] == ABNORMAL
        normal, abnormal = scores[order][~sick], scores[order][sick]
        self._patients = patients[order][~sick], patients[order][sick]
        self._below = np.searchsorted(normal, abnormal, "left")  # normals below each abnormal film,
        up_to = np.searchsorted(normal, abnormal, "right")  # and those tied with it too
        self._up_to = None if np.array_equal(up_to, self._below) else up_to
        first = np.searchsorted(abnormal, abnormal, "left")  # of each run of tied abnormal films
        self._first = None if np.array_equal(first, np.arange(len(first))) else first
        self._passed = np.searchsorted(abnormal, normal, "right")  # abnormal films no higher than each normal
        n, m = len(normal), len(abnormal)
        self._films = np.empty(n, np.int32), np.empty(m, np.int32)
        self._sums = np.zeros(n + 1, np.int32), np.zeros(m + 1, np.int32)  # before each film, then all
        self._whole = np.empty(m, np.int32)
        self._drawn, self._under, self._hits, self._flagged = (np.empty(m) for _ in range(4))

    def metrics(self, counts: NDArray[np.int32]) -> tuple[float, float, float, float]:
        """Counts of patients int32 (P,) -> the four metrics of that replicate."""
        for who, films, sums in zip(self._patients, self._films, self._sums, strict=True):
            np.take(counts, who, out=films, mode="clip")  # mode: the default would copy `out`
            np.cumsum(films, out=sums[1:])
        normal, abnormal = self._sums
        n, m = int(normal[-1]), int(abnormal[-1])
        drawn, hits, flagged = self._drawn, self._hits, self._flagged
        drawn[:] = self._films[1]
        below = self._at(normal, self._below, self._under)
        np.subtract(m, self._at(abnormal, self._first, hits), out=hits)
        np.subtract(n, below, out=flagged)
        flagged += hits
        precision = np.divide(hits, np.maximum(flagged, 1.0, out=flagged), out=flagged)  # see `average_precision_of`
        average = float(drawn @ precision) / m
        # The normals below the highest score that still catches enough of the abnormal films.
        missed = np.int32(math.floor(m - _AT * m * (1.0 - ROUNDING)))
        enough = int(np.searchsorted(abnormal[:-1], missed, "right")) - 1
        fpr = (n - float(below[enough])) / n
        threshold = int(np.searchsorted(normal[1:], np.int32(math.ceil(_AT * n * (1.0 - ROUNDING)))))
        sensitivity = (m - int(abnormal[self._passed[threshold]])) / m
        won = float(drawn @ below)
        if self._up_to is not None:
            won = 0.5 * (won + float(drawn @ self._at(normal, self._up_to, hits)))
        return won / (n * m), average, sensitivity, fpr

    def _at(self, sums: NDArray[np.int32], places: Int64 | None, out: Float64) -> Float64:
        """Write the running sums at the abnormal films' `places`, None for their own, into `out` (m,)."""
        out[:] = sums[:-1] if places is None else np.take(sums, places, out=self._whole, mode="clip")
        return out
