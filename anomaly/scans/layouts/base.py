"""What recognisers are made of: the tree a walk found, a place in it, and what a layout says of a file."""

from __future__ import annotations

import csv
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from anomaly.errors import DataError
from anomaly.scans.layouts.names import film_of_mask

FOLDER, FILE_NAME = "folder", "file name"
"""Where a label comes from, beside the name of a set's own table."""

_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Reading:
    """What a layout says of one file; `patient` is a grouping key not hashed yet, `source` where the label is from."""

    label: int | None = None
    class_name: str | None = None
    source: str | None = None
    patient: str | None = None
    view: str | None = None
    split: str | None = None
    mask: Path | None = None
    boxes: Path | None = None
    set_aside: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """A set as it lies on disk.

    `title` names it, None if it is none that is known; `ids` says in a sentence what the patient ids are and where they
    hold; `notes` are warnings, in sentences; `read` takes a posix path relative to the place and returns None for a
    file that is none of the set's.
    """

    title: str | None
    read: Callable[[str], Reading | None]
    ids: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """What a walk found: posix paths relative to `root` (absolute), each kind sorted; nothing is decoded."""

    root: Path
    images: Sequence[str]
    masks: Sequence[str] = ()
    others: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that may be the root of a set: SCANS, one inside it (`inside`), or one that SCANS lies in (`down`).

    `folders` and `files` give the names of what lies in it by their lower-case form, images left out; `above` holds
    the names of folders on the way to it that may speak for its files (see `root_names`).
    """

    tree: Tree
    path: Path
    above: tuple[str, ...]
    folders: Mapping[str, str]
    files: Mapping[str, str]
    inside: str = ""
    down: str = ""

    @property
    def images(self) -> list[str]:
        """Return the images of SCANS in this place, relative to it."""
        return self._here(self.tree.images)

    def masks(self) -> dict[str, Path]:
        """Return the masks of SCANS in this place by the lower-case stem of their film, where only one has it."""
        found: dict[str, Path | None] = {}
        for relative in self._here(self.tree.masks):
            stem = film_of_mask(PurePosixPath(relative).stem).lower()
            found[stem] = None if stem in found else self.path / relative
        return {stem: path for stem, path in found.items() if path is not None}

    def file(self, pattern: str) -> Path | None:
        """Return the first file of this place, by name, that a pattern matches as a whole, in any case."""
        names = sorted(name for low, name in self.files.items() if re.fullmatch(pattern, low))
        return self.path / names[0] if names else None

    def folders_in(self, name: str) -> frozenset[str]:
        """Return the lower-case names of the folders inside one of this place's folders."""
        return frozenset(entry.name.lower() for entry in self._entries_in(name) if is_folder(entry))

    def names_in(self, name: str) -> list[str]:
        """Return the names of what is inside one of this place's folders, sorted."""
        return sorted(entry.name for entry in self._entries_in(name))

    def _entries_in(self, name: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / self.folders[name]) as entries:
                return list(entries)
        except (KeyError, OSError):
            return []

    def _here(self, paths: Sequence[str]) -> list[str]:
        if not self.inside:
            return [self.down + path for path in paths]
        after = f"{self.inside[:-1]}0"  # "0" comes right after "/"
        return [p[len(self.inside) :] for p in paths[bisect_left(paths, self.inside) : bisect_left(paths, after)]]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether what a folder holds is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def sample(paths: Sequence[str]) -> Sequence[str]:
    """Return at most 200 of the paths, evenly spaced: enough to tell a set by, however large it is."""
    return paths[:: max(1, len(paths) // _SAMPLE)]


def share(paths: Sequence[str], holds: Callable[[str], bool]) -> float:
    """Return the share of the paths, judged by a sample, for which something holds; 0 where there are none."""
    some = sample(paths)
    return sum(map(holds, some)) / len(some) if some else 0.0


def stem_of(path: str) -> str:
    """Return the file name of a posix path without its extension."""
    name = name_of(path)
    return name.rpartition(".")[0] or name


def name_of(path: str) -> str:
    """Return the file name of a posix path."""
    return path.rpartition("/")[2]


def folders_of(path: str) -> list[str]:
    """Return the names of the folders in a posix path."""
    return path.split("/")[:-1]


def header_of(table: Path) -> list[str]:
    """Return the column names of a CSV in lower case, or nothing if it has no readable first line."""
    try:
        with table.open("rb") as stream:
            first = stream.readline(65536).decode("utf-8-sig", "replace")
    except OSError:
        return []
    delimiter = "\t" if "\t" in first else ","
    return [name.strip().strip('"').lower() for name in first.rstrip("\r\n").split(delimiter)]


def read_table(table: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the values of some columns of a set's own table, row by row; comma or tab.

    Raises:
        DataError: The table cannot be read or lacks a column.
    """
    header = header_of(table)
    missing = next((name for name in columns if name.lower() not in header), None)
    if missing is not None:
        raise DataError(f"{table}: has no column {missing!r}, which this set's table has; download the table again")
    places = [header.index(name.lower()) for name in columns]
    try:
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            delimiter = "\t" if "\t" in stream.readline() else ","
            for cells in csv.reader(stream, delimiter=delimiter):
                if cells:
                    yield [cells[place].strip() if place < len(cells) else "" for place in places]
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror}); change its permissions") from error
    except csv.Error as error:
        raise DataError(f"{table}: is no CSV table ({error}); download it again") from error


def read_lines(table: Path | None) -> Collection[str]:
    """Return the lines of a text file, without blanks; nothing for no file.

    Raises:
        DataError: It cannot be read.
    """
    if table is None:
        return frozenset()
    try:
        return frozenset(table.read_text(encoding="utf-8-sig", errors="replace").split())
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror}); change its permissions") from error
