"""What an evaluation says beside its table: AUROC among films of like softness and of subgroups, and without labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.calibrate import CALIBRATION, load_calibration
from anomaly.errors import DataError
from anomaly.evaluate.label_free import NormalPValues, aucp, normal_p_values
from anomaly.evaluate.strata import stratified_auroc
from anomaly.evaluate.subgroups import SubgroupRow, subgroup_aurocs
from anomaly.records import NORMAL
from anomaly.workflows.results import ScoreLine
from anomaly.workflows.subgroups import columns_of

SOFTNESS = "softness"
_MOST = 20  # subgroups of a column

Labelled = Sequence[tuple[ScoreLine, int]]
Entries = Mapping[str, Mapping[str, Any]]
"""Of the journal, by scan id."""


@dataclass(frozen=True, slots=True)
class WithinSoftness:
    """`evaluate.strata.StratifiedAuroc` over strata of the film's softness: how much of the AUROC that leaves.

    `leftover` is what softness itself still tells within them; `dropped` strata lack a class.
    """

    auroc: float
    low: float
    high: float
    leftover: float
    dropped: int


@dataclass(frozen=True, slots=True)
class LabelFree:
    """AUCp of `scans` scored scans against `held_out` normals, None without any; p-values of normals, None too."""

    aucp: float | None
    held_out: int
    scans: int
    p_values: NormalPValues | None


@dataclass(frozen=True, slots=True)
class Beside:
    """All of it; `subgroups` by column. What is not computable is None or empty, and `notes` say why."""

    within_softness: WithinSoftness | None
    label_free: LabelFree
    subgroups: dict[str, list[SubgroupRow]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
        found = asdict(self)
        del found["notes"]
        return found


def beside_table(out: Path, scored: Sequence[ScoreLine], kept: Labelled, entries: Entries, *, n_boot: int) -> Beside:
    """Look at a scoring run in these ways.

    Args:
        out: The results folder, whose calibration a scoring run keeps.
        scored: Its scans that have a score.
        kept: Those of known label, with it.
        entries: Its journal.
        n_boot: Bootstrap replicates, resampling whole patients.

    Raises:
        ModelError: The calibration is damaged.
    """
    notes: list[str] = []
    both = len({label for _, label in kept}) == 2
    softness = _within_softness(kept, entries, n_boot, notes) if both else None
    groups = _subgroups(kept, entries, n_boot, notes) if both else {}
    return Beside(softness, _label_free(out, scored, kept, entries), groups, tuple(notes))


def to_markdown(beside: Beside) -> str:
    """Return a line each for softness, AUCp and p-values, and one table of subgroups; empty without any of them."""
    parts = ["\n".join(lines)] if (lines := told(beside)) else []
    if beside.subgroups:
        table = [["subgroup", "normal", "abnormal", "patients", "AUROC", "note"], ["---", *["---:"] * 4, "---"]]
        for column, rows in beside.subgroups.items():
            for row in rows:
                counts = [str(count) for count in (row.n_normal, row.n_abnormal, row.n_patients)]
                area = "n/a" if row.auroc is None else f"{row.auroc:.3f}"
                area += "" if row.interval is None else f" [{row.interval.low:.3f}, {row.interval.high:.3f}]"
                table.append([f"{column}: {row.value}".replace("|", r"\|"), *counts, area, row.note or ""])
        parts.append("\n".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |" for line in table))
    return "\n\n".join(parts)


def told(beside: Beside) -> list[str]:
    """Return the sentences of softness, AUCp and p-values that can be said."""
    lines = []
    soft, free = beside.within_softness, beside.label_free
    if soft is not None:
        dropped = f"; strata that lack a class: {soft.dropped}" if soft.dropped else ""
        lines.append(
            f"* AUROC among films of like softness: {soft.auroc:.3f} [{soft.low:.3f}, {soft.high:.3f}] "
            f"(softness itself still tells {soft.leftover:.3f} there{dropped})."
        )
    if free.aucp is not None:
        lines.append(
            f"* Without labels, AUCp: {free.aucp:.3f} ({free.scans} scans against {free.held_out} held-out normals)."
        )
    if free.p_values is not None:
        shares = ", ".join(f"{one.flagged} at {one.alpha:g}" for one in free.p_values.flagged)
        lines.append(f"* Of {free.p_values.n} normals, flagged by alpha: {shares}.")
    return lines


def _within_softness(kept: Labelled, entries: Entries, n_boot: int, notes: list[str]) -> WithinSoftness | None:
    values = [((entries.get(line.row.scan_id) or {}).get("trivial") or {}).get(SOFTNESS) for line, _ in kept]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        notes.append("No AUROC among films of like softness: this run did not keep their softness; score again.")
        return None
    truth = [label for _, label in kept]
    scores = np.array([line.row.score for line, _ in kept])
    try:
        found = stratified_auroc(truth, scores, known, _groups(kept), n_boot=n_boot)
    except DataError as error:
        notes.append(f"No AUROC among films of like softness: {str(error).removeprefix('not computable: ')}.")
        return None
    return WithinSoftness(found.auroc, found.interval.low, found.interval.high, found.leftover, found.dropped)


def _label_free(out: Path, scored: Sequence[ScoreLine], kept: Labelled, entries: Entries) -> LabelFree:
    held_out = load_calibration(out).scores if (out / CALIBRATION).is_file() else np.zeros(0)
    # From the journal: scores.csv rounds, and would break ties with the held-out scores.
    exact = [(entries.get(line.row.scan_id) or {}).get("score") or line.row.score for line in scored]
    p_values = [line.row.p_value for line, label in kept if label == NORMAL and line.row.p_value is not None]
    return LabelFree(
        aucp(held_out, np.array(exact)) if len(held_out) and exact else None,
        len(held_out),
        len(exact),
        normal_p_values(p_values) if p_values else None,
    )


def _subgroups(kept: Labelled, entries: Entries, n_boot: int, notes: list[str]) -> dict[str, list[SubgroupRow]]:
    own = [entries.get(line.row.scan_id) or {} for line, _ in kept]
    columns = columns_of(
        [entry.get("class_name") for entry in own],
        [entry.get("view") for entry in own],
        [line.row.extra for line, _ in kept],
    )
    truth = np.array([label for _, label in kept])
    scores = np.array([line.row.score for line, _ in kept])
    found = {}
    for name, (values, kinds) in columns.items():
        films = Counter(value for value, label in zip(values, truth, strict=True) if value and (label or not kinds))
        if len(films) > _MOST:
            notes.append(f"Subgroups by {name}: the {_MOST} commonest of {len(films)}.")
        common = {value for value, _ in films.most_common(_MOST)}
        if len(common) > 1:
            shown = [value if value in common else None for value in values]
            found[name] = subgroup_aurocs(shown, truth, scores, _groups(kept), kinds=kinds, n_boot=n_boot)
    return found


def _groups(kept: Labelled) -> list[str]:
    return [line.row.patient or line.row.scan_id for line, _ in kept]
