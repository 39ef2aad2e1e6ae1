"""The pictures of `anomaly attention`: how the shares are spread, and the films with the least heat in the lungs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.evaluate.attention import GROUPS
from anomaly.heatmaps import FOOTNOTE, HeatScale, fit_text, font, write_png
from anomaly.records import UInt8
from anomaly.runs import writing
from anomaly.workflows.draw import draw
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.panels import Panel

_COLOURS = ("#2f7fb8", "#c8452d", "#6b4ea0")
"""Of `GROUPS`, as in the report's histogram of scores."""
_BINS = 40

_SIDE, _COLUMNS = 256, 6
_GAP, _CAPTION, _HEADER, _FOOTER = 8, 42, 58, 30
_PAGE, _INK, _FAINT, _OUTLINE = (17, 17, 19), (232, 232, 234), (152, 152, 158), (64, 224, 255)
_TEXT, _SMALL = 16, 13
_KEY = (
    "Blue: outline of the lung mask. Colour: heat on the model's one scale; no colour: no hotter than on normal films."
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One scan of the gallery; `mask` bool (h, w) on the panel's film, shares in [0, 1]."""

    panel: Panel
    mask: Mask
    scan_id: str
    share: float | None
    lung_area: float


def draw_shares(path: Path, scans: Sequence[tuple[float, float, int | None]]) -> None:
    """Draw how the shares are spread, by label, on what an even map has on the same films.

    Args:
        path: Of the PNG; its folder is made.
        scans: (share, lung area, label) of each map with heat; at least one.
    """
    from matplotlib.figure import Figure

    edges = np.linspace(0.0, 100.0, _BINS + 1).tolist()
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    axes = figure.add_subplot()

    def spread(values: Iterable[float], name: str, colour: str, *, filled: bool = False) -> None:
        own = 100.0 * np.clip(np.array(list(values)), 0.0, 1.0)
        if not len(own):
            return
        axes.hist(
            own,
            bins=edges,
            weights=np.full(len(own), 100.0 / len(own)),
            histtype="stepfilled" if filled else "step",
            color=colour,
            alpha=0.45 if filled else 1.0,
            linewidth=1.8,
            label=f"{name}, median {np.median(own):.0f} %" + ("" if filled else f" (n = {len(own):,})"),
        )
        axes.axvline(float(np.median(own)), color=colour, linestyle=":", linewidth=1.2)

    spread((area for _, area, _ in scans), "an even map: the lungs' share of the film", "#8a8f98", filled=True)
    for (name, label), colour in zip(GROUPS, _COLOURS, strict=True):
        spread((share for share, _, own in scans if own == label), name, colour)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of a map's heat inside the lungs, in %")
    axes.set_ylabel("share of the group, in %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, fontsize=9, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})


def draw_worst(path: Path, scans: Sequence[Shown], scale: HeatScale) -> None:
    """Draw a gallery: each film with its map on the model's fixed scale, its lungs outlined, and its share below.

    Args:
        path: Of the PNG.
        scans: At least one, in the order they are shown in.
        scale: Of the model.
    """
    from PIL import Image, ImageDraw

    columns = min(_COLUMNS, max(3, len(scans)))  # three at the least: the heading needs the room
    rows = -(-len(scans) // columns)
    width = columns * (_SIDE + _GAP) + _GAP
    page = Image.new("RGB", (width, _HEADER + rows * (_SIDE + _CAPTION + _GAP) + _FOOTER), _PAGE)
    ink = ImageDraw.Draw(page)
    room = width - 2 * _GAP
    ink.text((_GAP, 18), fit_text(_heading(len(scans)), font(_TEXT), room), _INK, font(_TEXT), "lm")
    ink.text((_GAP, 41), fit_text(_KEY, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    for place, shown in enumerate(scans):
        row, column = divmod(place, columns)
        left, top = _GAP + column * (_SIDE + _GAP), _HEADER + row * (_SIDE + _CAPTION + _GAP)
        picture = _tile(shown, scale)
        height, wide = picture.shape[:2]
        page.paste(Image.fromarray(picture), (left + (_SIDE - wide) // 2, top + (_SIDE - height) // 2))
        said = "no heat" if shown.share is None else f"{100 * shown.share:.1f} % in the lungs"
        words = f"{said} (even map {100 * shown.lung_area:.1f} %)"
        ink.text((left, top + _SIDE + 13), fit_text(words, font(_SMALL), _SIDE), _INK, font(_SMALL), "lm")
        ink.text((left, top + _SIDE + 31), fit_text(shown.scan_id, font(_SMALL), _SIDE), _FAINT, font(_SMALL), "lm")
    ink.text((_GAP, page.height - _FOOTER // 2), fit_text(FOOTNOTE, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    write_png(path, np.asarray(page, dtype=np.uint8))


def _heading(count: int) -> str:
    return f"The {count} maps with the smallest share of heat inside the lungs" if count > 1 else "The map"


def _tile(shown: Shown, scale: HeatScale) -> UInt8:
    """Return uint8 (h, w, 3) RGB, longer side 256: the overlay with the outline of the lungs."""
    import cv2

    picture = np.ascontiguousarray(draw(shown.panel, scale))
    height, width = picture.shape[:2]
    inside = cv2.resize(shown.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    curves, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for colour, thickness in (((0, 0, 0), 4), (_OUTLINE, 2)):  # bright in dark: seen on bone and on heat
        cv2.drawContours(picture, curves, -1, colour, thickness, cv2.LINE_AA)
    factor = _SIDE / max(height, width)
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
