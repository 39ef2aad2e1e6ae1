"""Whether maps point at the boxes that radiologists drew on the films of RSNA dev; shared by atlas.py and anogan's."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import shared_data
from numpy.typing import NDArray

from anomaly.evaluate.boxes import OVERLAPS, Found, _at, _match, box_mask, box_table, boxes_of_map, prior_boxes
from anomaly.evaluate.intervals import compared, mean_interval
from anomaly.evaluate.localise import hit_rates, mean_location_prior, pointing_game
from anomaly.evaluate.resample import fewest_patients, film_replicates, group_numbers
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
    unit: str,
) -> dict[str, Any]:
    """Say whether maps point at the boxes, beside what needs no map, and the map's lead over the lesions' usual place.

    Args:
        heat: N maps brought to their films, all of one shape (H, W).
        paths: Of the N films.
        scores: float64 (N,), of the films.
        patients: Of the films.
        parts: Name -> places of the films that a table of average precision is made of.
        threshold: Boxes are drawn around what is hotter; the `QUANTILE` of normals.
        unit: Of the heat, as the detector tells it.
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
    tables, leads = {}, {}
    for name, at in parts.items():
        given = [found[i] for i in at], [truths[i] for i in at], scores[at], shape, [patients[i] for i in at]
        tables[name] = [asdict(row) for row in box_table(*given)]
        leads[name] = precision_leads(*given)
    drawn = [len(found[i][0]) for i in range(len(found))]
    return {
        "films_with_boxes": len(sick),
        "area_share": float(np.mean([mask.mean() for mask in masks])),
        "pointing": [asdict(row) for row in hits],
        "map_minus_prior": hit_lead([heat[i] for i in sick], masks, [patients[i] for i in sick]),
        "threshold": {
            "quantile_of_normals": QUANTILE,
            "value": threshold,
            "unit": unit,
            "boxes_a_film": float(np.mean(drawn)),
        },
        "average_precision": tables,
        "precision_map_minus_prior": leads,
    }


def hit_lead(
    heat: Sequence[Float32], masks: Sequence[NDArray[np.bool_]], patients: Sequence[str] | Sequence[int]
) -> dict[str, float]:
    """Return the hit rate of maps minus that of the place where other patients' lesions lie, patients resampled."""
    groups = group_numbers(patients, len(masks))
    priors = mean_location_prior(masks, groups)
    each = zip(heat, priors, masks, strict=True)
    gap = np.array([pointing_game(own, mask) - pointing_game(prior, mask) for own, prior, mask in each])
    interval = mean_interval(gap, groups)
    return {"difference": float(gap.mean()), "low": interval.low, "high": interval.high}


def precision_leads(
    found: Sequence[Found],
    truths: Sequence[Float64],
    scores: Float64,
    shape: tuple[int, int],
    patients: Sequence[str] | Sequence[int],
) -> list[dict[str, Any]]:
    """Return the average precision of a map's boxes minus that of the lesions' usual place, at each overlap.

    The usual place stands as in `box_table`: with one confidence for all films, and ranked by the films' scores. Both
    are taken on the same resamples of patients.
    """
    groups = group_numbers(patients, len(truths))
    sick = np.array([len(boxes) > 0 for boxes in truths], dtype=np.int64)
    places = prior_boxes(truths, shape, groups)
    priors = {"mean lesion location": np.zeros(len(truths)), "the same, ranked by score": scores}
    once, rows = np.ones(len(truths)), []
    for overlap in OVERLAPS:
        tables = [_match(given, truths, overlap) for given in (found, *(_at(places, at) for at in priors.values()))]
        own, *others = film_replicates([table.precision for table in tables], sick, groups).T
        ours, *theirs = (table.precision(once) for table in tables)
        for name, value, drawn in zip(priors, theirs, others, strict=True):
            lead = compared(ours - value, own - drawn, fewest_patients(sick, groups))
            told = {"difference": lead.difference, "low": lead.interval.low, "high": lead.interval.high}
            rows.append({"name": name, "overlap": overlap, **told})
    return rows
