"""U-Net: lungs of children's films, trained on human masks; then the same model on adults of another country.

    python benchmarks/unet.py

Trains the recipe `unet` on Kermany's train split, and measures Dice and IoU on the dev half of its official test and on
Montgomery County's films, of which the model has seen none, each beside the mean training mask. The goal is a mean Dice
of 0.95 on Kermany dev after at most 20 minutes of training on 2 cores. The run, the masks and the ten worst of either
set (`worst.png`) are kept in build/benchmarks/unet; what is there is not done again, and a stopped fit goes on.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, WORK, parser, shared_data, write_result
from frozen_runs import imported_weights

from anomaly.config import load_recipe
from anomaly.evaluate.intervals import mean_interval
from anomaly.runs import read_json
from anomaly.workflows.progress import PlainTicker
from anomaly.workflows.segment import apply_segmenter
from anomaly.workflows.segment_evaluate import DICE, WORST, evaluate_masks
from anomaly.workflows.segment_fit import fit_segmenter, resolve_segmenter
from anomaly.workflows.segment_model import load_segmenter

FOLDER = WORK / "unet"
RUN = FOLDER / "lungs"
GOAL_DICE, GOAL_MINUTES = 0.95, 20
SETS = {
    "kermany": ("kermany/dev", "kermany_lung_masks/dev"),
    "montgomery": ("montgomery/images", "montgomery/masks"),
}
"""Films and masks, in the shared data."""
LABELS = {"0": "normal", "1": "abnormal"}


def train(data: Path) -> dict[str, Any]:
    """Train, unless that is done, and return how it went."""
    recipe, _ = resolve_segmenter(load_recipe("unet"))
    if (RUN / "config.yaml").is_file() and load_recipe(None, RUN / "config.yaml") != recipe:
        raise SystemExit(f"{RUN} was fitted with other settings: remove it to measure the recipe as it is now")
    if not (RUN / "model" / "model.json").is_file():
        masks = data / "kermany_lung_masks/train"
        fit_segmenter(data / "kermany/train", RUN, recipe, masks=masks, resume=RUN.exists(), on_progress=PlainTicker())
    receipt = read_json(RUN / "receipt.json")
    dices = _history("val_dice")
    return {
        **{name: receipt[name] for name in ("trained", "validated", "left_out", "seconds", "threads", "encoder")},
        "size": recipe.size,
        "epochs": len(dices),
        "best_epoch": int(np.argmax(dices)) + 1,
        "validation_dice": max(dices),
        "threshold": load_segmenter(RUN).unet.threshold,
    }


def _history(name: str) -> list[float]:
    with (RUN / "history.csv").open(newline="", encoding="utf-8") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


def measure(name: str, data: Path) -> dict[str, Any]:
    """Outline a set and compare, and return what `anomaly segment evaluate` says, with Dice by label."""
    films, masks = (data / part for part in SETS[name])
    out = FOLDER / name
    summary = apply_segmenter(films, RUN, out, resume=out.exists(), on_progress=PlainTicker())
    found = evaluate_masks(out, masks, on_progress=PlainTicker())
    return {**found.to_dict(), "dice_by_label": by_label(out / DICE), "images_per_second": summary.images_per_second}


def by_label(table: Path) -> dict[str, Any]:
    """Return the mean Dice of each label's films, with intervals: opacities hide what is to be outlined."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = {}
    for label, name in LABELS.items():
        own = [row for row in rows if row["label"] == label]
        if own:
            dices = [float(row["dice"]) for row in own]
            between = mean_interval(dices, [row["patient"] or row["scan_id"] for row in own])
            told[name] = {"n": len(own), "mean": float(np.mean(dices)), "low": between.low, "high": between.high}
    return told


def main() -> None:
    parser(__doc__).parse_args()
    data = shared_data()
    imported_weights()
    fitted = train(data)
    print(f"trained in {fitted['seconds'] / 60:.1f} minutes, {fitted['epochs']} epochs", flush=True)
    sets = {name: measure(name, data) for name in SETS}
    dice = next(iter(sets["kermany"]["rows"].values()))[0]["mean"]
    goal = {"dice": GOAL_DICE, "minutes": GOAL_MINUTES}
    goal["met"] = dice >= GOAL_DICE and fitted["seconds"] <= 60 * GOAL_MINUTES
    write_result("unet", {"fit": fitted, "goal": goal, "sets": sets})
    for name in SETS:
        print(f"the ten worst: {(FOLDER / name / WORST).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
