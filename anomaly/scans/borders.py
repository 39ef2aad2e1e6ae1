"""Collimation and burned-in frames: the uniform lines around the exposed field.

A run of lines from the edge inwards belongs to the border while nearly all its pixels have the border's level. It is
a border only if it ends in a straight, sharp step: the air beside a patient is as black as collimation, but skin is
round and fades in. A frame around a surround is peeled round by round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly.records import Float32

MOST = 0.4
"""Share of a side's length that a border may take; more is taken for a film this cannot judge."""

_NOISE = 0.06  # how far a border's pixels may lie from its level: 15 of 255, JPEG and detector noise
_STEP = 0.2  # the rise over `_RAMP` at collimation: median 0.3 to 0.9 on real films, 0.15 at a child's skin
_RAMP = 1 / 200  # of the side's length: one pixel of a 224 px copy
_STRAYS = 0.08  # share of a border's line that letters or the wedge left by a tilted edge may take
_TILT = 0.04  # of the side's length: how far inwards a straight edge may run, about 2 degrees
_EDGE = 0.5  # share of the edge's length that must step there
_ROUNDS = 3
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Box:
    """The part of a film to keep: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, pixels: Float32) -> Float32:
        """Return that part of a film, float32 (H, W[, 3]), as a view."""
        return pixels[self.top : self.bottom, self.left : self.right]


def whole(pixels: Float32) -> Box:
    """Return the box that keeps all of a film."""
    return Box(0, pixels.shape[0], 0, pixels.shape[1])


def find_borders(pixels: Float32) -> Box | None:
    """Find the exposed field of a film.

    Args:
        pixels: float32 (H, W) or (H, W, 3), in [0, 1].

    Returns:
        What to keep, the whole film if it has no border; None if a border would take more than `MOST` of a side,
        which no collimated chest film does.
    """
    grey = pixels if pixels.ndim == 2 else np.asarray(pixels.mean(axis=2), dtype=np.float32)
    height, width = grey.shape
    top, bottom, left, right = 0, height, 0, width
    for _ in range(_ROUNDS):
        field = grey[top:bottom, left:right]
        if min(field.shape) < 8:
            return None
        above, below, before, after = (_border(lines) for lines in (field, field[::-1], field.T, field.T[::-1]))
        if not above and not below and not before and not after:
            break
        top, bottom, left, right = top + above, bottom - below, left + before, right - after
    if max(top, height - bottom) > MOST * height or max(left, width - right) > MOST * width:
        return None
    return Box(top, bottom, left, right)


def _border(lines: Float32) -> int:
    """Count the border's lines at the start of `lines`, float32 (N, length)."""
    level = float(np.median(lines[0]))
    depth = 0
    for start in range(0, len(lines), _CHUNK):
        off = np.mean(np.abs(lines[start : start + _CHUNK] - level) > _NOISE, axis=1) > _STRAYS
        depth = start + (int(off.argmax()) if off.any() else len(off))
        if off.any():
            break
    if not 0 < depth < len(lines):
        return depth  # 0, or nothing but border
    reach, ramp = max(2, round(_TILT * len(lines))), max(1, round(_RAMP * len(lines)))
    rise = np.abs(lines[depth : depth + reach + ramp] - level)
    first = np.argmax(rise[:reach] > _NOISE, axis=0)  # 0 where nothing rises, and then there is no step either
    stepped = rise[np.minimum(first + ramp, len(rise) - 1), np.arange(rise.shape[1])] >= _STEP
    return depth if float(np.mean(stepped)) >= _EDGE else 0
