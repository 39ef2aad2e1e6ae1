"""CheXpert: `{train,valid,test}/patient00001/study1/view1_frontal.jpg`, a table for each split.

Irvin et al., "CheXpert", AAAI 2019.
"""

from __future__ import annotations

from dataclasses import replace

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import Layout, Place, Reading, folders_of, header_of, read_table, share
from anomaly.scans.layouts.names import split_of_folders

_MARKS = frozenset({"path", "frontal/lateral", "ap/pa", "no finding"})
_ABOUT = frozenset({"path", "sex", "age", "frontal/lateral", "ap/pa"})
_NO_FINDING, _DEVICES = "no finding", "support devices"
_PARTS = 4
"""split/patient/study/view: what names a film in its table, whatever the set's folder is called."""


def chexpert(place: Place) -> Layout | None:
    """Recognise it by a table with CheXpert's columns and the paths in it."""
    found = [place.file(rf"{split}\.csv") for split in ("train", "valid", "test")]
    tables = [table for table in found if table is not None and set(header_of(table)) >= _MARKS]
    rows: dict[str, Reading] = {}
    for table in tables:
        findings = [name for name in header_of(table) if name not in _ABOUT]
        for path, side, view, *values in read_table(table, ["path", "frontal/lateral", "ap/pa", *findings]):
            split = split_of_folders(folders_of(path))
            shown = view or side if side.lower() == "frontal" else side
            rows[_key(path)] = _reading(dict(zip(findings, values, strict=True)), shown, split, table.name)
    if not rows or share(place.images, lambda path: _key(path) in rows) < 0.5:
        return None
    return Layout(
        "CheXpert",
        lambda relative: _with_patient(rows.get(_key(relative)), relative),
        ids="CheXpert's patient numbers, the name of a folder: one numbering for the whole set",
        notes=("findings that CheXpert marks uncertain (-1) leave the label unknown where nothing else decides it",),
    )


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


def _with_patient(reading: Reading | None, relative: str) -> Reading:
    folders = folders_of(relative)
    patient = next((name.lower() for name in folders if name.lower().startswith("patient")), None)
    known = Reading(split=split_of_folders(folders)) if reading is None else reading
    return replace(known, patient=None if patient is None else f"chexpert/{patient}")
