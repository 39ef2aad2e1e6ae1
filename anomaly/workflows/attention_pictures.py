"""The pictures of `anomaly attention`: how the shares are spread, and the films with the least heat in the lungs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.evaluate.attention import GROUPS
from anomaly.heatmaps import HeatScale
from anomaly.records import UInt8
from anomaly.runs import writing
from anomaly.workflows.draw import draw
from anomaly.workflows.gallery import BLUE, Tile, draw_gallery, outline, tile_of
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.panels import Panel

_COLOURS = ("#2f7fb8", "#c8452d", "#6b4ea0")
"""Of `GROUPS`, as in the report's histogram of scores."""
_BINS = 40

_KEY = "Blue: outline of the lung mask. Colour: heat on the model's one scale; maps without are left out."


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
    tiles = []
    for shown in scans:
        said = "no heat" if shown.share is None else f"{100 * shown.share:.1f} % in the lungs"
        words = f"{said} (even map {100 * shown.lung_area:.1f} %)"
        tiles.append(Tile(_tile(shown, scale), words, shown.scan_id))
    draw_gallery(path, _heading(len(scans)), _KEY, tiles)


def _heading(count: int) -> str:
    return f"The {count} coloured maps with the smallest share of heat inside the lungs" if count > 1 else "The map"


def _tile(shown: Shown, scale: HeatScale) -> UInt8:
    """Return uint8 (h, w, 3) RGB, longer side 256: the overlay with the outline of the lungs."""
    picture = np.ascontiguousarray(draw(shown.panel, scale))
    outline(picture, shown.mask, BLUE)
    return tile_of(picture)
