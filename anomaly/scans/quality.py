"""What is wrong with a scan as a picture: flags with a sentence each, judged without any model.

Everything is judged on one copy of at most 256 px. The thresholds lie outside what some 4,500 public chest films show
or, where films have the fault, were settled by looking at those: see benchmarks/quality.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly.records import Float32, Scan, UInt8
from anomaly.scans.borders import find_borders
from anomaly.scans.markers import markers_of, small_copy

MEANINGS = {
    "blank": "nearly every pixel has the same level",
    "saturated": "a large part of the film is burnt out to white or lost in black",
    "inverted": "bone is dark: the lungs are brighter than the spine",
    "rotated": "the chest lies on its side or stands on its head",
    "low_contrast": "nine tenths of the pixels share a third of the range",
    "extreme_aspect": "more than twice as long one way as the other",
    "colour": "a colour picture, not a radiograph",
    "too_small": "a side of fewer than 64 pixels",
    "foreign": "a large saturated object with sharp edges: a device, a plate, a shield",
    "marker": "burnt-in letters or lead markers near the edge",
}
"""Every flag there is, and what it means."""

EXCLUDING = frozenset(MEANINGS) - {"marker"}
"""What `fit --exclude-flagged` leaves out; most normal films carry a letter, and `prepare.markers` deals with those."""


def excluding(channels: int) -> frozenset[str]:
    """Return the flags that speak against a film: all of `EXCLUDING`, but colour where a model sees 3 channels."""
    return EXCLUDING - {"colour"} if channels == 3 else EXCLUDING


_SMALL = 64  # the square the shipped recipes see: a shorter side would have to be made up
_ASPECT = 2.0  # detectors are 35 x 43 cm, a ratio of 1.23
_CHROMA, _CHROMA_SHARE = 0.1, 0.1  # a stain or a coloured stamp is no colour photograph
_SAME, _BLANK_SHARE = 0.05, 0.05  # real films: 32 % of the pixels or more lie further from the median
_WHITE, _WHITE_SHARE = 0.96, 0.2
_BLACK, _BLACK_SHARE = 0.01, 0.5
_CONTRAST = 0.35  # between the 5 % and 95 % quantiles; less on two real films in a thousand, grey all over
_INVERTED, _ROTATED = (
    0.35,
    0.45,
)  # correlation with the mean chest; the right way up, 97 % of real films reach the latter
_BETTER = 0.1  # by how much that must beat the film as it is
_FOREIGN, _FOREIGN_AREA = 0.9, 0.004  # level; share of the film
_FOREIGN_SIDE = 0.04  # of the longer side: thinner are wires, and slivers of a frame
_FOREIGN_STEP, _FOREIGN_RIM = 0.3, 0.45  # the drop within three pixels, and the share of the outline that has it

# The mean of 60 normal phantoms at 16 x 16 px, standardised, times ten: what a chest looks like from far away.
_CHEST: Float32 = np.array(
    [
        [-21, -20, -19, -17, -14, -8, -2, 0, -1, -3, -9, -14, -17, -19, -20, -21],
        [-19, -15, -12, -7, -4, -2, 0, 1, 1, 0, -2, -4, -7, -13, -14, -19],
        [-13, -7, -1, 3, 4, 4, 4, 5, 5, 4, 4, 4, 3, -1, -7, -14],
        [-6, 2, 7, 9, 8, 2, -1, 7, 7, -1, 3, 8, 9, 7, 2, -6],
        [-3, 4, 9, 8, 0, -3, -4, 8, 9, -4, -3, 1, 8, 9, 3, -4],
        [-5, 4, 8, 0, -6, -8, -9, 7, 9, -4, -8, -6, 1, 8, 3, -6],
        [-9, 3, 4, -5, -9, -10, -10, 7, 9, -6, -10, -9, -5, 4, 2, -10],
        [-12, 2, 0, -8, -10, -11, -10, 8, 10, -4, -11, -10, -8, 1, 1, -12],
        [-12, 2, -2, -9, -11, -12, -7, 10, 12, 3, -9, -11, -9, -2, 1, -13],
        [-12, 2, -3, -9, -12, -12, -4, 12, 13, 8, -1, -10, -9, -3, 1, -13],
        [-13, 2, -3, -9, -11, -11, -1, 13, 14, 10, 6, -5, -9, -2, 1, -14],
        [-13, 2, -4, -9, -10, -10, 0, 14, 15, 11, 9, -1, -8, -3, 1, -14],
        [-12, 3, -4, -3, 1, 2, 7, 16, 16, 13, 10, 3, -6, -5, 2, -13],
        [-11, 5, 4, 9, 12, 14, 16, 18, 18, 15, 12, 8, 4, 0, 4, -12],
        [-9, 9, 11, 15, 16, 17, 19, 20, 20, 18, 15, 14, 13, 9, 7, -10],
        [-8, 10, 14, 17, 18, 19, 20, 20, 20, 19, 18, 17, 16, 13, 9, -9],
    ],
    dtype=np.float32,
)


@dataclass(frozen=True, slots=True)
class Flag:
    """One finding: `name` from a fixed list, `detail` one plain sentence without the file's name."""

    name: str
    detail: str


def quality_flags(scan: Scan) -> tuple[Flag, ...]:
    """Return what is wrong with a scan, or (); a colour picture is not looked at for what only a chest can have."""
    small = small_copy(scan.pixels)
    flags = [*_shape(scan.pixels.shape[0], scan.pixels.shape[1]), *_colour(scan, small)]
    in_colour = any(flag.name == "colour" for flag in flags)
    grey = small if small.ndim == 2 else np.asarray(small.mean(axis=2), dtype=np.float32)
    some = grey[::2, ::2]  # a quarter of the pixels is enough for a median
    if (content := float(np.mean(np.abs(some - np.median(some)) > _SAME))) < _BLANK_SHARE:
        return (*flags, Flag("blank", f"only {100 * content:.1f} % of the pixels stand out from the rest"))
    box = find_borders(grey)
    field = grey if box is None else np.ascontiguousarray(box.cut(grey))
    flags += _levels(field)
    if not in_colour:
        marks = markers_of(grey)
        flags += _pose(field)
        flags += _foreign(field, marks if box is None else marks[box.top : box.bottom, box.left : box.right])
        if marks.any():
            flags.append(Flag("marker", "letters or lead markers near the edge"))
    return tuple(flags)


def _shape(height: int, width: int) -> list[Flag]:
    flags = []
    if min(height, width) < _SMALL:
        flags.append(Flag("too_small", f"{width} x {height} pixels"))
    if max(height, width) > _ASPECT * min(height, width):
        flags.append(Flag("extreme_aspect", f"{width} x {height} pixels"))
    return flags


def _colour(scan: Scan, small: Float32) -> list[Flag]:
    if any(note.startswith("colour picture") for note in scan.warnings):  # by `settle_colour`, its colour is gone
        return [Flag("colour", "the file holds a colour picture")]
    if small.ndim == 3 and (share := float(np.mean(np.ptp(small, axis=2) > _CHROMA))) > _CHROMA_SHARE:
        return [Flag("colour", f"{100 * share:.0f} % of the pixels are coloured")]
    return []


def _levels(field: Float32) -> list[Flag]:
    white, black = float(np.mean(field >= _WHITE)), float(np.mean(field <= _BLACK))
    flags = []
    if white > _WHITE_SHARE:
        flags.append(Flag("saturated", f"{100 * white:.0f} % of the film is white"))
    elif black > _BLACK_SHARE:
        flags.append(Flag("saturated", f"{100 * black:.0f} % of the film is black"))
    low, high = np.quantile(field[::2, ::2], [0.05, 0.95])
    if high - low < _CONTRAST:
        flags.append(
            Flag("low_contrast", f"nine tenths of the pixels lie within {100 * (high - low):.0f} % of the range")
        )
    return flags


def _pose(field: Float32) -> list[Flag]:
    """Compare a film with the mean chest, upright, inverted, and turned by quarters."""
    import cv2

    side = len(_CHEST)
    seen = np.asarray(cv2.resize(field, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)
    seen = (seen - seen.mean()) / (seen.std() + 1e-6)
    upright, *turned = (float(np.mean(seen * np.rot90(_CHEST, turn))) / 10 for turn in range(4))
    best = max(turned)
    if -upright > max(best, _INVERTED, upright + _BETTER):
        return [Flag("inverted", "the lungs are brighter than the spine")]
    if best > max(_ROTATED, upright + _BETTER):
        return [Flag("rotated", f"the chest is turned by {90 * (1 + turned.index(best))} degrees, counter-clockwise")]
    return []


def _foreign(field: Float32, marks: UInt8) -> list[Flag]:
    """Look for bright areas that end sharply; abdomen and heart are as bright, but fade out."""
    import cv2

    height, width = field.shape
    bright = ((field >= _FOREIGN) & (marks == 0)).astype(np.uint8)
    if np.count_nonzero(bright) < _FOREIGN_AREA * bright.size:
        return []
    kernel = np.ones((3, 3), np.uint8)
    bright = np.asarray(cv2.morphologyEx(bright, cv2.MORPH_OPEN, kernel), dtype=np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    x, y, w, h, area = boxes.T
    fits = (area >= _FOREIGN_AREA * height * width) & (np.minimum(w, h) >= _FOREIGN_SIDE * max(height, width))
    edges = (x == 0).astype(int) + (y == 0) + (x + w == width) + (y + h == height)
    large = [int(index) for index in np.flatnonzero(fits & (edges < 2)) if index > 0]  # two: a frame's corner
    if not large:
        return []
    drop = field - np.asarray(cv2.erode(field, np.ones((7, 7), np.uint8)))
    middle = np.zeros(field.shape, dtype=np.bool_)
    middle[4:-4, 4:-4] = True  # along the film's own edge everything ends sharply
    for index in large:
        object_ = (labels == index).astype(np.uint8)
        rim = drop[(object_ > cv2.erode(object_, kernel)) & middle]
        if rim.size and float(np.mean(rim > _FOREIGN_STEP)) > _FOREIGN_RIM:
            share = boxes[index, cv2.CC_STAT_AREA] / (height * width)
            return [Flag("foreign", f"a saturated object takes {100 * share:.1f} % of the film")]
    return []
