"""The recipe anogan as shipped on real films, and the recipe of 2017 beside it: scores, p-values, boxes.

    OMP_NUM_THREADS=1 python benchmarks/anogan_default.py
    OMP_NUM_THREADS=1 python benchmarks/anogan_default.py --leave kermany-anogan-2017

Reads what `anogan_ablation.py --train` has trained: three seeds on Kermany, one on RSNA, one of `anogan-2017`. Of the
train normals the networks and terms see one part, p-values and thresholds are made of a second, and a third, that
nothing has seen, tells whether they hold (`anogan_films.py`). Dev AUROC is what settings were chosen on: it flatters.
What is not trained, or left for later with `--leave`, is told as missing; each run is measured once
(`anogan_kept.py`), and the result is written after each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from anogan_cells import health
from anogan_films import Films, films, split
from anogan_kept import kept
from anogan_runs import PAPER, SETS, Run
from anogan_twins import find, networks, weighted
from atlas_runs import DEV, FOLDER, scored
from common import parser, shared_data, spread, write_result
from pointing import QUANTILE, pointing
from registered import TASKS, within
from registered import films as registered_films

from anomaly.calibrate import Calibration, calibrate
from anomaly.detectors.anogan.detector import AnoGan
from anomaly.detectors.base import WEIGHTS
from anomaly.evaluate.intervals import clopper_pearson
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.prepare.geometry import to_film
from anomaly.records import Float32, Float64, Geometry, Int64
from anomaly.workflows.fit import score_in_chunks
from anomaly.workflows.progress import silent

SEEDS = 3
ALPHAS = (0.01, 0.05, 0.1)
FILM = (224, 224)
"""Height and width of every film of RSNA dev."""


def fitted(run: Run) -> AnoGan:
    """Return a run's detector as the shipped recipe has it, its terms fitted on the held-out normals."""
    detector = networks(run, terms=weighted(run))
    detector._head = None  # of the ablation alone
    detector._scoring = find(run, detector, ()).scoring(detector.config, run.seed)
    return detector


def scores_of(detector: AnoGan, own: Films) -> tuple[Float32, Float32]:
    """Return scores float32 (N,) and maps float32 (N, S, S)."""
    output = detector.score(own.images, inside=own.inside)
    assert output.heatmaps is not None
    return output.scores, output.heatmaps


def flagged(calibration: Calibration, normals: Float32, groups: Int64) -> list[dict[str, Any]]:
    """Return how many normals have a p-value of at most each alpha, and whether alpha lies in the exact interval.

    The interval takes films for independent; `patients` says of how many they are.
    """
    p_values = np.array([calibration.p_value(float(score)) for score in normals])
    rows = []
    for alpha in ALPHAS:
        count, total = int((p_values <= alpha).sum()), len(p_values)
        interval = clopper_pearson(count, total)
        told = {"alpha": alpha, "flagged": count, "normals": total, "rate": count / total}
        told["patients"] = len(np.unique(groups))
        told |= {"low": interval.low, "high": interval.high}
        rows.append(told | {"alpha_within": interval.low <= alpha <= interval.high})
    return rows


def operating(calibration: Calibration, labels: Int64, scores: Float64) -> dict[str, Any]:
    """Return sensitivity and false-positive rate at the threshold that 95 % of the calibration normals stay below."""
    threshold = calibration.threshold(0.05)
    told: dict[str, Any] = {"threshold": threshold}
    for name, label in (("false_positive_rate", 0), ("sensitivity", 1)):
        hits = scores[labels == label] > threshold
        interval = clopper_pearson(int(hits.sum()), len(hits))
        told[name] = {"rate": float(hits.mean()), "n": len(hits), "low": interval.low, "high": interval.high}
    return told


def baselines(name: str, dev: Films, at: Int64) -> dict[str, Float64]:
    """Return pixel-stats and the trivial numbers of some dev films."""
    folder = _floor(name)
    if not (folder / "model").is_dir():
        raise SystemExit("pixel-stats has not been measured: run benchmarks/atlas.py first")
    stats = scored(folder.with_name(f"{folder.name}-dev"), shared_data() / DEV[name], folder)
    place = {path: i for i, path in enumerate(stats.paths)}
    same = np.array([place[dev.paths[i].partition("/")[2]] for i in at])
    trivial = registered_films(name, "dev").statistics
    numbers = {"pixel-stats": stats.scores[same], "softness": dev.softness[at]}
    numbers |= {key: values[at] for key, values in trivial.items()}
    return {key: values for key, values in numbers.items() if np.ptp(values) > 0}


def _floor(name: str) -> Path:
    return FOLDER / f"{name}-pixel-stats"


def one(run: Run) -> dict[str, Any]:
    """Return the figures of one training."""
    detector = fitted(run)
    own = {part: films(run.data_set, part, run.recipe) for part in ("calibration", "fresh", "dev")}
    held = own["calibration"]
    calibration = calibrate(*score_in_chunks(detector, held.images, held.inside, silent, "calibrating"))
    dev = own["dev"]
    scores, maps = scores_of(detector, dev)
    values = scores.astype(np.float64)
    told: dict[str, Any] = {
        "seed": run.seed,
        "steps": run.config.steps,
        "training_seconds": run.seconds,
        "warnings": run.warnings,
        "health": health(run),
        "calibration_normals": len(held),
        "not_registered": int(dev.refused.sum()),
        "p_values": {
            "fresh train normals": flagged(calibration, scores_of(detector, own["fresh"])[0], own["fresh"].groups),
            "dev normals": flagged(calibration, scores[dev.labels == 0], dev.groups[dev.labels == 0]),
        },
        "tests": {},
    }
    for task, classes in TASKS[run.data_set].items():
        at = dev.of_classes(classes)
        labels, groups = dev.labels[at], dev.groups[at]
        floor = baselines(run.data_set, dev, at)
        rows = evaluate_scores(
            labels, values[at], groups, baselines=floor, name=PAPER if run.cell == PAPER else "anogan"
        )
        told["tests"][task] = {
            "rows": to_dicts(rows),
            "within_softness": within(labels, values[at], dev.softness[at], groups),
            "operating": operating(calibration, labels, values[at]),
        }
    if run.data_set == "rsna":
        heat = [
            to_film(heatmap, Geometry(way, FILM, detector.size))
            for heatmap, way in zip(maps, dev.matrices, strict=True)
        ]
        parts = {"normal and lung opacity": "rsna_opacity", "all films": "rsna_all"}
        where = {name: dev.of_classes(TASKS["rsna"][task]) for name, task in parts.items()}
        threshold = calibration.pixel_quantiles[str(QUANTILE)]
        told["boxes"] = pointing(heat, dev.paths, values, dev.groups, where, threshold, detector.heat_unit)
    print(run.folder.name, {task: test["rows"][0]["auroc"] for task, test in told["tests"].items()}, flush=True)
    return told


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--steps", type=int, help="of the trainings to read, where they were cut")
    arguments.add_argument(
        "--leave",
        metavar="SET-CELL",
        action="append",
        default=[],
        help="leave this run for later, such as kermany-anogan-2017 with its long search; may be given again",
    )
    chosen = arguments.parse_args()
    left = [Run.parse(name, chosen.steps) for name in chosen.leave]
    runs = [Run("rsna", "default", 0, chosen.steps)]
    runs += [Run("kermany", "default", seed, chosen.steps) for seed in range(SEEDS)]
    runs.append(Run("kermany", PAPER, 0, chosen.steps))
    missing = {run: "left for later" if run in left else run.failed or "not trained yet" for run in runs}
    todo = [run for run in runs if run.trained and run not in left]
    missing |= dict.fromkeys(todo, "trained, but not measured yet")
    figures: dict[str, Any] = {}
    for run in todo:
        weights = _floor(run.data_set) / "model" / WEIGHTS
        found = kept("default", run, one, [weights] if weights.is_file() else [])
        figures.setdefault(f"{run.data_set}-{run.cell}", []).append(found)
        del missing[run]
        told = {
            "films": {name: {part: len(at) for part, at in split(name).items()} for name in SETS},
            "steps": chosen.steps,
            "missing": [{"name": run.folder.name, "why": why} for run, why in missing.items()],
            "runs": figures,
        }
        if "kermany-default" in figures:
            areas = [run["tests"]["kermany"]["rows"][0]["auroc"] for run in figures["kermany-default"]]
            told["auroc_over_seeds"] = spread(areas)
        write_result("anogan_default", told)
    if not todo:
        raise SystemExit("nothing is trained: run benchmarks/anogan_ablation.py --train kermany-default first")


if __name__ == "__main__":
    main()
