"""tsne.png: where the method places scored scans among held-out normals, as figure 2 of the AnoGAN paper shows it.

Features are brought onto a plane by t-SNE (van der Maaten & Hinton, JMLR 9, 2008), which keeps neighbours together and
little else: it is for looking at, and no score rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.calibrate import Calibration
from anomaly.records import ABNORMAL, NORMAL, Float32
from anomaly.runs import writing
from anomaly.workflows.journal import read_journal, unpack_features
from anomaly.workflows.results import ScoreLine, flags

TSNE = "tsne.png"
_SCANS, _NORMALS = 1000, 500
_FEWEST = 10
_PERPLEXITY = 30.0
_CAPTION = (
    "Every dot is a film, placed by t-SNE so that films alike to the method lie together. Distances between groups, "
    "their sizes and shapes say little, and are no scores: this picture takes no part in scoring."
)
_GROUPS = {  # drawn in this order, what matters most on top
    "held-out normals": "#b4b8be",
    "not flagged, label unknown": "#7fa98a",
    "labelled normal": "#2f7fb8",
    "flagged, label unknown": "#6b4ea0",
    "labelled abnormal": "#c8452d",
}


@dataclass(frozen=True, slots=True)
class FeaturePicture:
    """The picture's file, or None where there is too little to draw, and a line on what it is or why it is not."""

    file: Path | None
    caption: str


def draw_features(
    out: Path, lines: Sequence[ScoreLine], calibration: Calibration, *, alpha: float
) -> FeaturePicture | None:
    """Draw tsne.png into a results folder; where it cannot be, remove an earlier one.

    At most 1,000 scans are drawn, evenly over the ranks, and 500 normals.

    Args:
        out: A folder written by `anomaly score`.
        lines: Of scores.csv, ranked.
        calibration: Of the model.
        alpha: Scans of unknown label are shown as flagged where p <= alpha.

    Returns:
        None where the method has no features.
    """
    (out / TSNE).unlink(missing_ok=True)
    if calibration.features is None:
        return None
    journal = read_journal(out)
    shown = _evenly([line for line in lines if "features" in journal.get(line.row.scan_id, {})], _SCANS)
    normals = calibration.features[_evenly(range(len(calibration.features)), _NORMALS)]
    features = np.stack([*normals, *(unpack_features(journal[line.row.scan_id]["features"]) for line in shown)])
    if len(features) < _FEWEST:
        return FeaturePicture(None, f"{len(features)} films are too few for a picture of the method's features.")
    if not np.ptp(features, axis=0).any():
        return FeaturePicture(None, "The method's features are the same for every film: there is nothing to draw.")
    kinds = np.array(["held-out normals"] * len(normals) + [_kind(line, alpha) for line in shown])
    scored = sum(line.row.score is not None for line in lines)
    part = "" if len(shown) == scored else f" Drawn are {len(shown):,} of {scored:,} scans, evenly over the ranks."
    _draw(out / TSNE, _on_plane(features), kinds)
    return FeaturePicture(out / TSNE, _CAPTION + part)


def _evenly(things: Sequence[Any], most: int) -> list[Any]:
    """Return the things, or `most` of them at even steps, the first and the last among them."""
    if len(things) <= most:
        return list(things)
    return [things[place] for place in np.linspace(0, len(things) - 1, most).round().astype(int)]


def _kind(line: ScoreLine, alpha: float) -> str:
    known: Mapping[int | None, str] = {NORMAL: "labelled normal", ABNORMAL: "labelled abnormal"}
    said = "flagged" if flags(line.row.p_value or 1.0, alpha) else "not flagged"
    return known.get(line.row.label, f"{said}, label unknown")


def _on_plane(features: Float32) -> Float32:
    """Return t-SNE's places, float32 (N, 2), of features (N, F)."""
    from sklearn.manifold import TSNE as Embedding  # noqa: N811

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    return np.asarray(Embedding(init="pca", perplexity=perplexity, random_state=0).fit_transform(features), np.float32)


def _draw(path: Path, places: Float32, kinds: Any) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for kind, colour in _GROUPS.items():
        mine = places[kinds == kind]
        if len(mine):
            name = f"{kind} (n = {len(mine):,})"
            axes.scatter(mine[:, 0], mine[:, 1], s=16, c=colour, alpha=0.8, linewidths=0, label=name)
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
