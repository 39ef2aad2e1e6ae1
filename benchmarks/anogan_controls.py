"""What is read off the default cell of the ablation of anogan: controls, start and steps of the search, settings.

The controls ask whether the twin matters. Each scan gets another's twin in place of its own (another patient's, where
the set names patients), or the mean training film; and the score stands beside two that look at no twin, the scan's own
contrast and the atlas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from anogan_cells import differences, tests
from anogan_films import Films, films
from anogan_runs import Run
from anogan_twins import (
    Twins,
    all_terms,
    by_mean_film,
    find,
    fit_scoring,
    networks,
    other_twins,
    search_seconds,
    standing,
    weighted,
)
from atlas_runs import DEV, scored
from atlas_runs import FOLDER as ATLAS
from common import shared_data
from registered import TASKS

from anomaly.detectors.anogan.scoring.scoring import Scored
from anomaly.detectors.anogan.settings import AnoGanConfig
from anomaly.detectors.base import WEIGHTS
from anomaly.evaluate.metrics import auroc
from anomaly.records import Float64
from anomaly.workflows.model import load_model

SEARCHES: tuple[tuple[str, bool, dict[str, Any]], ...] = (
    ("as shipped", True, {}),
    *((f"from z = 0, {steps} steps", False, {"search_steps": steps, "restarts": 0}) for steps in (10, 50, 200)),
    ("encoder only", True, {"search_steps": 0, "restarts": 0}),
    *((f"encoder, {n} steps", True, {"search_steps": n, "restarts": 0}) for n in (5, 10, 25, 50, 100)),
    ("encoder and 3 restarts, 25 steps", True, {"search_steps": 25, "restarts": 3}),
    ("as shipped, no prior (shell 0)", True, {"shell": 0.0}),
    ("as shipped, prior held to its shell (radius 1)", True, {"radius": 1.0}),
    ("as shipped, discriminator weight 0.1", True, {"weight": 0.1}),
    ("as shipped, fp32", True, {"precision": "fp32"}),
)
"""Name, whether it starts at the encoder's answer, and what else differs from the search as shipped."""
COMPONENTS = (1, 2, 4, 6, 8, 16)
DIRECTIONS = ("positive", "absolute", "signed", "squared_positive")
SIGMAS = (0.03, 0.06, 0.09)
DRAWS = 20
"""Ways of dealing twins to others' scans."""
WHICH = ("score", "residual")


def starts(run: Run) -> dict[str, Any]:
    """Return AUROC and seconds by start and steps of the search, the score fitted anew for each."""
    dev = films(run.data_set, "dev", run.recipe)
    told = {}
    for name, encoder, changes in SEARCHES:
        detector = networks(run, encoder=encoder, **changes)
        detector._head = None
        twins = find(run, detector, ("dev",))
        scores = twins.score(twins.scoring(run.config, run.seed, terms=weighted(run)))
        told[name] = {
            "steps": detector.config.search_steps,
            "encoder": detector._encoder is not None,
            "score": tests(run.data_set, dev, scores),
            "search": search_seconds(detector, dev.images),
        }
    return told


def components(run: Run) -> dict[str, Any]:
    """Return AUROC of the term `residual_pca` and of the score by how many components are taken out."""
    return _by_setting(run, {str(count): {"components": count} for count in COMPONENTS})


def directions(run: Run) -> dict[str, Any]:
    """Return the same by which side of the residual counts and how wide it is blurred."""
    return _by_setting(
        run,
        {
            f"{direction}, blur {sigma:g}": {"direction": direction, "residual_sigma": sigma}
            for direction in DIRECTIONS
            for sigma in SIGMAS
        },
    )


def _by_setting(run: Run, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    dev, twins = films(run.data_set, "dev", run.recipe), _twins(run)
    told = {}
    for name, changes in variants.items():
        weights = {"residual_pca": 0.0, **weighted(run)}
        found = twins.scoring(run.config, run.seed, terms=weights, **changes).score(twins.parts["dev"])
        told[name] = {
            "score": tests(run.data_set, dev, found.scores.astype(np.float64)),
            "residual_pca": tests(run.data_set, dev, found.terms["residual_pca"].astype(np.float64)),
        }
    return told


def swaps(run: Run) -> dict[str, Any]:
    """Return what is left of the score, and of the term `residual` alone, when the twins are others."""
    dev, twins, detector = films(run.data_set, "dev", run.recipe), _twins(run), networks(run)
    config = run.config.model_copy(update={"terms": {"residual": 0.0, **weighted(run)}})
    own = fit_scoring(twins.held, twins.groups, config, run.seed)
    given = twins.parts["dev"]
    by_mean = by_mean_film(run, detector, twins)
    drawn: dict[str, list[Scored]] = {"another's twin, score as fitted": [], "another's twin, score fitted on such": []}
    for draw in range(DRAWS):
        swapped = other_twins(given, dev.groups, draw)
        refitted = fit_scoring(other_twins(twins.held, twins.groups, draw), twins.groups, config, run.seed)
        for scoring, found in zip((own, refitted), drawn.values(), strict=True):
            found.append(scoring.score(swapped))
    mean = fit_scoring(by_mean.held, by_mean.groups, config, run.seed).score(by_mean.parts["dev"])
    told: dict[str, Any] = {}
    for which in WHICH:
        first = _values(own.score(given), which)
        told[which] = {"its own twin": {"auroc": tests(run.data_set, dev, first)}}
        for name, draws in {**drawn, "the mean film, score fitted on it": [mean]}.items():
            values = [_values(one, which) for one in draws]
            told[which][name] = {
                "auroc": tests(run.data_set, dev, values[0]),
                "own_minus_it": differences(run.data_set, dev, first, values[0]),
            }
            if len(values) > 1:
                told[which][name]["over_draws"] = _over_draws(run.data_set, dev, first, values)
    return told


def _values(scored_films: Scored, which: str) -> Float64:
    """Return the score of each film or one of its terms, float64 (N,)."""
    values = scored_films.scores if which == "score" else scored_films.terms[which]
    return values.astype(np.float64)


def _over_draws(name: str, dev: Films, own: Float64, others: list[Float64]) -> dict[str, Any]:
    """Return AUROC(own) - AUROC(other) of each draw: median and range."""
    told = {}
    for task, classes in TASKS[name].items():
        at = dev.of_classes(classes)
        labels = dev.labels[at]
        gaps = [auroc(labels, own[at]) - auroc(labels, other[at]) for other in others]
        told[task] = {"draws": len(gaps), "median": float(np.median(gaps)), "min": min(gaps), "max": max(gaps)}
    return told


def leave_one_out(run: Run) -> dict[str, Any]:
    """Return what each part of the default combination is worth: AUROC without it, and the default minus that."""
    dev, twins, weights = films(run.data_set, "dev", run.recipe), _twins(run), weighted(run)
    variants: dict[str, dict[str, Any]] = {
        f"without {name}": {"terms": {other: weight for other, weight in weights.items() if other != name}}
        for name in weights
    }
    variants["exposure_limit 0: compared with all normals alike"] = {"exposure_limit": 0.0}
    place = {"structure_deficit": "contrast_deficit"}
    variants["contrast_deficit in the place of structure_deficit"] = {
        "terms": {place.get(name, name): weight for name, weight in weights.items()}
    }
    default = twins.score(twins.scoring(run.config, run.seed, terms=weights))
    told: dict[str, Any] = {"as shipped": {"score": tests(run.data_set, dev, default)}}
    for name, changes in variants.items():
        scores = twins.score(twins.scoring(run.config, run.seed, **{"terms": weights, **changes}))
        told[name] = {
            "score": tests(run.data_set, dev, scores),
            "default_minus_it": differences(run.data_set, dev, default, scores),
        }
    return told


def beside(run: Run) -> dict[str, Any]:
    """Return what stands beside the score, and what the twin adds to each: sums of both in sd of normals.

    The sums are made once more with the mean film in every twin's place: the difference is what the generator adds.
    """
    dev, detector = films(run.data_set, "dev", run.recipe), networks(run)
    detector._head = None
    twins = find(run, detector, ("calibration", "dev"))
    config = run.config.model_copy(update={"terms": all_terms(run.config, head=False)})
    of = _scored_parts(twins, config, run.seed)
    by_mean = _scored_parts(by_mean_film(run, detector, twins), run.config, run.seed, terms=weighted(run))
    own_z, mean_z = (
        standing(_values(found["dev"], "score"), _values(found["calibration"], "score")) for found in (of, by_mean)
    )
    scores = _values(of["dev"], "score")
    others = {
        "contrast_deficit": tuple(_values(of[part], "contrast_deficit") for part in ("dev", "calibration")),
        "atlas": atlas_scores(run.data_set, dev),
    }
    told: dict[str, Any] = {"anogan": {"auroc": tests(run.data_set, dev, scores)}}
    for name, (values, normals) in others.items():
        z = standing(values, normals)
        both, by_mean_both = own_z + z, mean_z + z
        told[name] = {
            "auroc": tests(run.data_set, dev, values),
            "with anogan": tests(run.data_set, dev, both),
            "with anogan minus alone": differences(run.data_set, dev, both, values),
            "with the mean film": tests(run.data_set, dev, by_mean_both),
            "own twins minus the mean film": differences(run.data_set, dev, both, by_mean_both),
            "anogan minus it": differences(run.data_set, dev, scores, values),
        }
    return told


def _scored_parts(twins: Twins, config: AnoGanConfig, seed: int, **changes: Any) -> dict[str, Scored]:
    scoring = twins.scoring(config, seed, **changes)
    return {part: scoring.score(found) for part, found in twins.parts.items()}


def atlas_weights(run: Run) -> list[Path]:
    """Return the file of the atlas that `beside` compares with, if it is there."""
    path = ATLAS / f"{run.data_set}-atlas" / "model" / WEIGHTS
    return [path] if path.is_file() else []


def atlas_scores(name: str, dev: Films) -> tuple[Float64, Float64]:
    """Return the atlas's scores of the dev films and of the normals it was calibrated on, from its own benchmark."""
    run = ATLAS / f"{name}-atlas"
    if not (run / "model").is_dir():
        raise SystemExit("the atlas has not been measured: run benchmarks/atlas.py first")
    data = shared_data()
    found = scored(run.with_name(f"{run.name}-dev"), data / DEV[name], run, panels=None)
    place = {path: i for i, path in enumerate(found.paths)}
    at = np.array([place[path.partition("/")[2]] for path in dev.paths])
    return found.scores[at], load_model(run).calibration.scores


def _twins(run: Run) -> Twins:
    detector = networks(run)
    detector._head = None
    return find(run, detector, ("dev",))
