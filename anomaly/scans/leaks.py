"""What training and test set share, looked for before anything is fitted: patients, films, nearly the same films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anomaly.records import UInt8
from anomaly.scans.duplicates import THUMB_SIDE, near_copies
from anomaly.scans.read import printable

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Item:
    """A film to check: its name for messages, patient or None, digest of its pixels, `thumb` uint8 (64, 64)."""

    name: str
    patient: str | None
    pixels_sha256: str
    thumb: UInt8


@dataclass(frozen=True, slots=True)
class Leaks:
    """What is on both sides, each as (name in training, name in the test set), ordered by the test film's name.

    `patients` has one entry a shared patient, `exact` one a test film whose very pixels are in training, `near` one a
    test film that is nearly one in training, the closest, where it is not an exact copy.
    """

    patients: tuple[tuple[str, str], ...] = ()
    exact: tuple[tuple[str, str], ...] = ()
    near: tuple[tuple[str, str], ...] = ()

    def stop(self) -> str | None:
        """Return why a fit with this test set must not go on, in one sentence, or None."""
        found = []
        if self.patients:
            found.append(f"{_count(len(self.patients), 'patient is', 'patients are')} in both ({_few(self.patients)})")
        if self.exact:
            have = _count(len(self.exact), "test film has", "test films have")
            found.append(f"{have} the same pixels as a training film ({_few(self.exact)})")
        if not found:
            return None
        return (
            f"training and test set overlap: {' and '.join(found)}: put all films of a patient on one side (the split "
            "column of a manifest) and remove the copies, or train on a folder without the test set."
        )

    def warn(self) -> str | None:
        """Return what to look at before trusting results on the test set, in one sentence, or None."""
        if not self.near:
            return None
        are = _count(len(self.near), "test film looks", "test films look")
        return (
            f"{are} like a training film re-saved, cropped or re-windowed, or a second exposure of its patient "
            f"({_few(self.near)}): look at them, and remove those that are, as they flatter the results."
        )


def check_leaks(train: Sequence[Item], test: Sequence[Item]) -> Leaks:
    """Compare two sets of films.

    Args:
        train: All films a model may learn from, those held out for calibration included.
        test: All films it is to be judged on.

    Returns:
        `Leaks`; shared patients and exact copies are to stop a fit, near copies only to warn. A patient of None
        matches nobody.
    """
    train, test = (sorted(items, key=lambda item: item.name) for items in (train, test))
    patients: dict[str, str] = {}
    films: dict[str, str] = {}
    for item in train:
        films.setdefault(item.pixels_sha256, item.name)
        if item.patient is not None:
            patients.setdefault(item.patient, item.name)
    shared: dict[str, tuple[str, str]] = {}
    for item in test:
        if item.patient is not None and item.patient in patients:
            shared.setdefault(item.patient, (patients[item.patient], item.name))
    exact = [(films[item.pixels_sha256], item.name) for item in test if item.pixels_sha256 in films]
    others = [item for item in test if item.pixels_sha256 not in films]
    closest: dict[int, tuple[float, int]] = {}
    for pair in near_copies(_thumbs(train), _thumbs(others)):
        best = closest.get(pair.second)
        if best is None or pair.correlation > best[0]:
            closest[pair.second] = (pair.correlation, pair.first)
    near = [(train[first].name, others[second].name) for second, (_, first) in sorted(closest.items())]
    return Leaks(tuple(shared.values()), tuple(exact), tuple(near))


def _thumbs(items: Sequence[Item]) -> UInt8:
    """Thumbs of films, uint8 (N, 64, 64), N may be 0."""
    thumbs = np.zeros((len(items), THUMB_SIDE, THUMB_SIDE), dtype=np.uint8)
    for place, item in zip(thumbs, items, strict=True):
        place[:] = item.thumb
    return thumbs


def _few(pairs: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{printable(train)} and {printable(test)}" for train, test in pairs[:_SHOWN])
    return shown + ("; …" if len(pairs) > _SHOWN else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
