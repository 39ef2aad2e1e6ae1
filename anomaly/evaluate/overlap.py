"""Do masks lie where people drew them? Overlap of one mask with another, film by film, with intervals.

Dice and IoU: Dice, Ecology 26 (1945); Jaccard, New Phytologist 11 (1912). For one film each is a function of the other,
but their means over films are not; which films are hard is the same for both. What is rare in a film is judged harder
than what fills it, so a guess that looks at no film is measured beside: the mean training mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError
from anomaly.evaluate.intervals import Interval, mean_interval
from anomaly.evaluate.resample import group_numbers

MEASURES = ("dice", "iou", "sensitivity", "precision")


@dataclass(frozen=True, slots=True)
class Overlap:
    """How one film's mask agrees with the true one: all in [0, 1].

    `sensitivity` is the share of the true mask that was found, `precision` the share of what was found that is true:
    None where nothing was found.
    """

    dice: float
    iou: float
    sensitivity: float
    precision: float | None


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A measure over films: `n` of them, its mean, quartiles and lowest.

    `interval` is the mean's, whole patients resampled, None where there is one patient.
    """

    name: str
    n: int
    mean: float
    interval: Interval | None
    low_quartile: float
    median: float
    high_quartile: float
    lowest: float


def overlap(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Overlap:
    """Compare two masks.

    Args:
        found: bool (H, W).
        truth: bool (H, W), at least one pixel set.

    Raises:
        DataError: Shapes or types differ, or the true mask is empty.
    """
    if found.shape != truth.shape or found.dtype != np.bool_ or truth.dtype != np.bool_:
        raise DataError(f"masks must be bool and of one shape; they are {found.dtype} {found.shape}, {truth.dtype}, "
                        f"{truth.shape}")  # fmt: skip
    true, called = int(np.count_nonzero(truth)), int(np.count_nonzero(found))
    if not true:
        raise DataError("not computable: the true mask is empty")
    hits = int(np.count_nonzero(found & truth))
    precision = hits / called if called else None
    return Overlap(2 * hits / (true + called), hits / (true + called - hits), hits / true, precision)


def summarise(
    films: Sequence[Overlap], patients: Sequence[str], *, n_boot: int = 2000, seed: int = 0
) -> list[MeasureRow]:
    """Return what N films come to in each measure; where nothing was found a film has no precision and does not count.

    Args:
        films: N of `overlap`, at least one.
        patients: N keys; films with an equal key belong to one patient.
        n_boot: Replicates.
        seed: Of the resamples.

    Raises:
        DataError: Lengths differ, or no film.
        UsageError: `n_boot` below 1.
    """
    if not films or len(films) != len(patients):
        raise DataError(f"{len(films)} films and {len(patients)} patients: give at least one, and one patient a film")
    keys = np.asarray(patients)
    rows = []
    for name in MEASURES:
        told = [getattr(film, name) for film in films]
        known = np.array([value is not None for value in told])
        if known.any():
            values = np.array([value for value in told if value is not None], np.float64)
            rows.append(_row(name, values, keys[known], n_boot, seed))
    return rows


def lead(
    ours: Sequence[float], others: Sequence[float], patients: Sequence[str], *, n_boot: int = 2000, seed: int = 0
) -> MeasureRow:
    """Return by how much one measure is above another on the same films, as a row named "difference"."""
    change = np.asarray(ours, np.float64) - np.asarray(others, np.float64)
    return _row("difference", change, np.asarray(patients), n_boot, seed)


def to_markdown(tables: Mapping[str, Sequence[MeasureRow]]) -> str:
    """Return the rows of several masks beside each other as a table: name of the mask -> its rows."""
    lines = ["| mask | measure | scans | mean [95 %] | median | quartiles | lowest |", "|---|---|---|---|---|---|---|"]
    for mask, rows in tables.items():
        for row in rows:
            between = f" [{row.interval.low:.3f}, {row.interval.high:.3f}]" if row.interval else ""
            quartiles = f"{row.low_quartile:.3f} to {row.high_quartile:.3f}"
            cells = (mask, row.name, row.n, f"{row.mean:.3f}{between}", f"{row.median:.3f}", quartiles)
            lines.append(f"| {' | '.join(map(str, cells))} | {row.lowest:.3f} |")
    return "\n".join(lines)


def _row(name: str, values: NDArray[np.float64], patients: NDArray[np.str_], n_boot: int, seed: int) -> MeasureRow:
    several = len(np.unique(group_numbers(patients, len(values)))) > 1
    interval = mean_interval(values, patients, n=n_boot, seed=seed) if several else None
    low, median, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return MeasureRow(name, len(values), float(values.mean()), interval, low, median, high, float(values.min()))
