"""Real films: fit on the Kermany train normals, score the dev half of the official test, evaluate with labels.

    python benchmarks/kermany.py --seeds 3

Goes through the same workflows as `anomaly fit`, `score` and `evaluate`. Recipes are used as shipped. A seed already
fitted is not fitted again. Dev AUROC is what the recipes were chosen on where they were chosen at all: see the README.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, parser, shared_data, spread, write_result

from anomaly.config import load_recipe
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.table import to_dicts
from anomaly.runs import read_json
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.progress import PlainTicker
from anomaly.workflows.results import read_scores
from anomaly.workflows.score import score


def one(recipe_name: str, seed: int, data: Path) -> dict[str, Any]:
    """Fit, score and evaluate one recipe with one seed; what is finished already is kept."""
    run, out = WORK / "kermany" / f"{recipe_name}-{seed}", WORK / "kermany" / f"{recipe_name}-{seed}-dev"
    recipe, _ = resolve(load_recipe(recipe_name, overrides=[f"seed={seed}"]))
    if (run / "config.yaml").is_file() and load_recipe(None, run / "config.yaml") != recipe:
        raise SystemExit(f"{run} was fitted with other settings: remove it to measure the recipe as it is now")
    if not (run / "model" / "model.json").is_file():
        fit(
            data / "kermany/train/NORMAL", run, recipe, normal_only=True, resume=run.exists(), on_progress=PlainTicker()
        )
    if not (out / "receipt.json").is_file() or read_json(out / "receipt.json")["status"] != "done":
        started = time.monotonic()
        score(data / "kermany/dev", run, out, resume=out.exists(), on_progress=PlainTicker())
        print(f"{recipe_name} seed {seed}: scored in {time.monotonic() - started:.0f} s", flush=True)
    result = evaluate(out)
    return {
        "seed": seed,
        # only the first seed is timed: the others may have run beside other work
        "fit_seconds": read_json(run / "receipt.json")["seconds"] if seed == 0 else None,
        "score_seconds": read_json(out / "receipt.json")["seconds"] if seed == 0 else None,
        "rows": to_dicts(result.rows),
        "false_alarms": result.alarms,
    }


def paired(name: str, floor: str) -> dict[str, Any]:
    """Return AUROC(name) - AUROC(floor), seed 0, on the same films, patients resampled together."""
    columns = []
    for recipe in (name, floor):
        lines = {line.row.scan_id: line.row for line in read_scores(WORK / "kermany" / f"{recipe}-0-dev")}
        columns.append(lines)
    ids = sorted(columns[0])
    labels = np.array([columns[0][i].label for i in ids])
    a, b = (np.array([column[i].score for i in ids]) for column in columns)
    found = paired_difference(labels, a, b, [columns[0][i].patient or i for i in ids])
    return {"difference": found.difference, "low": found.interval.low, "high": found.interval.high, "p": found.p_value}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--recipes", nargs="+", default=["pixel-stats", "anogan"])
    chosen = arguments.parse_args()
    data = shared_data()
    figures: dict[str, Any] = {}
    for recipe in chosen.recipes:
        seeds = 1 if recipe == "pixel-stats" else chosen.seeds
        runs = [one(recipe, seed, data) for seed in range(seeds)]
        figures[recipe] = {"auroc": spread([run["rows"][0]["auroc"] for run in runs]), "runs": runs}
    figures["anogan minus pixel-stats"] = paired("anogan", "pixel-stats")
    write_result("kermany", {"data": "Kermany dev (paediatric)", "recipes": figures})


if __name__ == "__main__":
    main()
