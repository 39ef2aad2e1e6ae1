"""predictions.csv: what a classifier says of every scan it scored, class by class, most abnormal first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.detectors.base import class_term
from anomaly.errors import DataError
from anomaly.records import ResultRow
from anomaly.runs import write_table
from anomaly.workflows.results import ranked

PREDICTIONS = "predictions.csv"
COLUMNS = ("scan_id", "path", "patient", "class", "predicted")


@dataclass(frozen=True, slots=True)
class Prediction:
    """A line of predictions.csv as read back.

    `class_name` is the true class, None where unknown; `predicted` the most probable one; `probabilities` one a class,
    name -> value in [0, 1], in the order of the model's classes, the normal one first.
    """

    scan_id: str
    path: str
    patient: str | None
    class_name: str | None
    predicted: str
    probabilities: dict[str, float]


def write_predictions(out: Path, rows: Sequence[ResultRow], classes: Sequence[str]) -> None:
    """Write predictions.csv: the scored rows in the order of scores.csv. The same rows give the same bytes.

    Args:
        out: A results folder.
        rows: Those with a score hold the probability of each class in `terms`, under `class_term`.
        classes: Names of the model's classes, the normal one first; of equally probable ones the first is predicted.
    """
    terms = [class_term(name) for name in classes]
    table: list[list[object]] = [[*COLUMNS, *terms]]
    for row, _ in ranked([row for row in rows if row.score is not None]):
        values = [row.terms[term] for term in terms]
        predicted = classes[values.index(max(values))]
        known = (row.scan_id, row.path, row.patient or "", row.class_name or "")
        table.append([*known, predicted, *(f"{value:.9g}" for value in values)])
    write_table(out / PREDICTIONS, table)


def read_predictions(out: Path) -> list[Prediction]:
    """Read predictions.csv back, in its order.

    Raises:
        DataError: Missing, or not as `anomaly score` writes it.
    """
    path = out / PREDICTIONS
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        if not text.endswith("\n"):
            raise ValueError("its last line is cut short")
        head, *lines = csv.reader(io.StringIO(text, newline=""))
        classes = _classes(head)
        if classes is None:
            raise DataError(f"{path} is not a table of `anomaly score`: its columns are not the expected ones.")
        return [_prediction(line, classes) for line in lines]
    except OSError as error:
        raise DataError(f"{out} holds no {PREDICTIONS}: give a folder that a classifier scored.") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}): score again.") from error


def _classes(head: Sequence[str]) -> list[str] | None:
    """Return the names that the columns of probabilities carry, or None where they are no such columns."""
    terms = head[len(COLUMNS) :]
    names = [term[2:-1] for term in terms]
    fits = tuple(head[: len(COLUMNS)]) == COLUMNS and [class_term(name) for name in names] == terms
    return names if fits and names and len(set(names)) == len(names) else None


def _prediction(line: Sequence[str], classes: Sequence[str]) -> Prediction:
    """Return what a line says.

    Raises:
        ValueError: Too few cells or too many, a class that is no column, or no probability where one should be.
    """
    scan_id, path, patient, class_name, predicted, *cells = line
    probabilities = {name: float(cell) for name, cell in zip(classes, cells, strict=True)}
    if predicted not in probabilities:
        raise ValueError(f"{scan_id} is predicted as {predicted!r}, which is no column")
    if not all(0.0 <= value <= 1.0 for value in probabilities.values()):
        raise ValueError(f"{scan_id} has a probability outside [0, 1]")
    return Prediction(scan_id, path, patient or None, class_name or None, predicted, probabilities)
