"""Kermany / ZhangLab paediatric chest X-rays: the Kaggle and the Mendeley form, and any part of them.

Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning", Cell 172 (2018).
"""

from __future__ import annotations

from anomaly.scans.layouts.base import FOLDER, Layout, Place, Reading, folders_of, share, stem_of
from anomaly.scans.layouts.class_folders import KERMANY_IDS
from anomaly.scans.layouts.names import class_of_folders, numbering_of, patient_key, split_of_folders, split_of_name

_CLASSES = frozenset({"normal", "pneumonia"})
_KINDS = ("bacteria", "virus")
_SMALL_VAL = 16
_VAL_ASIDE = f"Kermany's val holds {_SMALL_VAL} images; ignored"


def kermany(place: Place) -> Layout | None:
    """Recognise `{train,test,val}/{NORMAL,PNEUMONIA}/*` by the names of the files."""
    in_split = any(split_of_name(name) and _CLASSES & place.folders_in(name) for name in place.folders)
    above = _CLASSES & {name.lower() for name in place.above}
    if not (in_split or above or _CLASSES & place.folders.keys()):
        return None
    images = place.images
    if share(images, lambda path: numbering_of(stem_of(path)) == "kermany") < 0.9:
        return None

    def split_of(relative: str) -> str | None:
        return split_of_folders([*place.above, *folders_of(relative)])

    val = {stem_of(path) for path in images if split_of(path) == "val"}
    ignored = _VAL_ASIDE if len(val) <= _SMALL_VAL else None

    def read(relative: str) -> Reading:
        label, class_name = class_of_folders([*place.above, *folders_of(relative)])
        split, stem = split_of(relative), stem_of(relative)
        kind = next((kind for kind in _KINDS if kind in stem.lower()), None)
        return Reading(
            label=label,
            class_name=class_name,
            source=None if label is None else FOLDER,
            patient=patient_key(stem, split),
            split=split,
            set_aside=ignored if split == "val" else None,
            extra={} if kind is None else {"kind": kind},
        )

    return Layout("Kermany / ZhangLab paediatric chest X-rays", read, ids=KERMANY_IDS)
