"""`anomaly evaluate`: how well the scores separate known normals from known abnormals, beside trivial baselines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.evaluate.classify import UnknownClassError
from anomaly.evaluate.intervals import wilson
from anomaly.evaluate.subgroups import SubgroupRow
from anomaly.evaluate.table import MetricRow, evaluate_scores, to_dicts, to_markdown
from anomaly.records import ABNORMAL, NORMAL, Float64, Int64
from anomaly.runs import RECEIPT, read_json, write_json, write_text
from anomaly.workflows.beside_table import Entries, LabelFree, WithinSoftness, beside_table
from anomaly.workflows.beside_table import to_markdown as beside_to_markdown
from anomaly.workflows.box_evaluation import BoxEvaluation, evaluate_boxes
from anomaly.workflows.box_evaluation import to_markdown as boxes_to_markdown
from anomaly.workflows.classification import Classification, classify, to_dict
from anomaly.workflows.given_labels import GivenLabels, read_labels
from anomaly.workflows.journal import read_journal
from anomaly.workflows.localisation import Localisation, localise
from anomaly.workflows.localisation import to_markdown as localisation_to_markdown
from anomaly.workflows.results import ScoreLine, flags, read_scores

EVALUATION = "evaluation.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The table, and what stood behind it."""

    rows: list[MetricRow]
    unknown: int
    failed: int
    alarms: dict[str, Any] | None
    """Share of normals flagged at the run's alpha: {alpha, flagged, normals, rate, low, high}."""
    notes: tuple[str, ...]
    within_softness: WithinSoftness | None
    """AUROC among films of like softness."""
    label_free: LabelFree
    subgroups: dict[str, list[SubgroupRow]]
    """By column: classes, views, sexes, ages; empty where the scans are not told apart."""
    classification: Classification | None = None
    """How well the classes themselves are told apart; None where the method knows none, or no scan's is known."""
    boxes: BoxEvaluation | None = None
    """How well the boxes drawn lie; None where the method draws none, or no scan's own are known."""
    localisation: Localisation | None = None
    """How well the maps lie on lesions; None where none are known."""


def evaluate(out: Path, *, labels: Path | None = None, alpha: float | None = None, n_boot: int = 2000) -> Evaluation:
    """Evaluate a scoring run and write evaluation.json and evaluation.md into it; of a classifier, its classes too.

    Args:
        out: A folder written by `anomaly score`.
        labels: A CSV as `given_labels.read_labels` takes it; None for the labels the run found in its manifest or class
            folders. The tables of a classifier keep the classes that the run found.
        alpha: At which to count false alarms among the normals; None for the run's own.
        n_boot: Bootstrap replicates, resampling whole patients.

    Raises:
        DataError: Not a results folder, or a label file that does not fit it.
        ModelError: The run's calibration is damaged.
    """
    lines = read_scores(out)
    facts = read_json(out / RECEIPT)
    alpha = float(facts["alpha"]) if alpha is None else alpha
    scored = [line for line in lines if line.row.score is not None]
    if labels is None:
        given = GivenLabels({line.row.scan_id: line.row.label for line in scored}, ())
    else:
        given = read_labels(labels, scored, name_files=not facts.get("hashed_paths"))
    kept = [(line, label) for line in scored if (label := given.known[line.row.scan_id]) is not None]
    entries = read_journal(out)
    notes = list(given.notes)
    without = sum(line.row.patient is None for line, _ in kept)
    if without:
        notes.append(f"{without} scans carry no patient id and count as their own patient in the intervals.")
    if kept:
        truth = np.array([label for _, label in kept])
        scores = np.array([line.row.score for line, _ in kept])
        groups = [line.row.patient or line.row.scan_id for line, _ in kept]
        rows = evaluate_scores(
            truth, scores, groups, baselines=_baselines(entries, [line for line, _ in kept]), n_boot=n_boot
        )
        notes += _doubts(truth, scores)
    else:
        rows = []
        notes.append("Not computable: no scan has a label. Give --labels CSV with the columns path and label.")
    classification = None
    try:
        classification = classify(out, n_boot=n_boot)
    except UnknownClassError as error:  # a set with other classes: its normals and abnormals count all the same
        notes.append(f"No tables of classes. {error}")
    boxes = evaluate_boxes(out, scored, n_boot=n_boot)
    notes += [] if boxes is None else boxes.notes
    told = [replace(line, row=replace(line.row, label=given.known[line.row.scan_id])) for line in scored]
    localisation = localise(out, told, n_boot=n_boot)
    notes += [] if localisation is None else localisation.notes
    beside = beside_table(out, scored, kept, entries, n_boot=n_boot)
    notes += beside.notes
    evaluation = Evaluation(
        rows,
        len(scored) - len(kept),
        len(lines) - len(scored),
        _alarms(kept, alpha),
        tuple(notes),
        beside.within_softness,
        beside.label_free,
        beside.subgroups,
        classification,
        boxes,
        localisation,
    )
    write_json(
        out / EVALUATION,
        {
            "rows": to_dicts(rows),
            "unknown_labels": evaluation.unknown,
            "failed": evaluation.failed,
            "false_alarms": evaluation.alarms,
            "notes": list(notes),
            **beside.to_dict(),
            "classification": None if classification is None else to_dict(classification),
            "boxes": None if boxes is None else boxes.to_dict(),
            "localisation": None if localisation is None else localisation.to_dict(),
        },
    )
    parts = [to_markdown(rows) if rows else "\n".join(notes), beside_to_markdown(beside)]
    parts += [] if boxes is None else [boxes_to_markdown(boxes)]
    parts += [] if localisation is None else [localisation_to_markdown(localisation)]
    write_text(out / "evaluation.md", "\n\n".join(part for part in parts if part) + "\n")
    return evaluation


def _doubts(truth: Int64, scores: Float64) -> list[str]:
    """Say what stands in the way of a figure that means something: labels int64 (N,), scores float64 (N,)."""
    doubts = [
        f"Not computable: no scan is labelled {name}, and one class alone shows no separation."
        for label, name in ((NORMAL, "normal"), (ABNORMAL, "abnormal"))
        if not np.any(truth == label)
    ]
    distinct = len(np.unique(scores))
    if len(scores) > 1 and distinct == 1:
        doubts.append(f"All {len(scores)} scores are equal: they say nothing, and an AUROC of 0.5 is of ties alone.")
    elif 2 * distinct <= len(scores):
        doubts.append(f"Only {distinct} distinct scores among {len(scores)} scans: ties count one half.")
    return doubts


def _baselines(entries: Entries, lines: list[ScoreLine]) -> dict[str, Float64]:
    """Return the trivial statistics of these scans, leaving out any that is the same for all of them."""
    trivial = [(entries.get(line.row.scan_id) or {}).get("trivial") for line in lines]
    known = [values for values in trivial if values is not None]
    if len(known) < len(lines) or not known:
        return {}
    columns = {name: np.array([values[name] for values in known]) for name in known[0]}
    return {name: values for name, values in columns.items() if np.ptp(values) > 0}


def _alarms(kept: list[tuple[ScoreLine, int]], alpha: float) -> dict[str, Any] | None:
    p_values = [line.row.p_value for line, label in kept if label == NORMAL and line.row.p_value is not None]
    if not p_values:
        return None
    flagged = sum(flags(p, alpha) for p in p_values)
    interval = wilson(flagged, len(p_values))
    return {
        "alpha": alpha,
        "flagged": flagged,
        "normals": len(p_values),
        "rate": flagged / len(p_values),
        "low": interval.low,
        "high": interval.high,
    }
