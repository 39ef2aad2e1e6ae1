"""Tables of boxes: a CSV with a line a box, in pixels of the film; films without any may stand in it, with empty cells.

So RSNA publishes its own (`stage_2_train_labels.csv`), NIH (`BBox_List_2017.csv`), VinDr-CXR, and so phantoms come.
A box is (x, y, w, h): (x, y) is its upper left CORNER, and the film's own upper left corner is (0, 0).
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anomaly.errors import DataError
from anomaly.records import Float64, ScanFile
from anomaly.scans.layouts.base import name_of, stem_of

NAMES = ("path", "image", "patientid", "file", "filename", "image_id", "image index")
"""Columns that may name the film; the first of them that is there does."""
_SIDES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("bbox [x", "y", "w", "h]"))
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_WANTED = "path (or image, patientId, file) and x, y, w, h (or width, height; or x_min, y_min, x_max, y_max)"
_MOST_NAMED = 3
_TOLERANCE = 1.0
"""Pixels that a box may reach out of the film: tables are rounded, and some count from 1."""


def read_boxes(path: Path) -> dict[str, Float64]:
    """Read a table of boxes; comma, semicolon or tab, UTF-8.

    Returns:
        Name of the film as the table has it -> float64 (n, 4): x, y, w, h; (0, 4) for one with empty cells alone. A box
        that is there twice counts once.

    Raises:
        DataError: The file cannot be read, lacks columns, or a line has a box that is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: the boxes cannot be read ({error.strerror}); check the path") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    header = [name.strip().lower() for name in next(reader, [])]
    name = next((header.index(column) for column in NAMES if column in header), None)
    columns = next((found for found in (*_SIDES, _CORNERS) if set(found) <= set(header)), None)
    if name is None or columns is None:
        raise DataError(
            f"{path}: a table of boxes needs the columns {_WANTED}; it has: {', '.join(filter(None, header)) or 'none'}"
        )
    places = [header.index(column) for column in columns]
    found: dict[str, dict[tuple[float, ...], None]] = {}
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) <= max(name, *places):
                raise DataError(f"{where}: has {len(cells)} cells, too few for {len(header)} columns; mend the line")
            own = found.setdefault(cells[name].strip(), {})
            box = _box([cells[place].strip() for place in places], where, corners=columns == _CORNERS)
            if box is not None:
                own[box] = None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV line ({error}); mend it") from error
    return {film: np.array(list(own), np.float64).reshape(-1, 4) for film, own in found.items()}


def _box(cells: Sequence[str], where: str, *, corners: bool) -> tuple[float, ...] | None:
    """Return x, y, w, h of a line; None where all cells are empty.

    Raises:
        DataError: They are no box.
    """
    if not any(cells):
        return None
    said = f"{where}: the box {', '.join(cells)}"
    try:
        x, y, w, h = (float(cell) for cell in cells)
    except ValueError as error:
        raise DataError(f"{said} is not made of four numbers; mend the line, or empty all four cells") from error
    if not all(math.isfinite(value) for value in (x, y, w, h)):
        raise DataError(f"{said} is not finite; mend the line, or empty all four cells")
    if corners:
        w, h = w - x, h - y
    if w <= 0 or h <= 0:
        raise DataError(f"{said} has no area (it is {w:g} wide and {h:g} high); mend the line, or remove it")
    return x, y, w, h


def find_boxes(files: Sequence[ScanFile], *, strict: bool = True) -> dict[str, Float64]:
    """Return the boxes of the films whose table (`ScanFile.boxes`) names them.

    A table names a film by its path relative to the table or to SCANS, or by the name of its file, with extension or
    without, whatever the case.

    Args:
        files: All there are in SCANS.
        strict: Refuse a table with boxes on films that are not there.

    Returns:
        scan_id -> float64 (n, 4): x, y, w, h in pixels of the film, n >= 0.

    Raises:
        DataError: As `read_boxes`; a name that several films have; or, if `strict`, one that none has.
    """
    found: dict[str, Float64] = {}
    for table in sorted({file.boxes for file in files if file.boxes is not None}):
        boxes = read_boxes(table)
        own = {file.scan_id for file in files if file.boxes == table}
        lost = []
        for name, file in _matched(table, list(boxes), files).items():
            if file is None:
                lost += [name] if len(boxes[name]) else []
            elif file.scan_id in own:
                before = found.get(file.scan_id, np.zeros((0, 4)))
                found[file.scan_id] = np.concatenate([before, boxes[name]])
        if strict and lost:
            named = ", ".join(lost[:_MOST_NAMED]) + (", …" if len(lost) > _MOST_NAMED else "")
            raise DataError(
                f"{table}: has boxes on {len(lost)} film{'s' if len(lost) > 1 else ''} that SCANS does not hold "
                f"({named}); add the films or remove the lines"
            )
    return found


def _matched(table: Path, names: Sequence[str], files: Sequence[ScanFile]) -> Mapping[str, ScanFile | None]:
    """Return the film that each name in a table is of, None where there is none."""
    paths: dict[str, list[ScanFile]] = defaultdict(list)
    bare: dict[str, list[ScanFile]] = defaultdict(list)
    for file in files:
        beside = Path(os.path.relpath(file.path, table.parent)).as_posix() if file.member is None else file.relative
        for path in {beside.casefold(), file.relative.casefold()}:
            paths[path].append(file)
        for name in {name_of(file.relative).casefold(), stem_of(file.relative).casefold()}:
            bare[name].append(file)
    matched: dict[str, ScanFile | None] = {}
    for name in names:
        key = os.path.normpath(name.replace("\\", "/")).casefold()
        fits = paths.get(key) or ([] if "/" in key else bare.get(key, []))
        if len(fits) > 1:
            raise DataError(
                f"{table}: {name} may be {fits[0].relative} or {fits[1].relative}; name films by their path relative "
                "to the table"
            )
        matched[name] = fits[0] if fits else None
    return matched


def within_film(boxes: Float64, shape: tuple[int, int], film: str) -> Float64:
    """Return boxes cut to the film.

    Args:
        boxes: float64 (n, 4): x, y, w, h.
        shape: (H, W) of the film.
        film: Its name, for the message.

    Returns:
        float64 (n, 4).

    Raises:
        DataError: One reaches out of the film by more than a pixel.
    """
    height, width = shape
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    outside = (low < -_TOLERANCE).any(axis=1) | (high > np.array([width, height]) + _TOLERANCE).any(axis=1)
    if outside.any():
        x, y, w, h = boxes[outside][0]
        raise DataError(
            f"{film}: the box x {x:g}, y {y:g}, w {w:g}, h {h:g} reaches out of the film, which is {width} wide and "
            f"{height} high; give boxes in pixels of the file as it is"
        )
    low, high = np.maximum(low, 0.0), np.minimum(high, [width, height])
    return np.concatenate([low, high - low], axis=1)
