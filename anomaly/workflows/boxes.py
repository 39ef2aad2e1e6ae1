"""Boxes on their way: from a table to what a method learns, and from what a method draws back to the film."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from anomaly.errors import DataError, UsageError
from anomaly.prepare.geometry import to_film_points, to_prepared_points
from anomaly.records import ABNORMAL, Float32, Float64, Geometry, ScanFile, Target
from anomaly.scans.boxes import find_boxes, within_film
from anomaly.workflows.classes import FEWEST_OF_A_CLASS
from anomaly.workflows.selection import Look, Selection

WITHOUT = "abnormal, but without a box"
BOXES_HASH = "boxes_sha256"
_SEEN = 0.25
"""Share of a box that must lie on the prepared square: of one that was cropped away nothing can be learnt."""
_HALF = 0.5  # from a pixel's corner, which boxes count from, to its centre, which geometries do
_NONE = np.zeros((0, 4), np.float32)


def boxes_to_learn(files: Sequence[ScanFile], selection: Selection) -> tuple[dict[str, Float64], Selection]:
    """Return the boxes of all films, and the selection without abnormal films of which none is known.

    Args:
        files: All there are in SCANS.
        selection: From `select_labelled`.

    Returns:
        scan_id -> float64 (n, 4): x, y, w, h in pixels of the film, for films that a table names; and the selection.

    Raises:
        DataError: As `find_boxes`; a normal film with boxes; or too few films with boxes to learn from.
    """
    boxes = find_boxes(files)
    chosen, without = [], []
    for file in selection.chosen:
        count = len(boxes.get(file.scan_id, ()))
        if count and file.label != ABNORMAL:
            raise DataError(
                f"{file.relative} is labelled normal and has {count} box{'es' if count > 1 else ''} in {file.boxes}: "
                "remove the boxes, or label it abnormal."
            )
        if count or file.label != ABNORMAL:
            chosen.append(file)
        else:  # set aside, so that no drawn test set gives it back to the training
            without.append((replace(file, set_aside=WITHOUT), WITHOUT))
    boxed = sum(file.label == ABNORMAL for file in chosen)
    if boxed < FEWEST_OF_A_CLASS:
        raise DataError(
            f"{boxed} abnormal films to train on have boxes, and at least {FEWEST_OF_A_CLASS} are needed: put a "
            "boxes.csv with the columns path, x, y, w, h beside the films, or name such a table in a manifest's column "
            "boxes."
        )
    basis = f"{selection.basis}; {boxed} with boxes"
    return boxes, replace(selection, chosen=tuple(chosen), left_out=(*selection.left_out, *without), basis=basis)


def boxes_digest(boxes: Mapping[str, Float64]) -> str:
    """Return a hash of boxes: a resumed fit must have the same."""
    digest = hashlib.sha256()
    for scan_id in sorted(boxes):
        digest.update(f"{scan_id}\0{boxes[scan_id].tolist()}\n".encode())
    return digest.hexdigest()


def same_boxes(before: Mapping[str, object], boxes: Mapping[str, Float64]) -> None:
    """Refuse to go on with other boxes than a run was begun with; `before` is its receipt.

    Raises:
        UsageError: They differ.
    """
    if before.get(BOXES_HASH, boxes_digest(boxes)) != boxes_digest(boxes):
        raise UsageError("--resume: the boxes differ from those the run was begun with; start afresh with --overwrite.")


def targets_of(looks: Sequence[Look], boxes: Mapping[str, Float64], ways: Mapping[str, Geometry]) -> list[Target]:
    """Return what a method that learns from boxes is told of films.

    Args:
        looks: The films.
        boxes: scan_id -> float64 (n, 4): x, y, w, h in pixels of the film.
        ways: scan_id -> the geometry that each was prepared with.

    Raises:
        DataError: A box lies outside its film.
    """
    targets = []
    for look in looks:
        file, own = look.file, _NONE
        if len(boxes.get(file.scan_id, ())):
            way = ways[file.scan_id]
            own = to_prepared(within_film(boxes[file.scan_id], way.film_shape, file.relative), way)
        targets.append(Target(file.label, file.class_name, own))
    return targets


def to_prepared(boxes: Float64, geometry: Geometry) -> Float32:
    """Return boxes of a film on its prepared square, cut to it; those of which too little lies on it are left out.

    Args:
        boxes: float64 (n, 4): x, y, w, h in pixels of the film.
        geometry: The way back from the square. Where it turns, a box becomes the upright one around it.

    Returns:
        float32 (m, 4): x1, y1, x2, y2, m <= n.
    """
    low, high = _upright(boxes[:, :2], boxes[:, :2] + boxes[:, 2:], geometry, back=False)
    area = np.prod(high - low, axis=1)
    low, high = np.clip(low, 0.0, geometry.size), np.clip(high, 0.0, geometry.size)
    seen = np.prod(high - low, axis=1) >= np.maximum(_SEEN * area, 1e-3)
    inside: Float32 = np.concatenate([low, high], axis=1)[seen].astype(np.float32)
    return inside


def to_film_boxes(boxes: Float32, geometry: Geometry) -> Float64:
    """Return boxes of a prepared square on the film, cut to it.

    Args:
        boxes: float32 (n, 4 or more): x1, y1, x2, y2, and what else there is.
        geometry: The way back.

    Returns:
        float64 (n, 4 or more): x, y, w, h in pixels of the film, and what else there is.
    """
    given = boxes.astype(np.float64)
    low, high = _upright(given[:, :2], given[:, 2:4], geometry, back=True)
    height, width = geometry.film_shape
    low, high = np.clip(low, 0.0, [width, height]), np.clip(high, 0.0, [width, height])
    return np.concatenate([low, high - low, given[:, 4:]], axis=1)


def corners_on_film(boxes: Float32, geometry: Geometry) -> Float64:
    """Return the four corners of each box of a prepared square, in order, as (x, y) of the film: float64 (n, 4, 2).

    Coordinates are those of pixel centres, as pictures are drawn in.
    """
    given = boxes.astype(np.float64)
    return to_film_points(_corners(given[:, :2], given[:, 2:4]) - _HALF, geometry).reshape(-1, 4, 2)


def _upright(low: Float64, high: Float64, geometry: Geometry, *, back: bool) -> tuple[Float64, Float64]:
    """Return upper left and lower right corners, each float64 (n, 2), brought through a geometry or back."""
    way = to_film_points if back else to_prepared_points
    moved = (way(_corners(low, high) - _HALF, geometry) + _HALF).reshape(-1, 4, 2)
    return moved.min(axis=1), moved.max(axis=1)


def _corners(low: Float64, high: Float64) -> Float64:
    """Return the corners of boxes, clockwise from the upper left, float64 (4 n, 2)."""
    (x1, y1), (x2, y2) = low.T, high.T
    return np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 2)
