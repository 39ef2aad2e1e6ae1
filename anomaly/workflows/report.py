"""`anomaly report`: one self-contained HTML file a reader can open anywhere and a reviewer can check."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import anomaly
from anomaly.calibrate import Calibration, load_calibration
from anomaly.heatmaps import HeatScale, colour_stops
from anomaly.records import ABNORMAL, NORMAL, UInt8
from anomaly.runs import RECEIPT, read_json, write_text
from anomaly.workflows.attention import attention_on_page
from anomaly.workflows.classification import CLASSIFICATION, CONFUSION, RELIABILITY, ROC
from anomaly.workflows.draw import draw, enlarged, heat_scale, panel_path
from anomaly.workflows.evaluate import EVALUATION
from anomaly.workflows.panels import Panel, load_panel
from anomaly.workflows.pictures import data_uri, png_uri
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.results import ScoreLine, flags, read_scores
from anomaly.workflows.tsne import draw_features

REPORT = "report.html"
_TERM_SIDE = 300
_SHOWN = 0.62  # of a picture's pixels, so that its letters are about as large as the page's small ones
_LABEL = 12.0  # hundredths of the bar that a label takes


@dataclass(frozen=True, slots=True)
class _Card:
    """One scan on the page; pictures are data URIs."""

    line: ScoreLine
    flagged: bool
    label: str
    film: str
    prepared: str
    registered: bool
    twin: str | None
    overlay: str
    terms: list[_Term]


@dataclass(frozen=True, slots=True)
class _Term:
    """One thing the score is made of, and its small map where it has one."""

    name: str
    value: float
    overlay: str | None


def write_report(out: Path, *, alpha: float | None = None, top: int = 24, on_progress: Ticker = silent) -> Path:
    """Write report.html into a results folder, and tsne.png where the method has features.

    Args:
        out: A folder written by `anomaly score`.
        alpha: Flag scans with p <= alpha; None for the run's own.
        top: How many of the highest-scoring scans to show.
        on_progress: Told how far along things are.

    Returns:
        The report's path.

    Raises:
        DataError: Not a results folder.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    lines = read_scores(out)
    receipt = read_json(out / RECEIPT)
    alpha = float(receipt["alpha"]) if alpha is None else alpha
    calibration = load_calibration(out)
    scale = heat_scale(out)
    scored = [line for line in lines if line.row.score is not None]
    cards = []
    shown = [line for line in scored if panel_path(out, line).is_file()][:top]
    for done, line in enumerate(shown, start=1):
        cards.append(_card(out, line, scale, alpha))
        on_progress(done, len(shown), "report")
    page = Environment(loader=PackageLoader("anomaly", "workflows"), autoescape=True, undefined=StrictUndefined)
    features = draw_features(out, lines, calibration, alpha=alpha)
    evaluation = read_json(out / EVALUATION) if (out / EVALUATION).is_file() else None
    classification = read_json(out / CLASSIFICATION) if (out / CLASSIFICATION).is_file() else None
    text = page.get_template("report.html.j2").render(
        version=anomaly.__version__,
        receipt=receipt,
        receipt_text=json.dumps(receipt, indent=2, ensure_ascii=False),
        alpha=alpha,
        smallest_alpha=calibration.smallest_alpha,
        threshold=calibration.threshold(alpha),
        held_out=len(calibration.scores),
        scored=scored,
        failed=[line for line in lines if line.row.score is None],
        warned=[line for line in scored if line.row.warnings],
        flagged=sum(flags(line.row.p_value or 1.0, alpha) for line in scored),
        histogram=_histogram(scored, calibration, alpha) if scored else None,
        features=features,
        tsne=png_uri(features.file) if features and features.file else None,
        attention=attention_on_page(out),
        cards=cards,
        colours=colour_stops(24),
        ticks=_ticks(scale),
        unit=scale.unit,
        of_normals=scale.of_normals,
        evaluation=evaluation,
        classification=classification,
        class_pictures=_class_pictures(out) if classification else [],
    )
    write_text(out / REPORT, text.encode("utf-8", errors="replace").decode("utf-8"))
    return out / REPORT


def _class_pictures(out: Path) -> list[tuple[str, str, int]]:
    """Return what each picture of a classifier's answers shows, its data URI and its width on the page, if it is there.

    The more classes, the larger they are drawn: one width for all would leave some too small to read.
    """
    from PIL import Image

    said = {
        CONFUSION: "Films by true and predicted class",
        ROC: "ROC curves, each class against the rest",
        RELIABILITY: "How far probabilities can be believed: points on the dotted line are as often right as they say",
    }
    pictures = []
    for name, caption in said.items():
        if (out / name).is_file():
            with Image.open(out / name) as picture:
                pictures.append((caption, png_uri(out / name), round(_SHOWN * picture.width)))
    return pictures


def _card(out: Path, line: ScoreLine, scale: HeatScale, alpha: float) -> _Card:
    panel = enlarged(load_panel(panel_path(out, line)))
    label = {NORMAL: "normal", ABNORMAL: "abnormal", None: "unknown"}[line.row.label]
    return _Card(
        line,
        flags(line.row.p_value or 1.0, alpha),
        label,
        data_uri(panel.film),
        data_uri(panel.prepared, lossless=True),
        panel.registered,
        None if panel.twin is None else data_uri(panel.twin, lossless=True),
        data_uri(draw(panel, scale)),
        [_term(name, value, panel, scale) for name, value in line.row.terms.items()],
    )


def _term(name: str, value: float, panel: Panel, scale: HeatScale) -> _Term:
    """Return a term with its map on the film, on the scale of the whole map, at the size it has on the page."""
    heatmap = panel.term_maps.get(name)
    if heatmap is None:
        return _Term(name, value, None)
    return _Term(name, value, data_uri(_small(draw(replace(panel, heatmap=heatmap), scale))))


def _small(picture: UInt8) -> UInt8:
    """Return a picture, uint8 (h, w, 3), with its longer side at `_TERM_SIDE`, twice what the page shows it at."""
    import cv2

    height, width = picture.shape[:2]
    factor = _TERM_SIDE / max(height, width)
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _ticks(scale: HeatScale) -> list[dict[str, Any]]:
    """Return where the labels of the bar stand, in hundredths of its length; one too near the last goes below it."""
    span = scale.high - scale.low
    ticks: list[dict[str, Any]] = []
    last = {False: -100.0, True: -100.0}  # where the last label of each row stands
    for value, label in scale.ticks:
        at = 100.0 * (value - scale.low) / span
        room = _LABEL if value < scale.high else 1.5 * _LABEL  # the last one ends where it stands
        below = at - last[False] < room and last[True] < last[False]
        last[below] = at
        ticks.append({"at": at, "label": label, "below": below})
    return ticks


def _histogram(scored: list[ScoreLine], calibration: Calibration, alpha: float) -> str:
    """Return an inline SVG: scores of the scans (by label where known) against the held-out normals."""
    from matplotlib.figure import Figure

    groups: list[tuple[str, str, Any]] = [("held-out normals", "#8a8f98", calibration.scores)]
    for label, name, colour in ((NORMAL, "labelled normal", "#2f7fb8"), (ABNORMAL, "labelled abnormal", "#c8452d")):
        groups.append((name, colour, np.array([line.row.score for line in scored if line.row.label == label])))
    groups.append(("label unknown", "#6b4ea0", np.array([line.row.score for line in scored if line.row.label is None])))
    groups = [group for group in groups if len(group[2])]
    values = np.concatenate([group[2] for group in groups]).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1.0, 41)
    figure = Figure(figsize=(8.6, 3.1), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, members in groups:
        weights = np.full(len(members), 100.0 / len(members))
        filled = name == "held-out normals"
        axes.hist(
            members,
            bins=edges.tolist(),
            weights=weights,
            histtype="stepfilled" if filled else "step",
            color=colour,
            alpha=0.45 if filled else 1.0,
            linewidth=1.8,
            label=f"{name} (n = {len(members)})",
        )
    threshold = calibration.threshold(alpha)
    if np.isfinite(threshold):
        axes.axvline(threshold, color="#222", linestyle="--", linewidth=1.2, label=f"flagged above (alpha = {alpha:g})")
    axes.set_xlabel("score (higher is more abnormal)")
    axes.set_ylabel("share of the group, in 100")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
