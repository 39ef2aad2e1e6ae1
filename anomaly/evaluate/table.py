"""The results table: the method first, then each trivial baseline, all on the same films and the same resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError
from anomaly.evaluate.baselines import directed_auroc
from anomaly.evaluate.curves import CURVE_METRICS, curve_replicates
from anomaly.evaluate.intervals import Interval, proportion
from anomaly.evaluate.metrics import NO_ABNORMAL, NO_NORMAL, f1_max_of, prevalence, tally
from anomaly.evaluate.resample import fewest_patients, group_numbers
from anomaly.records import ABNORMAL

METHOD = "score"
NO_INTERVAL = "no interval: it needs at least two normal and two abnormal patients"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One line of the table. Metrics are in [0, 1]; None where they cannot be computed, and `note` says why.

    `direction` says which way abnormal films lie: always "higher" for the method, whose direction is fixed
    beforehand; chosen by the data, in its favour, for a baseline. Intervals are 95 %, clustered by patient.
    `sensitivity_at_95_specificity` and `fpr_at_95_sensitivity`, the normals flagged there, describe these films (see
    `metrics.operating_point`); they set no threshold. `f1_max_oracle` is picked with the answers: never a result.
    """

    name: str
    n_normal: int
    n_abnormal: int
    n_patients: int
    prevalence: float
    auroc: float | None = None
    auroc_interval: Interval | None = None
    average_precision: float | None = None
    average_precision_interval: Interval | None = None
    sensitivity_at_95_specificity: float | None = None
    sensitivity_at_95_specificity_interval: Interval | None = None
    fpr_at_95_sensitivity: float | None = None
    fpr_at_95_sensitivity_interval: Interval | None = None
    f1_max_oracle: float | None = None
    direction: str | None = None
    note: str | None = None


def evaluate_scores(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    baselines: Mapping[str, ArrayLike] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    name: str = METHOD,
) -> list[MetricRow]:
    """Evaluate a method's scores, and each baseline's, on the same films.

    Args:
        labels: (N,), 0 normal or 1 abnormal; films of unknown label are left out, and counted, by the caller.
        scores: (N,), finite, higher is more abnormal.
        groups: (N,), patient of each film, numbers or strings.
        baselines: name -> (N,), finite, of either direction.
        n_boot: bootstrap replicates, shared by all rows.
        seed: of the resamples.
        name: of the method's row.

    Returns:
        The method's row, then one a baseline in the order given. Where one class is missing the rows hold None and
        the note "not computable: no abnormal labels" (or normal); where a class has one patient, no intervals.

    Raises:
        DataError: shapes differ, no films, labels other than 0 and 1, or values that are not finite.
    """
    truth: NDArray[Any] = np.asarray(labels)
    share = prevalence(truth)
    patients = group_numbers(groups, len(truth))
    n_abnormal = int(np.count_nonzero(truth == ABNORMAL))
    names = [name, *(baselines or {})]
    given = [np.asarray(scores), *(np.asarray(values) for values in (baselines or {}).values())]
    for title, values in zip(names, given, strict=True):
        if values.shape != truth.shape or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise DataError(f"{title}: {values.shape} {values.dtype} must be one finite number a film {truth.shape}")
    counts = (len(truth) - n_abnormal, n_abnormal, len(np.unique(patients)), share)
    if n_abnormal in (0, len(truth)):
        note = NO_NORMAL if n_abnormal else NO_ABNORMAL
        return [MetricRow(title, *counts, note=note) for title in names]

    truth = truth.astype(np.int64)
    directions = ["higher", *(directed_auroc(truth, values)[1] for values in given[1:])]
    columns = [v.astype(np.float64) * (1 if d == "higher" else -1) for v, d in zip(given, directions, strict=True)]
    fewest = fewest_patients(truth, patients)
    intervals: list[list[Interval | None]] = [[None] * len(CURVE_METRICS) for _ in columns]
    if fewest > 1:
        drawn = curve_replicates(truth, np.column_stack(columns), patients, n=n_boot, seed=seed)
        intervals = [[proportion(values, fewest) for values in column.T] for column in drawn.swapaxes(0, 1)]
    rows = []
    for title, column, direction, around in zip(names, columns, directions, intervals, strict=True):
        films = tally(truth, column)
        area, precision, sensitivity, fpr = (metric(films) for metric in CURVE_METRICS)
        row = MetricRow(
            title,
            *counts,
            auroc=area,
            auroc_interval=around[0],
            average_precision=precision,
            average_precision_interval=around[1],
            sensitivity_at_95_specificity=sensitivity,
            sensitivity_at_95_specificity_interval=around[2],
            fpr_at_95_sensitivity=fpr,
            fpr_at_95_sensitivity_interval=around[3],
            f1_max_oracle=f1_max_of(films),
            direction=direction,
            note=None if fewest > 1 else NO_INTERVAL,
        )
        rows.append(row)
    return rows


def to_dicts(rows: Sequence[MetricRow]) -> list[dict[str, object]]:
    """Return the rows as plain values for JSON: an interval becomes {low, high, level, n_boot}."""
    return [asdict(row) for row in rows]


def to_markdown(rows: Sequence[MetricRow]) -> str:
    """Return the rows as a GitHub table, one header line, intervals in brackets, no trailing newline."""
    head = ["", "normal", "abnormal", "patients", "prevalence", "AUROC", "AP", "sensitivity at 95 % specificity"]
    head += ["FPR at 95 % sensitivity", "F1-max (oracle)", "abnormal is", "note"]
    lines = [head, ["---"] + ["---:"] * 9 + ["---"] * 2]
    for row in rows:
        cells = [row.name, str(row.n_normal), str(row.n_abnormal), str(row.n_patients), f"{row.prevalence:.3f}"]
        cells.append(_cell(row.auroc, row.auroc_interval))
        cells.append(_cell(row.average_precision, row.average_precision_interval))
        cells.append(_cell(row.sensitivity_at_95_specificity, row.sensitivity_at_95_specificity_interval))
        cells.append(_cell(row.fpr_at_95_sensitivity, row.fpr_at_95_sensitivity_interval))
        cells.append(_cell(row.f1_max_oracle, None))
        lines.append([*cells, row.direction or "", row.note or ""])
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _cell(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _plain(cell: str) -> str:
    """A cell that cannot break the table: no pipes, no line breaks."""
    return " ".join(cell.split()).replace("|", r"\|")
