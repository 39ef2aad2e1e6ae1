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
    """The sets found, each with the place of its root, and how to read whatever belongs to none."""

    sets: dict[str, tuple[Place, Layout]]
    rest: Layout

    def read(self, relative: str) -> Reading:
        """Return what is said of a file, by its posix path relative to SCANS."""
        end = 0
        for _ in range(_DEEPEST + 1):
            found = self.sets.get(relative[:end])
            if found is not None:
                place, layout = found
                return layout.read(place.relative(relative))
            end = relative.find("/", end) + 1
            if not end:
                break
        return self.rest.read(relative)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Return the layouts of the sets, then that of the rest."""
        return (*(layout for _, layout in self.sets.values()), self.rest)


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
    roots = tuple(sets)
    unclaimed = [] if "" in sets else [path for path in tree.images if not path.startswith(roots)]
    return Recognised(sets, class_folders(here, unclaimed))


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
                end = path.find("/", start)
                if end < 0:
                    if are_files:
                        found[path[:start]][1].setdefault(path[start:].lower(), path[start:])
                    break
                name = path[start:end]
                found[path[:start]][0].setdefault(name.lower(), name)
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
