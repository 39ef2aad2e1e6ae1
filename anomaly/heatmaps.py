"""Map + film -> a picture on one fixed scale, so that a hot place means the same on every film.

The scale comes from held-out normals' maps, never from the picture at hand: scaled to its own maximum, every
normal film looks hot somewhere. Below the 95 % quantile of normal pixels the film is shown as it is; colour
saturates at twice the 99.9 % quantile. Colours: matplotlib's inferno, perceptually uniform and readable in grey
(Nuñez, Anderton & Renslow, PLoS ONE 13, 2018), without its near-black and near-white ends, which look like anatomy.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, ModelError
from anomaly.records import Float32, Float64, UInt8
from anomaly.runs import writing

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

FOOTNOTE = "Research use only, not a diagnosis"
COLOUR_MAP = "inferno"

_COLOURS = (0.30, 0.93)  # the part of the map in use: its ends look like lung and like bone
_OPACITY = 0.52  # of the hottest colour: ribs and vessels stay visible through it
_FILM_SIDE = (512, 1024)  # the film's longer side in the picture with legend
_CHIP_GREY = 112  # the colour bar lies on this grey, so its colours are those seen over a film

_PAGE, _INK, _FAINT = (17, 17, 19), (232, 232, 234), (152, 152, 158)
_MARGIN, _HEADER, _FOOTER, _PANEL, _BAR, _BAR_LENGTH = 16, 44, 36, 214, 22, 480
_TEXT, _SMALL, _LINE = 16, 13, 19
_COMPRESSION = 3  # of PNGs: files a twentieth larger than at Pillow's 6, in less than half the time
_BOX = (110, 231, 255)  # of boxes: none of the heat's colours, and light


@dataclass(frozen=True, slots=True)
class HeatScale:
    """What a heat value looks like, the same for every film of a model.

    Heat <= `low` is not shown; colour saturates at `high` > low; `outline` is the level drawn in contour mode.
    `ticks` are (heat, label), ascending. `unit` is what one unit of heat is, "" where it has no name. `of_normals`
    tells whether held-out normals' maps set it, or the method itself, whose maps say next to nothing on normal films.
    """

    low: float
    high: float
    outline: float
    ticks: tuple[tuple[float, str], ...]
    unit: str = ""
    of_normals: bool = True

    @classmethod
    def between(cls, low: float, high: float, unit: str = "") -> HeatScale:
        """Build the scale a method gives its own maps: nothing shown up to `low`, saturated from `high` on.

        Raises:
            ModelError: Not 0 <= low < high.
        """
        if not (math.isfinite(high) and 0 <= low < high):
            raise ModelError(f"the model's heat scale from {low} to {high} is none; fit the model again")
        levels = [low + share * (high - low) for share in (0.0, 0.25, 0.5, 0.75)]
        named = [(level, f"{level:.3g} {unit}".strip()) for level in levels]
        return cls(low, high, levels[2], (*named, (high, f"≥ {high:.3g} {unit}".strip())), unit, of_normals=False)

    @classmethod
    def from_quantiles(cls, quantiles: Mapping[str, float], unit: str = "") -> HeatScale:
        """Build the scale from pixel quantiles of held-out normals' maps.

        Args:
            quantiles: heat at the keys "0.5", "0.95", "0.99", "0.999" and "1.0"; others are ignored. Where all
                normals' maps are flat, any heat above them is shown saturated.
            unit: of the heat, such as "σ"; ticks then also give their heat in it.

        Raises:
            ModelError: a key is missing, or a value is not finite or smaller than the one before.
        """
        keys = ("0.5", "0.95", "0.99", "0.999", "1.0")
        missing = [key for key in keys if key not in quantiles]
        if missing:
            raise ModelError(f"the calibration has no pixel quantile {', '.join(missing)}; calibrate the model again")
        _, low, upper, outline, hottest = values = [float(quantiles[key]) for key in keys]
        if not all(math.isfinite(value) for value in values) or sorted(values) != values:
            raise ModelError("the calibration's pixel quantiles do not ascend; calibrate the model again")
        high = max(2.0 * outline, low + max(1e-6, 1e-6 * abs(low)))
        last = "hottest normal" if unit else "100 % (hottest normal)"
        ticks = [(low, "95 %"), (upper, "99 %"), (outline, "99.9 %"), (hottest, last)]
        shown = [tick for tick in ticks if tick[0] < high]
        if not unit:
            return cls(low, high, outline, (*shown, (high, "≥ twice the 99.9 % heat")))
        named = [(heat, f"{heat:.3g} {unit} ({label})") for heat, label in shown]
        return cls(low, high, outline, (*named, (high, f"≥ {high:.3g} {unit}")), unit)

    def level(self, heat: Float32) -> Float32:
        """Where heat, float32 of any shape, lies between low (0) and high (1), clipped to [0, 1]."""
        level = (heat.astype(np.float64) - self.low) / (self.high - self.low)
        return np.clip(level, 0.0, 1.0).astype(np.float32)


def overlay(film: UInt8, heat: Float32, scale: HeatScale, *, contour: bool = False) -> UInt8:
    """Lay the heat over the film; pixels at or below `scale.low` are the film's own grey, untouched.

    Args:
        film: uint8 (H, W), or uint8 (H, W, 3) RGB for colour sets.
        heat: float32 (H, W) >= 0 on the film's grid (brought there by the caller, smoothly, through Geometry).
        scale: of the model.
        contour: draw the outline of heat above `scale.outline` in place of colour.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        DataError: shapes or types differ from these, or heat is not finite.
    """
    if film.dtype != np.uint8 or film.shape not in (heat.shape, (*heat.shape, 3)) or heat.ndim != 2 or heat.size == 0:
        raise DataError(f"film {film.shape} {film.dtype} must be uint8 on the grid of the heat {heat.shape}")
    if not np.isfinite(heat).all():
        raise DataError("the heat map holds values that are not finite")
    picture = film.copy() if film.ndim == 3 else np.repeat(film[:, :, None], 3, axis=2)
    heat = heat.astype(np.float32, copy=False)
    if contour:
        return _outlined(picture, heat > scale.outline, max(1, round(max(heat.shape) / 400)))
    return _coloured(picture, scale.level(heat))


def with_legend(
    image: UInt8, scale: HeatScale, *, caption: str, footnote: str = FOOTNOTE, contour: bool = False
) -> UInt8:
    """Set a picture on a dark page with the colour bar, a caption above and a footnote below.

    The film is brought to a longer side of 512 to 1024 pixels, so text is crisp and equally large on any film.

    Args:
        image: uint8 (H, W, 3) RGB, from `overlay`.
        scale: of the model; the bar shows its fixed ticks.
        caption: one line, such as scan id, score and p-value; anything else is made one: line breaks become
            spaces, characters the font lacks "?", and the middle of a long one "…".
        footnote: one line, likewise.
        contour: the picture was drawn with outlines; a key of the outline stands in place of the bar.

    Returns:
        uint8 (H', W', 3) RGB.

    Raises:
        DataError: the image has another shape or type.
    """
    from PIL import Image, ImageDraw

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(f"picture {image.shape} {image.dtype} must be uint8 (H, W, 3)")
    film = Image.fromarray(_shown(image))
    body = max(film.height, _FILM_SIDE[0] * 3 // 4)
    left = max(film.width, _FILM_SIDE[0] // 2)
    page = Image.new("RGB", (left + _PANEL + 3 * _MARGIN, body + _HEADER + _FOOTER), _PAGE)
    page.paste(film, (_MARGIN + (left - film.width) // 2, _HEADER + (body - film.height) // 2))
    draw = ImageDraw.Draw(page)
    room = page.width - 2 * _MARGIN
    draw.text((_MARGIN, _HEADER // 2), fit_text(caption, font(_TEXT), room), _INK, font(_TEXT), "lm")
    draw.text((_MARGIN, page.height - _FOOTER // 2), fit_text(footnote, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    x, y = left + 2 * _MARGIN, _HEADER
    if contour:
        level = (f"({scale.outline:.3g} {scale.unit})",) if scale.unit else ()
        usual = ("Outlined: hotter than 99.9 % of", "what is mapped of normal films", *level)
        own = ("Outlined: hotter than the middle", "of the model's scale", *level)
        _draw_lines(draw, usual if scale.of_normals else own, x, y)
        key = np.zeros((2 * _LINE, 3 * _BAR, 3), dtype=np.uint8) + np.uint8(_CHIP_GREY)
        inside = np.pad(
            np.ones((_LINE, 2 * _BAR), dtype=bool), ((_LINE // 2, _LINE - _LINE // 2), (_BAR // 2, _BAR // 2))
        )
        page.paste(Image.fromarray(_outlined(key, inside, 2)), (x, y + 3 * _LINE))
    else:
        named = (f"Heat in {scale.unit} (share of the pixels", "mapped on normal films that", "are cooler)")
        plain = ("Heat: share of the pixels mapped", "on normal films that are cooler")
        own = (f"Heat{f' in {scale.unit}' if scale.unit else ''}, one scale for", "every film of this model")
        _draw_lines(draw, own if not scale.of_normals else named if scale.unit else plain, x, y)
        top, bottom = y + 4 * _LINE, min(y + body - 2 * _LINE, y + 4 * _LINE + _BAR_LENGTH)
        ramp = np.linspace(1.0, 0.0, bottom - top, dtype=np.float32)
        bar = np.full((len(ramp), _BAR, 3), _CHIP_GREY, dtype=np.uint8)
        page.paste(Image.fromarray(_coloured(bar, np.repeat(ramp[:, None], _BAR, axis=1))), (x, top))
        _draw_ticks(draw, scale, x + _BAR, top, bottom)
        _draw_lines(draw, ("cooler: the film, untouched",), x, bottom + _LINE)
    return np.asarray(page).copy()


def with_boxes(picture: UInt8, corners: Float64, confidences: Float32) -> UInt8:
    """Return a picture with boxes drawn on it as outlines, each with its confidence beside it.

    Args:
        picture: uint8 (H, W, 3) RGB, from `overlay`.
        corners: float64 (n, 4, 2), of each box in order, as (x, y) of pixel centres.
        confidences: float32 (n,), in [0, 1]; the first is drawn last, over the others.

    Returns:
        uint8 (H, W, 3) RGB, another array.

    Raises:
        DataError: the picture has another shape or type.
    """
    from PIL import Image, ImageDraw

    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise DataError(f"picture {picture.shape} {picture.dtype} must be uint8 (H, W, 3)")
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    width = max(1, round(max(page.size) / 400))
    for box, confidence in zip(corners[::-1], confidences[::-1], strict=True):
        outline = [(float(x), float(y)) for x, y in (*box, box[0])]
        draw.line(outline, (0, 0, 0), 3 * width)  # a bright line in a dark one, seen on bone too
        draw.line(outline, _BOX, width)
        text = f"{confidence:.2f}"
        left, above = float(box[:, 0].min()), float(box[:, 1].min())
        room = draw.textbbox((0, 0), text, font(_SMALL), "lt")
        x = min(max(left, 0.0), page.width - room[2] - 4)
        y = above - room[3] - 6 if above >= room[3] + 6 else above + 3 * width
        draw.rectangle((x, y, x + room[2] + 4, y + room[3] + 4), (0, 0, 0))
        draw.text((x + 2, y + 2), text, _BOX, font(_SMALL), "lt")
    return np.asarray(page).copy()


def write_png(path: Path, image: UInt8) -> None:
    """Write a picture beside its final name and rename it, so a reader never sees half of it.

    Args:
        path: final name; its folder exists.
        image: uint8 (H, W) or (H, W, 3) RGB.

    Raises:
        DataError: the image has another shape or type.
        OSError: the folder cannot be written; nothing is left behind.
    """
    from PIL import Image

    if image.dtype != np.uint8 or (image.ndim, *image.shape[2:]) not in ((2,), (3, 3)) or image.size == 0:
        raise DataError(f"picture {image.shape} {image.dtype} must be uint8 (H, W) or (H, W, 3)")
    with writing(path) as handle:
        Image.fromarray(image).save(handle, format="PNG", compress_level=_COMPRESSION)


def colour_stops(count: int) -> list[str]:
    """Return the bar's colours from `low` to `high` as CSS colours, for a legend drawn by a page."""
    ramp = np.linspace(0.0, 1.0, count, dtype=np.float32)[None]
    bar = _coloured(np.full((1, count, 3), _CHIP_GREY, dtype=np.uint8), ramp)
    return [f"rgb({r}, {g}, {b})" for r, g, b in bar[0]]


@cache
def _colours() -> Float64:
    """RGB of 256 levels, float64 (256, 3) in [0, 255]; read only."""
    from matplotlib import colormaps

    table = colormaps[COLOUR_MAP](np.linspace(*_COLOURS, 256))[:, :3] * 255.0
    table.setflags(write=False)
    return np.asarray(table)


@cache
def font(size: int) -> FreeTypeFont:
    """DejaVu Sans, which matplotlib carries; the basic layout engine, so that text is the same on every machine."""
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(), size, layout_engine=ImageFont.Layout.BASIC)


def _font_file() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _drawable() -> frozenset[int]:
    """Code points the font has a glyph for."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


def _coloured(picture: UInt8, level: Float32) -> UInt8:
    """Blend colour into uint8 (H, W, 3), in place, where level float32 (H, W) > 0; opacity grows with the level."""
    shown = level > 0
    at = level[shown]
    # The root lets faint heat be seen at once, and still starts at nothing, so no edge is drawn at `low`.
    alpha = (_OPACITY * np.sqrt(at))[:, None]
    colour = _colours()[np.rint(at * 255).astype(np.intp)]
    picture[shown] = np.rint(picture[shown] * (1.0 - alpha) + colour * alpha).astype(np.uint8)
    return picture


def _outlined(picture: UInt8, hot: NDArray[np.bool_], width: int) -> UInt8:
    """Draw the borders of bool (H, W) on uint8 (H, W, 3), in place: a bright line in a dark one, seen on bone too."""
    import cv2

    curves, _ = cv2.findContours(hot.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    bright = tuple(int(c) for c in _colours()[200])
    for colour, thickness in (((0, 0, 0), 3 * width), (bright, width)):
        cv2.drawContours(picture, curves, -1, colour, thickness, cv2.LINE_AA)
    return picture


def _shown(image: UInt8) -> UInt8:
    """The film at the size it has on the page: its longer side within `_FILM_SIDE`, its shape kept."""
    import cv2

    height, width = image.shape[:2]
    scale = min(max(1.0, _FILM_SIDE[0] / max(height, width)), _FILM_SIDE[1] / max(height, width))
    if scale == 1.0:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8)


def _draw_ticks(draw: ImageDraw, scale: HeatScale, x: int, top: int, bottom: int) -> None:
    """Label the bar that ends at column x: labels keep a line's distance, a thin leader joins each to its place."""
    marks = [tick for tick in scale.ticks if scale.low <= tick[0] <= scale.high][: (bottom - top) // _LINE]
    span = scale.high - scale.low
    places = [bottom - 1 - (value - scale.low) / span * (bottom - 1 - top) for value, _ in marks]
    rows: list[float] = []
    for place in places:  # upwards
        rows.append(min(place, rows[-1] - _LINE) if rows else place)
    for i in range(len(rows) - 1, -1, -1):  # and back down where the top pushes
        rows[i] = max(rows[i], top + (len(rows) - 1 - i) * _LINE)
    for (_, label), place, row in zip(marks, places, rows, strict=True):
        draw.line([(x, place), (x + 5, place), (x + 12, row), (x + 16, row)], _FAINT, 1)
        room = _PANEL - _BAR - 20
        draw.text((x + 20, round(row)), fit_text(label, font(_SMALL), room), _INK, font(_SMALL), "lm")


def _draw_lines(draw: ImageDraw, lines: tuple[str, ...], x: int, y: int) -> None:
    for i, line in enumerate(lines):
        draw.text((x, y + i * _LINE), line, _INK, font(_SMALL), "lt")


def fit_text(text: str, font: FreeTypeFont, room: float) -> str:
    """One drawable line at most `room` pixels wide; a long one keeps both its ends (scan id first, score last)."""
    drawable = _drawable()
    text = unicodedata.normalize("NFC", text if len(text) <= 512 else text[:256] + text[-256:])
    text = "".join(" " if c.isspace() or unicodedata.category(c) == "Cc" else c for c in text)
    text = "".join(c if ord(c) in drawable else "?" for c in text if unicodedata.category(c) not in ("Cf", "Mn"))
    text = " ".join(text.split())
    keep = len(text)
    while keep > 0 and font.getlength(text if keep == len(text) else _cut(text, keep)) > room:
        keep -= 1
    return text if keep == len(text) else _cut(text, keep)


def _cut(text: str, keep: int) -> str:
    return text[: (keep + 1) // 2].rstrip() + "…" + text[len(text) - keep // 2 :].lstrip()
