"""Holding out films for calibration or testing: whole patients, drawn at random."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from anomaly.errors import DataError
from anomaly.records import Int64

Key = str | int


def number_patients(patients: Sequence[str | None], names: Sequence[str]) -> Int64:
    """Number patients in the order of the first of their films' names: groups to split by.

    The draws below go by the order of the groups. Hashed patients sort differently with every salt; numbered by names
    they are drawn alike on every machine and in whatever order the films come.

    Args:
        patients: For each film its patient, or None: a film of an unknown patient counts as one of its own.
        names: For each film its path relative to the folder; unique.

    Returns:
        int64 (N,), 0..P-1.
    """
    numbers: dict[tuple[str, bool], int] = {}
    groups = np.empty(len(names), dtype=np.int64)
    for index in sorted(range(len(names)), key=lambda index: names[index]):
        patient = patients[index]
        key = (names[index], False) if patient is None else (patient, True)
        groups[index] = numbers.setdefault(key, len(numbers))
    return groups


def patients_or_permission(known: int, total: int, allow_image_split: bool) -> str | None:
    """Check that a test set may be drawn: films without a patient id could put one patient on both sides.

    One film without an id is enough to ask: each would count as its own patient.

    Args:
        known: Films to draw from that have a patient id.
        total: Films to draw from.
        allow_image_split: The user's --allow-image-split.

    Returns:
        The note that the split must carry, or None where every film has an id.

    Raises:
        DataError: Ids are missing and there is no permission.
    """
    if known == total:
        return None
    without = f"{total - known} of {total} scans carry no patient id"
    if not allow_image_split:
        raise DataError(
            f"{without}, so a drawn test set could hold patients that are also in training: give a manifest with a "
            "patient column, or add --allow-image-split to count each of these scans as its own patient."
        )
    return (
        f"{without} and each counts as its own patient (--allow-image-split): one patient may be both in training and "
        "in the test set, so results on it may flatter."
    )


def split_test(groups: Sequence[Key], strata: Sequence[Key | None], fraction: float, seed: int) -> tuple[Int64, Int64]:
    """Draw a test set of whole patients with the same share of every class.

    A patient counts in one class: of those of his films, the one that the fewest patients have. The draw depends on
    the seed, the groups and the classes, not on the order of the images; see `number_patients` for groups that are
    the same on every machine.

    Args:
        groups: For each image its patient.
        strata: For each image its class; None is a class too.
        fraction: Share of every class's images to draw, in (0, 1).
        seed: Of the draw.

    Returns:
        (rest, test): int64 indices into `groups`, each ascending, together every image once. Of every class the test
        set holds `fraction` to within the size of one patient, at least one patient and never all.

    Raises:
        DataError: A class has a single patient, or there are no images.
        ValueError: `fraction` is out of range, or groups and strata differ in length.
    """
    if not 0 < fraction < 1 or len(groups) != len(strata):
        raise ValueError(f"fraction must be in (0, 1), not {fraction}, and each of {len(groups)} images needs a class")
    members = _members(groups)
    if not members:
        raise DataError("there are no scans to draw a test set from; give more")
    order = _drawn(members, seed)
    classes = {key: {strata[index] for index in members[key]} for key in order}
    patients_of = Counter(name for own in classes.values() for name in own)
    by_class: dict[Key | None, list[Key]] = defaultdict(list)
    for key in order:
        by_class[min(classes[key], key=lambda name: (patients_of[name], str(name)))].append(key)

    test: list[int] = []
    for name, keys in sorted(by_class.items(), key=lambda item: str(item[0])):
        if len(keys) < 2:
            raise DataError(
                f"a test set cannot be drawn: the class {'unknown' if name is None else name} has one patient, who "
                "would have to be on both sides; give more patients of it, take it out, or fold it into another class"
            )
        sizes = {key: len(members[key]) for key in keys}
        test += [index for key in _filled(keys, sizes, fraction) for index in members[key]]
    return _sides(len(groups), test)


def split_normals(groups: Sequence[Key], fraction: float, seed: int, minimum: int = 8) -> tuple[Int64, Int64]:
    """Divide images into those to train on and those held out, so that no patient is in both.

    Patients are drawn at random, never taken from the end of a sorted list, where they come series by series.
    The draw depends on the seed and on the groups, not on the order of the images.

    Args:
        groups: For each image its patient; give images of unknown patients a key of their own.
        fraction: Share of images to hold out, in [0, 1).
        seed: Of the draw.
        minimum: Hold out at least so many images, whatever the fraction.

    Returns:
        (train, held out): int64 indices into `groups`, each ascending, together every image once. What is held out
        is at least the larger of both wishes less the size of one patient, and at least `minimum`.

    Raises:
        DataError: There are too few images or patients to hold out `minimum` and leave any to train on.
        ValueError: `fraction` or `minimum` is out of range.
    """
    if not 0 <= fraction < 1 or minimum < 0:
        raise ValueError(f"fraction must be in [0, 1) and minimum not negative, not {fraction} and {minimum}")
    members = _members(groups)
    order = _drawn(members, seed)

    wanted = max(minimum, math.ceil(fraction * len(groups)))
    held: list[int] = []
    passed_over: list[Key] = []
    for key in order:  # one patient with very many films must not take the whole share and more
        if len(held) + len(members[key]) <= wanted:
            held.extend(members[key])
        else:
            passed_over.append(key)
    for key in sorted(passed_over, key=lambda key: len(members[key])):  # stable: equals stay in drawn order
        if len(held) >= minimum:
            break
        held.extend(members[key])

    if len(held) < minimum or len(held) == len(groups):
        raise DataError(
            f"{len(groups)} normal images of {len(members)} patients are too few to hold out {minimum} and train on "
            "the rest; give more normal images, of more patients"
        )
    return _sides(len(groups), held)


def _members(groups: Sequence[Key]) -> dict[Key, list[int]]:
    members: dict[Key, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    return members


def _drawn(members: dict[Key, list[int]], seed: int) -> list[Key]:
    """Patients in random order, whatever the order their images came in."""
    keys = sorted(members, key=lambda key: (isinstance(key, str), key))
    return [keys[place] for place in np.random.default_rng(seed).permutation(len(keys))]


def _filled(keys: Sequence[Key], sizes: dict[Key, int], fraction: float) -> list[Key]:
    """Take patients in drawn order until the share is full, passing over those it has no room for; never all."""
    wanted = round(fraction * sum(sizes.values()))
    taken: list[Key] = []
    room = wanted
    for key in keys:
        if sizes[key] <= room and len(taken) < len(keys) - 1:
            taken.append(key)
            room -= sizes[key]
    return taken or [min(keys, key=lambda key: sizes[key])]


def _sides(count: int, second: Sequence[int]) -> tuple[Int64, Int64]:
    """Indices outside and inside `second`, ascending."""
    outside = np.ones(count, dtype=bool)
    outside[list(second)] = False
    return np.flatnonzero(outside).astype(np.int64), np.flatnonzero(~outside).astype(np.int64)
