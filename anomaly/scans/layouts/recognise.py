"""Which public sets lie in SCANS, or SCANS in which. A new set is one function and one line in `RECOGNISERS`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.scans.layouts.base import Layout, Place, Reading, Tree, is_folder
from anomaly.scans.layouts.bmad import bmad
from anomaly.scans.layouts.chexpert import chexpert
from anomaly.scans.layouts.class_folders import class_folders
from anomaly.scans.layouts.covid_radiography import covid_radiography
from anomaly.scans.layouts.ham10000 import ham10000
from anomaly.scans.layouts.kermany import kermany
from anomaly.scans.layouts.medianomaly import medianomaly
from anomaly.scans.layouts.names import root_names
from anomaly.scans.layouts.nih import nih
from anomaly.scans.layouts.nlm_tuberculosis import nlm_tuberculosis
from anomaly.scans.layouts.rsna import rsna
from anomaly.scans.layouts.vindr import vindr

RECOGNISERS: tuple[Callable[[Place], Layout | None], ...] = (
    rsna,
    nih,
    chexpert,
    vindr,
    ham10000,
    medianomaly,
    bmad,
    covid_radiography,
    kermany,
    nlm_tuberculosis,
)
"""Tried in this order at every place: those with a table of their own first, those known by file names last."""

_DEEPEST = 3
"""How far below SCANS, and above it, a set's root is looked for."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The layouts found, that of the files of no set last, and what is said of each file, by its path in SCANS."""

    layouts: tuple[Layout, ...]
    readings: dict[str, Reading]


def recognise(tree: Tree) -> Recognised:
    """Find the roots of public sets in SCANS, outermost first; where there is none, the set that SCANS is a part of.

    Args:
        tree: What a walk found. Above SCANS, too, only folders' names and tables that a set is known by are looked at.

    Raises:
        DataError: A set's own table cannot be used.
    """
    contents = _contents(tree)
    above = root_names(tree.root.parts[1:])
    here = _place(tree, tree.root, contents[""])
    sets: dict[str, tuple[Place, Layout]] = {}
    pending = [""]
    while pending:
        deeper: list[str] = []
        for inside in pending:
            folders = contents[inside][0]
            parts = inside.split("/")[:-1]
            place = Place(tree, tree.root / inside, (*above, *parts), *contents[inside], inside=inside)
            layout = _first(place)
            if layout is not None:
                sets[inside] = (place, layout)
            elif len(parts) < _DEEPEST:
                deeper += [f"{inside}{name}/" for name in sorted(folders.values())]
        pending = [inside for inside in deeper if inside in contents]
    for place in _above(tree) if not sets else ():
        layout = _first(place)
        if layout is not None:
            sets[""] = (place, layout)
            break
    readings: dict[str, Reading] = {}
    for inside, (place, layout) in sets.items():
        for path in place.images:
            reading = layout.read(path)
            if reading is not None:
                readings[inside + path[len(place.down) :]] = reading
    unclaimed = [path for path in tree.images if path not in readings]
    rest = class_folders(here, unclaimed)
    readings |= {path: rest.read(path) or Reading() for path in unclaimed}
    return Recognised((*(layout for _, layout in sets.values()), rest), readings)


def _first(place: Place) -> Layout | None:
    return next((layout for known in RECOGNISERS if (layout := known(place)) is not None), None)


_Contents = tuple[dict[str, str], dict[str, str]]


def _contents(tree: Tree) -> dict[str, _Contents]:
    """Return the folders and the files, no images, in every folder that is looked at, by lower-case name."""
    found: dict[str, _Contents] = defaultdict(lambda: ({}, {}))
    found[""]
    for paths, are_files in ((tree.images, False), (tree.masks, False), (tree.others, True)):
        for path in paths:
            start = 0
            for _ in range(_DEEPEST + 1):
                here = found[path[:start]]
                end = path.find("/", start)
                if end < 0:
                    if are_files:
                        here[1].setdefault(path[start:].lower(), path[start:])
                    break
                name = path[start:end]
                here[0].setdefault(name.lower(), name)
                start = end + 1
    return dict(found)


def _place(tree: Tree, path: Path, contents: _Contents, down: Sequence[str] = ()) -> Place:
    above = tuple(root_names(path.parts[1:]))
    return Place(tree, path, above, *contents, down="".join(f"{name}/" for name in down))


def _above(tree: Tree) -> Iterator[Place]:
    """Yield the folders SCANS lies in, the nearest first, with the names of what lies in them."""
    down: list[str] = []
    path = tree.root
    for _ in range(_DEEPEST):
        if path == path.parent:
            return
        down.insert(0, path.name)
        path = path.parent
        folders: dict[str, str] = {}
        files: dict[str, str] = {}
        try:
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    (folders if is_folder(entry) else files).setdefault(entry.name.lower(), entry.name)
        except OSError:
            return
        yield _place(tree, path, (folders, files), down)
