"""`anomaly evaluate`: how well the scores separate known normals from known abnormals, beside trivial baselines."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.evaluate.classify import UnknownClassError
from anomaly.evaluate.intervals import wilson
from anomaly.evaluate.table import MetricRow, evaluate_scores, to_dicts, to_markdown
from anomaly.records import NORMAL
from anomaly.runs import RECEIPT, read_json, write_json, write_text
from anomaly.scans.manifest import parse_label
from anomaly.workflows.box_evaluation import BoxEvaluation, evaluate_boxes
from anomaly.workflows.box_evaluation import to_markdown as boxes_to_markdown
from anomaly.workflows.classification import Classification, classify, to_dict
from anomaly.workflows.journal import read_journal
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
    classification: Classification | None = None
    """How well the classes themselves are told apart; None where the method knows none, or no scan's is known."""
    boxes: BoxEvaluation | None = None
    """How well the boxes drawn lie; None where the method draws none, or no scan's own are known."""


def evaluate(out: Path, *, labels: Path | None = None, alpha: float | None = None, n_boot: int = 2000) -> Evaluation:
    """Evaluate a scoring run and write evaluation.json and evaluation.md into it; of a classifier, its classes too.

    Args:
        out: A folder written by `anomaly score`.
        labels: A CSV with `scan_id` or `path`, and `label` (0, 1, normal, abnormal, empty); None for the labels the
            run found in its manifest or class folders. The tables of a classifier keep the classes that the run found.
        alpha: At which to count false alarms among the normals; None for the run's own.
        n_boot: Bootstrap replicates, resampling whole patients.

    Raises:
        DataError: Not a results folder, or a label file that does not fit it.
    """
    lines = read_scores(out)
    alpha = float(read_json(out / RECEIPT)["alpha"]) if alpha is None else alpha
    scored = [line for line in lines if line.row.score is not None]
    known = _labels(scored, labels)
    kept = [(line, known[line.row.scan_id]) for line in scored if known.get(line.row.scan_id) is not None]
    notes = []
    without = sum(line.row.patient is None for line, _ in kept)
    if without:
        notes.append(f"{without} scans carry no patient id and count as their own patient in the intervals.")
    if kept:
        truth = np.array([label for _, label in kept])
        scores = np.array([line.row.score for line, _ in kept])
        groups = [line.row.patient or line.row.scan_id for line, _ in kept]
        rows = evaluate_scores(
            truth, scores, groups, baselines=_baselines(out, [line for line, _ in kept]), n_boot=n_boot
        )
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
    evaluation = Evaluation(
        rows,
        len(scored) - len(kept),
        len(lines) - len(scored),
        _alarms(kept, alpha),
        tuple(notes),
        classification,
        boxes,
    )
    write_json(
        out / EVALUATION,
        {
            "rows": to_dicts(rows),
            "unknown_labels": evaluation.unknown,
            "failed": evaluation.failed,
            "false_alarms": evaluation.alarms,
            "notes": list(notes),
            "classification": None if classification is None else to_dict(classification),
            "boxes": None if boxes is None else boxes.to_dict(),
        },
    )
    text = to_markdown(rows) if rows else "\n".join(notes)
    write_text(out / "evaluation.md", text + ("" if boxes is None else f"\n\n{boxes_to_markdown(boxes)}") + "\n")
    return evaluation


def _labels(lines: list[ScoreLine], file: Path | None) -> dict[str, int | None]:
    if file is None:
        return {line.row.scan_id: line.row.label for line in lines}
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as handle:
            table = csv.DictReader(handle)
            columns = table.fieldnames or ()
            key = next((name for name in ("scan_id", "path") if name in columns), None)
            if key is None or "label" not in columns:
                raise DataError(f"{file} needs the columns path (or scan_id) and label; it has: {', '.join(columns)}.")
            where = f"{file}, line"
            given = {record[key]: parse_label(record["label"] or "", f"{where} {table.line_num}") for record in table}
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"Cannot read the labels {file}: {reason}; give a CSV with the columns path and label."
        ) from error
    names = {line.row.scan_id: line.row.scan_id if key == "scan_id" else line.row.path for line in lines}
    if given and given.keys().isdisjoint(names.values()):
        raise DataError(
            f"No {key} in {file} is one of this run's (the first is {next(iter(given))!r}): use those of scores.csv."
        )
    return {scan_id: given.get(name) for scan_id, name in names.items()}


def _baselines(out: Path, lines: list[ScoreLine]) -> dict[str, Any]:
    """Return the trivial statistics of these scans, leaving out any that is the same for all of them."""
    entries = read_journal(out)
    trivial = [(entries.get(line.row.scan_id) or {}).get("trivial") for line in lines]
    known = [values for values in trivial if values is not None]
    if len(known) < len(lines) or not known:
        return {}
    columns = {name: np.array([values[name] for values in known]) for name in known[0]}
    return {name: values for name, values in columns.items() if np.ptp(values) > 0}


def _alarms(kept: list[tuple[ScoreLine, int | None]], alpha: float) -> dict[str, Any] | None:
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
