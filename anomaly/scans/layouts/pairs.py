"""Files that belong together by their place: a film and its mask, a file and its copy in a nested root."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from anomaly.scans.layouts.base import folders_of, stem_of
from anomaly.scans.layouts.names import film_of_mask, is_picture_folder, masks_of_anatomy

_Key = tuple[str, str]
"""The folder a mask folder lies in, and the rest of the way from there to the film, without extension."""


class Masks:
    """Masks by the films they belong to.

    The same base name in `X/masks` and `X/images`, in `S_masks` beside `S`, or `a_mask` beside `a`. Where `lung_masks`
    lies beside other masks, those of the lungs are no film's mask: the others say what is to be found.

    Args:
        masks: Posix path, the name of SCANS first -> where it is on disk.
        mask_folders: The folders of masks among these, written the same way; a mask in none of them lies beside its
            film.
    """

    def __init__(self, masks: Mapping[str, Path], mask_folders: Collection[str]) -> None:
        self._by_film: dict[_Key, tuple[str, Path] | None] = {}
        anatomy = masks_of_anatomy(mask_folders)
        for relative, path in masks.items():
            folders = folders_of(relative)
            at = next((i for i in range(len(folders)) if "/".join(folders[: i + 1]) in mask_folders), len(folders))
            if "/".join(folders[: at + 1]) in anatomy:
                continue
            key = _key(folders[:at], folders[at + 1 :], film_of_mask(stem_of(relative)))
            name = "".join(folders[at : at + 1]).lower()
            self._by_film[key] = None if key in self._by_film else (name, path)

    def of(self, relative: str) -> Path | None:
        """Return the mask of a film, by its posix path with the name of SCANS first; None unless there is just one."""
        if not self._by_film:
            return None
        folders, stem = folders_of(relative), stem_of(relative)
        for i in range(len(folders), -1, -1):
            found = self._by_film.get(_key(folders[:i], folders[i:], stem))
            if found is not None:
                return found[1]
            dropped = folders[i].lower() if i < len(folders) else None
            found = self._by_film.get(_key(folders[:i], folders[i + 1 :], stem)) if dropped is not None else None
            if (
                found is not None
                and dropped is not None
                and (is_picture_folder(dropped) or found[0].startswith(dropped))
            ):
                return found[1]
        return None


def _key(before: Sequence[str], after: Sequence[str], stem: str) -> _Key:
    return "/".join(before).lower(), "/".join([*after, stem]).lower()


def nested_copies(root: Path, images: Sequence[str]) -> frozenset[str]:
    """Return the files inside a folder nested in one of the same name that are there once more outside it.

    Archives of public sets hold `chest_xray/chest_xray/…` beside `chest_xray/…`. Copies are told by relative name and
    size, so files that differ stay.

    Args:
        root: SCANS, absolute.
        images: Posix paths relative to it.
    """
    known = frozenset(images)
    copies = []
    for path in images:
        names = [root.name, *path.split("/")]
        for i in range(len(names) - 2):
            if names[i].lower() == names[i + 1].lower():
                outer = "/".join([*names[1 : i + 1], *names[i + 2 :]])
                if outer in known and _size(root / outer) == _size(root / path) is not None:
                    copies.append(path)
                    break
    return frozenset(copies)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
