"""Folders of the user's own: ROOT/CLASS/* and ROOT/{train,test}/CLASS/*, any number of classes, or none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from anomaly.scans.layouts.base import FOLDER, Layout, Place, Reading, folders_of, header_of, name_of, read_table
from anomaly.scans.layouts.names import (
    chexpert_patient,
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
    "between splits and IM- and NORMAL2-IM- are different series; val was carved from train and counts as train; in "
    "BACTERIA-7422-0001 the number holds everywhere"
)
SMALL_VAL = 16
"""How many images Kermany's published val holds."""
KERMANY_OWN_SPLIT_IDS = (
    f"Kermany's file names: val holds more than the {SMALL_VAL} published images, so this split is not the published "
    "one, and a patient is the series prefix and the number, whatever the split: some who differ may be taken for one, "
    "none sits on both sides"
)
NIH_IDS = "NIH's numbers, the part of the file name before '_': one numbering for the whole set"

CHEXPERT_IDS = "CheXpert's patient numbers, the name of a folder: one numbering for the whole set"

_MOST_CLASSES = 50
_LOOKS_LIKE_AN_ID = re.compile(r"\d{3}|^[\W\d_]*$")
_BOX_COLUMNS = ("image", "path", "file", "filename")


def by_names(above: Sequence[str], relative: str, *, is_own_split: bool = False) -> Reading:
    """Read what folder and file names say where nothing is known of the whole.

    Args:
        above: Names on the way to the root that may speak, see `root_names`.
        relative: Posix path of the file below the root.
        is_own_split: Whether splits are no published ones, so that no patient number restarts in one.
    """
    folders = [*above, *folders_of(relative)]
    label, class_name = class_of_folders(folders)
    split = split_of_folders(folders)
    return Reading(
        label=label,
        class_name=class_name,
        source=None if label is None else FOLDER,
        patient=patient_key(name_of(relative), None if is_own_split else split) or chexpert_patient(relative),
        split=split,
    )


def class_folders(place: Place, images: Sequence[str]) -> Layout:
    """Lay out images that belong to no set known by name.

    Where all of them lie in folders side by side, one of them at least named like a class, a class is its folder's
    name, known word or not; anywhere else the deepest folder named like a class speaks.

    Args:
        place: SCANS.
        images: Posix paths relative to it.
    """
    places = {path.rpartition("/")[0] for path in images}
    labelled_above = any(label_of_name(name) is not None for name in place.above)
    ways = {tuple(_telling(folder.split("/"))) for folder in places}
    classes = frozenset[str]() if labelled_above else _classes(ways)
    boxed, boxes = _boxes(place)
    is_own_split = len(kermany_val(place.above, place.images)) > SMALL_VAL  # the rest may lie in a set known elsewhere

    def read(relative: str) -> Reading:
        reading = by_names(place.above, relative, is_own_split=is_own_split)
        name = next((name for name in reversed(folders_of(relative)) if name in classes), reading.class_name)
        return replace(reading, class_name=name, boxes=boxes if name_of(relative) in boxed else None)

    return Layout("class folders" if classes else None, read, ids_of(images, is_own_split=is_own_split))


def kermany_val(above: Sequence[str], paths: Iterable[str]) -> frozenset[str]:
    """Return the names of Kermany's films in val; above 16 of them the split is a user's own."""
    return frozenset(
        name_of(path)
        for path in paths
        if numbering_of(name_of(path)) == "kermany" and split_of_folders([*above, *folders_of(path)]) == "val"
    )


def ids_of(paths: Iterable[str], *, is_own_split: bool = False) -> str | None:
    """Say what the patient ids are that `by_names` finds in file names, or None if it finds none."""
    told = {"kermany": KERMANY_OWN_SPLIT_IDS if is_own_split else KERMANY_IDS, "nih": NIH_IDS}
    said = set()
    for path in paths:
        numbering = numbering_of(name_of(path))
        said.add(CHEXPERT_IDS if chexpert_patient(path) else told.get(numbering or ""))
    return "; ".join(sorted(filter(None, said))) or None


def _telling(folders: Sequence[str]) -> list[str]:
    """Return the folder names that name neither a split nor just pictures."""
    return [name for name in folders if name and split_of_name(name) is None and not is_picture_folder(name)]


def _classes(ways: Collection[tuple[str, ...]]) -> frozenset[str]:
    """Return the names of class folders, if every image lies in one and there are at least two, else nothing.

    One of them must be a word that is known: folders of nothing but strange names are as often named after patients.
    """
    before = {way[:-1] for way in ways}
    if () in ways or len(before) != 1 or any(label_of_name(name) is not None for way in before for name in way):
        return frozenset()
    names = frozenset(way[-1] for way in ways)
    distinct = {name.lower() for name in names}
    unknown = [name for name in names if label_of_name(name) is None]
    if len(unknown) == len(names) or any(map(_LOOKS_LIKE_AN_ID.search, unknown)):
        return frozenset()
    if not 2 <= len(distinct) <= _MOST_CLASSES:
        return frozenset()
    return names


def _boxes(place: Place) -> tuple[frozenset[str], Path | None]:
    """Return the names of the pictures that a `boxes.csv` beside the folders speaks of, and where it is."""
    table = place.file(r"boxes\.csv")
    column = next((name for name in header_of(table) if name in _BOX_COLUMNS), None) if table else None
    if table is None or column is None:
        return frozenset(), None
    return frozenset(name.rpartition("/")[2] for (name,) in read_table(table, [column])), table
