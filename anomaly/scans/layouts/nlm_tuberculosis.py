"""The tuberculosis sets of the US National Library of Medicine, Montgomery County and Shenzhen, by their file names.

Jaeger et al., Quantitative Imaging in Medicine and Surgery 4 (2014).
"""

from __future__ import annotations

import re

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import FILE_NAME, Layout, Place, Reading, share, stem_of

_STEM = re.compile(r"(MCUCXR|CHNCXR)_(\d{4})_([01])", re.IGNORECASE)


def nlm_tuberculosis(place: Place) -> Layout | None:
    """Recognise `MCUCXR_0001_0.png`: the last figure is 0 for normal, 1 for tuberculosis."""
    if share(place.images, lambda path: _STEM.fullmatch(stem_of(path)) is not None) < 0.9:
        return None
    return Layout(
        "Montgomery County and Shenzhen tuberculosis sets (NLM)",
        _read,
        ids="the number in the file name, one film each",
    )


def _read(relative: str) -> Reading | None:
    match = _STEM.fullmatch(stem_of(relative))
    if match is None:
        return None
    normal = match[3] == "0"
    return Reading(
        label=NORMAL if normal else ABNORMAL,
        class_name="normal" if normal else "tuberculosis",
        source=FILE_NAME,
        patient=f"{match[1].lower()}/{int(match[2])}",
    )
