"""What folder and file names say: label, class, published split, patient, mask. Small pure functions, no disk."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

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
_MASK_FOLDER = re.compile(r"(?:.*[_\- ])?(?:manual|left|right|lung)?masks?|ground[_\- ]?truth", re.IGNORECASE)
_LUNG_MASK_FOLDER = re.compile(r"lungs?[_\- ]?masks?", re.IGNORECASE)
_NO_MASK_FOLDER = re.compile(r"(?:.*[_\- ])?(?:no|with|without)[_\- ]?masks?(?:[_\- ].*)?", re.IGNORECASE)
_SEGMENTATIONS = re.compile(r"(?:.*[_\-])?segmentations?(?:_lesion_\w+)?", re.IGNORECASE)
_MASKS_BESIDE_PICTURES = re.compile(r"labels?|(?:.*[_\- ])?masks?[_\- ].*", re.IGNORECASE)
_MASK_STEM = re.compile(r"(?P<film>.+)[_\- ](?:mask|segmentation)|mask[_\- ](?P<after>.+)", re.IGNORECASE)

_KERMANY, _NIH = "kermany", "nih"
_KERMANY_FILES = (".jpeg", ".jpg", ".png")
"""Kermany is JPEG, perhaps converted; in DICOM, IM-0001-0001 is what OsiriX and Horos call anyone's first film."""

_PATIENTS: tuple[tuple[re.Pattern[str], str, bool], ...] = (
    (re.compile(r"(?P<series>(?:NORMAL2-)?IM)-(?P<number>\d{4})-\d{4}(?:-\d{4})?", re.IGNORECASE), _KERMANY, True),
    (re.compile(r"(?P<series>person)(?P<number>\d+)_(?:virus|bacteria)_\d+", re.IGNORECASE), _KERMANY, True),
    (re.compile(r"(?P<series>NORMAL|BACTERIA|VIRUS)-(?P<number>\d+)-\d{4}", re.IGNORECASE), _KERMANY, False),
    (re.compile(r"(?P<series>)(?P<number>000\d{5})_\d{3}"), _NIH, False),  # up to 30805: 20230110_001 is a date
)
"""Pattern of a whole stem, whose numbering it is, and whether the numbers restart in every published split."""

_CHEXPERT_FILM = re.compile(r"(?:.*/)?(patient\d{5})/study\d+/view\d+_(?:frontal|lateral)\.\w+", re.IGNORECASE)


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


def is_mask_folder(name: str, beside: Collection[str] = (), inside: Collection[str] = ()) -> bool:
    """Tell whether a folder holds masks rather than films: masks, lung_masks, ManualMask, ground_truth.

    Args:
        name: Of the folder.
        beside: Names of the folders next to it: `label` or `mask_png` beside `img` holds masks, alone it may hold
            anything.
        inside: Names of the folders in it: `lung_segmentation` with `images` or `train` in it is a set, no masks.
    """
    if _NO_MASK_FOLDER.fullmatch(name):
        return False
    if _MASK_FOLDER.fullmatch(name):
        return True
    if any(map(is_picture_folder, beside)) and _MASKS_BESIDE_PICTURES.fullmatch(name):
        return True
    return _SEGMENTATIONS.fullmatch(name) is not None and (
        any(map(is_picture_folder, beside)) or not any(map(_is_part_of_a_set, inside))
    )


def masks_of_anatomy(folders: Collection[str]) -> frozenset[str]:
    """Return which folders of masks say where the lungs are, not what is wrong: `lung_masks` beside any other masks.

    Args:
        folders: Posix paths of folders of masks. Alone in its place, `lung_masks` holds the only masks there are.
    """
    lungs = {path for path in folders if _LUNG_MASK_FOLDER.fullmatch(path.rpartition("/")[2])}
    places = {path.rpartition("/")[0].lower() for path in folders if path not in lungs}
    return frozenset(path for path in lungs if path.rpartition("/")[0].lower() in places)


def _is_part_of_a_set(name: str) -> bool:
    return (
        is_picture_folder(name)
        or split_of_name(name) is not None
        or label_of_name(name) is not None
        or _MASK_FOLDER.fullmatch(name) is not None
    )


def film_of_mask(stem: str) -> str:
    """Return the stem of the film a mask belongs to: `a_mask`, `a_segmentation` and `mask_a` go with `a`."""
    match = _MASK_STEM.fullmatch(stem)
    return stem if match is None else match["film"] or match["after"]


def patient_key(file_name: str, split: str | None) -> str | None:
    """Return a grouping key for file names of public sets whose rule is known, else None.

    Kermany: (published split, series prefix, number). Numbers restart between splits, and IM-0115 and
    NORMAL2-IM-0115 are different series; the numbers of its Mendeley form are random and hold in the whole set. `val`
    was carved from train, so it has train's numbers. NIH: the part before `_`, one numbering for the whole set.

    Args:
        file_name: With its extension, without folders; it must match as a whole.
        split: From `split_of_folders`; None groups over all splits.
    """
    for pattern, numbering, restarts in _PATIENTS:
        match = _match(pattern, numbering, file_name)
        if match:
            scope = ["train" if split == "val" else split or ""] if restarts else []
            return "/".join([numbering, *scope, match["series"].upper(), str(int(match["number"]))])
    return None


def numbering_of(file_name: str) -> str | None:
    """Return whose numbering a file name, with its extension, follows, "kermany" or "nih", or None."""
    return next((numbering for pattern, numbering, _ in _PATIENTS if _match(pattern, numbering, file_name)), None)


def chexpert_patient(path: str) -> str | None:
    """Return the grouping key of a film of CheXpert, `patient00001/study1/view1_frontal.jpg` in any folder, or None."""
    match = _CHEXPERT_FILM.fullmatch(path)
    return None if match is None else f"chexpert/{match[1].lower()}"


def _match(pattern: re.Pattern[str], numbering: str, file_name: str) -> re.Match[str] | None:
    stem, dot, extension = file_name.rpartition(".")
    if numbering == _KERMANY and dot + extension.lower() not in _KERMANY_FILES:
        return None
    return pattern.fullmatch(stem if dot else file_name)
