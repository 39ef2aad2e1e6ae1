"""How much the atlas depends on its settings: dev AUROC over a grid, one setting at a time and averaged.

    OMP_NUM_THREADS=1 python benchmarks/atlas_grid.py

Single: one crop, one CLAHE, one rank. Averaged: the recipe's nine looks and four ranks with their centres moved about.
With the opacity term alone, and with the recipe's share of the deficit term. Nothing is chosen here. Every look's terms
are kept in build/benchmarks/atlas_grid, so a stopped run goes on: remove that folder after a change to the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from atlas_looks import DEFAULT, SETTINGS, Values, check_against, combined, detector_scores, mean_of, positive, see
from common import WORK, parser, write_result
from registered import TASKS, Films, films, minus, row
from scipy.stats import spearmanr

from anomaly.detectors.atlas.detector import Atlas
from anomaly.detectors.atlas.looks import Look, grey
from anomaly.detectors.normality import patient_folds
from anomaly.evaluate.metrics import auroc
from anomaly.records import Int64, UInt8
from anomaly.runs import read_tensors, write_tensors

CROPS, TILES, CLIPS, RANKS = (0.75, 0.8, 0.85), (4, 8, 12), (1.0, 1.5, 2.0, 3.0, 4.0), (3, 4, 6, 8)
SINGLES = [
    (Look(crop, tiles, clip, SETTINGS.side), rank) for crop, tiles, clip, rank in product(CROPS, TILES, CLIPS, RANKS)
]
AROUND = {
    "crops": ((0.7, 0.75, 0.8), (0.75, 0.8, 0.85), (0.8, 0.85, 0.9)),
    "tiles": ((3, 6, 9), (4, 8, 12), (6, 12, 18)),
    "clips": ((1.0, 1.5, 2.0), (1.5, 2.0, 2.5), (2.0, 3.0, 4.0)),
    "components": ((2, 3, 4, 6), (3, 4, 6, 8), (4, 6, 8, 12)),
}
ALL_RANKS = (2, 3, 4, 6, 8, 12)
TERMS = {"opacity alone": 0.0, "with the deficit term": SETTINGS.deficit_weight}

Terms = tuple[dict[int, Values], Values]
"""Of one look: opacity by rank, and deficit."""


def averaged() -> Iterator[tuple[dict[str, Any], list[Look]]]:
    """Yield every averaged setting and its looks; the recipe's is among them."""
    for values in product(*AROUND.values()):
        moved = dict(zip(AROUND, values, strict=True))
        yield moved, Atlas(SETTINGS.model_copy(update=moved), size=DEFAULT.size).looks


def reader(name: str, train: Films, dev: Films) -> Callable[[Look], Terms]:
    """Return a function that computes a look's terms, or reads what was computed."""
    folds: Int64 = patient_folds(train.groups, SETTINGS.folds, 0)
    greys: list[UInt8] = [grey(part.images) for part in (train, dev)]

    @cache
    def read(look: Look) -> Terms:
        path = WORK / "atlas_grid" / f"{name}-{look.crop:g}-{look.tiles}-{look.clip:g}.safetensors"
        if not path.is_file():
            seen = see(look, *greys, dev.inside, folds, ranks=ALL_RANKS)
            told = {str(rank): positive(maps, seen.shown) for rank, maps in seen.residual.items()}
            told["deficit"] = mean_of([positive(maps, seen.shown, sign=-1) for maps in seen.contrast])
            write_tensors(
                path, {f"{key}.{part}": getattr(v, part) for key, v in told.items() for part in ("train", "dev")}, {}
            )
        arrays, _ = read_tensors(path)
        values = {
            key: Values(arrays[f"{key}.train"], arrays[f"{key}.dev"]) for key in ("deficit", *map(str, ALL_RANKS))
        }
        return {rank: values[str(rank)] for rank in ALL_RANKS}, values["deficit"]

    return read


def score(terms: Sequence[Terms], ranks: Sequence[int], weight: float) -> Values:
    """Return the score of looks and ranks averaged, with this weight of the deficit term."""
    opacity = mean_of([by_rank[rank] for by_rank, _ in terms for rank in ranks])
    return combined(opacity, mean_of([deficit for _, deficit in terms]), weight)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, first, median, third, high = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])
    sd = float(np.std(values, ddof=1))
    return {"n": len(values), "min": low, "q1": first, "median": median, "q3": third, "max": high, "sd": sd}


def summary(task: str, rows: dict[str, list[dict[str, Any]]], default: dict[str, Any]) -> dict[str, Any]:
    """Return the spread of a comparison's AUROC over single and averaged settings, and where the recipe lies."""
    areas = {kind: [entry[task] for entry in found] for kind, found in rows.items()}
    below = {kind: float(np.mean(np.array(values) < round(default["auroc"], 4))) for kind, values in areas.items()}
    return {
        **{kind: quartiles(values) for kind, values in areas.items()},
        "recipe": default,
        "share_below_recipe": below,
    }


def main() -> None:
    parser(__doc__).parse_args()
    moved = list(averaged())
    looks = dict.fromkeys([look for look, _ in SINGLES] + [look for _, part in moved for look in part])
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {
        terms: {
            "single": [{"crop": k.crop, "tiles": k.tiles, "clip": k.clip, "components": rank} for k, rank in SINGLES],
            "averaged": [dict(entry) for entry, _ in moved],
        }
        for terms in TERMS
    }
    spreads: dict[str, dict[str, Any]] = {terms: {} for terms in TERMS}
    films_of: dict[str, Any] = {}
    for name, tasks in TASKS.items():
        train, dev = films(name, "train"), films(name, "dev")
        read = reader(name, train, dev)
        for number, look in enumerate(looks, 1):
            read(look)
            if number % 20 == 0:
                print(f"{name}: {number} of {len(looks)} looks", flush=True)
        for terms, weight in TERMS.items():
            scores = {
                "single": [score([read(look)], [rank], weight).dev for look, rank in SINGLES],
                "averaged": [score([read(k) for k in part], entry["components"], weight).dev for entry, part in moved],
            }
            recipe = score([read(look) for look in DEFAULT.looks], SETTINGS.components, weight).dev
            if weight == SETTINGS.deficit_weight:
                check_against(recipe, detector_scores(train, dev))
            for task, classes in tasks.items():
                kept = dev.of_classes(classes)
                labels, groups = dev.labels[kept], dev.groups[kept]
                for kind, found in scores.items():
                    for entry, values in zip(rows[terms][kind], found, strict=True):
                        entry[task] = round(auroc(labels, values[kept]), 4)
                told = summary(task, rows[terms], row("recipe", labels, recipe[kept], groups))
                ordered = np.argsort([entry[task] for entry in rows[terms]["single"]])
                places = {"best": ordered[-1], "median": ordered[len(ordered) // 2], "worst": ordered[0]}
                told["recipe_minus_single"] = {
                    which: minus(labels, recipe[kept], scores["single"][place][kept], groups)
                    for which, place in places.items()
                }
                spreads[terms][task] = told
        films_of[name] = {"train_normals": len(train), "dev": len(dev)}
    write_result(
        "atlas_grid",
        {
            "data": "Kermany dev and RSNA dev, registered to the template of all train normals",
            "films": films_of,
            "single": {"crop": CROPS, "tiles": TILES, "clip": CLIPS, "components": RANKS},
            "averaged": AROUND,
            "deficit_weight": SETTINGS.deficit_weight,
            "looks_computed": len(looks),
            "spread": spreads,
            "do_the_sets_agree": {
                terms: {kind: agreement(found) for kind, found in kinds.items()} for terms, kinds in rows.items()
            },
            "settings": rows,
        },
    )


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how far the order of settings on Kermany is their order on RSNA (Spearman)."""
    kermany = [entry["kermany"] for entry in rows]
    return {task: float(spearmanr(kermany, [entry[task] for entry in rows]).statistic) for task in TASKS["rsna"]}


if __name__ == "__main__":
    main()
