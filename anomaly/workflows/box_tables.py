"""boxes.csv: the boxes that a method drew; truth_boxes.csv: those the scans came with; both in pixels of the film."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.records import Float64, ResultRow, ScanFile
from anomaly.runs import write_table
from anomaly.scans.boxes import find_boxes, within_film
from anomaly.workflows.results import ranked

DRAWN, TRUE = "boxes.csv", "truth_boxes.csv"
BOXED = (DRAWN, TRUE)
"""The files that a scoring run's boxes are in."""
BOXES, SHAPE = "boxes", "shape"
"""What the journal says of a scan's boxes: [[x, y, w, h, confidence], …], best first; and of every film, its [H, W]."""
_COLUMNS = ("scan_id", "path", "x", "y", "w", "h")


def write_boxes(out: Path, rows: Sequence[ResultRow], entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write boxes.csv: a line a box, films in the order of scores.csv, the boxes of each best first.

    Args:
        out: A results folder.
        rows: Of the films.
        entries: The journal's, by scan id.
    """
    table: list[list[object]] = [[*_COLUMNS, "confidence", "rank"]]
    for row, _ in ranked(rows):
        for place, (*box, confidence) in enumerate(entries[row.scan_id].get(BOXES) or (), start=1):
            table.append([row.scan_id, row.path, *(f"{v:.2f}" for v in box), f"{confidence:.6g}", place])
    write_table(out / DRAWN, table)


def true_boxes(every: Sequence[ScanFile], files: Sequence[ScanFile]) -> tuple[list[Float64 | None], list[str]]:
    """Return the boxes that the scans came with, for an evaluation.

    Tables that do not fit are passed over: they are no reason not to score.

    Args:
        every: All there are in SCANS.
        files: Those to be scored.

    Returns:
        For each of `files` float64 (n, 4): x, y, w, h, or None where nothing is known; and remarks, in sentences.
    """
    try:
        found = find_boxes(every, strict=False)
    except DataError as error:
        return [None] * len(files), [f"The scans' own boxes were passed over: {error}"]
    return [found.get(file.scan_id) for file in files], []


def write_true_boxes(
    out: Path, rows: Sequence[ResultRow], known: Mapping[str, Float64], entries: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Write truth_boxes.csv where boxes are known: a line a box, one with empty cells for a film known to have none.

    Args:
        out: A results folder.
        rows: Of the films.
        known: scan_id -> float64 (n, 4): x, y, w, h.
        entries: The journal's, by scan id.

    Returns:
        Remarks on films whose boxes are not used, since they lie outside.
    """
    table: list[list[object]] = [[*_COLUMNS]]
    wrong = []
    for row, _ in ranked(rows):
        shape = entries[row.scan_id].get(SHAPE)
        if row.scan_id not in known or shape is None:
            continue
        try:
            boxes = within_film(known[row.scan_id], (shape[0], shape[1]), row.path)
        except DataError as error:
            wrong.append(str(error))
            continue
        cells = [[f"{v:.2f}" for v in box] for box in boxes] or [[""] * 4]
        table += [[row.scan_id, row.path, *own] for own in cells]
    if len(table) > 1:
        write_table(out / TRUE, table)
    return [f"The boxes of {len(wrong)} films were passed over, the first: {wrong[0]}"] if wrong else []


def read_true_boxes(out: Path) -> dict[str, Float64] | None:
    """Read truth_boxes.csv back: scan_id -> float64 (n, 4): x, y, w, h, n >= 0; None where there is none.

    Raises:
        DataError: It is not as `write_true_boxes` writes it.
    """
    path = out / TRUE
    if not path.is_file():
        return None
    found: dict[str, list[list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for record in csv.DictReader(file):
                own = found.setdefault(record["scan_id"], [])
                if record["x"]:
                    own.append([float(record[name]) for name in "xywh"])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}): score again.") from error
    return {scan_id: np.array(own, np.float64).reshape(-1, 4) for scan_id, own in found.items()}
