"""What a comparison found, in figures: the table, and of each recipe what it took, its alarms, its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anomaly.evaluate.intervals import proportion
from anomaly.evaluate.label_free import NormalPValues, aucp, normal_p_values
from anomaly.evaluate.resample import mean_replicates
from anomaly.evaluate.subgroups import SubgroupRow, subgroup_aurocs
from anomaly.records import NORMAL, Int64
from anomaly.runs import read_json
from anomaly.workflows.compare.entrants import Entrant
from anomaly.workflows.compare.results import Found, Results
from anomaly.workflows.compare.roles import Split
from anomaly.workflows.compare.table import NORMAL_ONLY, SUPERVISED, Figure, Scores, Table, tabulate
from anomaly.workflows.evaluate import EVALUATION, evaluate
from anomaly.workflows.results import flags
from anomaly.workflows.subgroups import columns_of

_REPLICATES = 1000
"""Bootstrap replicates of what stands beside the table: subgroups, and the tables of each recipe's own folder."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a fit took, the mean over seeds, and the most memory of any; bytes of the model on disk."""

    fit_seconds: float
    seconds_per_image: float
    peak_bytes: int
    model_bytes: int
    trained: int
    runs_on: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A recipe; where not one seed could be fitted, all but `failed` is None or empty.

    `alarms` is the share of test normals flagged at the comparison's alpha, `aucp` see `evaluate.label_free`; both are
    means over seeds. `p_values` of test normals, `subgroups` by column, and `localisation` (see
    `workflows.localisation`) are of the first seed.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    failed: dict[str, str]
    cost: Cost | None = None
    alarms: Figure | None = None
    aucp: Figure | None = None
    p_values: NormalPValues | None = None
    subgroups: dict[str, list[SubgroupRow]] | None = None
    localisation: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it; `to_dict` is comparison.json."""

    table: Table
    entries: tuple[Entry, ...]
    alpha: float
    published: str | None
    trained_on: dict[str, int]
    calibrated_on: int
    unscored: int
    split_audit: list[dict[str, Any]]
    unreadable: tuple[str, ...]
    """Why files could not be read when the split was drawn, a sentence each: they take no part."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)

    @property
    def failed(self) -> dict[str, str]:
        """Return why cells failed, by their name."""
        return {cell: reason for entry in self.entries for cell, reason in entry.failed.items()}


def summarise(
    taking: Sequence[Entrant],
    split: Split,
    results: Results,
    failed: Mapping[str, str],
    audit: Mapping[str, Any],
    *,
    alpha: float,
) -> Summary:
    """Measure what finished cells found, and evaluate the folder of each recipe's first seed.

    Args:
        taking: All recipes.
        split: What is tested on.
        results: Of the finished cells.
        failed: Why the others failed, by cell.
        audit: The split's, {"rows", "notes", "unreadable"}.
        alpha: At which to count false alarms.

    Raises:
        DataError: See `tabulate`.
    """
    labels = np.array([film.label for film in results.films], np.int64)
    patients = [film.patient for film in results.films]
    scores, entries = [], []
    for entrant in taking:
        mine = [found for found in results.cells if found.cell.entrant == entrant.name]
        kind = SUPERVISED if entrant.supervised else NORMAL_ONLY
        own = {cell.name: failed[cell.name] for cell in entrant.cells if cell.name in failed}
        seeds = tuple(found.cell.recipe.seed for found in mine)
        if not mine:
            entries.append(Entry(entrant.name, kind, seeds, own))
            continue
        scores.append(Scores(entrant.name, kind, np.column_stack([found.scores for found in mine])))
        entries.append(_entry(Entry(entrant.name, kind, seeds, own), mine, results, labels, patients, alpha))
    notes = list(audit["notes"])
    if results.unscored:
        notes.append(f"{len(results.unscored)} test scans could not be read, by any recipe, and count in nothing.")
    return Summary(
        tabulate(labels, patients, scores, results.trivial),
        tuple(entries),
        alpha,
        split.published,
        dict(split.train),
        split.calibration,
        len(results.unscored),
        list(audit["rows"]),
        tuple(audit["unreadable"]),
        tuple(notes),
    )


def _entry(
    bare: Entry, mine: Sequence[Found], results: Results, labels: Int64, patients: Sequence[str], alpha: float
) -> Entry:
    first, took = mine[0], [found.took for found in mine]
    healthy = labels == NORMAL
    flagged = np.array([[flags(p, alpha) for p in found.p_values[healthy]] for found in mine], np.float64)
    groups = [patient for patient, well in zip(patients, healthy, strict=True) if well]
    interval = proportion(mean_replicates(flagged.mean(axis=0), groups), len(set(groups)))
    evaluate(first.out, alpha=alpha, n_boot=_REPLICATES)
    return Entry(
        bare.name,
        bare.kind,
        bare.seeds,
        bare.failed,
        Cost(
            float(np.mean([own.fit_seconds for own in took])),
            float(np.mean([own.seconds_per_image for own in took])),
            max(own.peak_bytes for own in took),
            max(own.model_bytes for own in took),
            took[0].trained,
            took[0].runs_on,
        ),
        Figure(float(flagged.mean()), _sd(flagged.mean(axis=1).tolist()), interval.low, interval.high),
        _aucp(mine),
        normal_p_values(first.p_values[healthy]),
        _subgroups(first, results, labels, patients),
        read_json(first.out / EVALUATION).get("localisation"),
    )


def _aucp(mine: Sequence[Found]) -> Figure:
    each = [aucp(found.calibration.scores, found.scores) for found in mine]
    return Figure(float(np.mean(each)), _sd(each))


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _subgroups(first: Found, results: Results, labels: Int64, patients: Sequence[str]) -> dict[str, list[SubgroupRow]]:
    files = [film.file for film in results.films]
    columns = columns_of([f.class_name for f in files], [f.view for f in files], [f.extra for f in files])
    found = {}
    for name, (values, kinds) in columns.items():
        rows = subgroup_aurocs(values, labels, first.scores, patients, kinds=kinds, n_boot=_REPLICATES)
        if len(rows) > 1:
            found[name] = rows
    return found
