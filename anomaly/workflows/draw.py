"""`anomaly heatmaps`: overlays of the panels a scoring run kept, on the model's one fixed scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from anomaly.calibrate import load_calibration
from anomaly.heatmaps import HeatScale, overlay, with_boxes, with_legend, write_png
from anomaly.prepare.geometry import on_shape
from anomaly.records import UInt8
from anomaly.runs import RECEIPT, read_json
from anomaly.workflows.boxes import corners_on_film
from anomaly.workflows.panels import FILM_SIDE, Panel, load_panel
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.results import ScoreLine, read_scores

MOST_BOXES = 8
"""Boxes drawn on a film at most: the best one, and those more confident than nearly all there is on normal films."""


def draw_heatmaps(out: Path, *, contour: bool = False, top: int | None = None, on_progress: Ticker = silent) -> int:
    """Draw heatmaps/ID.png for every scan whose panel was kept, worst first.

    Args:
        out: A folder written by `anomaly score`.
        contour: Draw an outline instead of colour.
        top: Only this many; None for all.
        on_progress: Told how far along things are.

    Returns:
        How many were drawn.

    Raises:
        DataError: Not a results folder, or a damaged panel.
    """
    lines = [line for line in read_scores(out) if panel_path(out, line).is_file()][:top]
    scale = heat_scale(out)
    for done, line in enumerate(lines, start=1):
        picture = draw(load_panel(panel_path(out, line)), scale, contour=contour)
        page = with_legend(picture, scale, caption=caption(line), contour=contour)
        write_png(out / "heatmaps" / f"{line.row.scan_id}.png", page)
        on_progress(done, len(lines), "drawing")
    return len(lines)


def heat_scale(out: Path) -> HeatScale:
    """Return the one scale of a results folder, in the unit its method's maps have.

    Raises:
        DataError: No receipt.
        ModelError: The calibration is missing or damaged.
    """
    told = read_json(out / RECEIPT)
    unit = str(told.get("heat_unit", ""))
    if told.get("heat_range") is not None:
        low, high = told["heat_range"]
        return HeatScale.between(float(low), float(high), unit)
    return HeatScale.from_quantiles(load_calibration(out).pixel_quantiles, unit)


def draw(panel: Panel, scale: HeatScale, *, contour: bool = False) -> UInt8:
    """Return the overlay, uint8 (h, w, 3) RGB, longer side at least 512."""
    panel = enlarged(panel)
    picture = overlay(panel.film, panel.heat_on_film(), scale, contour=contour)
    if panel.boxes is None:
        return picture
    sure = panel.boxes[:, 4]
    shown = panel.boxes[(sure > scale.outline) | ((sure > scale.low) & (np.arange(len(sure)) == 0))][:MOST_BOXES]
    return with_boxes(picture, corners_on_film(shown, panel.geometry), shown[:, 4])


def enlarged(panel: Panel) -> Panel:
    """Return the panel with its film stretched so that the longer side has at least 512 pixels."""
    import cv2

    height, width = panel.film.shape[:2]
    factor = FILM_SIDE / max(height, width)
    if factor <= 1:
        return panel
    shape = (round(height * factor), round(width * factor))
    film = np.asarray(cv2.resize(panel.film, shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    return replace(panel, film=film, geometry=on_shape(panel.geometry, shape))


def panel_path(out: Path, line: ScoreLine) -> Path:
    """Return where the panel of a line is, or would be."""
    return out / "panels" / f"{line.row.scan_id}.npz"


def caption(line: ScoreLine) -> str:
    """Return one line of text: rank, scan, score, p-value."""
    row = line.row
    score = "" if row.score is None else f"score {row.score:.4g}, p = {row.p_value:.3g}"
    return f"#{line.rank}  {row.scan_id}  {score}"
