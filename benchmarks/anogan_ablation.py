"""What each part of anogan is worth: one training a cell, and everything that can be read off it without another.

    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py --train kermany-default
    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py --train all
    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py --train rsna-default --steps 12000
    OMP_NUM_THREADS=1 python benchmarks/anogan_ablation.py

`--train` trains one cell, or one after the other all that are missing, and stops; several processes may train different
cells at the same time, and each goes on from its last checkpoint. Without it everything is measured that has been
trained, what matters most first, and the result is written after each part. What is measured already is kept
(`anogan_kept.py`); what is not trained is told as missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from anogan_cells import beside_clahe, cell_figures, differences
from anogan_controls import atlas_weights, beside, components, directions, leave_one_out, starts, swaps
from anogan_films import films, split
from anogan_kept import kept
from anogan_runs import CELLS, SETS, Run
from common import parser, write_result
from registered import TASKS

from anomaly.records import Float64

RSNA = ("default", "no-clahe", "unregistered", "game-alone", "untrained")
"""Cells that are trained on adults too."""
EXTRA = ("kermany-default-seed1", "kermany-default-seed2", "kermany-anogan-2017")
"""Trainings beside the cells, for anogan_default.py."""
READ_OFF: dict[str, Callable[[Run], Any] | None] = {
    "swaps": swaps,
    "leave_one_out": leave_one_out,
    "beside": beside,
    "clahe": None,
    "starts": starts,
    "components": components,
    "directions": directions,
}
"""What is read off the default cell of each set, in the order it is measured in; CLAHE off two cells' scores."""
LONGER = 12_000
"""Steps of the default's training that is measured beside its own, where it was trained with `--steps`."""
NOT, NOT_YET = "not trained yet", "trained, but not measured yet"


def cells() -> list[str]:
    """Return every SET-CELL."""
    return [f"kermany-{cell}" for cell in CELLS] + [f"rsna-{cell}" for cell in RSNA]


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
    runs = {name: Run.parse(name, chosen.steps) for name in cells()}
    told: dict[str, Any] = {
        "data": "Kermany dev and RSNA dev; fitted to a part of each set's train normals",
        "films": {name: {part: len(at) for part, at in split(name).items()} for name in SETS},
        "tasks": {task: list(classes) for own in TASKS.values() for task, classes in own.items()},
        "steps": chosen.steps,
        "seed": 0,
        "tuned_on": "dev: settings of search and score were chosen on these films, so these figures flatter",
        "cells": {name: {"missing": NOT_YET if run.trained else run.failed or NOT} for name, run in runs.items()},
        **{part: {} for part in READ_OFF},
        "longer": {},
    }
    scores: dict[str, Float64] = {}
    for name in sorted((name for name, run in runs.items() if run.trained), key=_importance):
        told["cells"][name], scores[name] = measured(runs[name], scores)
        write_result("anogan_ablation", told)
    for part, measure in READ_OFF.items():
        for data_set in SETS:
            default, plain = (f"{data_set}-{cell}" for cell in ("default", "no-clahe"))
            if default not in scores or (measure is None and plain not in scores):
                continue
            run = runs[default]
            if measure is None:
                told[part][data_set] = beside_clahe(run, scores[default], scores[plain])
            else:
                others = atlas_weights(run) if measure is beside else []
                told[part][data_set] = kept(part, run, measure, others)
            write_result("anogan_ablation", told)
    for data_set in SETS:
        run = Run(data_set, "default", steps=LONGER)
        if chosen.steps is None and f"{data_set}-default" in scores and run.trained:
            told["longer"][data_set], _ = measured(run, scores)
            told["longer"][data_set]["swaps"] = kept("swaps", run, swaps)
            write_result("anogan_ablation", told)


def measured(run: Run, scores: dict[str, Float64]) -> tuple[dict[str, Any], Float64]:
    """Return the figures of a cell, beside the default if that has its scores already, and the scores of its dev."""
    figures = kept("cell", run, cell_figures)
    own = np.array(figures.pop("dev_scores"))
    default = scores.get(f"{run.data_set}-default")
    if default is not None:
        dev = films(run.data_set, "dev", run.recipe)
        figures["default_minus_it"] = differences(run.data_set, dev, default, own)
    return figures, own


def _importance(name: str) -> int:
    """Return a cell's place in the order of measuring: both sets' default first."""
    return list(CELLS).index(name.partition("-")[2])


if __name__ == "__main__":
    main()
