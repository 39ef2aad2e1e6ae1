"""Our `score` and `fit` beside anomalib's Engine: films a second, and memory above what imports take.

    python benchmarks/anomalib_speed.py

The 348 films of Kermany dev, from their files, through `score_paths` (reading, CLAHE, examination, calibration and
panels included; cache off and on) and through `Engine.predict` (its own reader and preprocessing, no post-processor, no
pictures) at batches of 1, 8 and 32: the same weights, size, statistics and bank in both, two readers each, in turns,
every part in a process of its own, (lower) medians over the repeats. Times run from the end of the first batch:
imports, loading of the model and the start of the readers are left out on either side. Memory is the main process's
peak above its peak after imports; the readers' private memory stands beside it. `fit`: PaDiM on 1,072 films, PatchCore
on 128 films with a bank of 1,024 patches on either side (its own coreset on all films would take hours). Wants a
machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from atlas_runs import manifest
from common import WORK, parser, shared_data, write_result
from frozen_runs import imported_weights, prepared
from memory import peak, readers

from anomaly.config import load_recipe
from anomaly.prepare.source import ArraySource
from anomaly.scans.walk import list_scans
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.model import load_model
from anomaly.workflows.score import score_paths

METHODS = ("padim", "patchcore")
BATCHES = (1, 8, 32)
WORKERS, SIZE = 2, 224
FOLDER = WORK / "anomalib-speed"
FIT_FILMS = {"padim": 1072, "patchcore": 128}
FIT_BANK = 1024  # patches


def private(pids: Sequence[str]) -> int:
    """Return what processes hold for themselves alone, in bytes."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


class Watch:
    """Looks at the readers' private memory now and then, on a thread of its own; `most` is the largest it saw."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.5):
            with contextlib.suppress(OSError):  # a reader that has just gone
                self.most = max(self.most, private(readers()))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class FirstBatch:
    """Notes when Engine.predict had done its first batch."""

    ended = 0.0

    def callback(self) -> Any:
        """Return the callback for the Engine."""
        from lightning.pytorch import Callback

        noted = self

        class Note(Callback):
            def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
                noted.ended = noted.ended or time.perf_counter()

        return Note()


def run_of(method: str) -> Path:
    return FOLDER / f"run-{method}"


def told(began: float, imports: int, films: int, most: int = 0) -> dict[str, float]:
    """Return films a second since `began`, and memory."""
    seconds = time.perf_counter() - began
    memory = {"imports": imports, "above_imports": peak("self") - imports, "readers": most}
    return {"films": films, "seconds": seconds, "films_per_second": films / seconds, **memory}


def import_ours() -> int:
    names = ("cv2", "scipy.ndimage", "safetensors.numpy", "torchvision", "torch.fx", "anomaly.detectors.patchcore")
    for name in (*names, "anomaly.detectors.padim", "sklearn.metrics", "torchvision.models.feature_extraction"):
        importlib.import_module(name)
    return peak("self")


def import_theirs() -> int:
    for name in ("anomalib.engine", "anomalib.models.image.padim", "anomalib.models.image.patchcore", "anomalib.data"):
        importlib.import_module(name)
    return peak("self")


def score_ours(method: str) -> dict[str, Any]:
    imports = import_ours()
    model = load_model(run_of(method))
    began = time.perf_counter()
    with Watch() as watch:
        rows = score_paths(model, shared_data() / "kermany/dev", workers=WORKERS)
        first = [next(rows) for _ in range(model.detector.config.score_batch)]
        started = time.perf_counter()
        rest = list(rows)
    found = told(started, imports, len(rest), watch.most)
    assert all(row.score is not None for row in (*first, *rest))
    return {**found, "start_up_seconds": started - began, "runs_on": model.detector.runs_on()}


def score_theirs(method: str, batch: int) -> dict[str, Any]:
    from anomalib_engine import engine, hushed, loader, module, take_statistics

    with hushed():
        imports = import_theirs()
        ours: Any = load_model(run_of(method)).detector
        theirs = module(method, SIZE, **({"n_features": ours.config.features} if method == "padim" else {}))
        take_statistics(theirs, ours)
        del ours
        data = loader(shared_data() / "kermany/dev", SIZE, batch, WORKERS)
        first = FirstBatch()
        predicting = engine([first.callback()])
        began = time.perf_counter()
        with Watch() as watch:
            batches = predicting.predict(model=theirs, dataloaders=data)
    films = sum(len(found.image_path) for found in batches[1:])
    return {**told(first.ended, imports, films, watch.most), "start_up_seconds": first.ended - began}


def fit_ours(method: str) -> dict[str, Any]:
    imports = import_ours()
    films, _ = prepared(shared_data() / "kermany/train/NORMAL", limit=FIT_FILMS[method])
    change = ["detector.share=1.0", f"detector.bank_mb={FIT_BANK * 384 * 4 / 2**20}"] if method == "patchcore" else []
    _, detector = resolve(load_recipe(method, overrides=change))
    before = peak("self")
    began = time.perf_counter()
    detector.fit(ArraySource(films))
    return {**told(began, before, len(films)), "imports": imports, "runs_on": detector.runs_on()}


def fit_theirs(method: str) -> dict[str, Any]:
    from anomalib_engine import engine, hushed, loader, module, take_backbone

    with hushed():
        imports = import_theirs()
        films, _ = prepared(shared_data() / "kermany/train/NORMAL", limit=FIT_FILMS[method])
        own = {"padim": {"n_features": 100}, "patchcore": {"coreset_sampling_ratio": FIT_BANK / (784 * len(films))}}
        theirs = module(method, SIZE, **own[method])
        take_backbone(theirs, load_model(run_of(method)).detector)
        data = loader(films, SIZE, 32)
        fitting = engine()
        before = peak("self")
        began = time.perf_counter()
        fitting.fit(model=theirs, train_dataloaders=data)
    return {**told(began, before, len(films)), "imports": imports}


def where(method: str) -> dict[str, float]:
    """Return the milliseconds a film of each part of a score, on films prepared before."""
    import torch

    model = load_model(run_of(method))
    detector: Any = model.detector
    films, _ = prepared(shared_data() / "kermany/dev/PNEUMONIA", limit=64)
    batch = detector.config.score_batch
    inside = np.ones((batch, SIZE, SIZE), np.bool_)
    chunk = films[:batch]
    parts: dict[str, Any] = {
        "backbone": lambda: detector._frozen.maps(chunk),
        "embedding": lambda: detector._embedded(chunk),
    }
    if method == "patchcore":
        with torch.inference_mode():
            patches = detector._embedded(chunk)
        parts["neighbours"] = lambda: detector._bank.nearest(patches)
    parts["all, with map"] = lambda: detector._score(chunk, inside, True)
    took = {}
    for name, part in parts.items():
        part()
        runs = []
        for _ in range(7):
            began = time.perf_counter()
            part()
            runs.append(time.perf_counter() - began)
        took[name] = 1000 * statistics.median(runs) / batch
    return took


def served(part: str) -> dict[str, Any]:
    imported_weights()
    what, method, *option = part.split(":")
    if what == "ours":
        return score_ours(method)
    if what == "theirs":
        return score_theirs(method, int(option[0]))
    if what == "where":
        return where(method)
    return fit_ours(method) if what == "fit-ours" else fit_theirs(method)


def ask(part: str, *, cache: str = "off") -> dict[str, Any]:
    command = [sys.executable, __file__, "--serve", part]
    ran = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "ANOMALY_CACHE": cache}
    )
    found = dict(json.loads(ran.stdout.splitlines()[-1]))
    print(part, {k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
    return found


def median(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the run in the middle by speed."""
    return sorted(runs, key=lambda run: run["films_per_second"])[(len(runs) - 1) // 2] | {
        "all_films_per_second": [run["films_per_second"] for run in runs]
    }


def models() -> None:
    """Fit what is scored with, unless that is done already."""
    data = shared_data()
    files = list_scans(data / "kermany/train/NORMAL").files
    listed = manifest(FOLDER / "normals.csv", [file for file in files if file.set_aside is None])
    for method in METHODS:
        if not (run_of(method) / "model" / "model.json").is_file():
            fit(listed, run_of(method), load_recipe(method), normal_only=True, resume=run_of(method).exists())


def compared(method: str, repeats: int) -> dict[str, Any]:
    cache = str(FOLDER / "cache")
    asked = {"ours": (f"ours:{method}", "off"), "ours, from the cache": (f"ours:{method}", cache)}
    asked |= {f"Engine.predict, batch {batch}": (f"theirs:{method}:{batch}", "off") for batch in BATCHES}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
    ask(asked["ours"][0], cache=cache)  # fills it
    for _ in range(repeats):
        for name, (part, kept) in asked.items():
            runs[name].append(ask(part, cache=kept))
    found = {name: median(each) for name, each in runs.items()}
    theirs = {name: run for name, run in found.items() if name.startswith("Engine")}
    best = max(theirs, key=lambda name: theirs[name]["films_per_second"])
    return {
        "score": found,
        "best_of_theirs": best,
        "times_faster": found["ours"]["films_per_second"] / theirs[best]["films_per_second"],
        "memory_share": found["ours"]["above_imports"] / theirs[best]["above_imports"],
        "where_ms": ask(f"where:{method}"),
        "fit": {"ours": ask(f"fit-ours:{method}"), "Engine.fit": ask(f"fit-theirs:{method}")},
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.serve:
        print(json.dumps(served(chosen.serve)))
        return
    imported_weights()
    models()
    figures = {method: compared(method, chosen.repeats) for method in chosen.methods}
    write_result("anomalib_speed", {"workers": WORKERS, "size": SIZE, "repeats": chosen.repeats, "methods": figures})


if __name__ == "__main__":
    main()
