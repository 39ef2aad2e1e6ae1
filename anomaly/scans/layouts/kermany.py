"""Kermany / ZhangLab paediatric chest X-rays: the Kaggle and the Mendeley form, and any part of them.

Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning", Cell 172 (2018).
"""

from __future__ import annotations

from pathlib import Path

from anomaly.scans.layouts.base import FOLDER, Layout, Place, Reading, folders_of, name_of, share
from anomaly.scans.layouts.class_folders import KERMANY_IDS, KERMANY_OWN_SPLIT_IDS, SMALL_VAL, kermany_val
from anomaly.scans.layouts.names import class_of_folders, numbering_of, patient_key, split_of_folders, split_of_name

_CLASSES = frozenset({"normal", "pneumonia"})
_KINDS = ("bacteria", "virus")
_VAL_ASIDE = "Kermany's val is too small to tell anything ({count} of at most {most} images); ignored"


def kermany(place: Place) -> Layout | None:
    """Recognise `{train,test,val}/{NORMAL,PNEUMONIA}/*` by the names of the folders on the way and of the files."""

    def folders(relative: str) -> list[str]:
        return [*place.above, *folders_of(relative)]

    def belongs(relative: str) -> bool:
        in_class = any(name.lower() in _CLASSES for name in folders(relative))
        return in_class and numbering_of(name_of(relative)) == "kermany"

    images = place.images
    if share(images, belongs) < 0.9:
        return None
    val = len(kermany_val(place.above, images))
    is_own_split = max(val, _val_beside(place)) > SMALL_VAL
    ignored = None if is_own_split else _VAL_ASIDE.format(count=val, most=SMALL_VAL)

    def read(relative: str) -> Reading | None:
        name = name_of(relative)
        if numbering_of(name) != "kermany":
            return None
        label, class_name = class_of_folders(folders(relative))
        split = split_of_folders(folders(relative))
        kind = next((kind for kind in _KINDS if kind in name.lower()), None)
        return Reading(
            label=label,
            class_name=class_name,
            source=None if label is None else FOLDER,
            patient=patient_key(name, None if is_own_split else split),
            split=split,
            set_aside=ignored if split == "val" else None,
            extra={} if kind is None else {"kind": kind},
        )

    return Layout(
        "Kermany / ZhangLab paediatric chest X-rays",
        read,
        ids=KERMANY_OWN_SPLIT_IDS if is_own_split else KERMANY_IDS,
    )


def _val_beside(place: Place) -> int:
    """Count the images of val where SCANS lies in another split, so that train alone and test alone agree on ids."""
    at = next((i for i, name in enumerate(place.above) if split_of_name(name) is not None), None)
    if at is None:
        return 0
    root = place.path.parents[len(place.above) - at - 1]
    vals = [folder for folder in _inside(root) if split_of_name(folder.name) == "val"]
    classes = [folder for val in vals for folder in _inside(val) if folder.name.lower() in _CLASSES]
    return sum(numbering_of(file.name) == "kermany" for folder in classes for file in _inside(folder))


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # no folder, or a closed one
        return []
