"""Folders of the user's own: ROOT/CLASS/* and ROOT/{train,test}/CLASS/*, any number of classes, or none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from anomaly.scans.layouts.base import FOLDER, Layout, Place, Reading, folders_of, header_of, read_table, stem_of
from anomaly.scans.layouts.names import (
    class_of_folders,
    is_picture_folder,
    label_of_name,
    numbering_of,
    patient_key,
    split_of_folders,
    split_of_name,
)

KERMANY_IDS = (
    "Kermany's file names: a patient is the published split, the series prefix and the number, as numbers restart "
    "between splits and IM- and NORMAL2-IM- are different series; in BACTERIA-7422-0001 the number holds everywhere"
)
NIH_IDS = "NIH's numbers, the part of the file name before '_': one numbering for the whole set"

_IDS = {"kermany": KERMANY_IDS, "nih": NIH_IDS}
_MOST_CLASSES = 50
_LOOKS_LIKE_AN_ID = re.compile(r"\d{3}|^[\W\d_]*$")
_BOX_COLUMNS = ("image", "path", "file", "filename")


def by_names(above: Sequence[str], relative: str) -> Reading:
    """Read what folder and file names say where nothing is known of the whole.

    Args:
        above: Names on the way to the root that may speak, see `root_names`.
        relative: Posix path of the file below the root.
    """
    folders = [*above, *folders_of(relative)]
    label, class_name = class_of_folders(folders)
    split = split_of_folders(folders)
    return Reading(
        label=label,
        class_name=class_name,
        source=None if label is None else FOLDER,
        patient=patient_key(stem_of(relative), split),
        split=split,
    )


def class_folders(place: Place, images: Sequence[str]) -> Layout:
    """Lay out images that belong to no set known by name.

    Where all of them lie in folders that can only be classes, a class is its folder's name, known word or not;
    anywhere else the deepest folder named like a class speaks.

    Args:
        place: SCANS.
        images: Posix paths relative to it.
    """
    places = {path.rpartition("/")[0] for path in images}
    labelled_above = any(label_of_name(name) is not None for name in place.above)
    ways = {tuple(_telling(folder.split("/"))) for folder in places}
    classes = frozenset[str]() if labelled_above else _classes(ways)
    boxed, boxes = _boxes(place)

    def read(relative: str) -> Reading:
        reading = by_names(place.above, relative)
        name = next((name for name in reversed(folders_of(relative)) if name in classes), reading.class_name)
        return replace(reading, class_name=name, boxes=boxes if relative.rpartition("/")[2] in boxed else None)

    return Layout("class folders" if classes else None, read, ids_of(images))


def ids_of(paths: Iterable[str]) -> str | None:
    """Say what the patient ids are that `by_names` finds in file names, or None if it finds none."""
    numberings = {numbering_of(stem_of(path)) for path in paths} - {None}
    return "; ".join(_IDS[name] for name in sorted(filter(None, numberings))) or None


def _telling(folders: Sequence[str]) -> list[str]:
    """Return the folder names that name neither a split nor just pictures."""
    return [name for name in folders if name and split_of_name(name) is None and not is_picture_folder(name)]


def _classes(ways: Collection[tuple[str, ...]]) -> frozenset[str]:
    """Return the names of class folders, if every image lies in one and there are at least two, else nothing."""
    before = {way[:-1] for way in ways}
    if () in ways or len(before) != 1 or any(label_of_name(name) is not None for way in before for name in way):
        return frozenset()
    names = frozenset(way[-1] for way in ways)
    distinct = {name.lower() for name in names}
    unknown = [name for name in names if label_of_name(name) is None]
    if not 2 <= len(distinct) <= _MOST_CLASSES or any(map(_LOOKS_LIKE_AN_ID.search, unknown)):
        return frozenset()
    return names


def _boxes(place: Place) -> tuple[frozenset[str], Path | None]:
    """Return the names of the pictures that a `boxes.csv` beside the folders speaks of, and where it is."""
    table = place.file(r"boxes\.csv")
    column = next((name for name in header_of(table) if name in _BOX_COLUMNS), None) if table else None
    if table is None or column is None:
        return frozenset(), None
    return frozenset(name.rpartition("/")[2] for (name,) in read_table(table, [column])), table
