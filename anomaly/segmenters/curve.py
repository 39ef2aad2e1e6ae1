"""How well chances agree with a mask over all thresholds, counted in one pass, and the threshold that is best."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Float64, Int64

THRESHOLDS: Float32 = (np.arange(1, 20) / 20).astype(np.float32)
"""0.05, 0.10, … 0.95: what a chance may be cut at."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels of one film: `truth` in the mask, and at each threshold `called` at or above it, `hits` of them in both.

    `called` and `hits` are int64 (19,).
    """

    truth: int
    called: Int64
    hits: Int64

    @property
    def iou(self) -> Float64:
        """Intersection over union at each threshold, float64 (19,); 1 where both are empty."""
        return _share(self.hits, self.called + self.truth - self.hits)

    @property
    def dice(self) -> Float64:
        """Twice the intersection over the sum, float64 (19,); 1 where both are empty."""
        return _share(2 * self.hits, self.called + self.truth)


@dataclass(frozen=True, slots=True)
class IouCurve:
    """Mean IoU of films at each threshold: both float64 (19,)."""

    thresholds: Float64
    iou: Float64

    @property
    def best(self) -> float:
        """The threshold with the highest mean IoU; the middle one of those as good."""
        good = np.flatnonzero(self.iou == self.iou.max())
        return float(self.thresholds[good[len(good) // 2]])

    @property
    def highest(self) -> float:
        """The mean IoU there."""
        return float(self.iou.max())


def count(chances: Float32, truth: NDArray[np.bool_]) -> Counts:
    """Count at every threshold.

    Args:
        chances: float32, of any shape, in [0, 1].
        truth: bool, of the same shape.

    Raises:
        ValueError: The shapes differ.
    """
    if chances.shape != truth.shape:
        raise ValueError(f"chances {chances.shape} do not fit a mask {truth.shape}")
    reached = np.searchsorted(THRESHOLDS, chances.ravel(), side="right")  # how many thresholds a pixel reaches
    most = len(THRESHOLDS) + 1
    called, hits = (np.bincount(part, minlength=most) for part in (reached, reached[truth.ravel()]))
    return Counts(int(np.count_nonzero(truth)), _at_least(called), _at_least(hits))


def cut(chances: Float32, threshold: float) -> NDArray[np.bool_]:
    """Return which pixels reach a threshold, as `count` counts them."""
    return np.asarray(chances >= np.float32(threshold), dtype=np.bool_)


def mean_curve(films: Iterable[Counts]) -> IouCurve:
    """Return the mean over films, each counting the same; at least one."""
    return IouCurve(THRESHOLDS.astype(np.float64).round(2), np.mean([film.iou for film in films], axis=0))


def _at_least(numbers: NDArray[np.intp]) -> Int64:
    """Turn counts of pixels that reach exactly k thresholds into those that reach threshold k or more."""
    return np.cumsum(numbers[::-1])[::-1][1:].astype(np.int64)


def _share(part: Int64, whole: Int64) -> Float64:
    return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), 1.0), dtype=np.float64)
