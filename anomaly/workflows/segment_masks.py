"""Which films a segmenter may learn from, and their masks: matched, checked, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import DataError
from anomaly.records import ScanFile
from anomaly.runs import sha256_of
from anomaly.scans.walk import Listing
from anomaly.workflows.lung_masks import Mask, Size, check_size, find_masks, match_masks, read_mask
from anomaly.workflows.progress import Ticker
from anomaly.workflows.selection import CALIBRATION, LeftOut, count_reasons, parted

FEWEST_MASKED = 8
NO_MASK = "no mask"
VALIDATION = "validation"
"""The role, in splits.csv, of films that stop a training and choose the threshold."""


@dataclass(frozen=True, slots=True)
class Masked:
    """What published splits and the names of masks say, before anything is read.

    `chosen` may be learnt from, `masks` is scan id -> mask of each; `test` are the files of other published splits.
    """

    chosen: tuple[ScanFile, ...]
    masks: dict[str, Path]
    test: tuple[ScanFile, ...]
    left_out: LeftOut
    basis: str
    notes: tuple[str, ...]


def select_masked(listing: Listing, folder: Path | None) -> Masked:
    """Choose the films a segmenter may learn from: those with a mask, of the train split where there is one.

    Args:
        listing: Of the films.
        folder: Of masks, laid out and named as the films; None for the masks that the set or its manifest names.

    Raises:
        DataError: No folder of masks, no mask that fits a film, or fewer than 8 films with one.
    """
    usable = [file for file in listing.files if file.set_aside is None]
    aside = [(file, str(file.set_aside)) for file in listing.files if file.set_aside is not None]
    masks, notes = _given(listing) if folder is None else _matched(listing, folder)
    for_training, held, test = parted(usable)
    chosen = [file for file in for_training if file.scan_id in masks]
    aside += [(file, f"of the {CALIBRATION} split") for file in held]
    aside += [(file, NO_MASK) for file in for_training if file.scan_id not in masks]
    enough_masked(len(chosen), str(listing.root), aside)
    basis = "named by the set or its manifest" if folder is None else "given by --masks"
    own = {file.scan_id: masks[file.scan_id] for file in chosen}
    return Masked(tuple(chosen), own, tuple(test), tuple(aside), basis, tuple(notes))


def enough_masked(number: int, label: str, left_out: Sequence[tuple[ScanFile, str]]) -> None:
    """Refuse too few films with masks, saying what was left out.

    Raises:
        DataError: Fewer than 8.
    """
    if number < FEWEST_MASKED:
        others = ", ".join(f"{count} {reason}" for reason, count in count_reasons(left_out).items())
        raise DataError(
            f"{label} gives {number} film{'s' if number != 1 else ''} with a mask to learn from"
            f"{f' (left out: {others})' if others else ''}; at least {FEWEST_MASKED} are needed, and some dozens for "
            "a useful model: give more."
        )


def _given(listing: Listing) -> tuple[dict[str, Path], list[str]]:
    masks = {file.scan_id: file.mask for file in listing.files if file.mask is not None}
    if not masks:
        raise DataError(
            f"{listing.root} names no mask for any scan: give --masks the folder of the masks, named as the films, or "
            "a manifest with a mask column."
        )
    return masks, []


def _matched(listing: Listing, folder: Path) -> tuple[dict[str, Path], list[str]]:
    matched = match_masks(find_masks(folder), {file.scan_id: file.relative for file in listing.files})
    notes = stranger_notes(matched.strangers, matched.unclear)
    if not matched.of:
        several = f" ({matched.unclear} fit several by name: lay them out in the films' folders)"
        raise DataError(
            f"No mask in {folder} fits a film of {listing.root}: name masks as the films"
            f"{several if matched.unclear else ''}."
        )
    return matched.of, notes


def stranger_notes(strangers: int, unclear: int) -> list[str]:
    """Say how many masks go with no scan, or with several."""
    notes = []
    if strangers:
        notes.append(f"{strangers} masks fit no scan.")
    if unclear:
        notes.append(f"{unclear} masks fit several scans by their name and none by their folder.")
    return notes


def check_masks(masks: dict[str, Path], on_progress: Ticker) -> dict[str, str]:
    """Read every mask once, before any film is: scan id -> sha256 of its file.

    Raises:
        DataError: One that cannot be read, is empty, covers all, or is no mask; with how many such there are.
    """
    hashes: dict[str, str] = {}
    wrong: list[str] = []
    for done, (scan_id, path) in enumerate(masks.items(), start=1):
        try:
            read_mask(path)
            hashes[scan_id] = sha256_of(path)
        except DataError as error:
            wrong.append(str(error))
        on_progress(done, len(masks), "masks")
    refuse_masks(wrong)
    return hashes


def refuse_masks(wrong: Sequence[str]) -> None:
    """Refuse masks that cannot be used, naming the first.

    Raises:
        DataError: There are such.
    """
    if wrong:
        more = len(wrong) - 1
        raise DataError(wrong[0] + (f" There {'is' if more == 1 else 'are'} {more} more like it." if more else ""))


def mask_of(path: Path, size: Size, film: str) -> Mask:
    """Read a mask that must be of its film's size.

    Args:
        path: Of the mask.
        size: (H, W) of the film.
        film: Its name, for errors.

    Returns:
        bool (H, W), neither empty nor full.

    Raises:
        DataError: It cannot be used.
    """
    mask = read_mask(path)
    check_size(mask, size, (path, film))
    return mask
