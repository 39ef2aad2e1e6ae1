"""What is read off the default cell of the ablation of anogan: start and steps of the search, settings, controls.

The controls ask whether the twin matters. Each scan gets another patient's twin in place of its own, or the mean
training film; and the score stands beside two that look at no twin, the scan's own contrast and the atlas.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from anogan_cells import differences, tests
from anogan_films import Films, films
from anogan_runs import Run
from anogan_twins import Twins, all_terms, find, fit_scoring, mean_twins, networks, other_twins, standing
from atlas_runs import DEV, scored
from atlas_runs import FOLDER as ATLAS
from common import shared_data

from anomaly.records import Float64
from anomaly.workflows.model import load_model

SEARCHES: tuple[tuple[str, bool, dict[str, int]], ...] = (
    *((f"from z = 0, {steps} steps", False, {"search_steps": steps, "restarts": 0}) for steps in (10, 50, 200)),
    ("encoder only", True, {"search_steps": 0, "restarts": 0}),
    *((f"encoder, {n} steps", True, {"search_steps": n, "restarts": 0}) for n in (5, 10, 25, 50, 100)),
    ("encoder and 3 restarts, 25 steps", True, {"search_steps": 25, "restarts": 3}),
)
COMPONENTS = (1, 2, 4, 6, 8, 16)
DIRECTIONS = ("positive", "absolute", "signed", "squared_positive")
SIGMAS = (0.03, 0.06, 0.09)


def starts(run: Run) -> dict[str, Any]:
    """Return AUROC and seconds by start and steps of the search, the score fitted anew for each."""
    dev = films(run.data_set, "dev", run.recipe)
    told = {}
    for name, encoder, changes in SEARCHES:
        detector = networks(run, encoder=encoder, **changes)
        detector._head = None
        started = time.perf_counter()
        twins = find(run, detector, ("dev",))
        seconds = (time.perf_counter() - started) / (len(twins.held) + len(dev))
        scores = twins.score(twins.scoring(run.config, run.seed, terms=_weighted(run)))
        told[name] = {"score": tests(run.data_set, dev, scores), "seconds_per_image_of_the_search": seconds}
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
        weights = {"residual_pca": 0.0, **_weighted(run)}
        found = twins.scoring(run.config, run.seed, terms=weights, **changes).score(twins.parts["dev"])
        told[name] = {
            "score": tests(run.data_set, dev, found.scores.astype(np.float64)),
            "residual_pca": tests(run.data_set, dev, found.terms["residual_pca"].astype(np.float64)),
        }
    return told


def swaps(run: Run) -> dict[str, Any]:
    """Return what is left of the score, and of the term `residual` alone, when the twins are others."""
    dev, twins, detector = films(run.data_set, "dev", run.recipe), _twins(run), networks(run)
    config = run.config.model_copy(update={"terms": {"residual": 0.0, **_weighted(run)}})
    mean = films(run.data_set, "train", run.recipe).images.mean(axis=0)
    own = fit_scoring(twins.held, twins.groups, config, run.seed)
    given = twins.parts["dev"]
    swapped, swapped_held = other_twins(given, dev.groups), other_twins(twins.held, twins.groups)
    by_mean, held_by_mean = (mean_twins(detector, found, mean) for found in (given, twins.held))
    cases = {
        "its own twin": (own, given),
        "another's twin, score as fitted": (own, swapped),
        "another's twin, score fitted on such": (fit_scoring(swapped_held, twins.groups, config, run.seed), swapped),
        "the mean film, score fitted on it": (fit_scoring(held_by_mean, twins.groups, config, run.seed), by_mean),
    }
    found = {name: scoring.score(match) for name, (scoring, match) in cases.items()}
    told: dict[str, Any] = {}
    for which in ("score", "residual"):
        values = {
            name: (one.scores if which == "score" else one.terms[which]).astype(np.float64)
            for name, one in found.items()
        }
        first, *others = values
        told[which] = {name: {"auroc": tests(run.data_set, dev, of)} for name, of in values.items()}
        for name in others:
            told[which][name]["own_minus_it"] = differences(run.data_set, dev, values[first], values[name])
    return told


def beside(run: Run) -> dict[str, Any]:
    """Return what stands beside the score, and what the twin adds to each: sums of both in sd of normals."""
    dev, twins = films(run.data_set, "dev", run.recipe), find(run, networks(run), ("calibration", "dev"))
    config = run.config.model_copy(update={"terms": all_terms(run.config, head=False)})
    scoring = fit_scoring(twins.held, twins.groups, config, run.seed)
    of = {part: scoring.score(twins.parts[part]) for part in ("calibration", "dev")}
    scores = {part: found.scores.astype(np.float64) for part, found in of.items()}
    contrast = {part: found.terms["contrast_deficit"].astype(np.float64) for part, found in of.items()}
    atlas, atlas_normals = atlas_scores(run.data_set, dev)
    default_z = standing(scores["dev"], scores["calibration"])
    others = {
        "contrast_deficit": (contrast["dev"], contrast["calibration"]),
        "atlas": (atlas, atlas_normals),
    }
    told: dict[str, Any] = {"anogan": {"auroc": tests(run.data_set, dev, scores["dev"])}}
    for name, (values, normals) in others.items():
        both = default_z + standing(values, normals)
        told[name] = {
            "auroc": tests(run.data_set, dev, values),
            "with anogan": tests(run.data_set, dev, both),
            "with anogan minus alone": differences(run.data_set, dev, both, values),
            "anogan minus it": differences(run.data_set, dev, scores["dev"], values),
        }
    return told


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


def _weighted(run: Run) -> dict[str, float]:
    """Return the terms that have a weight."""
    return {name: weight for name, weight in run.config.terms.items() if weight}
