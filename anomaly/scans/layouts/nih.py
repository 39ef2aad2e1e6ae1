"""NIH ChestX-ray14: `images_001/images/*.png` … or `images/`, `Data_Entry_2017*.csv` and the published lists.

Wang et al., "ChestX-ray8", CVPR 2017.
"""

from __future__ import annotations

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import (
    Layout,
    Place,
    Reading,
    header_of,
    name_of,
    read_lines,
    read_table,
    share,
    stem_of,
)
from anomaly.scans.layouts.class_folders import NIH_IDS
from anomaly.scans.layouts.names import patient_key

_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")


def nih(place: Place) -> Layout | None:
    """Recognise it by its table (or that of Kaggle's sample) and the file names in it."""
    table = place.file(r"data_entry_2017.*\.csv")
    of_sample = place.file(r"sample_labels\.csv")
    if table is None and of_sample is not None and {name.lower() for name in _COLUMNS} <= set(header_of(of_sample)):
        table = of_sample
    if table is None:
        return None
    # without extensions: people keep these films as JPEG, too
    rows = {stem_of(image): (finding, patient, view) for image, finding, patient, view in read_table(table, _COLUMNS)}
    if share(place.images, lambda path: stem_of(path) in rows) < 0.5:
        return None
    lists = {
        "train": {stem_of(name) for name in read_lines(place.file(r"train_val_list.*\.txt"))},
        "test": {stem_of(name) for name in read_lines(place.file(r"test_list.*\.txt"))},
    }
    boxes = place.file(r"bbox_list_2017.*\.csv")
    boxed = {stem_of(name) for (name,) in read_table(boxes, ["Image Index"])} if boxes else set[str]()

    def read(relative: str) -> Reading | None:
        stem = stem_of(relative)
        split = next((split for split, names in lists.items() if stem in names), None)
        if stem not in rows and split is None:
            return None
        finding, patient, view = rows.get(stem, ("", "", ""))
        label = None if not finding else NORMAL if finding.lower() == "no finding" else ABNORMAL
        return Reading(
            label=label,
            class_name=finding or None,
            source=None if label is None else table.name,
            patient=patient_key(f"{int(patient):08d}_000" if patient.isdecimal() else name_of(relative), None),
            view=view or None,
            split=split,
            boxes=boxes if stem in boxed else None,
        )

    return Layout("NIH ChestX-ray14", read, ids=NIH_IDS)
