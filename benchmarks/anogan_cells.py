"""Figures of one trained cell of the ablation of anogan: its score, every term alone, poolings, time."""

from __future__ import annotations

import csv
import time
from typing import Any

import numpy as np
from anogan_films import Films, films
from anogan_runs import CELLS, Run
from anogan_twins import Twins, all_terms, check, expect, find, networks, search_seconds, weighted, where
from registered import TASKS, minus, minus_within, row, within

from anomaly.records import Float64

POOLINGS = ("mean", "top", "max")
REPEATS = 3


def tests(name: str, dev: Films, scores: Float64) -> dict[str, dict[str, Any]]:
    """Return AUROC with interval of each comparison of a set."""
    told = {}
    for task, classes in TASKS[name].items():
        at = dev.of_classes(classes)
        told[task] = row(task, dev.labels[at], scores[at], dev.groups[at])
    return told


def tests_within(name: str, dev: Films, scores: Float64) -> dict[str, dict[str, Any]]:
    """Return the same among films of like softness."""
    told = {}
    for task, classes in TASKS[name].items():
        at = dev.of_classes(classes)
        told[task] = within(dev.labels[at], scores[at], dev.softness[at], dev.groups[at])
    return told


def differences(name: str, dev: Films, scores: Float64, other: Float64) -> dict[str, dict[str, Any]]:
    """Return AUROC(scores) - AUROC(other) of each comparison."""
    told = {}
    for task, classes in TASKS[name].items():
        at = dev.of_classes(classes)
        told[task] = minus(dev.labels[at], scores[at], other[at], dev.groups[at])
    return told


def cell_figures(run: Run) -> dict[str, Any]:
    """Return everything that is read off one cell."""
    dev = films(run.data_set, "dev", run.recipe)
    detector = networks(run)
    expect(run, detector)
    twins = find(run, detector, ("dev",))
    config = run.config
    terms = all_terms(config, head=detector._head is not None)
    scoring = twins.scoring(config, run.seed, terms=terms)
    check(run, detector, twins, scoring)
    scored = scoring.score(twins.parts["dev"])
    scores = scored.scores.astype(np.float64)
    alone = {name: tests(run.data_set, dev, scored.terms[name].astype(np.float64)) for name in scoring.weights}
    pooled = {
        pooling: tests(run.data_set, dev, twins.score(twins.scoring(config, run.seed, pooling=pooling)))
        for pooling in POOLINGS
    }
    return {
        "changes": list(CELLS[run.cell]),
        "steps": config.steps,
        "seconds": run.seconds,
        "warnings": run.warnings,
        "health": health(run),
        "seconds_per_image": seconds_per_image(run, dev, twins),
        "weights": {name: weight for name, weight in scoring.weights.items() if weight},
        "score": tests(run.data_set, dev, scores),
        "within_softness": tests_within(run.data_set, dev, scores),
        "terms": alone,
        "pooling": pooled,
        "dev_scores": scores.tolist(),
    }


def seconds_per_image(run: Run, dev: Films, twins: Twins) -> dict[str, Any]:
    """Return what scoring takes with maps, as the recipe is shipped, and the search of it: medians after a warm-up."""
    detector = networks(run, terms=weighted(run))
    detector._head = None  # of the ablation alone
    detector._scoring = twins.scoring(detector.config, run.seed)
    some = dev.of(np.arange(2 * detector.config.score_batch))
    taken = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        detector.score(some.images, inside=some.inside)
        taken.append((time.perf_counter() - started) / len(some))
    told = {"median": float(np.median(taken[1:])), "repeats": taken[1:], **where(detector)}
    return told | {"search": search_seconds(detector, dev.images)}


def health(run: Run) -> dict[str, float]:
    """Return diversity and reconstruction of the checkpoint that was kept, and the step it is of."""
    told: dict[int, dict[str, float]] = {}
    with (run.folder / "history.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["name"] in ("diversity", "reconstruction"):
                told.setdefault(int(line["step"]), {})[line["name"]] = float(line["value"])
    step = min(told, key=lambda step: told[step]["reconstruction"])
    return {"step": step, **told[step]}


def beside_clahe(default: Run, with_it: Float64, without: Float64) -> dict[str, Any]:
    """Return what CLAHE changes: dev scores of the default cell beside those of the one that does without it."""
    dev = films(default.data_set, "dev", default.recipe)
    told: dict[str, Any] = {}
    for name, scores in (("with", with_it), ("without", without)):
        told[name] = tests(default.data_set, dev, scores)
        told[f"{name}, within softness"] = tests_within(default.data_set, dev, scores)
    told["minus"] = differences(default.data_set, dev, with_it, without)
    told["minus_within_softness"] = {}
    for task, classes in TASKS[default.data_set].items():
        at = dev.of_classes(classes)
        found = minus_within(dev.labels[at], with_it[at], without[at], dev.softness[at], dev.groups[at])
        told["minus_within_softness"][task] = found
    return told
