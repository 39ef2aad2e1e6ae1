"""The manifest: a CSV, one row for a film, with the columns in `COLUMNS`; others are carried through."""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomaly.errors import DataError
from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.names import label_of_name, split_of_name
from anomaly.scans.patients import is_identifier

IN_ARCHIVE = re.compile(r"(.+\.npz)[/\\](train|val|test)[/\\](\d+)", re.IGNORECASE | re.DOTALL)
"""A picture in a MedMNIST archive: the archive, the split, the number."""

COLUMNS = ("path", "patient", "label", "class", "view", "split", "mask", "boxes")
_LABELS = {"": None, "0": NORMAL, "0.0": NORMAL, "normal": NORMAL, "1": ABNORMAL, "1.0": ABNORMAL, "abnormal": ABNORMAL}
_OTHER_NAMES_OF_PATH = ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "paths")


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One line of a manifest. `path`, `mask` and `boxes` are joined to the CSV's folder; `patient` is not hashed yet.

    `labelled` says that the manifest speaks of labels at all: then an empty one means unknown.
    """

    line: int
    path: Path
    label: int | None = None
    labelled: bool = False
    class_name: str | None = None
    patient: str | None = None
    view: str | None = None
    split: str | None = None
    mask: Path | None = None
    boxes: Path | None = None
    extra: dict[str, str] = field(default_factory=dict)


def has_path_column(csv_path: Path) -> bool:
    """Tell whether the first line of a CSV names a `path` column; raises OSError if it cannot be read."""
    with csv_path.open("rb") as stream:
        first = stream.readline(65536).decode("utf-8-sig", "replace")
    return "path" in (name.strip().strip('"').lower() for name in first.replace(";", ",").split(","))


def picture_of(path: str) -> str:
    """Return a path the one way it is written for a listing: `x.npz/train/1` is `x.npz/train/00001`."""
    inside = IN_ARCHIVE.fullmatch(path)
    return f"{inside[1]}/{inside[2].lower()}/{int(inside[3]):05d}" if inside else path


def read_manifest(csv_path: Path) -> list[ManifestRow]:
    """Read every row, in order.

    Paths are relative to the CSV's folder, or absolute; they may lead out of it and need not exist. `label` is 0, 1,
    normal, abnormal or empty (unknown); without a `label` column a class-like `class` gives it. Of `split`, training
    and validation mean train and val; any other word is kept. A `patient` that names nobody (unknown, nan, 0000) is
    none. Comma or semicolon, UTF-8 with or without BOM.

    Raises:
        DataError: The file is unreadable, empty, not UTF-8, lacks `path`, or a line is wrong (the line is named).
    """
    text = _read_text(csv_path)
    header_line = next((line for line in text.splitlines() if line.strip()), "")
    if not header_line:
        raise DataError(f"{csv_path}: the manifest is empty; give it a header line with at least the column 'path'")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if header_line.count(";") > header_line.count(",") else ","
    )
    rows: list[ManifestRow] = []
    lines_of: dict[str, int] = {}
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _check_header(csv_path, cells)
                continue
            row = _read_row(csv_path, reader.line_num, header, cells)
            key = picture_of(os.path.normpath(row.path))
            if key in lines_of:
                raise DataError(
                    f"{csv_path}, line {row.line}: the path is already on line {lines_of[key]}; remove one of the two"
                )
            lines_of[key] = row.line
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{csv_path}, line {reader.line_num}: not a CSV line ({error}); mend it") from error
    if not rows:
        raise DataError(f"{csv_path}: the manifest has a header and no rows; add one row for each film")
    patients = {row.patient for row in rows}
    return [row if _names_someone(row.patient, patients) else replace(row, patient=None) for row in rows]


def _names_someone(patient: str | None, patients: Collection[str | None]) -> bool:
    """Tell whether a patient cell is an id: `unknown` is none, nor is `000`, unless someone counts on to `001`."""
    return patient is None or is_identifier(patient) or (patient.strip("0") == "" and f"{patient[:-1]}1" in patients)


def _read_text(csv_path: Path) -> str:
    try:
        data = csv_path.read_bytes()
    except OSError as error:
        raise DataError(f"{csv_path}: the manifest cannot be read ({error.strerror}); check the path") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{csv_path}, line {line}: the manifest is not UTF-8; save it as 'CSV UTF-8'") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{csv_path}, line {line}: the manifest holds a zero byte; save it as 'CSV UTF-8'")
    return text


def _check_header(csv_path: Path, cells: list[str]) -> list[str]:
    """Return column names, the known ones in lower case; 'path' must be among them and none may come twice."""
    names = [cell.strip().lower() if cell.strip().lower() in COLUMNS else cell.strip() for cell in cells]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{csv_path}: the column {twice!r} comes twice; remove or rename one")
    if "path" not in names:
        close = next((name for name in names if name.lower() in _OTHER_NAMES_OF_PATH), None)
        close = close or next(iter(difflib.get_close_matches("path", names, n=1)), None)
        fix = f"rename {close!r} to 'path'" if close else "add it, with each film's path relative to this file"
        raise DataError(f"{csv_path}: the manifest has no column 'path' (found: {', '.join(names)}); {fix}")
    return names


def parse_label(text: str, where: str) -> int | None:
    """Return the label a cell holds: 0 normal, 1 abnormal, None unknown.

    Args:
        text: 0, 1, normal, abnormal (in any case), or nothing for unknown.
        where: File and line, for the message.

    Raises:
        DataError: Any other text.
    """
    word = text.strip().lower()
    if word not in _LABELS:
        raise DataError(f"{where}: unknown label {word!r}; use 0, 1, normal, abnormal, or nothing for unknown")
    return _LABELS[word]


def _read_row(csv_path: Path, line: int, header: list[str], cells: list[str]) -> ManifestRow:
    where = f"{csv_path}, line {line}"
    if len(cells) > len(header):
        raise DataError(f"{where}: {len(cells)} values for {len(header)} columns; put quotes round values with commas")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
    if not values["path"]:
        raise DataError(f"{where}: the path is empty; fill it in or remove the line")
    label: int | None
    if "label" in header:
        label, labelled = parse_label(values.get("label", ""), where), True
    else:
        label = label_of_name(values.get("class", ""))
        labelled = label is not None
    folder = csv_path.parent
    mask, boxes, split = values.get("mask"), values.get("boxes"), values.get("split", "")
    return ManifestRow(
        line=line,
        path=folder / values["path"],
        label=label,
        labelled=labelled,
        class_name=values.get("class") or None,
        patient=values.get("patient") or None,
        view=values.get("view") or None,
        split=split_of_name(split) or split or None,
        mask=folder / mask if mask else None,
        boxes=folder / boxes if boxes else None,
        extra={name: value for name, value in values.items() if name and name not in COLUMNS},
    )
