"""VinDr-CXR: `{train,test}/<image_id>.dicom`; the tables of PhysioNet (`annotations/`) or of Kaggle (`train.csv`).

Nguyen et al., "VinDr-CXR", Scientific Data 9 (2022). Several readers saw each film.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import Layout, Place, Reading, folders_of, header_of, read_table, share, stem_of
from anomaly.scans.layouts.names import split_of_folders

_NO_FINDING = "no finding"
_LONG = frozenset({"image_id", "class_name", "x_min"})
_WIDE = frozenset({"image_id", _NO_FINDING})
_TABLE = re.compile(r"(?:image_labels|annotations)_(?:train|test)\.csv|train\.csv")

_Verdicts = dict[str, dict[str, set[str]]]
"""image -> reader -> the findings this reader names."""


def vindr(place: Place) -> Layout | None:
    """Recognise it by its tables and the image ids in them."""
    long, wide = _tables(place)
    if not long and not wide:
        return None
    verdicts: _Verdicts = defaultdict(lambda: defaultdict(set))
    boxed: dict[str, Path] = {}
    for table in long:
        _read_long(table, verdicts, boxed)
    for table in wide:
        _read_wide(table, verdicts)
    source = ", ".join(table.name for table in (wide or long))
    rows = {image: _reading(readers.values(), source, boxed.get(image)) for image, readers in verdicts.items()}
    if share(place.images, lambda path: stem_of(path).lower() in rows) < 0.5:
        return None

    def read(relative: str) -> Reading | None:
        row = rows.get(stem_of(relative).lower())
        return None if row is None else replace(row, split=split_of_folders([*place.above, *folders_of(relative)]))

    return Layout(
        "VinDr-CXR",
        read,
        ids="none: the set names images, not patients",
        notes=("a film is normal where all its readers found nothing, and unknown where they disagree about that",),
    )


def _tables(place: Place) -> tuple[list[Path], list[Path]]:
    """Return the tables of boxes (a row a box) and of findings (a column a finding)."""
    names = [name for low, name in sorted(place.files.items()) if _TABLE.fullmatch(low)]
    folder = place.folders.get("annotations")
    if folder is not None:
        names += [f"{folder}/{name}" for name in place.names_in("annotations") if _TABLE.fullmatch(name.lower())]
    found = [(place.path / name, set(header_of(place.path / name))) for name in names]
    return [table for table, columns in found if columns >= _LONG], [t for t, columns in found if columns >= _WIDE]


def _read_long(table: Path, verdicts: _Verdicts, boxed: dict[str, Path]) -> None:
    readers = ["rad_id"] if "rad_id" in header_of(table) else []  # the test films carry the consensus alone
    for image, name, x_min, *reader in read_table(table, ["image_id", "class_name", "x_min", *readers]):
        found = verdicts[image.lower()]["".join(reader)]
        if name.lower() != _NO_FINDING:
            found.add(name)
            if x_min:
                boxed[image.lower()] = table


def _read_wide(table: Path, verdicts: _Verdicts) -> None:
    header = header_of(table)
    readers = ["rad_id"] if "rad_id" in header else []
    findings = [name for name in header if name not in ("image_id", "rad_id", _NO_FINDING, "")]
    for image, *cells in read_table(table, ["image_id", *readers, *findings]):
        reader, values = "".join(cells[: len(readers)]), cells[len(readers) :]
        named = verdicts[image.lower()][reader]
        known = {name.lower() for name in named}
        named.update(
            name for name, value in zip(findings, values, strict=True) if value in ("1", "1.0") and name not in known
        )


def _reading(readers: Iterable[set[str]], source: str, boxes: Path | None) -> Reading:
    """Make a reading of what each reader found: normal only if none found anything."""
    found = list(readers)
    label = NORMAL if not any(found) else ABNORMAL if all(found) else None
    names = sorted({name for findings in found for name in findings}, key=str.lower)
    return Reading(
        label=label,
        class_name=None if label is None else " | ".join(names) or "No finding",
        source=None if label is None else source,
        boxes=boxes,
    )
