"""What each part of anogan is worth: one training a cell, and everything that can be read off it without another.

    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py --train kermany-default
    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py --train all
    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py

`--train` trains one cell, or one after the other all that are missing, and stops; several processes may train different
cells at the same time, and each goes on from its last checkpoint. Without it everything is measured that has been
trained. What is measured already is kept in build/benchmarks/anogan/parts for as long as the settings stay as they
are: remove that folder after a change to the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from anogan_cells import beside_clahe, cell_figures, differences
from anogan_controls import beside, components, directions, starts, swaps
from anogan_films import FOLDER, films, split
from anogan_runs import CELLS, SETS, Run
from common import parser, write_result
from registered import TASKS

from anomaly.records import Float64
from anomaly.runs import read_json, sha256_of, write_json

RSNA = ("default", "no-clahe", "unregistered", "game-alone", "untrained")
"""Cells that are trained on adults too."""
EXTRA = ("kermany-default-seed1", "kermany-default-seed2", "kermany-anogan-2017")
"""Trainings beside the cells, for anogan_default.py."""
READ_OFF: dict[str, Callable[[Run], Any]] = {
    "starts": starts,
    "components": components,
    "directions": directions,
    "swaps": swaps,
    "beside": beside,
}
"""What is read off the default cell of each set."""


def cells() -> list[str]:
    """Return every SET-CELL."""
    return [f"kermany-{cell}" for cell in CELLS] + [f"rsna-{cell}" for cell in RSNA]


def kept(name: str, run: Run, measure: Callable[[Run], Any]) -> Any:
    """Return figures, measured unless that was done with these networks and settings."""
    path = FOLDER / "parts" / f"{run.folder.name}-{name}.json"
    of = {"model": sha256_of(run.weights), "recipe": run.recipe.model_dump(mode="json")}
    if path.is_file() and (told := read_json(path))["of"] == of:
        return told["figures"]
    figures = measure(run)
    write_json(path, {"of": of, "figures": figures})
    print(f"{run.folder.name}: {name} measured", flush=True)
    return figures


def measured(names: list[str], steps: int | None) -> tuple[dict[str, Any], dict[str, Float64]]:
    """Return the figures of each cell, or why there are none, and the scores of its dev films."""
    figures: dict[str, Any] = {}
    scores: dict[str, Float64] = {}
    for name in names:
        run = Run.parse(name, steps)
        if run.trained:
            figures[name] = kept("cell", run, cell_figures)
            scores[name] = np.array(figures[name].pop("dev_scores"))
        else:
            figures[name] = {"missing": run.failed or "not trained yet"}
    for name, own in scores.items():
        run = Run.parse(name, steps)
        default = f"{run.data_set}-default"
        if name != default and default in scores:
            dev = films(run.data_set, "dev", run.recipe)
            figures[name]["default_minus_it"] = differences(run.data_set, dev, scores[default], own)
    return figures, scores


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--train", metavar="SET-CELL", help="train this cell and stop, such as rsna-no-clahe, or all"
    )
    arguments.add_argument("--steps", type=int, help="of the default's training; other cells and stages in proportion")
    chosen = arguments.parse_args()
    if chosen.train:
        for name in [*cells(), *EXTRA] if chosen.train == "all" else [chosen.train]:
            Run.parse(name, chosen.steps).train()
        return
    of_cells, scores = measured(cells(), chosen.steps)
    figures: dict[str, Any] = {"cells": of_cells}
    for data_set in SETS:
        name, plain = f"{data_set}-default", f"{data_set}-no-clahe"
        if name in scores:
            default = Run.parse(name, chosen.steps)
            for part, measure in READ_OFF.items():
                figures.setdefault(part, {})[data_set] = kept(part, default, measure)
            if plain in scores:
                figures.setdefault("clahe", {})[data_set] = beside_clahe(default, scores[name], scores[plain])
    told = {
        "data": "Kermany dev and RSNA dev; fitted to a part of each set's train normals",
        "films": {name: {part: len(at) for part, at in split(name).items()} for name in SETS},
        "tasks": {task: list(classes) for own in TASKS.values() for task, classes in own.items()},
        "steps": chosen.steps,
        "seed": 0,
        "tuned_on": "dev: settings of search and score were chosen on these films, so these figures flatter",
    }
    write_result("anogan_ablation", {**told, **figures})


if __name__ == "__main__":
    main()
