"""Boxes: a RetinaNet trained on phantoms with boxes, measured on others; and a smoke run on RSNA dev.

    python benchmarks/retinanet.py
    python benchmarks/retinanet.py --epochs 1 --films 60 --test 40 --dry     # does it start?

Phantoms say that the road from boxes to boxes is right, and nothing about patients. The films of RSNA dev are too few
to train a detector on: that run says that it goes through, on some of them, and is measured on the others. The training
stops after `--minutes` and goes on where it was when the same command is given again; films, models and scores are kept
in build/benchmarks/retinanet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import WORK, parser, shared_data, write_result
from frozen_runs import imported_weights
from pointing import hit_lead

from anomaly.config import Recipe, load_recipe
from anomaly.evaluate.boxes import box_mask
from anomaly.runs import read_json, write_text
from anomaly.scans.phantom import write_phantoms
from anomaly.workflows.box_evaluation import _SIDE, _map, _on_square
from anomaly.workflows.box_tables import read_true_boxes
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.journal import read_journal
from anomaly.workflows.progress import PlainTicker
from anomaly.workflows.results import read_scores
from anomaly.workflows.score import score

FOLDER = WORK / "retinanet"
SHARE = 0.5
"""Of the phantoms are abnormal, each in one box or a few."""


class Watch:
    """Shows progress, and stops a training that has gone on for so many minutes."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.shown = PlainTicker()
        self.began: float | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take note of how far things are."""
        self.shown(done, total, what)
        if what == "training":
            self.began = self.began or time.monotonic()
            if time.monotonic() - self.began > 60 * self.minutes:
                sys.exit(
                    f"{self.minutes:g} minutes of training are over; the same command goes on after the last epoch"
                )


def phantoms(folder: Path, count: int, seed: int) -> Path:
    """Return a folder of so many phantoms, drawn unless they are there."""
    if not (folder / "manifest.csv").is_file():
        write_phantoms(folder, n=count, abnormal=round(SHARE * count), seed=seed)
    return folder


def trained(run: Path, films: Path, changes: Sequence[str], watch: Watch, *, test: float = 0.0) -> Recipe:
    """Fit, or go on with a fit, unless that is done, and return its recipe."""
    recipe = resolve(load_recipe("retinanet", overrides=changes))[0]
    if (run / "config.yaml").is_file() and load_recipe(None, run / "config.yaml") != recipe:
        raise SystemExit(f"{run} was fitted with other settings: remove it to measure these")
    if not (run / "model" / "model.json").is_file():
        fit(films, run, recipe, test=test, allow_image_split=True, resume=run.exists(), on_progress=watch)
    return recipe


def measured(out: Path, films: Path, run: Path, *, split: str | None = None) -> dict[str, Any]:
    """Score films unless that is done, and return what `anomaly evaluate` says, and the paired lead over the prior."""
    if not (out / "scores.csv").is_file():
        score(films, run, out, panels=20, split=split, resume=out.exists(), on_progress=PlainTicker())
    found = evaluate(out)
    if found.boxes is None:
        raise SystemExit(f"{out} has no true boxes")
    receipt = read_json(run / "receipt.json")
    return {
        "trained_on": receipt["trained"],
        "seconds": receipt["seconds"],
        "epochs": int((run / "history.csv").read_text(encoding="utf-8").rstrip().rsplit("\n", 1)[1].partition(",")[0]),
        "scores": [asdict(row) for row in found.rows],
        "boxes": found.boxes.to_dict(),
        "boxes_minus_prior": lead(out),
    }


def lead(out: Path) -> dict[str, float]:
    """Return the pointing game's hit rate of the boxes minus that of the lesions' usual place, on the same patients."""
    truth, journal = read_true_boxes(out) or {}, read_journal(out)
    lines = [line for line in read_scores(out) if len(truth.get(line.row.scan_id, ()))]
    sick = [_on_square(line, journal[line.row.scan_id], truth[line.row.scan_id]) for line in lines]
    masks = [box_mask(film.truth, (_SIDE, _SIDE)) for film in sick]
    return hit_lead([_map(film.drawn) for film in sick], masks, [film.patient for film in sick])


def rsna_manifest(data: Path) -> Path:
    """Write a manifest of RSNA dev, the films with an opacity and their boxes among the abnormal."""
    dev, boxes = data / "rsna_adult" / "dev", data / "rsna_adult" / "boxes.csv"
    rows = ["path,label,class,boxes"]
    for name, said in {"normal": "0,normal,", "lung_opacity": f"1,abnormal,{boxes}"}.items():
        rows += [f"{film},{said}" for film in sorted((dev / name).iterdir())]
    # those without an opacity have no box, but for two
    rows += [f"{film},1,abnormal,{boxes}" for film in sorted((dev / "abnormal_no_opacity").iterdir())]
    path = FOLDER / "rsna" / "manifest.csv"
    write_text(path, "\n".join(rows) + "\n")
    return path


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--films", type=int, default=800, help="phantoms to train on")
    arguments.add_argument("--test", type=int, default=300, help="phantoms to measure on")
    arguments.add_argument("--epochs", type=int, default=14, help="passes over the films at most")
    arguments.add_argument("--minutes", type=float, default=25.0, help="of training in one go")
    arguments.add_argument("--dry", action="store_true", help="write no result")
    given = arguments.parse_args()
    data = shared_data()
    imported_weights()
    watch = Watch(given.minutes)
    name = f"{given.films}-{given.epochs}"
    films = phantoms(FOLDER / f"films-{given.films}", given.films, seed=0)
    others = phantoms(FOLDER / f"others-{given.test}", given.test, seed=1)
    # the rate falls twice on the way, however long that is
    changes = (f"detector.epochs={given.epochs}", f"detector.step_epochs={max(1, given.epochs // 3)}")
    recipe = trained(FOLDER / f"run-{name}", films, changes, watch)
    figures: dict[str, Any] = {
        "size": recipe.size,
        "detector": recipe.detector,
        "phantoms": measured(FOLDER / f"out-{name}-{given.test}", others, FOLDER / f"run-{name}"),
    }
    smoke = (f"detector.epochs={min(3, given.epochs)}", "detector.warmup=10")
    manifest = rsna_manifest(data)
    run, out = (FOLDER / "rsna" / f"{part}-{min(3, given.epochs)}" for part in ("run", "out"))
    trained(run, manifest, smoke, watch, test=0.3)
    figures["rsna_smoke"] = measured(out, manifest, run, split="test")
    boxes = figures["phantoms"]["boxes"]
    pointing = {row["name"]: round(float(row["rate"]), 3) for row in boxes["pointing"]}
    print(f"phantoms: mAP@0.5 {boxes['map_50']:.3f}, mAP {boxes['map_50_95']:.3f}, pointing {pointing}")
    print(f"rsna (smoke): mAP@0.5 {figures['rsna_smoke']['boxes']['map_50']:.3f}")
    if not given.dry:
        write_result("retinanet", figures)


if __name__ == "__main__":
    main()
