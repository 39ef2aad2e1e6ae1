"""RSNA Pneumonia Detection Challenge: `stage_2_train_images/<patientId>.dcm` and two tables.

Shih et al., "Augmenting the National Institutes of Health Chest Radiograph Dataset", Radiology: AI 1 (2019).
"""

from __future__ import annotations

import re
from pathlib import Path

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import Layout, Place, Reading, folders_of, read_table, share, stem_of

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""A patientId."""

_IMAGES = re.compile(r"stage_\d_(train|test)_images", re.IGNORECASE)
_CLASS_LABELS = {"normal": NORMAL, "lung opacity": ABNORMAL, "no lung opacity / not normal": ABNORMAL}
_NO_CLASSES = (
    "stage_2_detailed_class_info.csv is missing: the films without an opacity may be normal or not, so their label is "
    "unknown; put the table beside stage_2_train_labels.csv"
)


def rsna(place: Place) -> Layout | None:
    """Recognise it by its tables or folders, and by the patientIds in the tables."""
    labels = place.file(r"stage_\d_train_labels\.csv")
    classes = place.file(r"stage_\d_detailed_class_info\.csv")
    if labels is None and classes is None and not any(map(_IMAGES.fullmatch, place.folders)):
        return None
    known: dict[str, tuple[int, str]] = {}
    for patient, name in read_table(classes, ["patientId", "class"]) if classes else ():
        label = _CLASS_LABELS.get(name.lower())
        if label is not None:
            known[patient.lower()] = (label, name)
    boxed: set[str] = set()
    listed = set(known)
    for patient, target in read_table(labels, ["patientId", "Target"]) if labels else ():
        listed.add(patient.lower())
        if target == "1":  # one row a box
            boxed.add(patient.lower())
            known.setdefault(patient.lower(), (ABNORMAL, "Lung Opacity"))
    source = classes or labels

    def belongs(relative: str) -> bool:
        return _set_of(relative) is not None or stem_of(relative).lower() in listed

    if share(place.images, belongs) < 0.5:
        return None

    def read(relative: str) -> Reading | None:
        if not belongs(relative):
            return None
        patient = stem_of(relative)
        label, name = known.get(patient.lower(), (None, None))
        return Reading(
            label=label,
            class_name=name,
            source=source.name if source is not None and label is not None else None,
            patient=patient if UUID.fullmatch(patient) else None,
            split=_set_of(relative),
            boxes=_boxes(labels, patient.lower() in boxed),
        )

    return Layout(
        "RSNA Pneumonia Detection Challenge",
        read,
        ids="the patientId that names a file, one film each; the films come from NIH ChestX-ray14, whose patient "
        "numbers they do not give",
        notes=() if classes else (_NO_CLASSES,),
    )


def _set_of(relative: str) -> str | None:
    """Return the published split a file lies in; the labels of the test images were never published."""
    matches = (_IMAGES.fullmatch(name) for name in folders_of(relative))
    return next((match[1].lower() for match in matches if match), None)


def _boxes(labels: Path | None, boxed: bool) -> Path | None:
    return labels if boxed else None
