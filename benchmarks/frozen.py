"""PaDiM, PatchCore and one Gaussian over frozen features, on real films: backbones, pooling, CLAHE, bf16, seeds.

    python benchmarks/frozen.py
    python benchmarks/frozen.py --memory

Kermany's train normals against the dev half of the official test, RSNA's adult normals against RSNA dev. `fit` of
`feature-gaussian` goes through the workflow of `anomaly fit`, which draws the films to train on; every other fit is the
detector's own, on those same films, prepared as the recipe says, and the poolings of a method share one. Scores are
kept in build/benchmarks/frozen: remove it to measure the code as it is now. `--memory` measures instead what fits on
2,000 adult films take, beside the estimate that `fit` prints.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from atlas_runs import DEV, TESTS, TRAIN, Films, bounds, fitted, scored
from common import WORK, parser, shared_data, spread, write_result
from frozen_runs import WEIGHTS, imported_weights, prepared
from memory import peak

from anomaly.config import load_recipe
from anomaly.detectors.pooling import pool
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.strata import stratified_auroc
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.prepare.source import ArraySource, ImageSpool
from anomaly.records import Float32, Float64, Int64, ScanFile
from anomaly.runs import write_json
from anomaly.scans.split import number_patients
from anomaly.scans.walk import list_scans
from anomaly.workflows.fit import resolve
from anomaly.workflows.model import load_model
from anomaly.workflows.score import score_paths
from anomaly.workflows.splits import run_splits

FOLDER = WORK / "frozen"
LAYERS = {
    "resnet18": {"padim": "[layer1, layer2, layer3]", "patchcore": "[layer2, layer3]", "feature-gaussian": "[layer3]"},
    "mobilenet_v2": {
        "padim": "[features.3, features.6, features.13]",
        "patchcore": "[features.6, features.13]",
        "feature-gaussian": "[features.13]",
    },
}
"""Maps a quarter, an eighth and a sixteenth of the film's side, of either backbone."""
POOLINGS = {"padim": ("mean", "top", "max"), "patchcore": ("mean", "top", "max"), "feature-gaussian": ("",)}
SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Cell:
    """One fit."""

    data_set: str
    method: str
    backbone: str = "resnet18"
    clahe: bool = True
    seed: int = 0
    precision: str = "auto"

    @property
    def name(self) -> str:
        """Return the name of its run."""
        parts = [self.data_set, self.method, self.backbone, "" if self.clahe else "no-clahe"]
        parts += [f"seed{self.seed}" if self.seed else "", self.precision if self.precision != "auto" else ""]
        return "-".join(part for part in parts if part)

    def detector(self) -> Any:
        """Return the unfitted detector."""
        changes = [f"seed={self.seed}", f"detector.backbone={self.backbone}", f"detector.precision={self.precision}"]
        changes.append(f"detector.layers={LAYERS[self.backbone][self.method]}")
        return resolve(load_recipe(self.method, overrides=changes))[1]

    def fitted(self, data: Path) -> Any:
        """Return the detector, fitted on the films that `fit` draws."""
        films, groups = training(self.data_set, data, clahe=self.clahe)
        return self.detector().fit(ArraySource(films, groups))

    def scores(self, data: Path) -> dict[str, dict[str, float]]:
        """Return pooling -> path -> score of the dev films; kept."""
        kept = FOLDER / f"{self.name}-dev.json"
        if not kept.is_file():
            write_json(
                kept, scores_of(self.fitted(data), dev(self.data_set, data, clahe=self.clahe), POOLINGS[self.method])
            )
            print(f"{self.name}: done", flush=True)
        return dict(json.loads(kept.read_text(encoding="utf-8")))


def scores_of(detector: Any, films: tuple[Float32, list[str]], poolings: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return pooling -> path -> score by a fitted detector; "" is the detector's own score."""
    images, paths = films
    maps = poolings != ("",)
    if maps:
        detector.config = detector.config.model_copy(update={"pooling": "max"})
    found = detector.score(np.asarray(images), heatmaps=maps)
    everywhere = np.ones((len(images), *images.shape[2:]), np.bool_)
    told = {}
    for pooling in poolings:
        own = pooling in ("", "max")  # PatchCore's own maximum is not its map's
        values = found.scores if own else pool(found.heatmaps, everywhere, pooling, detector.config.top_share)
        told[pooling] = dict(zip(paths, values.tolist(), strict=True))
    return told


def kept_films(name: str, folder: Path, *, clahe: bool) -> tuple[Float32, list[ScanFile]]:
    """Return the films of a folder as the recipes prepare them, kept on the disk."""
    path = FOLDER / f"{name}-{'clahe' if clahe else 'plain'}.npy"
    files = [file for file in list_scans(folder).files if file.set_aside is None]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, prepared(folder, changes=(f"prepare.clahe={str(clahe).lower()}",))[0])
    return np.load(path, mmap_mode="r"), files


def training(data_set: str, data: Path, *, clahe: bool) -> tuple[Float32, Int64]:
    """Return the films that the workflow's fit trained on, in its order, and their patients' groups."""
    images, files = kept_films(f"{data_set}-train", data / TRAIN[data_set], clahe=clahe)
    place = {file.scan_id: index for index, file in enumerate(files)}
    chosen = [place[row["scan_id"]] for row in run_splits(workflow_run(data_set, data)) if row["role"] == "train"]
    own = [files[index] for index in chosen]
    return images[chosen], number_patients([file.patient for file in own], [file.relative for file in own])


def dev(data_set: str, data: Path, *, clahe: bool) -> tuple[Float32, list[str]]:
    images, files = kept_films(f"{data_set}-dev", data / DEV[data_set], clahe=clahe)
    return images, [file.relative for file in files]


def workflow_run(data_set: str, data: Path) -> Path:
    """Return the run of `anomaly fit -d feature-gaussian`; fitted unless that is done already."""
    return fitted(FOLDER / f"{data_set}-run", data / TRAIN[data_set], load_recipe("feature-gaussian"))


def grid() -> Iterator[Cell]:
    for data_set in TRAIN:
        for method in POOLINGS:
            for backbone in WEIGHTS:
                for clahe in (True, False):
                    yield Cell(data_set, method, backbone, clahe)


def row(films: Films, at: Int64, scores: dict[str, float], name: str) -> dict[str, Any]:
    """Return a score's line of the results table on the films at these places."""
    values = np.array([scores[films.paths[i]] for i in at])
    return to_dicts(evaluate_scores(films.labels[at], values, [films.patients[i] for i in at], name=name))[0]


def minus(films: Films, at: Int64, one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    values = [np.array([scores[films.paths[i]] for i in at]) for scores in (one, other)]
    found = paired_difference(films.labels[at], *values, [films.patients[i] for i in at])
    return {"difference": found.difference, **bounds(found.interval)}


def tests_of(data_set: str, films: Films) -> dict[str, Int64]:
    return {name: films.where(folders) for name, folders in TESTS[data_set].items()}


def accuracy(data: Path) -> None:
    """Measure every figure but memory, and write down what there is after each set."""
    figures: dict[str, Any] = {}
    for data_set in TRAIN:
        run = workflow_run(data_set, data)
        films = scored(FOLDER / f"{data_set}-films", data / DEV[data_set], run, panels=None)
        same = Cell(data_set, "feature-gaussian").scores(data)[""]
        gap = max(abs(same[path] - score) for path, score in zip(films.paths, films.scores, strict=True))
        print(f"{data_set}: fitted by itself, feature-gaussian scores within {gap:.1e} of the workflow's", flush=True)
        soft = films.softness()
        tests = tests_of(data_set, films)
        figures[data_set] = {name: one_test(data_set, films, at, soft, data) for name, at in tests.items()}
        write_result("frozen", figures)
        if data_set == "kermany":
            for name, at in tests.items():
                figures[data_set][name] |= repeated(data_set, films, at, data)
            write_result("frozen", figures)


def one_test(data_set: str, films: Films, at: Int64, soft: Float64, data: Path) -> dict[str, Any]:
    labels, patients = films.labels[at], [films.patients[i] for i in at]
    rows, within = [], {}
    for cell in (cell for cell in grid() if cell.data_set == data_set):
        for pooling, scores in cell.scores(data).items():
            what = {"method": cell.method, "backbone": cell.backbone, "clahe": cell.clahe, "pooling": pooling}
            rows.append(what | {"row": row(films, at, scores, cell.method)})
            if cell == Cell(data_set, cell.method) and pooling in ("mean", ""):
                values = np.array([scores[films.paths[i]] for i in at])
                found = stratified_auroc(labels, values, soft[at], patients)
                within[cell.method] = {"auroc": found.auroc, **bounds(found.interval), "softness": found.leftover}
    trivial = to_dicts(evaluate_scores(labels, soft[at], patients, name="softness"))[0]
    return {
        "rows": rows,
        "softness": trivial,
        "within_softness": within,
        "clahe": {method: clahe(data_set, method, films, at, data) for method in POOLINGS},
        "atlas": atlas(data_set, films, at, data),
    }


def repeated(data_set: str, films: Films, at: Int64, data: Path) -> dict[str, Any]:
    """Return what other seeds and another number format change."""
    return {
        "seeds": {method: seeds(data_set, method, films, at, data) for method in ("padim", "patchcore")},
        "bf16": {method: formats(data_set, method, films, at, data) for method in POOLINGS},
    }


def seeds(data_set: str, method: str, films: Films, at: Int64, data: Path) -> dict[str, Any]:
    """Return the AUROC over seeds, which draw channels or patches."""
    found = {}
    for pooling in ("mean", "max"):
        each = [Cell(data_set, method, seed=seed).scores(data)[pooling] for seed in SEEDS]
        found[pooling] = spread([row(films, at, scores, method)["auroc"] for scores in each])
    return found


def formats(data_set: str, method: str, films: Films, at: Int64, data: Path) -> dict[str, Any]:
    """Return what scoring in bf16 changes: one fit in fp32, scored in either format."""
    pooling = POOLINGS[method][0]
    cell = Cell(data_set, method, precision="fp32")
    kept = [FOLDER / f"{cell.name}-scored-{precision}.json" for precision in ("fp32", "bf16")]
    if not all(path.is_file() for path in kept):
        exact = cell.fitted(data)
        coarse = type(exact)(exact.config.model_copy(update={"precision": "bf16"}), size=exact.size, device="cpu")
        coarse._restore(exact._state(), 1)
        coarse.channels = 1
        for path, detector in zip(kept, (exact, coarse), strict=True):
            write_json(path, scores_of(detector, dev(data_set, data, clahe=True), (pooling,))[pooling])
    both = [json.loads(path.read_text(encoding="utf-8")) for path in kept]
    return {"pooling": pooling, "bf16_minus_fp32": minus(films, at, both[1], both[0])}


def clahe(data_set: str, method: str, films: Films, at: Int64, data: Path) -> dict[str, Any]:
    """Return what CLAHE adds to the recipe."""
    on, off = (Cell(data_set, method, clahe=clahe).scores(data)[POOLINGS[method][0]] for clahe in (True, False))
    return minus(films, at, on, off)


def atlas(data_set: str, films: Films, at: Int64, data: Path) -> dict[str, Any]:
    """Return what the term `features` adds to the atlas, at several weights."""
    found = {}
    base = atlas_scores(data_set, 0.0, data)
    for weight in (0.5,):
        with_it = atlas_scores(data_set, weight, data)
        found[str(weight)] = {"row": row(films, at, with_it, "atlas"), "minus_atlas": minus(films, at, with_it, base)}
    return {"alone": row(films, at, base, "atlas"), "with": found}


def atlas_scores(data_set: str, weight: float, data: Path) -> dict[str, float]:
    kept = FOLDER / f"{data_set}-atlas-{weight:g}-dev.json"
    if not kept.is_file():
        recipe = load_recipe("atlas", overrides=[f"detector.features_weight={weight}"])
        run = fitted(FOLDER / f"{data_set}-atlas-{weight:g}", data / TRAIN[data_set], recipe)
        write_json(kept, {row.path: row.score for row in score_paths(load_model(run), data / DEV[data_set])})
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def memory() -> dict[str, Any]:
    """Return estimate and measured peak of fits on 2,000 adult films, each in a process of its own."""
    found = {}
    for method in POOLINGS:
        command = [sys.executable, __file__, "--serve", method]
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[method] = json.loads(ran.stdout.splitlines()[-1])
        print(method, found[method], flush=True)
    return found


def serve(method: str, data: Path) -> dict[str, Any]:
    """Fit on all adult normals, spooled to the disk as `fit` does, and say what the detector's part of it took."""
    for name in ("sklearn.covariance", "torchvision", "anomaly.detectors.backbone", "cv2", "scipy.ndimage"):
        importlib.import_module(name)
    folder = data / TRAIN["rsna"]
    _, detector = resolve(load_recipe(method))
    with ImageSpool(FOLDER) as images:
        films, files = prepared(folder)
        for film in films:
            images.append(film)
        del films
        estimate = detector.memory(len(files), 1)
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is the fit's
        before = peak("self")
        detector.fit(images.source(range(len(images))))
        took = peak("self") - before
    state = {name: array.nbytes for name, array in detector._state().items()}
    return {
        "films": len(files),
        "estimate": estimate,
        "measured": took,
        "ratio": estimate / took if estimate else None,
        "bank": state.get("bank"),
        "bank_mb": detector.config.model_dump().get("bank_mb"),
        "runs_on": detector.runs_on(),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--memory", action="store_true", help="measure memory instead")
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    data = shared_data()
    imported_weights()
    if chosen.serve:
        print(json.dumps(serve(chosen.serve, data)))
    elif chosen.memory:
        write_result("frozen_memory", memory())
    else:
        accuracy(data)


if __name__ == "__main__":
    main()
