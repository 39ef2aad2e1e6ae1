"""What folder and file names say: label, class, published split, patient. Small pure functions, no disk.

Room for recognisers of whole public sets (NIH, RSNA, BMAD, …), which come with their own issue.
"""

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
_MASK_FOLDER = re.compile(r"(?:.*[_\- ])?masks?|ground[_\- ]?truth", re.IGNORECASE)
_SPLITS = frozenset({"train", "test", "val", "dev", "valid", "validation"})
_PICTURE_FOLDERS = frozenset({"images", "img", "image"})

_KERMANY_NORMAL = re.compile(r"((?:NORMAL2-)?IM)-(\d{4})-\d{4}(?:-\d{4})?")
_KERMANY_PNEUMONIA = re.compile(r"(person)(\d+)_(?:virus|bacteria)_\d+")


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


def split_of_folders(folders: Sequence[str]) -> str | None:
    """Return the published split (train, test, val, dev, …) that the deepest such folder names, in lower case."""
    return next((name.lower() for name in reversed(folders) if name.lower() in _SPLITS), None)


def root_names(parents: Sequence[str]) -> list[str]:
    """Say which of the names on the way to the root may speak for its files: its own, and what that one hangs from.

    `.../train/NORMAL` gives [train, NORMAL]; `.../Normal/images` gives [Normal, images]; `.../mine` gives [mine].
    A name further up never speaks: a home folder called "bad" says nothing of the films in it.

    Args:
        parents: Names of the absolute path of the root, the root's own last.
    """
    names: list[str] = []
    for name in reversed(parents):
        names.insert(0, name)
        if name.lower() not in _PICTURE_FOLDERS and label_of_name(name) is None:
            break
    return names


def is_mask_folder(name: str) -> bool:
    """Tell whether a folder holds masks rather than films: mask, masks, lung_masks, anomaly_mask, ground_truth."""
    return _MASK_FOLDER.fullmatch(name) is not None


def patient_key(stem: str, split: str | None) -> str | None:
    """Return a grouping key for file names of public sets whose rule is known, else None.

    Kermany: (published split, series prefix, number). Numbers restart between splits, and IM-0115 and
    NORMAL2-IM-0115 are different series.

    Args:
        stem: File name without extension; it must match as a whole.
        split: From `split_of_folders`.
    """
    match = _KERMANY_NORMAL.fullmatch(stem) or _KERMANY_PNEUMONIA.fullmatch(stem)
    return f"kermany/{split or ''}/{match[1]}/{int(match[2])}" if match else None
