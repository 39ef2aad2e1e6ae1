"""Labels from a CSV given to `anomaly evaluate`, read strictly: a slip in it would pass for a result."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import DataError
from anomaly.scans.manifest import parse_label
from anomaly.workflows.results import ScoreLine

_SHOWN = 5
_NAMES = {None: "unknown", 0: "normal", 1: "abnormal"}


@dataclass(frozen=True, slots=True)
class GivenLabels:
    """Label of each scored scan by its id, None where unknown; and what is odd about the file."""

    known: dict[str, int | None]
    notes: tuple[str, ...]


def read_labels(file: Path, scored: Sequence[ScoreLine], *, name_files: bool = True) -> GivenLabels:
    """Read a CSV with `scan_id` or `path`, and `label` (0, 1, normal, abnormal, empty).

    Args:
        file: The CSV.
        scored: The scans that have a score.
        name_files: False where names of files are not to be written: then notes only count.

    Raises:
        DataError: The file cannot be read, lacks a column, has a label that is none, gives one scan two different
            labels, or names none of these scans.
    """
    key, given, again = _read(file)
    names = {line.row.scan_id: line.row.scan_id if key == "scan_id" else line.row.path for line in scored}
    if given and given.keys().isdisjoint(names.values()):
        raise DataError(
            f"No {key} in {file} is one of this run's (the first is {next(iter(given))!r}): use those of scores.csv."
        )
    known = {scan_id: given.get(name) for scan_id, name in names.items()}
    own = set(names.values())
    notes = []
    for odd, said in (
        ([name for name in given if name not in own], "labels given are of scans that were not scored"),
        ([names[scan_id] for scan_id, label in known.items() if label is None], "scored scans have no label"),
        (again, "scans are labelled more than once, each time alike"),
    ):
        if odd:
            notes.append(f"{len(odd)} {said}{_first(odd) if name_files else ''}.")
    return GivenLabels(known, tuple(notes))


def _read(file: Path) -> tuple[str, dict[str, int | None], list[str]]:
    """Return the column that names scans, the label of each name, and the names that come more than once."""
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as handle:
            table = csv.DictReader(handle)
            columns = table.fieldnames or ()
            key = next((name for name in ("scan_id", "path") if name in columns), None)
            if key is None or "label" not in columns:
                raise DataError(f"{file} needs the columns path (or scan_id) and label; it has: {', '.join(columns)}.")
            given: dict[str, int | None] = {}
            lines: dict[str, int] = {}
            again: dict[str, None] = {}
            for record in table:
                name, label = _labelled(record, key, f"{file}, line {table.line_num}")
                if name not in lines:
                    given[name], lines[name] = label, table.line_num
                    continue
                if given[name] != label:
                    raise DataError(
                        f"{file}: {name!r} is {_NAMES[given[name]]} on line {lines[name]} and {_NAMES[label]} on line "
                        f"{table.line_num}; remove one of the two."
                    )
                again[name] = None
            return key, given, list(again)
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"Cannot read the labels {file}: {reason}; give a CSV with the columns path and label."
        ) from error


def _labelled(record: Mapping[str, str | None], key: str, where: str) -> tuple[str, int | None]:
    name = record[key]
    if not name:
        raise DataError(f"{where}: the {key} is empty; fill it in or remove the line.")
    return name, parse_label(record["label"] or "", where)


def _first(names: Sequence[str]) -> str:
    return f" (first: {', '.join(names[:_SHOWN])})" if len(names) > _SHOWN else f": {', '.join(names)}"
