"""The statistical atlas on real films, children and adults: how well it tells films apart, where it points, its speed.

    OMP_NUM_THREADS=1 python benchmarks/atlas.py
    python benchmarks/atlas.py --speed

Goes through the same workflows as `anomaly fit`, `score` and `evaluate`, with the recipe as shipped: Kermany's train
normals against the dev half of the official test, and RSNA's adult normals against RSNA dev. What is fitted and scored
already is kept, so remove build/benchmarks/atlas to measure the code as it is now. `--speed` measures time and memory
instead, wants a machine with nothing else to do, and leaves the other figures as they were.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from atlas_runs import DEV, FOLDER, TESTS, TRAIN, Films, bounds, fitted, manifest, scored
from common import parser, read_result, shared_data, write_result
from memory import peak, readers
from pointing import QUANTILE, pointing

from anomaly.config import load_recipe
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.strata import residualised_auroc, stratified_auroc
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.prepare.source import ArraySource
from anomaly.records import Float64, Int64, ScanFile
from anomaly.runs import read_json, versions, write_table
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.model import Model, load_model
from anomaly.workflows.panels import load_panel
from anomaly.workflows.score import score_paths

METHODS: dict[str, tuple[str, list[str]]] = {
    "atlas": ("atlas", []),
    "pixel-stats": ("pixel-stats", []),
    "pixel-stats, registered": ("pixel-stats", ["prepare.register=affine"]),
}
TERMS = ("opacity", "deficit", "darker")
STRATA = 5
WORKERS = 2


def method(name: str, data_set: str, data: Path) -> tuple[Path, Films]:
    """Fit one of METHODS on a set and score its dev films; return the run and the films."""
    recipe, overrides = METHODS[name]
    run = FOLDER / f"{data_set}-{name.replace(', ', '-')}"
    fitted(run, data / TRAIN[data_set], load_recipe(recipe, overrides=overrides))
    panels = None if name == "atlas" else 0
    return run, scored(run.with_name(f"{run.name}-dev"), data / DEV[data_set], run, panels=panels)


def evaluated(films: Films, folders: tuple[str, ...]) -> dict[str, Any]:
    """Evaluate a run on the films of these class folders: the score's row, the trivial numbers', and false alarms."""
    labels = films.out.with_name(f"{films.out.name}-labels.csv")
    table: list[list[object]] = [["path", "label"]]
    write_table(labels, table + [[films.paths[i], films.labels[i]] for i in films.where(folders)])
    found = evaluate(films.out, labels=labels)
    return {"rows": to_dicts(found.rows), "false_alarms": found.alarms}


def floor(films: Films, folders: tuple[str, ...]) -> dict[str, Any]:
    """Return another method's row and false alarms; the trivial numbers are those of the atlas's films."""
    found = evaluated(films, folders)
    return {"row": found["rows"][0], "false_alarms": found["false_alarms"]}


def within(films: Films, at: Int64, columns: dict[str, Float64], nuisance: Float64) -> dict[str, Any]:
    """Return AUROC of each column within strata of a nuisance, and what the nuisance still tells there."""
    patients = [films.patients[i] for i in at]
    told: dict[str, Any] = {}
    for name, values in columns.items():
        found = stratified_auroc(films.labels[at], values[at], nuisance[at], patients, strata=STRATA)
        told[name] = {"auroc": found.auroc, **bounds(found.interval)}
        if name == "score":
            told |= {"leftover": found.leftover, "strata": [asdict(stratum) for stratum in found.strata]}
    return told


def one_test(
    folders: tuple[str, ...], films: Films, held_out: Films, others: dict[str, Films], soft: tuple[Float64, Float64]
) -> dict[str, Any]:
    """Say how well the atlas tells the films of some class folders apart.

    Args:
        folders: Of dev, the normal one first.
        films: Of dev, scored by the atlas.
        held_out: Normals it was calibrated on.
        others: Other methods' films of dev.
        soft: Softness of `films` and of `held_out`.
    """
    at = films.where(folders)
    labels, patients = films.labels[at], [films.patients[i] for i in at]
    columns = {"score": films.scores, **films.terms}
    minus = {}
    for name, other in others.items():
        place = {path: i for i, path in enumerate(other.paths)}
        same = np.array([place[films.paths[i]] for i in at])
        found = paired_difference(labels, films.scores[at], other.scores[same], patients)
        minus[name] = {"difference": found.difference, **bounds(found.interval), "p": found.p_value}
    residualised = {}
    for name, values in columns.items():
        normals = held_out.scores if name == "score" else held_out.terms[name]
        line = residualised_auroc(
            labels, values[at], soft[0][at], patients, normal_scores=normals, normal_nuisance=soft[1]
        )
        residualised[name] = {"auroc": line.auroc, **bounds(line.interval), "slope": line.slope}
    nuisances = {"softness": soft[0], "file_size": films.file_size}
    refused = ~films.registered[at]
    return {
        **evaluated(films, folders),
        "not_registered": {k: int(refused[labels == label].sum()) for label, k in enumerate(("normal", "abnormal"))},
        "terms": [to_dicts(evaluate_scores(labels, films.terms[name][at], patients, name=name))[0] for name in TERMS],
        "others": {name: floor(other, folders) for name, other in others.items()},
        "minus": minus,
        "alone": to_dicts(evaluate_scores(labels, soft[0][at], patients, name="softness"))[0],
        "strata": {nuisance: within(films, at, columns, numbers) for nuisance, numbers in nuisances.items()},
        "residualised": {"normals": len(held_out.ids), "on": "log softness", **residualised},
        "kinds": kinds(films, at),
    }


def kinds(films: Films, at: Int64) -> dict[str, Any]:
    """Return the AUROC of each kind of abnormal film (bacteria, virus) against all normals; {} where none is told."""
    found = {}
    for kind in sorted({films.kinds[i] for i in at} - {""}):
        part = np.array([i for i in at if films.labels[i] == 0 or films.kinds[i] == kind])
        row = evaluate_scores(films.labels[part], films.scores[part], [films.patients[i] for i in part], name=kind)[0]
        found[kind] = to_dicts([row])[0]
    return found


def boxes(films: Films, run: Path) -> dict[str, Any]:
    """Say whether the map, brought to the film, points at the radiologists' boxes, beside what needs no map."""
    model = load_model(run)
    threshold = model.calibration.pixel_quantiles[str(QUANTILE)]
    heat = [load_panel(films.out / "panels" / f"{scan_id}.npz").heat_on_film() for scan_id in films.ids]
    parts = {
        "normal and lung opacity": films.where(TESTS["rsna"]["lung opacity"]),
        "all films": films.where(TESTS["rsna"]["all abnormal"]),
    }
    return pointing(heat, films.paths, films.scores, films.patients, parts, threshold, model.detector.heat_unit)


def accuracy(data: Path) -> dict[str, Any]:
    """Return every figure but those of time and memory."""
    figures: dict[str, Any] = {}
    for data_set, tests in TESTS.items():
        runs = {name: method(name, data_set, data) for name in METHODS}
        run, films = runs["atlas"]
        others = {name: other for name, (_, other) in runs.items() if name != "atlas"}
        held = run.with_name(f"{run.name}-held-out")
        held_out = scored(held, data / TRAIN[data_set], run, panels=None, split="calibration")
        soft = films.softness(), held_out.softness()
        told = read_json(run / "receipt.json")
        figures[data_set] = {
            "trained": told["trained"],
            "held_out": told["held_out"],
            "not_registered": told["not_registered"],
            "tests": {name: one_test(folders, films, held_out, others, soft) for name, folders in tests.items()},
        }
        if data_set == "rsna":
            figures[data_set]["boxes"] = boxes(films, run)
        for name, test in figures[data_set]["tests"].items():
            print(f"{data_set}, {name}: AUROC {test['rows'][0]['auroc']:.3f}", flush=True)
    return figures


def speed(films: int) -> dict[str, Any]:
    """Measure time and memory on Kermany, each part in a process of its own."""
    cache = FOLDER / "speed-cache"
    shutil.rmtree(cache, ignore_errors=True)
    runs = {}
    for part, kept in (("fit", cache), ("fit, all read before", cache), ("score files", "off"), ("prepared", "off")):
        command = [sys.executable, __file__, "--serve", part.partition(",")[0], "--films", str(films)]
        environment = {**os.environ, "ANOMALY_CACHE": str(kept)}
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        runs[part] = json.loads(told.splitlines()[-1])
        print(part, runs[part], flush=True)
    model = FOLDER / "speed-run" / "model"
    size = sum(file.stat().st_size for file in model.iterdir())
    shutil.rmtree(cache)
    return {
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "workers": WORKERS,
        "runs": runs,
        "model_bytes": size,
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "versions": versions(),
    }


def serve(part: str, data: Path, films: int) -> dict[str, Any]:
    """Do one part of `speed` in this process and say what it took."""
    for name in ("cv2", "scipy.linalg", "scipy.ndimage", "safetensors.numpy", "anomaly.detectors.atlas.detector"):
        importlib.import_module(name)  # what would be imported on the way is no memory of the work
    imports, reading = peak("self"), [0]

    def watch(done: int, _of: int, _what: str) -> None:
        if done % 50 == 0:
            reading.append(sum(peak(pid) for pid in readers()))

    run, normals = FOLDER / "speed-run", list_scans(data / TRAIN["kermany"]).files[:films]
    listed = manifest(FOLDER / "speed.csv", normals)
    if part == "prepared":
        return prepared(load_model(run), normals)
    started = time.perf_counter()
    if part == "fit":
        fit(listed, run, load_recipe("atlas"), overwrite=run.exists(), workers=WORKERS, on_progress=watch)
    else:
        model = load_model(run)
        started = time.perf_counter()
        for done, row in enumerate(score_paths(model, listed, workers=WORKERS)):
            assert row.score is not None, row.error
            watch(done, films, "scoring")
    seconds = time.perf_counter() - started
    return {
        "films": len(normals),
        "seconds": seconds,
        "films_per_second": len(normals) / seconds,
        "memory": {"imports": imports, "above_imports": peak("self") - imports, "readers": max(reading)},
        "torch_loaded": "torch" in sys.modules,
    }


def prepared(model: Model, files: Sequence[ScanFile]) -> dict[str, Any]:
    """Time the detector alone on prepared films in memory: its fit, and scoring with maps and without."""
    films = [model.preparation(read_scan(file)) for file in files]
    images = np.stack([film.image for film in films])
    everywhere = np.ones(images.shape[2:], np.bool_)
    inside = np.stack([everywhere if film.inside is None else film.inside for film in films])
    _, detector = resolve(load_recipe("atlas"))
    started = time.perf_counter()
    detector.fit(ArraySource(images))
    seconds = {"fit": time.perf_counter() - started}
    for name, heatmaps in (("score with maps", True), ("score without maps", False)):
        started = time.perf_counter()
        batch = detector.config.score_batch
        for start in range(0, len(images), batch):  # as the scoring road does, whose maps do not pile up
            part = slice(start, start + batch)
            detector.score(images[part], inside=inside[part], heatmaps=heatmaps)
        seconds[name] = time.perf_counter() - started
    rates = {name: len(images) / took for name, took in seconds.items() if name != "fit"}
    return {"films": len(images), "seconds": seconds, "films_per_second": rates}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--speed", action="store_true", help="measure time and memory instead")
    arguments.add_argument("--films", type=int, default=1341, help="of them for --speed")
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    data, before = shared_data(), read_result("atlas")
    if chosen.serve:
        print(json.dumps(serve(chosen.serve, data, chosen.films)))
    elif chosen.speed:
        write_result("atlas", {**before, "speed": speed(chosen.films)})
    else:
        kept = {"speed": before["speed"]} if "speed" in before else {}
        write_result("atlas", {**accuracy(data), **kept})


if __name__ == "__main__":
    main()
