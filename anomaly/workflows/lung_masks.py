"""A folder of masks beside scored scans: which belongs to which, and each on the grid of its scan's small film."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, ScanError
from anomaly.scans.gather import gather
from anomaly.scans.image import read_image
from anomaly.scans.layouts.names import film_of_mask
from anomaly.scans.magic import HEAD, IMAGE_EXTENSIONS, sniff
from anomaly.scans.shrink import area_mean

Mask = NDArray[np.bool_]
"""bool (H, W), True in the lungs."""

Size = tuple[int, int]
"""(H, W)."""

_FEW_LEVELS = 16  # a picture of so few grey levels may name regions, such as left and right, by different greys
_REGION = 0.05  # share of the pixels: a grey that has so many is no soft edge
_MIDDLE = (0.1, 0.9)  # of the brightest: in a picture of more levels the soft edge of a mask may lie there,
_MOST_MIDDLE = 0.1  # this share of the pixels, and not much more


@dataclass(frozen=True, slots=True)
class Matched:
    """Which mask goes with which scan.

    `of` is scan id -> file; `strangers` counts masks that fit no scan, `unclear` those that fit several by their file
    name and none by their folder.
    """

    of: dict[str, Path]
    strangers: int
    unclear: int


def find_masks(folder: Path) -> dict[str, Path]:
    """Return the pictures in a folder and all below: posix path relative to it -> file, in a fixed order.

    Raises:
        DataError: No folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of masks: give --masks the folder they lie in.")
    found = gather(folder)
    masks = {relative: folder / relative for relative in sorted([*found.files, *found.masks])}
    if not masks:
        raise DataError(f"{folder} holds no picture: give --masks a folder of masks, PNG or another picture format.")
    return masks


def match_masks(masks: Mapping[str, Path], scans: Mapping[str, str]) -> Matched:
    """Say which mask belongs to which scan.

    The scan whose path without extension is the mask's, else the only scan of that file name; `a_mask` and `mask_a`
    go with `a` where no scan is called like the mask itself.

    Args:
        masks: Of `find_masks`.
        scans: Scan id -> path as in scores.csv.

    Raises:
        DataError: Two masks belong to one scan.
    """
    by_path, by_stem = defaultdict(list), defaultdict(list)
    for scan_id, path in scans.items():
        by_path[_bare(path)].append(scan_id)
        by_stem[PurePosixPath(_bare(path)).name].append(scan_id)
    of: dict[str, Path] = {}
    rest: list[str] = []
    for relative, file in masks.items():
        owners = next((by_path[key] for key in _names(_bare(relative)) if key in by_path), None)
        if owners is None:
            rest.append(relative)
        for scan_id in owners or ():
            _claim(of, scan_id, file, scans)
    placed = frozenset(of)
    strangers = unclear = 0
    for relative in rest:
        stems = _names(PurePosixPath(_bare(relative)).name)
        owners = next((by_stem[stem] for stem in stems if stem in by_stem), [])
        if len(owners) > 1:
            unclear += 1
        elif not owners or owners[0] in placed:  # another mask fits better, by its folder too
            strangers += 1
        else:
            _claim(of, owners[0], masks[relative], scans)
    return Matched(of, strangers, unclear)


def _claim(of: dict[str, Path], scan_id: str, file: Path, scans: Mapping[str, str]) -> None:
    if scan_id in of:
        raise DataError(
            f"Both {of[scan_id]} and {file} are masks of {scans[scan_id]}: keep one a film, both lungs in one, "
            "and give --masks the folder laid out as the scans are."
        )
    of[scan_id] = file


def _bare(path: str) -> str:
    """Return a posix path without an image's extension; `1.2.840.1` has none."""
    stem, dot, extension = path.rpartition(".")
    return stem if dot and f".{extension.lower()}" in IMAGE_EXTENSIONS else path


def _names(path: str) -> Iterator[str]:
    """Yield what the film of a mask may be called, the likelier first; with its folders, if it has any."""
    yield path
    folder, slash, stem = path.rpartition("/")
    yield folder + slash + film_of_mask(stem)


def read_mask(path: Path) -> Mask:
    """Read a mask, bool (H, W), True in the lungs.

    Whatever is at least half as bright as the brightest pixel is inside; so are, in a picture of at most 16 grey
    levels, darker greys that cover a region (1, 2 and 3 may name parts of the lungs).

    Raises:
        DataError: Not readable, no mask but a picture, empty, or all of the film.
    """
    try:
        data = path.read_bytes()
        kind = sniff(data[:HEAD])
        if kind is None or kind == "dicom":
            raise ScanError("is no PNG, JPEG, TIFF or BMP; save the mask as one")
        pixels = read_image(data, kind).pixels
    except ScanError as error:
        raise DataError(f"The mask {path} {error}.") from error
    except OSError as error:
        raise DataError(f"Cannot read the mask {path}: {error.strerror or error}.") from error
    grey = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    top = float(grey.max())
    if top == 0:
        raise DataError(f"The mask {path} is empty: remove it, or draw what belongs in it.")
    levels, counts = np.unique(grey, return_counts=True)
    least = 0.5 * top
    if len(levels) <= _FEW_LEVELS:
        least = min(least, float(levels[(levels > 0) & ((counts >= _REGION * grey.size) | (levels == top))].min()))
    elif np.mean((grey > _MIDDLE[0] * top) & (grey < _MIDDLE[1] * top)) > _MOST_MIDDLE:
        raise DataError(
            f"{path} is a picture of many greys and no mask: give --masks a folder of masks, 0 outside the lungs (or "
            "lesions)."
        )
    inside = grey >= least
    if inside.all():
        raise DataError(f"The mask {path} covers the whole film: a mask is 0 outside the lungs (or lesions).")
    return np.asarray(inside, dtype=np.bool_)


def on_film(mask: Mask, film: Size, size: Size | None, names: tuple[Path, str]) -> Mask:
    """Bring a mask onto the grid of a scan's small film.

    Args:
        mask: bool (H, W).
        film: (h, w) of the small film.
        size: (H, W) of the film as it was read, None where nothing tells.
        names: Of the mask and of its scan, to be named in errors.

    Returns:
        bool (h, w): a pixel is inside where the mask covers half of it.

    Raises:
        DataError: The mask is not of the film's size (of its shape, to one pixel of the small film, where the size
            is not known), or too small to be seen on the small film.
    """
    where, scan = names
    if size is not None:
        check_size(mask, size, names)
    factor = max(film) / max(mask.shape)
    if max(abs(side * factor - own) for side, own in zip(mask.shape, film, strict=True)) > 1.0:
        raise DataError(
            f"The mask {where} is {_told(mask.shape)} pixels and the copy kept of its film {scan} {_told(film)}, which "
            "is another shape: give masks drawn on these very films."
        )
    small = _resized(mask, film)
    if not small.any():
        raise DataError(f"The mask {where} is too small to be seen on a film of {_told(film)} pixels: remove it.")
    return small


def check_size(mask: Mask, size: Size, names: tuple[Path, str]) -> None:
    """Refuse a mask, bool (H, W), that is not of its film's size.

    Args:
        mask: As it was read.
        size: (H, W) of the film as it was read.
        names: Of the mask and of its scan, to be named in errors.

    Raises:
        DataError: It is not.
    """
    where, scan = names
    if mask.shape != size:
        raise DataError(
            f"The mask {where} is {_told(mask.shape)} pixels and its film {scan} is {_told(size)}: give masks drawn on "
            "these very films, or stretch them to the films' size if they were drawn on smaller copies."
        )


def _resized(mask: Mask, shape: Size) -> Mask:
    if mask.shape == shape:
        return mask
    if mask.shape[0] >= shape[0] and mask.shape[1] >= shape[1]:
        return np.asarray(area_mean(mask.astype(np.float32), *shape) >= 0.5, dtype=np.bool_)
    import cv2

    larger = cv2.resize(mask.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(larger, dtype=np.bool_)


def _told(shape: Sequence[int]) -> str:
    return f"{shape[1]} x {shape[0]}"
