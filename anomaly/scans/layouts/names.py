"""What folder and file names say: label, class, published split, patient, mask. Small pure functions, no disk."""

from __future__ import annotations

import re
from collections.abc import Sequence

from anomaly.records import ABNORMAL, NORMAL

_NORMAL_NAMES = frozenset({"normal", "normals", "good", "healthy", "nofinding", "nofindings", "negative"})
_ABNORMAL_NAMES = frozenset(
    {
        *("abnormal", "abnormals", "anomaly", "anomalous", "bad", "ungood", "defect", "positive", "diseased", "sick"),
        *("pneumonia", "bacteria", "bacterial", "bacterialpneumonia", "virus", "viral", "viralpneumonia"),
        *("covid", "covid19", "tuberculosis", "tb", "lungopacity", "opacity", "abnormalnoopacity"),
        *("consolidation", "effusion", "pleuraleffusion", "nodule", "mass", "cardiomegaly", "pneumothorax", "edema"),
        *("atelectasis", "infiltration", "fibrosis"),
    }
)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    "dev": "dev",
}
_PICTURE_FOLDERS = frozenset({"images", "img", "image", "cxr_png"})
_MASK_FOLDER = re.compile(
    r"(?:.*[_\- ])?(?:(?:manual|left|right|lung)?masks?|segmentations?(?:_lesion_\w+)?)|ground[_\- ]?truth",
    re.IGNORECASE,
)
_MASKS_BESIDE_PICTURES = frozenset({"label", "labels"})
_MASK_ENDING = re.compile(r"[_\- ](?:mask|segmentation)$", re.IGNORECASE)

_PATIENTS: tuple[tuple[re.Pattern[str], str, bool], ...] = (
    (re.compile(r"(?P<series>(?:NORMAL2-)?IM)-(?P<number>\d{4})-\d{4}(?:-\d{4})?", re.IGNORECASE), "kermany", True),
    (re.compile(r"(?P<series>person)(?P<number>\d+)_(?:virus|bacteria)_\d+", re.IGNORECASE), "kermany", True),
    (re.compile(r"(?P<series>NORMAL|BACTERIA|VIRUS)-(?P<number>\d+)-\d{4}", re.IGNORECASE), "kermany", False),
    (re.compile(r"(?P<series>)(?P<number>\d{8})_\d{3}"), "nih", False),
)
"""Pattern of a whole stem, whose numbering it is, and whether the numbers restart in every published split."""


def label_of_name(name: str) -> int | None:
    """Return the label a folder's or class's name stands for: 0 normal, 1 abnormal, None unknown."""
    plain = re.sub(r"[\s_\-]+", "", name).lower()
    if plain in _NORMAL_NAMES:
        return NORMAL
    return ABNORMAL if plain in _ABNORMAL_NAMES else None


def class_of_folders(folders: Sequence[str]) -> tuple[int | None, str | None]:
    """Return (label, class name) from the deepest folder whose name is class-like, or (None, None).

    Args:
        folders: Names from the root down to the file's own folder; see `root_names`.
    """
    for name in reversed(folders):
        label = label_of_name(name)
        if label is not None:
            return label, name
    return None, None


def split_of_name(name: str) -> str | None:
    """Return the split a name stands for (train, test, val, dev), or None: training and validation mean the same."""
    return _SPLITS.get(name.strip().lower())


def split_of_folders(folders: Sequence[str]) -> str | None:
    """Return the published split that the deepest such folder names: train, test, val or dev."""
    return next((split for name in reversed(folders) if (split := split_of_name(name)) is not None), None)


def is_picture_folder(name: str) -> bool:
    """Tell whether a folder's name says only that it holds pictures: images, img."""
    return name.lower() in _PICTURE_FOLDERS


def root_names(parents: Sequence[str]) -> list[str]:
    """Say which of the names on the way to the root may speak for its files: its own, and what that one hangs from.

    `.../train/NORMAL` gives [train, NORMAL]; `.../Normal/images` gives [set, Normal, images]; `.../mine` gives [mine].
    A name further up never speaks: a home folder called "bad" says nothing of the films in it.

    Args:
        parents: Names of the absolute path of the root, the root's own last.
    """
    names: list[str] = []
    for name in reversed(parents):
        names.insert(0, name)
        if not is_picture_folder(name) and label_of_name(name) is None:
            break
    return names


def is_mask_folder(name: str, beside: Sequence[str] = ()) -> bool:
    """Tell whether a folder holds masks rather than films: masks, lung_masks, ManualMask, ground_truth.

    Args:
        name: Of the folder.
        beside: Names of the folders next to it: `label` beside `img` holds masks, alone it may hold anything.
    """
    if name.lower() in _MASKS_BESIDE_PICTURES:
        return any(map(is_picture_folder, beside))
    return _MASK_FOLDER.fullmatch(name) is not None


def film_of_mask(stem: str) -> str:
    """Return the stem of the film a mask belongs to: `a_mask` and `a_segmentation` go with `a`."""
    return _MASK_ENDING.sub("", stem)


def patient_key(stem: str, split: str | None) -> str | None:
    """Return a grouping key for file names of public sets whose rule is known, else None.

    Kermany: (published split, series prefix, number). Numbers restart between splits, and IM-0115 and
    NORMAL2-IM-0115 are different series; the numbers of its Mendeley form are random and hold in the whole set.
    NIH: the part before `_`, one numbering for the whole set.

    Args:
        stem: File name without extension; it must match as a whole.
        split: From `split_of_folders`.
    """
    for pattern, numbering, restarts in _PATIENTS:
        match = pattern.fullmatch(stem)
        if match:
            scope = [split or ""] if restarts else []
            return "/".join([numbering, *scope, match["series"].upper(), str(int(match["number"]))])
    return None


def numbering_of(stem: str) -> str | None:
    """Return whose numbering a file name follows, "kermany" or "nih", or None."""
    return next((numbering for pattern, numbering, _ in _PATIENTS if pattern.fullmatch(stem)), None)
