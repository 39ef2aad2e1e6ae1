"""COVID-19 Radiography Database: `CLASS/images/CLASS-1.png` with `CLASS/masks`, and the older `CLASS/CLASS (1).png`.

Chowdhury et al., IEEE Access 8 (2020); Rahman et al., Computers in Biology and Medicine 132 (2021).
"""

from __future__ import annotations

import re

from anomaly.scans.layouts.base import FOLDER, Layout, Place, Reading, folders_of, share, stem_of
from anomaly.scans.layouts.names import label_of_name

_CLASSES = frozenset({"covid", "covid19", "lungopacity", "normal", "viralpneumonia"})
_TELLING = frozenset({"normal", "viralpneumonia"})
_CLASS = r"(?:covid(?:-?19)?|lung[_ ]opacity|normal|viral[_ ]pneumonia)"
_STEM = re.compile(rf"{_CLASS}[- ]?\(?\d+\)?", re.IGNORECASE)
_NEW_STEM = re.compile(rf"{_CLASS}-\d+", re.IGNORECASE)
_NOTES = (
    "the classes are confounded: Normal is 8,851 adults of RSNA and 1,341 children of Kermany, Viral Pneumonia is "
    "Kermany and Lung_Opacity is RSNA, so source and age tell Normal from COVID and Viral Pneumonia without any "
    "disease; an AUROC here says little",
    "the set overlaps Kermany and RSNA: it is no external test for a model trained on either",
)


def covid_radiography(place: Place) -> Layout | None:
    """Recognise it by the class folders and the numbered file names: any two folders, if the files are `Normal-7`."""
    plain = {_plain(name) for name in place.folders} & _CLASSES
    complete = plain >= _TELLING and plain & {"covid", "covid19"}
    if len(plain) < 2 or share(place.images, _belongs if complete else _belongs_for_sure) < 0.9:
        return None
    return Layout(
        "COVID-19 Radiography Database",
        _read,
        ids="none: the files are numbered, and one patient may have several",
        notes=_NOTES,
    )


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).lower()


def _class_folder(relative: str) -> str | None:
    return next((name for name in reversed(folders_of(relative)) if _plain(name) in _CLASSES), None)


def _belongs(relative: str) -> bool:
    return _class_folder(relative) is not None and _STEM.fullmatch(stem_of(relative)) is not None


def _belongs_for_sure(relative: str) -> bool:
    return _class_folder(relative) is not None and _NEW_STEM.fullmatch(stem_of(relative)) is not None


def _read(relative: str) -> Reading | None:
    name = _class_folder(relative) if _belongs(relative) else None
    return None if name is None else Reading(label=label_of_name(name), class_name=name, source=FOLDER)
