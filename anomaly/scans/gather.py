"""What lies in a folder: images, masks and other files, told apart by extension and first bytes, in a fixed order."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anomaly.errors import DataError
from anomaly.runs import RECEIPT, read_json
from anomaly.scans.layouts.base import is_folder, stem_of
from anomaly.scans.layouts.names import (
    film_of_mask,
    is_mask_folder,
    is_picture_folder,
    label_of_name,
    split_of_name,
)
from anomaly.scans.layouts.pairs import Masks
from anomaly.scans.magic import HEAD, IMAGE_EXTENSIONS, sniff


@dataclass(slots=True)
class Found:
    """What a walk gathers: posix paths relative to the root, sorted at the end."""

    files: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    mask_folders: list[str] = field(default_factory=list)
    masks_beside: int = 0
    own_results: int = 0
    closed_folders: int = 0


def gather(root: Path) -> Found:
    """Gather the relative posix paths of files, sorted. Every folder is entered once, whatever links say."""
    found = Found()
    top = os.path.realpath(root)
    entered = {top}
    pending: list[tuple[str, str, str]] = [(str(root), "", top)]  # path, relative with slash, real path
    while pending:
        folder, prefix, real = pending.pop()
        inside = _entries(folder)
        if inside is None:
            found.closed_folders += 1
            continue
        if prefix and any(entry.name == RECEIPT for entry in inside) and _is_ours(Path(folder)):
            found.own_results += 1
            continue
        folders: list[os.DirEntry[str]] = []
        for entry in inside:
            if is_folder(entry):
                folders.append(entry)
            elif entry.name.upper() == "DICOMDIR":
                continue
            elif _is_named_as_image(entry.name) or claims_to_be_image(Path(entry.path)):
                found.files.append(prefix + entry.name)
            else:
                found.others.append(prefix + entry.name)
        deeper: list[tuple[str, str, str]] = []
        names = [entry.name for entry in folders]
        for entry in folders:
            if _holds_masks(entry, names):
                found.mask_folders.append(prefix + entry.name)
                _gather_masks(entry.path, f"{prefix}{entry.name}/", found)
                continue
            target = os.path.realpath(entry.path)
            is_above = (real + os.sep).startswith(target.rstrip(os.sep) + os.sep)  # a link up: a loop, or strangers
            if target not in entered and not is_above:
                entered.add(target)
                deeper.append((entry.path, f"{prefix}{entry.name}/", target))
        pending.extend(reversed(deeper))
    beside = _masks_beside_films(found.files)
    found.files = [path for path in found.files if path not in beside]
    found.masks += beside
    found.masks_beside = len(beside)
    for paths in (found.files, found.masks, found.others):
        paths.sort()
    return found


def _holds_masks(folder: os.DirEntry[str], beside: Collection[str]) -> bool:
    if not is_mask_folder(folder.name, beside):
        return False
    return is_mask_folder(folder.name, beside, [e.name for e in _entries(folder.path) or () if is_folder(e)])


def _masks_beside_films(files: Sequence[str]) -> frozenset[str]:
    """Return the masks among the files: `a_mask` lies beside `a`; alone it may be anything."""
    masks = {path: film for path in files if (film := film_of_mask(stem_of(path))) != stem_of(path)}
    films = {(path.rpartition("/")[0], stem_of(path).lower()) for path in files} if masks else set()
    return frozenset(path for path, film in masks.items() if (path.rpartition("/")[0], film.lower()) in films)


def _gather_masks(folder: str, prefix: str, found: Found) -> None:
    """Gather the pictures in a folder of masks, by extension alone; links to folders are not followed."""
    for entry in _entries(folder) or ():
        if entry.is_dir(follow_symlinks=False):
            _gather_masks(entry.path, f"{prefix}{entry.name}/", found)
        elif _is_named_as_image(entry.name):
            found.masks.append(prefix + entry.name)


def _entries(folder: str) -> list[os.DirEntry[str]] | None:
    """Return what is in a folder, sorted, without hidden files and a Mac's leftovers; None if it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError:
        return None
    return sorted(kept, key=lambda entry: entry.name)


def _is_ours(folder: Path) -> bool:
    """Tell whether this tool wrote a folder: its heatmaps and sample grids are no scans."""
    try:
        return "anomaly" in read_json(folder / RECEIPT)["versions"]
    except (DataError, KeyError, TypeError):
        return False


def _is_named_as_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS  # noqa: PTH122 (100,000 Paths take seconds)


def claims_to_be_image(path: Path) -> bool:
    """Tell whether a file's extension or its first bytes are those of an image."""
    if _is_named_as_image(path.name):
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as stream:
            return sniff(stream.read(HEAD)) is not None
    except (OSError, ValueError):
        return False


def masks_of(top: Path, found: Found) -> Masks:
    """Return the masks of SCANS by their films; where SCANS is called images, with those of the folders beside it."""
    masks = {f"{top.name}/{relative}": top / relative for relative in found.masks}
    folders = {f"{top.name}/{folder}" for folder in found.mask_folders}
    if is_picture_folder(top.name):
        beside = Found()
        for entry in _entries(str(top.parent)) or ():
            if is_folder(entry) and _holds_masks(entry, [top.name]):
                folders.add(entry.name)
                _gather_masks(entry.path, f"{entry.name}/", beside)
        masks |= {relative: top.parent / relative for relative in beside.masks}
    return Masks(masks, folders)


def is_named_as_masks(top: Path, files: Sequence[str]) -> bool:
    """Tell whether SCANS as a whole looks like masks: `S_masks/train/NORMAL`, or nothing but `a_mask.png` in it."""
    names = (name for name in reversed(top.parts) if not is_picture_folder(name))
    named = next((name for name in names if split_of_name(name) is None and label_of_name(name) is None), "")
    return is_mask_folder(named, inside=("images",)) or (  # of a set, so only the plain words count
        bool(files) and all(film_of_mask(stem_of(path)) != stem_of(path) for path in files)
    )
