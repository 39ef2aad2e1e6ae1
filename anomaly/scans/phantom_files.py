"""What every kind of phantom is written with: the checks of what was asked for, and pictures and tables as bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, UsageError


def check_order(out: Path, *, n: int, abnormal: int, seed: int) -> None:
    """Refuse what cannot be written.

    Args:
        out: A folder that is absent or empty.
        n: How many pictures in all.
        abnormal: How many of them are abnormal.
        seed: Which population.

    Raises:
        UsageError: If the counts make no sense.
        DataError: If `out` holds anything already.
    """
    if n < 1:
        raise UsageError(f"Cannot write {n} phantoms. Ask for at least 1.")
    if seed < 0:
        raise UsageError(f"A phantom's seed counts from 0, not {seed}. Pass 0 or more.")
    if not 0 <= abnormal <= n:
        raise UsageError(f"Cannot make {abnormal} of {n} phantoms abnormal. Ask for 0 to {n}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder. Name a new folder, or empty this one.")


def population_rng(seed: int) -> np.random.Generator:
    """Return where the whole population of a `seed` draws from, who is abnormal for one: no picture's own stream."""
    return np.random.default_rng(np.random.SeedSequence([seed], spawn_key=(98,)))


def png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode grey (H, W), 8 or 16 bit, as a PNG."""
    import cv2

    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask, bool (H, W), as an 8-bit PNG of 0 and 255."""
    return png(mask.astype(np.uint8) * np.uint8(255))


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Encode a CSV, UTF-8, with a line for the header and each row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
