"""A page of small films in rows with headings: what a folder looks like at one glance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anomaly.heatmaps import fit_text, font
from anomaly.records import UInt8

TILE = 160
COLUMNS = 8
_GAP, _HEADING = 6, 30
_PAGE, _INK = (17, 17, 19), (232, 232, 234)


def tile(film: UInt8) -> UInt8:
    """Return a film, uint8 (h, w) or (h, w, 3), as uint8 (160, 160, 3), its shape kept, black around it."""
    import cv2

    height, width = film.shape[:2]
    scale = TILE / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(film, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    square = np.zeros((TILE, TILE, 3), np.uint8)
    top, left = (TILE - shape[1]) // 2, (TILE - shape[0]) // 2
    square[top : top + shape[1], left : left + shape[0]] = small if small.ndim == 3 else small[:, :, None]
    return square


def contact_sheet(groups: Sequence[tuple[str, Sequence[UInt8]]]) -> UInt8:
    """Lay tiles out under headings, numbered from 1 through the whole page.

    Args:
        groups: (heading, tiles of `tile`), in order; at least one tile in all.

    Returns:
        uint8 (H, W, 3) RGB, 8 tiles wide.
    """
    from PIL import Image, ImageDraw

    groups = [group for group in groups if group[1]]
    rows = [-(-len(tiles) // COLUMNS) for _, tiles in groups]
    width = COLUMNS * (TILE + _GAP) + _GAP
    height = sum(_HEADING + row * (TILE + _GAP) for row in rows) + _GAP
    page = Image.new("RGB", (width, height), _PAGE)
    draw = ImageDraw.Draw(page)
    y, number = _GAP, 0
    for (heading, tiles), row in zip(groups, rows, strict=True):
        draw.text((_GAP, y + _HEADING // 2), fit_text(heading, font(16), width - 2 * _GAP), _INK, font(16), "lm")
        y += _HEADING
        for place, picture in enumerate(tiles):
            number += 1
            at = _GAP + place % COLUMNS * (TILE + _GAP), y + place // COLUMNS * (TILE + _GAP)
            page.paste(Image.fromarray(picture), at)
            draw.text((at[0] + 4, at[1] + 3), str(number), _INK, font(13), "lt", stroke_width=2, stroke_fill=_PAGE)
        y += row * (TILE + _GAP)
    return np.asarray(page, dtype=np.uint8)
