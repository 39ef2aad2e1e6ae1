"""MedIAnomaly: `images/` and a `data.json` that gives the published split exactly.

Cai et al., "MedIAnomaly: A comparative study of anomaly detection in medical images", arXiv 2404.04518 (2024).
"""

from __future__ import annotations

import json
from pathlib import Path

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.layouts.base import Layout, Place, Reading, share, stem_of
from anomaly.scans.layouts.rsna import UUID

_LARGEST = 64 * 2**20
_LISTS = (("train", "0", NORMAL), ("train", "1", ABNORMAL), ("test", "0", NORMAL), ("test", "1", ABNORMAL))


def medianomaly(place: Place) -> Layout | None:
    """Recognise it by the lists train.0, test.0 and test.1 in data.json and the files they name."""
    listed = place.file(r"data\.json")
    told = _load(listed) if listed is not None else {}
    rows: dict[str, tuple[str, int]] = {}
    for split, number, label in _LISTS:
        names = told.get(split, {}).get(number, []) if isinstance(told.get(split), dict) else []
        for name in names if isinstance(names, list) else ():
            rows[_name(str(name).replace("\\", "/"))] = (split, label)
    if not rows or share(place.images, lambda path: _name(path) in rows) < 0.5:
        return None

    def read(relative: str) -> Reading | None:
        if _name(relative) not in rows:
            return None
        split, label = rows[_name(relative)]
        stem = stem_of(relative)
        return Reading(
            label=label,
            class_name="normal" if label == NORMAL else "abnormal",
            source="data.json",
            patient=stem if UUID.fullmatch(stem) else None,
            split=split,
        )

    return Layout("MedIAnomaly", read, ids="the patientId that names a file of its RSNA part; none in the others")


def _name(path: str) -> str:
    return path.rpartition("/")[2].lower()


def _load(listed: Path) -> dict[str, dict[str, object]]:
    try:
        told = json.loads(listed.read_bytes()) if listed.stat().st_size <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
