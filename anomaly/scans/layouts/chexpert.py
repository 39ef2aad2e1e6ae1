"""CheXpert: `{train,valid,test}/patient00001/study1/view1_frontal.jpg`, a table for each split.

At full resolution the films lie in `CheXpert-v1.0 batch 2 (train 1)` and so on, the tables in batch 1.

Irvin et al., "CheXpert", AAAI 2019.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import Layout, Place, Reading, folders_of, header_of, read_table, share
from anomaly.scans.layouts.class_folders import CHEXPERT_IDS
from anomaly.scans.layouts.names import chexpert_patient, split_of_folders

_MARKS = frozenset({"path", "frontal/lateral", "ap/pa", "no finding"})
_ABOUT = frozenset({"path", "sex", "age", "frontal/lateral", "ap/pa"})
_NO_FINDING, _DEVICES = "no finding", "support devices"
_TABLE = re.compile(r"(?:train|valid|test)\.csv", re.IGNORECASE)
_BATCH = re.compile(r"chexpert.*\bbatch\b.*", re.IGNORECASE)
_PARTS = 3
"""patient/study/view: what names a film, whatever split or batch it lies in; patients are numbered through."""


def chexpert(place: Place) -> Layout | None:
    """Recognise it by a table with CheXpert's columns and the paths in it."""
    tables = [table for table in _tables(place) if set(header_of(table)) >= _MARKS]
    rows: dict[str, Reading] = {}
    for table in tables:
        findings = [name for name in header_of(table) if name not in _ABOUT]
        for path, side, view, *values in read_table(table, ["path", "frontal/lateral", "ap/pa", *findings]):
            split = split_of_folders(folders_of(path))
            shown = view or side if side.lower() == "frontal" else side
            rows[_key(path)] = _reading(dict(zip(findings, values, strict=True)), shown, split, table.name)
    images = place.images
    if not rows or share(images, lambda path: _key(path) in rows) < 0.5:
        return None

    def read(relative: str) -> Reading | None:
        patient = chexpert_patient(relative)
        row = rows.get(_key(relative))
        if row is None and patient is None:
            return None
        return replace(row or Reading(split=split_of_folders(folders_of(relative))), patient=patient)

    notes = ["findings that CheXpert marks uncertain (-1) leave the label unknown where nothing else decides it"]
    strange = sum(chexpert_patient(path) is not None and _key(path) not in rows for path in images)
    if strange:
        notes.append(f"{strange} of its films are in none of its tables: their label is unknown")
    return Layout("CheXpert", read, ids=CHEXPERT_IDS, notes=tuple(notes))


def _tables(place: Place) -> list[Path]:
    """Return what may be tables: those of the place, and those of a folder of a batch in it."""
    found = [place.path / name for low, name in sorted(place.files.items()) if _TABLE.fullmatch(low)]
    for folder in sorted(filter(_BATCH.fullmatch, place.folders.values())):
        found += [place.path / folder / name for name in place.names_in(folder.lower()) if _TABLE.fullmatch(name)]
    return found


def _key(path: str) -> str:
    return "/".join(path.split("/")[-_PARTS:]).lower()


def _reading(values: dict[str, str], view: str, split: str | None, source: str) -> Reading:
    """Make a reading of one row: 1.0 present, 0.0 absent, -1.0 uncertain, empty not mentioned."""
    present = [name for name, value in values.items() if _is(value, 1) and name not in (_NO_FINDING, _DEVICES)]
    label = ABNORMAL if present else NORMAL if _is(values[_NO_FINDING], 1) else None
    name = " | ".join(present) or (_NO_FINDING if label == NORMAL else None)
    return Reading(
        label=label, class_name=name, source=None if label is None else source, view=view or None, split=split
    )


def _is(value: str, number: float) -> bool:
    try:
        return float(value) == number
    except ValueError:
        return False
