"""HAM10000: dermoscopy in colour, `HAM10000_images_part_1/ISIC_*.jpg` and one table; several images a lesion.

Masks come apart, as `HAM10000_segmentations_lesion_tschandl/ISIC_*_segmentation.png`.

Tschandl et al., "The HAM10000 dataset", Scientific Data 5 (2018).
"""

from __future__ import annotations

from pathlib import Path

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import Layout, Place, Reading, read_table, share, stem_of
from anomaly.scans.layouts.names import film_of_mask, is_mask_folder

_NOTES = (
    "melanocytic naevi (nv) are taken as normal and every other diagnosis as abnormal, though bkl, df and vasc are "
    "benign too; other labels go into a manifest.csv",
    "these are colour pictures: a fit sees their colours with --set prepare.channels=3",
    "HAM10000 is for non-commercial use only (CC BY-NC 4.0)",
)


def ham10000(place: Place) -> Layout | None:
    """Recognise it by its table and the image ids in it."""
    table = place.file(r"ham10000_metadata(?:\.csv|\.tab|\.txt)?")
    if table is None:
        return None
    rows = {image.lower(): (lesion, dx) for image, lesion, dx in read_table(table, ["image_id", "lesion_id", "dx"])}
    if share(place.images, lambda path: stem_of(path).lower() in rows) < 0.5:
        return None
    masks = place.masks() or _masks_beside(place)

    def read(relative: str) -> Reading | None:
        stem = stem_of(relative).lower()
        if stem not in rows:
            return None
        lesion, dx = rows[stem]
        return Reading(
            label=None if not dx else NORMAL if dx.lower() == "nv" else ABNORMAL,
            class_name=dx or None,
            source=table.name if dx else None,
            patient=f"ham10000/{lesion}" if lesion else None,
            mask=masks.get(stem),
        )

    return Layout("HAM10000", read, ids="lesions (lesion_id), not persons: one person may have several", notes=_NOTES)


def _masks_beside(place: Place) -> dict[str, Path]:
    """Return the masks that lie in the set but not in SCANS, one folder of its pictures, by their film's stem."""
    folders = [name for name in place.folders if is_mask_folder(name)] if place.down else []
    return {
        film_of_mask(stem_of(mask)).lower(): place.path / place.folders[name] / mask
        for name in folders
        for mask in place.names_in(name)
    }
