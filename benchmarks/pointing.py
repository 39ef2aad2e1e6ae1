"""Whether maps point at the boxes that radiologists drew on the films of RSNA dev; shared by atlas.py and anogan's."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import shared_data

from anomaly.evaluate.boxes import box_mask, box_table, boxes_of_map
from anomaly.evaluate.localise import hit_rates
from anomaly.records import Float32, Float64, Int64

QUANTILE = 0.95
"""Of the heat of held-out normals: boxes are drawn around what is hotter."""


def read_boxes() -> dict[str, Float64]:
    """Return the boxes of RSNA dev, image -> float64 (n, 4): x, y, w, h in pixels of the film."""
    boxes: dict[str, list[list[float]]] = {}
    with (shared_data() / "rsna_adult/boxes.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            boxes.setdefault(line["image"], []).append([float(line[name]) for name in "xywh"])
    return {image: np.array(found) for image, found in boxes.items()}


def pointing(
    heat: Sequence[Float32],
    paths: Sequence[str],
    scores: Float64,
    patients: Sequence[str] | Int64,
    parts: Mapping[str, Int64],
    threshold: float,
) -> dict[str, Any]:
    """Say whether maps point at the boxes, beside what needs no map.

    Args:
        heat: N maps brought to their films, all of one shape (H, W).
        paths: Of the N films.
        scores: float64 (N,), of the films.
        patients: Of the films.
        parts: Name -> places of the films that a table of average precision is made of.
        threshold: Boxes are drawn around what is hotter; the `QUANTILE` of normals.
    """
    boxes = read_boxes()
    truths = [boxes.get(Path(path).name, np.zeros((0, 4))) for path in paths]
    shape = (heat[0].shape[0], heat[0].shape[1])
    sick = [i for i, found in enumerate(truths) if len(found)]
    masks = [box_mask(truths[i], shape) for i in sick]
    hits = hit_rates(
        [heat[i] for i in sick], masks, [np.ones(shape, bool)] * len(sick), groups=[patients[i] for i in sick]
    )
    found = [boxes_of_map(heatmap, threshold) for heatmap in heat]
    tables = {}
    for name, at in parts.items():
        rows = box_table(
            [found[i] for i in at],
            [truths[i] for i in at],
            scores[at],
            shape,
            [patients[i] for i in at],
        )
        tables[name] = [asdict(row) for row in rows]
    drawn = [len(found[i][0]) for i in range(len(found))]
    return {
        "films_with_boxes": len(sick),
        "area_share": float(np.mean([mask.mean() for mask in masks])),
        "pointing": [asdict(row) for row in hits],
        "threshold": {"quantile_of_normals": QUANTILE, "value": threshold, "boxes_a_film": float(np.mean(drawn))},
        "average_precision": tables,
    }
