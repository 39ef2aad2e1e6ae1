"""The pictures of `anomaly segment`: outlines on a film, IoU over thresholds, and the films it did worst on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.evaluate.overlap import Overlap
from anomaly.records import UInt8
from anomaly.runs import writing
from anomaly.segmenters.curve import IouCurve
from anomaly.workflows.gallery import BLUE, ORANGE, Colour, Tile, draw_gallery, outline, tile_of
from anomaly.workflows.panels import FILM_SIDE

Mask = NDArray[np.bool_]
_KEY = "Blue: the outline that the network draws. Orange: the true one."
_VALIDATION, _HERE, _GUESS = "#2f7fb8", "#c8452d", "#8a8f98"


@dataclass(frozen=True, slots=True)
class Judged:
    """One film of the gallery: `film` as in `Chances`, both masks bool (H, W) on the film itself."""

    film: UInt8
    found: Mask
    truth: Mask
    scan_id: str
    overlap: Overlap


def overlay(film: UInt8, outlines: Sequence[tuple[Mask, Colour]]) -> UInt8:
    """Draw outlines on a film.

    Args:
        film: uint8 (h, w) or (h, w, 3).
        outlines: Masks, bool (H, W), on the film or on a larger copy, and their colours; the last is on top.

    Returns:
        uint8 (h', w', 3) RGB, longer side at least 512.
    """
    import cv2

    height, width = film.shape[:2]
    factor = max(1.0, FILM_SIDE / max(height, width))
    shape = round(width * factor), round(height * factor)
    picture = np.asarray(cv2.resize(film, shape, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    picture = np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture)
    for mask, colour in outlines:
        outline(picture, mask, colour)
    return picture


def draw_worst(path: Path, films: Sequence[Judged]) -> None:
    """Draw a page of films with both outlines and their Dice, in the order given; at least one."""
    tiles = []
    for judged in films:
        picture = tile_of(overlay(judged.film, [(judged.truth, ORANGE), (judged.found, BLUE)]))
        words = f"Dice {judged.overlap.dice:.3f}, IoU {judged.overlap.iou:.3f}"
        tiles.append(Tile(picture, words, judged.scan_id))
    heading = f"The {len(films)} scans with the lowest Dice" if len(films) > 1 else "The scan"
    draw_gallery(path, heading, _KEY, tiles)


def draw_curves(
    path: Path, threshold: float, validation: IouCurve, here: IouCurve | None = None, guess: IouCurve | None = None
) -> None:
    """Draw mean IoU over thresholds, with the threshold in use marked.

    Args:
        path: Of the PNG; its folder is made.
        threshold: That the chances are cut at.
        validation: On the films the threshold was chosen on.
        here: On other films, beside it.
        guess: Of the mean training mask on those.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    lines = (
        (validation, _VALIDATION, "validation films", "-"),
        (here, _HERE, "these films", "-"),
        (guess, _GUESS, "these films, the mean training mask in its place", "--"),
    )
    for curve, colour, name, style in lines:
        if curve is not None:
            at = float(np.interp(threshold, curve.thresholds, curve.iou))
            axes.plot(curve.thresholds, curve.iou, style, color=colour, linewidth=1.8, label=f"{name}: {at:.3f}")
            axes.plot([threshold], [at], "o", color=colour, markersize=6)
    axes.axvline(threshold, color="#3a3d42", linestyle=":", linewidth=1.2, label=f"threshold in use: {threshold:.2f}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("threshold of the chance")
    axes.set_ylabel("mean IoU of films")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, fontsize=9, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
