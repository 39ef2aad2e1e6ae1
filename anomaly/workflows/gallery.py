"""A dark page of films in rows, each with two lines of words below: the ones to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.heatmaps import FOOTNOTE, fit_text, font, write_png
from anomaly.records import UInt8

SIDE = 256
"""Longer side of a tile, in pixels."""
Colour = tuple[int, int, int]
BLUE: Colour = (64, 224, 255)
ORANGE: Colour = (255, 166, 43)
"""Colours of outlines that are seen on lung, on bone and on heat, and told apart by everybody."""

_COLUMNS = 6
_GAP, _CAPTION, _HEADER, _FOOTER = 8, 42, 58, 30
_PAGE, _INK, _FAINT = (17, 17, 19), (232, 232, 234), (152, 152, 158)
_TEXT, _SMALL = 16, 13


@dataclass(frozen=True, slots=True)
class Tile:
    """One film: `picture` uint8 (h, w, 3) RGB, longer side 256, and the words below it."""

    picture: UInt8
    words: str
    faint: str


def draw_gallery(path: Path, heading: str, key: str, tiles: Sequence[Tile]) -> None:
    """Draw the page.

    Args:
        path: Of the PNG.
        heading: One line.
        key: One line of what is seen, smaller.
        tiles: At least one, in the order they are shown in.
    """
    from PIL import Image, ImageDraw

    columns = min(_COLUMNS, max(3, len(tiles)))  # three at the least: the heading needs the room
    rows = -(-len(tiles) // columns)
    width = columns * (SIDE + _GAP) + _GAP
    page = Image.new("RGB", (width, _HEADER + rows * (SIDE + _CAPTION + _GAP) + _FOOTER), _PAGE)
    ink = ImageDraw.Draw(page)
    room = width - 2 * _GAP
    ink.text((_GAP, 18), fit_text(heading, font(_TEXT), room), _INK, font(_TEXT), "lm")
    ink.text((_GAP, 41), fit_text(key, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        left, top = _GAP + column * (SIDE + _GAP), _HEADER + row * (SIDE + _CAPTION + _GAP)
        height, wide = tile.picture.shape[:2]
        page.paste(Image.fromarray(tile.picture), (left + (SIDE - wide) // 2, top + (SIDE - height) // 2))
        ink.text((left, top + SIDE + 13), fit_text(tile.words, font(_SMALL), SIDE), _INK, font(_SMALL), "lm")
        ink.text((left, top + SIDE + 31), fit_text(tile.faint, font(_SMALL), SIDE), _FAINT, font(_SMALL), "lm")
    ink.text((_GAP, page.height - _FOOTER // 2), fit_text(FOOTNOTE, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    write_png(path, np.asarray(page, dtype=np.uint8))


def outline(picture: UInt8, mask: NDArray[np.bool_], colour: Colour) -> None:
    """Draw the border of a mask on a picture, uint8 (h, w, 3) RGB, in place: a bright line in a dark one.

    Args:
        picture: Contiguous.
        mask: bool, of any size; it is stretched onto the picture.
        colour: Of the bright line.
    """
    import cv2

    height, width = picture.shape[:2]
    inside = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    curves, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for bright, thickness in (((0, 0, 0), 4), (colour, 2)):
        cv2.drawContours(picture, curves, -1, bright, thickness, cv2.LINE_AA)


def tile_of(picture: UInt8) -> UInt8:
    """Return a picture, uint8 (h, w, 3), with its longer side brought to 256."""
    import cv2

    height, width = picture.shape[:2]
    factor = SIDE / max(height, width)
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
