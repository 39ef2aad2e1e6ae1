"""Does it help to show a detector the lungs alone? Whole, masked and cropped films, for every kind of detector.

    python benchmarks/lungs_input.py
    python benchmarks/lungs_input.py --only atlas

Fits atlas, patchcore, mobilenet_v2 (supervised) and anogan on Kermany's train split with `prepare.lungs` none, mask and
crop, one seed, and compares AUROC on the same films of dev, patients resampled together. The U-Net is the one that
benchmarks/unet.py trains. atlas and anogan register films, which a crop to the lungs excludes: cropped, they go
unregistered, and the line says so. Cells are kept in build/benchmarks/lungs_input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas_runs import Films, bounds, scored
from common import WORK, parser, shared_data, write_result
from frozen_runs import imported_weights

from anomaly.config import Recipe, load_recipe
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.runs import read_json
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.progress import PlainTicker

FOLDER = WORK / "lungs_input"
UNET = WORK / "unet" / "lungs"
INPUTS = ("none", "mask", "crop")
SUPERVISED = ("mobilenet_v2",)
REGISTERED = ("atlas", "anogan")
RECIPES = ("atlas", "patchcore", "mobilenet_v2", "anogan")


@dataclass(frozen=True, slots=True)
class Cell:
    """One recipe on one kind of input."""

    recipe: str
    lungs: str

    @property
    def registered(self) -> bool:
        """Whether films are registered."""
        return self.recipe in REGISTERED and self.lungs != "crop"

    @property
    def run(self) -> Path:
        """Where it is fitted."""
        return FOLDER / f"{self.recipe}-{self.lungs}"

    def settings(self) -> Recipe:
        """Return the recipe with every setting written out."""
        changes = [f"prepare.lungs={self.lungs}"]
        if self.recipe in REGISTERED and not self.registered:
            changes.append("prepare.register=none")
        return resolve(load_recipe(self.recipe, overrides=changes))[0]

    def films(self, data: Path) -> Films:
        """Fit and score, unless that is done, and return the scored films of dev."""
        run, recipe = self.run, self.settings()
        if (run / "config.yaml").is_file() and load_recipe(None, run / "config.yaml") != recipe:
            raise SystemExit(f"{run} was fitted with other settings: remove it to measure the recipe as it is now")
        if not (run / "model" / "model.json").is_file():
            fit(
                data / "kermany/train",
                run,
                recipe,
                normal_only=self.recipe not in SUPERVISED,
                lungs=UNET if self.lungs != "none" else None,
                resume=run.exists(),
                on_progress=PlainTicker(),
            )
        films = scored(run.with_name(f"{run.name}-dev"), data / "kermany/dev", run)
        print(f"{run.name}: done", flush=True)
        return films


def told(recipe: str, data: Path) -> dict[str, Any]:
    """Return a recipe's row on each kind of input, and what masked and cropped add to whole."""
    films = {lungs: Cell(recipe, lungs).films(data) for lungs in INPUTS}
    whole = films["none"]
    figures: dict[str, Any] = {"rows": {}, "minus_whole": {}}
    for lungs, found in films.items():
        if found.paths != whole.paths:
            raise SystemExit("cells were scored on different films")
        row = to_dicts(evaluate_scores(found.labels, found.scores, found.patients, name=recipe))[0]
        cell = Cell(recipe, lungs)
        receipt = read_json(cell.run / "receipt.json")
        cost = {"trained_on": receipt["trained"], "seconds": receipt["seconds"]}
        figures["rows"][lungs] = {"row": row, "registered": cell.registered, **cost}
        if lungs != "none":
            apart = paired_difference(found.labels, found.scores, whole.scores, found.patients)
            figures["minus_whole"][lungs] = {"difference": apart.difference, **bounds(apart.interval)}
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", choices=RECIPES, help="fit and score one recipe's cells, and write nothing down")
    only = arguments.parse_args().only
    data = shared_data()
    imported_weights()
    if not (UNET / "model" / "model.json").is_file():
        raise SystemExit("run benchmarks/unet.py first: its U-Net finds the lungs")
    if only:
        told(only, data)
        return
    figures: dict[str, Any] = {}
    for recipe in RECIPES:
        figures[recipe] = told(recipe, data)
        write_result("lungs_input", figures)


if __name__ == "__main__":
    main()
