"""Does painting over R/L letters change the AUROC? Kermany dev, `prepare.markers` keep against inpaint.

    python benchmarks/inpaint.py --seeds 1

Fits every recipe twice with the same seed, differing in that one setting, and compares the two scores of the same
films, patients resampled together. Letters are commoner on one class than on the other, so a detector could lean on
them. A seed already fitted is not fitted again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, parser, shared_data, write_result

from anomaly.config import load_recipe
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.table import to_dicts
from anomaly.records import ScanFile
from anomaly.runs import read_json
from anomaly.scans.markers import find_markers
from anomaly.scans.read import read_scan
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.progress import PlainTicker
from anomaly.workflows.results import read_scores
from anomaly.workflows.score import score

CHOICES = ("inpaint", "keep")


def one(recipe_name: str, markers: str, seed: int, data: Path) -> dict[str, Any]:
    """Fit, score and evaluate one recipe with one seed; what is finished already is kept."""
    run = WORK / "inpaint" / f"{recipe_name}-{markers}-{seed}"
    out = run.with_name(f"{run.name}-dev")
    recipe, _ = resolve(load_recipe(recipe_name, overrides=[f"seed={seed}", f"prepare.markers={markers}"]))
    if (run / "config.yaml").is_file() and load_recipe(None, run / "config.yaml") != recipe:
        raise SystemExit(f"{run} was fitted with other settings: remove it to measure the recipe as it is now")
    if not (run / "model" / "model.json").is_file():
        train = data / "kermany/train/NORMAL"
        fit(train, run, recipe, normal_only=True, resume=run.exists(), on_progress=PlainTicker())
    if not (out / "receipt.json").is_file() or read_json(out / "receipt.json")["status"] != "done":
        score(data / "kermany/dev", run, out, resume=out.exists(), on_progress=PlainTicker())
    row = to_dicts(evaluate(out).rows)[0]
    counts = {name: row[name] for name in ("n_normal", "n_abnormal")}
    return {"auroc": row["auroc"], "low": row["auroc_interval"]["low"], "high": row["auroc_interval"]["high"], **counts}


def paired(recipe_name: str, seed: int) -> dict[str, Any]:
    """Return AUROC(inpaint) - AUROC(keep) on the same films, and how far the scores moved."""
    both = [
        {line.row.scan_id: line.row for line in read_scores(WORK / "inpaint" / f"{recipe_name}-{markers}-{seed}-dev")}
        for markers in CHOICES
    ]
    ids = sorted(both[0])
    labels = np.array([both[0][i].label for i in ids])
    a, b = (np.array([column[i].score for i in ids]) for column in both)
    found = paired_difference(labels, a, b, [both[0][i].patient or i for i in ids])
    return {
        "difference": found.difference,
        "low": found.interval.low,
        "high": found.interval.high,
        "p": found.p_value,
        "correlation_of_scores": float(np.corrcoef(a, b)[0, 1]),
    }


def share_with_markers(folder: Path) -> dict[str, Any]:
    """Count the films of a folder on which a marker is found."""
    films = sorted(folder.glob("*.jpeg"))
    found = [find_markers(read_scan(ScanFile(film.name, film, film.name)).pixels).any() for film in films]
    return {"films": len(films), "with_markers": int(sum(found)), "share": float(np.mean(found))}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--recipes", nargs="+", default=["pixel-stats", "anogan"])
    chosen = arguments.parse_args()
    data = shared_data()
    figures: dict[str, Any] = {}
    for recipe in chosen.recipes:
        seeds = range(1 if recipe == "pixel-stats" else chosen.seeds)
        figures[recipe] = [
            {
                "seed": seed,
                **{markers: one(recipe, markers, seed, data) for markers in CHOICES},
                "inpaint minus keep": paired(recipe, seed),
            }
            for seed in seeds
        ]
    folders = ("train/NORMAL", "train/PNEUMONIA", "dev/NORMAL", "dev/PNEUMONIA")
    markers = {folder: share_with_markers(data / "kermany" / folder) for folder in folders}
    write_result("inpaint", {"data": "Kermany dev (paediatric)", "markers_found": markers, "recipes": figures})


if __name__ == "__main__":
    main()
