"""The table of a comparison: recipes with their seeds together, the trivial baselines, and what differences are worth.

Everything is resampled at once: a replicate draws patients, and every recipe and seed is measured on that same draw.
An interval is of the mean over seeds, with the films as the source of chance; the seeds' own spread stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from anomaly.errors import DataError
from anomaly.evaluate.baselines import directed_auroc
from anomaly.evaluate.curves import CURVE_METRICS, curve_replicates
from anomaly.evaluate.delong import DeLong, contrast, delong
from anomaly.evaluate.holm import holm
from anomaly.evaluate.intervals import compared, least_p_value, proportion
from anomaly.evaluate.metrics import f1_max_of, tally
from anomaly.evaluate.resample import fewest_patients, group_numbers
from anomaly.evaluate.strata import stratified_auroc
from anomaly.records import Float64, Int64

METRICS = ("auroc", "average_precision", "sensitivity_at_95_specificity", "fpr_at_95_sensitivity")
"""What has an interval, by its name in the table, in the order of `CURVE_METRICS`."""
NORMAL_ONLY, SUPERVISED, BASELINE = "normals only", "supervised", "trivial baseline"
TRIVIAL = "best trivial number"
_REPLICATES = 2000


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric: the mean over seeds, the seeds' standard deviation (None of one), a 95 % interval (None without)."""

    value: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What is compared: `columns` float64 (N, seeds), higher is more abnormal, on the films in one common order."""

    name: str
    kind: str
    columns: Float64


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a recipe, or a trivial baseline whose `direction` the labels chose, in its favour.

    `figures` by name: those of `METRICS`, `f1_max_oracle`, whose threshold is picked with the answers, and
    `auroc_within_softness` where it can be computed.
    """

    name: str
    kind: str
    seeds: int
    figures: dict[str, Figure]
    direction: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """AUROC of `one` minus that of `other`, seeds averaged: by patients resampled together, and by DeLong.

    `p_patients` and `p_delong` are two-sided, the `_holm` ones adjusted for all pairs of the comparison; DeLong's are
    None where its variance is 0 and the difference is not. DeLong takes films as independent.
    """

    one: str
    other: str
    difference: float
    low: float
    high: float
    p_patients: float
    p_patients_holm: float
    p_delong: float | None
    p_delong_holm: float | None


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` as given, then the baselines, strongest first; `pairs` of all recipes and the best baseline."""

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    n_normal: int
    n_abnormal: int
    n_patients: int
    least_p: float
    """The least `p_patients_holm` that as many replicates can give."""
    softness_leftover: float | None
    """AUROC of softness itself within the strata that it is cut into: what they leave of it."""


def tabulate(
    labels: Int64,
    patients: Sequence[str],
    scores: Sequence[Scores],
    trivial: Mapping[str, Float64],
    *,
    nuisance: str = "softness",
    n_boot: int | None = None,
    seed: int = 0,
) -> Table:
    """Measure everything on the same films and the same resamples.

    Args:
        labels: int64 (N,), 0 or 1.
        patients: N keys.
        scores: Of every recipe that could be fitted, at least one.
        trivial: Name -> float64 (N,), of either direction; one that is the same for all films is left out.
        nuisance: The trivial number whose strata `auroc_within_softness` keeps within.
        n_boot: Bootstrap replicates; None for 2,000, or 200 a pair where that is more: the least p-value that they can
            give must stay small once it is adjusted for all pairs.
        seed: Of the resamples.

    Raises:
        DataError: Fewer than two patients with films of a class, or scores that are not finite.
    """
    numbers = group_numbers(list(patients), len(labels))
    fewest = fewest_patients(labels, numbers)
    if fewest < 2:
        raise DataError("A comparison needs at least two normal and two abnormal patients in the test set.")
    if n_boot is None:
        n_boot = max(_REPLICATES, 100 * len(scores) * (len(scores) + 1))  # the best baseline makes a pair with each
    lines = [*scores, *(_baseline(labels, name, values) for name, values in trivial.items() if np.ptp(values) > 0)]
    places = _places(lines)
    columns = np.column_stack([line.columns for line in lines])
    each = curve_replicates(labels, columns, numbers, n=n_boot, seed=seed)
    drawn = np.stack([each[:, own].mean(axis=1) for own in places], axis=1)  # (n_boot, lines, metrics)
    soft = trivial.get(nuisance)
    leftover: list[float] = []
    rows = []
    for i, line in enumerate(lines):
        tallies = [tally(labels, column) for column in line.columns.T]
        figures = {
            name: _figure([metric(own) for own in tallies], drawn[:, i, k], fewest)
            for k, (name, metric) in enumerate(zip(METRICS, CURVE_METRICS, strict=True))
        }
        figures["f1_max_oracle"] = _figure([f1_max_of(own) for own in tallies])
        if soft is not None and np.ptp(soft) > 0:
            within = _within(labels, line.columns, soft, numbers, min(n_boot, _REPLICATES), seed, leftover)
            figures |= {} if within is None else {"auroc_within_softness": within}
        direction = directed_auroc(labels, trivial[line.name])[1] if line.kind == BASELINE else None
        rows.append(Row(line.name, line.kind, line.columns.shape[1], figures, direction))
    methods, baselines = rows[: len(scores)], rows[len(scores) :]
    order = sorted(range(len(baselines)), key=lambda i: -baselines[i].figures["auroc"].value)
    compared_with = [*range(len(scores)), *(len(scores) + i for i in order[:1])]
    areas = drawn[:, :, METRICS.index("auroc")]
    pairs = _pairs(delong(labels, columns), [(lines[i], places[i], areas[:, i]) for i in compared_with], fewest)
    return Table(
        (*methods, *(baselines[i] for i in order)),
        pairs,
        int(np.sum(labels == 0)),
        int(np.sum(labels == 1)),
        int(numbers.max()) + 1,
        min(1.0, len(pairs) * least_p_value(n_boot, fewest)),
        leftover[0] if leftover else None,
    )


def _baseline(labels: Int64, name: str, values: Float64) -> Scores:
    sign = 1.0 if directed_auroc(labels, values)[1] == "higher" else -1.0
    return Scores(name, BASELINE, sign * np.asarray(values, np.float64)[:, None])


def _places(lines: Sequence[Scores]) -> list[slice]:
    """Return which columns of all, side by side, are whose."""
    ends = np.cumsum([line.columns.shape[1] for line in lines]).tolist()
    return [slice(end - line.columns.shape[1], end) for line, end in zip(lines, ends, strict=True)]


def _figure(values: Sequence[float], drawn: Float64 | None = None, patients: int = 0) -> Figure:
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    if drawn is None:
        return Figure(mean, sd)
    interval = proportion(drawn, patients)
    return Figure(mean, sd, interval.low, interval.high)


def _within(
    labels: Int64, columns: Float64, soft: Float64, numbers: Int64, n_boot: int, seed: int, leftover: list[float]
) -> Figure | None:
    """Return the AUROC within strata of softness; None where no stratum holds films of both kinds."""
    try:
        found = stratified_auroc(labels, columns, soft, numbers, n_boot=n_boot, seed=seed)
        each = [stratified_auroc(labels, column, soft, numbers, n_boot=1).auroc for column in columns.T]
    except DataError as error:
        if "not computable" in str(error):
            return None
        raise
    leftover.append(found.leftover)
    sd = float(np.std(each, ddof=1)) if len(each) > 1 else None
    return Figure(found.auroc, sd, found.interval.low, found.interval.high)


def _pairs(found: DeLong, sides: Sequence[tuple[Scores, slice, Float64]], fewest: int) -> tuple[Pair, ...]:
    """Compare every two of a line, its columns' places, and its AUROC on each replicate, float64 (n_boot,)."""
    pairs = []
    for (one, own, first), (other, theirs, second) in combinations(sides, 2):
        weights = np.zeros(len(found.areas))
        weights[own] = 1.0 / one.columns.shape[1]
        weights[theirs] = -1.0 / other.columns.shape[1]
        by_delong = contrast(found, weights)
        pairs.append((_named(one), _named(other), compared(by_delong.difference, first - second, fewest), by_delong))
    by_patients = holm([ours.p_value for _, _, ours, _ in pairs])
    known = iter(holm([p for *_, theirs in pairs if (p := theirs.p_value) is not None]))
    return tuple(
        Pair(
            one,
            other,
            ours.difference,
            ours.interval.low,
            ours.interval.high,
            ours.p_value,
            float(adjusted),
            theirs.p_value,
            None if theirs.p_value is None else float(next(known)),
        )
        for (one, other, ours, theirs), adjusted in zip(pairs, by_patients, strict=True)
    )


def _named(line: Scores) -> str:
    return f"{TRIVIAL}: {line.name}" if line.kind == BASELINE else line.name
