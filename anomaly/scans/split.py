"""Holding out normals for calibration: whole patients, drawn at random."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from anomaly.errors import DataError
from anomaly.records import Int64


def split_normals(groups: Sequence[str | int], fraction: float, seed: int, minimum: int = 8) -> tuple[Int64, Int64]:
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
    members: dict[str | int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    keys = sorted(members, key=lambda key: (isinstance(key, str), key))
    order = [keys[place] for place in np.random.default_rng(seed).permutation(len(keys))]

    wanted = max(minimum, math.ceil(fraction * len(groups)))
    held: list[int] = []
    passed_over: list[str | int] = []
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
            f"{len(groups)} normal images of {len(keys)} patients are too few to hold out {minimum} and train on the "
            "rest; give more normal images, of more patients"
        )
    kept = np.ones(len(groups), dtype=bool)
    kept[held] = False
    return np.flatnonzero(kept).astype(np.int64), np.flatnonzero(~kept).astype(np.int64)
