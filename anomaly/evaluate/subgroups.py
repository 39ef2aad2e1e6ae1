"""AUROC of parts of the films: kinds of abnormal film, views, sexes, ages; with patient-clustered intervals.

A method may work on one kind of finding or of patient and fail on another, which one AUROC hides (Oakden-Rayner et
al., "Hidden Stratification Causes Clinically Meaningful Failures", ACM CHIL 2020).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError
from anomaly.evaluate.curves import CURVE_METRICS, curve_replicates
from anomaly.evaluate.intervals import Interval, proportion
from anomaly.evaluate.metrics import NO_ABNORMAL, NO_NORMAL, auroc, auroc_of
from anomaly.evaluate.resample import fewest_patients, group_numbers
from anomaly.records import ABNORMAL, NORMAL

FEW_PATIENTS = "not computable: it needs at least two normal and two abnormal patients"
AGE_BANDS = ("0-17", "18-39", "40-59", "60-79", "80+")
_FROM = (18, 40, 60, 80)  # where each band after the first begins
_OLDEST = 150
_AGE = re.compile(
    r"(\d+(?:\.\d+)?)\s*(y|yr|yrs|year|years|m|mo|month|months|w|wk|week|weeks|d|day|days)?", re.IGNORECASE
)
_IN_A_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}


@dataclass(frozen=True, slots=True)
class SubgroupRow:
    """AUROC of one subgroup, its 95 % interval and its films; None where not computable, and `note` says why."""

    value: str
    n_normal: int
    n_abnormal: int
    n_patients: int
    auroc: float | None = None
    interval: Interval | None = None
    note: str | None = None


def subgroup_aurocs(
    values: Sequence[str | None],
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    kinds: bool = False,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[SubgroupRow]:
    """AUROC within each subgroup that a column of values makes.

    Args:
        values: (N,), the subgroup of each film; films of None are in no subgroup.
        labels: (N,), 0 or 1.
        scores: (N,), finite, higher is more abnormal.
        groups: (N,), patient of each film.
        kinds: the values are kinds of abnormal film: each kind's films against all normals, of whatever value. False:
            normal and abnormal films of the subgroup alone.
        n_boot: bootstrap replicates.
        seed: of the resamples.

    Returns:
        One row a value, sorted by it; of kinds, only those that abnormal films have. A subgroup that lacks a class, or
        has fewer than two patients of one, is a row with a note and no AUROC.

    Raises:
        DataError: shapes, labels other than 0 and 1, or scores that are not finite.
        UsageError: `n_boot` below 1.
    """
    truth, given = np.asarray(labels), np.asarray(scores)
    if truth.ndim != 1 or given.shape != truth.shape or len(values) != len(truth):
        raise DataError(f"values ({len(values)},), labels {truth.shape}, scores {given.shape} must all be (N,)")
    if not np.isin(truth, (NORMAL, ABNORMAL)).all():
        raise DataError("labels must be 0 (normal) or 1 (abnormal); leave out films of unknown label")
    if given.dtype.kind not in "biuf" or not np.isfinite(given).all():
        raise DataError(f"scores {given.dtype} must be finite numbers")
    patients = group_numbers(groups, len(truth))
    held = np.array([value or "" for value in values], dtype=object)
    sick = truth == ABNORMAL
    rows = []
    for value in sorted(set(held[sick] if kinds else held) - {""}):
        films = (held == value) & sick | ~sick if kinds else held == value
        rows.append(_row(value, truth[films].astype(np.int64), given[films], patients[films], n_boot, seed))
    return rows


def age_bands(values: Sequence[str | None]) -> list[str | None]:
    """Put ages into `AGE_BANDS`.

    Args:
        values: years as a number ("45", "45.5"), DICOM's age strings ("045Y", "004M", "002W", "010D"), or the same with
            a space or a longer word ("4 m", "45 years").

    Returns:
        The band of each; None where there is no age or it cannot be read, such as "60+" or one above 150 years.
    """
    return [None if value is None else _band(value) for value in values]


def _band(text: str) -> str | None:
    read = _AGE.fullmatch(text.strip())
    if read is None:
        return None
    years = float(read[1]) / _IN_A_YEAR[(read[2] or "y")[0].lower()]
    return AGE_BANDS[int(np.searchsorted(_FROM, years, side="right"))] if years <= _OLDEST else None


def _row(
    value: str, truth: NDArray[Any], scores: NDArray[Any], patients: NDArray[Any], n_boot: int, seed: int
) -> SubgroupRow:
    n_abnormal = int(np.count_nonzero(truth == ABNORMAL))
    n_normal = len(truth) - n_abnormal
    counts = (n_normal, n_abnormal, len(np.unique(patients)))
    if not n_normal or not n_abnormal:
        return SubgroupRow(value, *counts, note=NO_NORMAL if n_abnormal else NO_ABNORMAL)
    fewest = fewest_patients(truth, patients)
    if fewest < 2:
        return SubgroupRow(value, *counts, note=FEW_PATIENTS)
    areas = curve_replicates(truth, scores, patients, n=n_boot, seed=seed)[:, 0, CURVE_METRICS.index(auroc_of)]
    return SubgroupRow(value, *counts, auroc(truth, scores), proportion(areas, fewest))
