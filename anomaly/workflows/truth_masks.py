"""truth/ID.png: what is wrong on a film as people outlined it, on the grid of its small copy; 0 and 255.

The masks that scans come with may be of lesions or of the lungs, and no error would tell that a map was judged by the
wrong ones. So a mask is a lesion's only where something says so: the set (HAM10000, BMAD), the name of its folder
(`anomaly_mask`, `ground_truth`), lung masks beside it, or a manifest that names it; and, but for those two sets, where
no normal film has anything drawn in its own. Plain `masks`, of which nothing is said, are passed over.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.heatmaps import write_png
from anomaly.records import NORMAL, ResultRow, ScanFile
from anomaly.scans.manifest import has_path_column, read_manifest
from anomaly.scans.walk import Listing
from anomaly.workflows.box_tables import SHAPE
from anomaly.workflows.lung_masks import Mask, Size, on_film, read_mask
from anomaly.workflows.panels import FILM_SIDE

TRUTH = "truth"
"""The folder, in a results folder, of the masks of lesions."""

_OF_LESIONS = frozenset({"HAM10000", "BMAD"})
_OF_LUNGS = frozenset({"COVID-19 Radiography Database", "Montgomery County and Shenzhen tuberculosis sets (NLM)"})
_NORMALS_TOO = "normal films have such masks too, so they are of the lungs or the like"
_NO_NORMALS = "a manifest names them, and without a normal film beside them nothing tells them from masks of the lungs"
_UNSAID = "nothing says that they are none of the lungs; where they are, name them in a manifest's column mask"
_LUNGS = re.compile(
    r"(?:.*[_\- ])?lungs?[_\- ]?(?:masks?|seg\w*)(?:[_\- ].*)?|(?:left|right)[_\- ]?masks?", re.IGNORECASE
)
_LESIONS = re.compile(r"(?=.*(?:mask|segmentation)).*(?:lesion|anomal|infection).*|ground[_\- ]?truth", re.IGNORECASE)


def lesion_masks(listing: Listing, files: Sequence[ScanFile]) -> tuple[list[Path | None], list[str]]:
    """Return the masks that say what is wrong on scans, for an evaluation.

    Args:
        listing: All there is in SCANS.
        files: Those to be scored.

    Returns:
        For each of `files` its mask, None where there is none of a lesion, or the film is normal; and remarks, in
        sentences.
    """
    masks = {file.scan_id: file.mask for file in listing.files if file.mask and not _of_lungs(file.mask, listing.root)}
    taken, doubt = _taken(listing, masks)
    sick = [file.scan_id if file.label != NORMAL else "" for file in files]
    doubted = sum(scan_id in masks and scan_id not in taken for scan_id in sick)
    remarks = [f"{doubted} masks were not taken for those of lesions: {doubt}."] if doubted and doubt else []
    return [taken.get(scan_id) for scan_id in sick], remarks


def write_true_masks(
    out: Path, rows: Sequence[ResultRow], known: Mapping[str, Path], entries: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Write truth/ID.png of every scored film with a mask that fits it.

    Args:
        out: A results folder.
        rows: Of the films.
        known: scan_id -> mask of lesions.
        entries: The journal's, by scan id.

    Returns:
        Remarks on masks that cannot be used, which are passed over.
    """
    wrong: list[str] = []
    for row in rows:
        shape = entries[row.scan_id].get(SHAPE)
        if row.scan_id not in known or shape is None:
            continue
        size = (int(shape[0]), int(shape[1]))
        where = known[row.scan_id]
        try:
            mask = on_film(read_mask(where), small_shape(size), size, (where, row.path))
        except DataError as error:
            wrong.append(str(error))
            continue
        write_png(true_mask_path(out, row.scan_id), mask.astype(np.uint8) * np.uint8(255))
    return [f"{len(wrong)} masks of lesions were passed over, the first: {wrong[0]}"] if wrong else []


def small_shape(size: Size) -> Size:
    """Return the (h, w) of a film's small copy (see `panels.small_film`) from the film's own (H, W)."""
    scale = min(1.0, FILM_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def true_mask_path(out: Path, scan_id: str) -> Path:
    """Return where the mask of a scan's lesions is, or would be."""
    return out / TRUTH / f"{scan_id}.png"


def read_true_mask(out: Path, scan_id: str) -> Mask | None:
    """Read what `write_true_masks` wrote of a scan, bool (h, w); None where there is nothing.

    Raises:
        DataError: It is damaged.
    """
    from PIL import Image

    path = true_mask_path(out, scan_id)
    if not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            return np.asarray(np.asarray(picture.convert("L")) > 0, dtype=np.bool_)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error}. Score again with --resume.") from error


def forget_true_masks(out: Path) -> None:
    """Remove the folder of true masks."""
    if (out / TRUTH).is_dir():
        shutil.rmtree(out / TRUTH)


def _taken(listing: Listing, masks: Mapping[str, Path]) -> tuple[Mapping[str, Path], str | None]:
    """Return the masks of lesions, by scan id, and what keeps the others from being some; None where that is known."""
    titles = frozenset((listing.layout or "").split("; "))
    if titles <= _OF_LESIONS:
        return masks, None
    named = _named(masks, listing.root)
    told = frozenset() if titles & _OF_LUNGS else _in_manifest(listing)
    claimed = named | {scan_id: path for scan_id, path in masks.items() if path in told}
    normals = [file.scan_id for file in listing.files if file.label == NORMAL]
    if any(scan_id in claimed and _drawn(claimed[scan_id]) for scan_id in normals):
        return {}, _NORMALS_TOO
    if len(claimed) > len(named) and not normals:
        return named, _NO_NORMALS
    return claimed, None if titles & _OF_LUNGS else _UNSAID


def _named(masks: Mapping[str, Path], root: Path) -> dict[str, Path]:
    """Return those that lie in a folder named after lesions, or beside one of lung masks."""
    folders = {scan_id: _folders(path, root) for scan_id, path in masks.items()}
    around = {folder.parent for within in folders.values() for folder in within}
    lungs = {folder for folder in around if _holds_lungs(folder)}
    return {
        scan_id: masks[scan_id]
        for scan_id, within in folders.items()
        if any(_LESIONS.fullmatch(folder.name) or folder.parent in lungs for folder in within)
    }


def _holds_lungs(folder: Path) -> bool:
    try:
        return any(_LUNGS.fullmatch(entry.name) and entry.is_dir() for entry in folder.iterdir())
    except OSError:  # not there, or closed: it says nothing
        return False


def _folders(mask: Path, root: Path) -> list[Path]:
    """Return the folders a mask lies in, the nearest first, without those that SCANS itself lies in."""
    below = [part for part in Path(os.path.relpath(mask.parent, root)).parts if part != os.pardir]
    return list(mask.parents)[: len(below)]


def _of_lungs(mask: Path, root: Path) -> bool:
    return any(_LUNGS.fullmatch(name) for name in (mask.stem, *(folder.name for folder in _folders(mask, root))))


def _in_manifest(listing: Listing) -> frozenset[Path]:
    """Return the masks that a manifest names, the one given as SCANS or the folder's own."""
    if listing.layout == "manifest":
        return frozenset(file.mask for file in listing.files if file.mask is not None)
    table = listing.root / "manifest.csv"
    if not table.is_file() or not has_path_column(table):
        return frozenset()
    return frozenset(row.mask for row in read_manifest(table) if row.mask is not None)


def _drawn(mask: Path) -> bool:
    """Tell whether a mask marks anything."""
    try:
        return bool(read_mask(mask).any())
    except DataError:  # empty, or none at all
        return False
