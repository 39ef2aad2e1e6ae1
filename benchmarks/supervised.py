"""Supervised baselines on Kermany: trained on its train split, measured on the dev half of its official test.

    python benchmarks/supervised.py
    python benchmarks/supervised.py --only mobilenet_v2

What each network reaches, over seeds; what augmentation and painting over R/L letters change, paired; three classes;
whether Grad-CAM looks at the lungs; what the cut chosen on validation films does that 0.5 does not. A cell that is
fitted and scored already is not done again: they are kept in build/benchmarks/supervised.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from atlas_runs import Films, bounds, scored
from common import WORK, parser, shared_data, spread, write_result
from frozen_runs import imported_weights

from anomaly.config import Recipe, load_recipe
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.strata import stratified_auroc
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.runs import read_json
from anomaly.workflows.attention import attention
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.model import load_model
from anomaly.workflows.progress import PlainTicker

FOLDER = WORK / "supervised"


@dataclass(frozen=True, slots=True)
class Cell:
    """One fit: a recipe and what is changed in it."""

    recipe: str
    what: str = ""
    changes: tuple[str, ...] = ()
    seed: int = 0

    @property
    def name(self) -> str:
        """Return the name of its run."""
        return "-".join(part for part in (self.recipe, self.what, f"seed{self.seed}" if self.seed else "") if part)

    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""
        return resolve(load_recipe(self.recipe, overrides=[f"seed={self.seed}", *self.changes]))[0]

    def films(self, data: Path) -> Films:
        """Fit and score, unless that is done, and return the scored films of dev."""
        run, out = FOLDER / self.name, FOLDER / f"{self.name}-dev"
        recipe = self.settings()
        if (run / "config.yaml").is_file() and load_recipe(None, run / "config.yaml") != recipe:
            raise SystemExit(f"{run} was fitted with other settings: remove it to measure the recipe as it is now")
        if not (run / "model" / "model.json").is_file():
            fit(data / "kermany/train", run, recipe, resume=run.exists(), on_progress=PlainTicker())
        films = scored(out, data / "kermany/dev", run, panels=None)
        print(f"{self.name}: done", flush=True)
        return films


MAIN = "mobilenet_v2"
SEEDS = tuple(Cell(MAIN, seed=seed) for seed in (0, 1, 2))
PLAIN = (Cell(MAIN, "plain", ("detector.augment=false",)),)
INPAINT = Cell(MAIN, "inpaint", ("prepare.markers=inpaint",))
KINDS = Cell(MAIN, "kind", ("detector.classes=kind",))
CELLS = (SEEDS[0], KINDS, INPAINT, *PLAIN, Cell("resnet18"), *SEEDS[1:])
"""Networks that pretrained weights are at hand for, and that a processor trains in minutes."""


def row(films: Films, name: str) -> dict[str, Any]:
    return to_dicts(evaluate_scores(films.labels, films.scores, films.patients, name=name))[0]


def told(cell: Cell, data: Path) -> dict[str, Any]:
    """Return what a cell reached, and how it was trained."""
    films = cell.films(data)
    run = FOLDER / cell.name
    facts = load_model(run).facts
    soft = stratified_auroc(films.labels, films.scores, films.softness(), films.patients)
    receipt = read_json(run / "receipt.json")
    return {
        "recipe": cell.recipe,
        "what": cell.what,
        "changes": list(cell.changes),
        "seed": cell.seed,
        "size": facts.size,
        "trained_on": receipt["trained"],
        "seconds": receipt["seconds"],
        "epochs": _epochs(run),
        "row": row(films, cell.name),
        "within_softness": {"auroc": soft.auroc, **bounds(soft.interval), "softness": soft.leftover},
        "classes": evaluation(cell),
        "attention": looked_at(cell, data),
    }


def _epochs(run: Path) -> int:
    return int((run / "history.csv").read_text(encoding="utf-8").rstrip().rsplit("\n", 1)[1].partition(",")[0])


def evaluation(cell: Cell) -> dict[str, Any]:
    """Return what `anomaly evaluate` says of the classes."""
    out = FOLDER / f"{cell.name}-dev"
    evaluate(out)
    return dict(read_json(out / "classification.json"))


def looked_at(cell: Cell, data: Path) -> dict[str, Any]:
    """Return what `anomaly attention` says of the maps."""
    out = FOLDER / f"{cell.name}-dev"
    attention(out, data / "kermany_lung_masks/dev")
    return dict(read_json(out / "attention.json"))


def minus(one: Films, other: Films) -> dict[str, float]:
    """Return AUROC(one) - AUROC(other) on the same films."""
    if one.paths != other.paths:
        raise SystemExit("cells were scored on different films")
    found = paired_difference(one.labels, one.scores, other.scores, one.patients)
    return {"difference": found.difference, **bounds(found.interval)}


def shares(one: Cell, other: Cell) -> dict[str, Any]:
    """Return how the share of Grad-CAM inside the lungs differs between two cells, film by film, with an interval."""
    both = [_shares(FOLDER / f"{cell.name}-dev") for cell in (one, other)]
    common = sorted(set(both[0]) & set(both[1]))
    change = np.array([both[0][path] - both[1][path] for path in common])
    rng = np.random.default_rng(0)
    drawn = rng.choice(change, (2000, len(change))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"films": len(common), "difference": change.mean(), "low": low, "high": high}


def _shares(out: Path) -> dict[str, float]:
    with (out / "attention.csv").open(newline="", encoding="utf-8") as file:
        return {line["path"]: float(line["share"]) for line in csv.DictReader(file) if line["share"]}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", help="fit and score the cells of one recipe, and write nothing down")
    only = arguments.parse_args().only
    data = shared_data()
    imported_weights()
    if only:
        for cell in CELLS:
            if cell.recipe == only:
                cell.films(data)
        return
    found = {cell.name: told(cell, data) for cell in CELLS}
    films = {cell.name: cell.films(data) for cell in CELLS}
    figures: dict[str, Any] = {"cells": list(found.values())}
    figures["seeds"] = spread([found[cell.name]["row"]["auroc"] for cell in SEEDS])
    figures["augmentation"] = {
        str(off.seed): minus(films[on.name], films[off.name]) for on, off in zip(SEEDS, PLAIN, strict=False)
    }
    figures["inpaint"] = {
        "auroc": minus(films[INPAINT.name], films[MAIN]),
        "attention": shares(INPAINT, SEEDS[0]),
    }
    write_result("supervised", figures)


if __name__ == "__main__":
    main()
