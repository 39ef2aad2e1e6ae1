"""BMAD: `train/good`, and `{valid,test}/{good,Ungood}`, with `img/` and masks in `label/` or `anomaly_mask/`.

Bao et al., "BMAD: Benchmarks for Medical Anomaly Detection", CVPR workshops 2024.
"""

from __future__ import annotations

from anomaly.scans.layouts.base import FOLDER, Layout, Place, Reading, folders_of, share, stem_of
from anomaly.scans.layouts.names import label_of_name, split_of_folders
from anomaly.scans.layouts.rsna import UUID

_CLASSES = frozenset({"good", "ungood"})


def bmad(place: Place) -> Layout | None:
    """Recognise it by `good` in train beside `Ungood` in test or valid."""
    held_out = [name for name in ("test", "valid", "val") if name in place.folders]
    if "good" not in place.folders_in("train") or not any("ungood" in place.folders_in(name) for name in held_out):
        return None
    if share(place.images, lambda path: _read(path) is not None) < 0.9:
        return None
    return Layout(
        "BMAD",
        _read,
        ids="the patientId that names a file of its RSNA part; none in the others",
    )


def _read(relative: str) -> Reading | None:
    folders = folders_of(relative)
    name = next((name for name in reversed(folders) if name.lower() in _CLASSES), None)
    if name is None:
        return None
    stem = stem_of(relative)
    return Reading(
        label=label_of_name(name),
        class_name=name,
        source=FOLDER,
        patient=stem if UUID.fullmatch(stem) else None,
        split=split_of_folders(folders),
    )
