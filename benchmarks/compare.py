"""The table: seven recipes, a floor and the trivial baselines on Kermany dev and RSNA dev, with `anomaly compare`.

    python benchmarks/compare.py
    python benchmarks/compare.py --only rsna

Kermany with three seeds, RSNA with one. RSNA's train split holds normals alone, so the supervised recipe fails there
and its line says so. Cells are kept in build/benchmarks/compare and not fitted again; a run that was interrupted goes
on. On 2 cores some three hours, most of them the trainings of anogan, anogan-2017 and mobilenet_v2.
"""

from __future__ import annotations

from typing import Any

from common import WORK, parser, shared_data, write_result
from frozen_runs import imported_weights

from anomaly.workflows.compare.run import Plan, compare
from anomaly.workflows.progress import PlainTicker

FOLDER = WORK / "compare"
RECIPES = (
    *("pixel-stats", "atlas", "padim", "patchcore", "feature-gaussian"),
    *("mobilenet_v2", "anogan", "anogan-2017"),
)
SETS = {"kermany": ("kermany", 3), "rsna": ("rsna_adult", 1)}
"""Folder of the shared films, and seeds."""


def told(name: str, seeds: int) -> dict[str, Any]:
    """Compare the recipes on a set, or go on with it, and return comparison.json with how long all cells took."""
    out = FOLDER / name
    found = compare(
        shared_data() / SETS[name][0],
        out,
        RECIPES,
        seeds=seeds,
        resume=out.exists(),
        offline=True,
        say=lambda text: print(text, flush=True),
        on_progress=PlainTicker(),
    )
    if isinstance(found, Plan):
        raise TypeError("a comparison that is not dry gives no plan")
    costs = [(entry.cost, len(entry.seeds)) for entry in found.entries if entry.cost is not None]
    films = found.table.n_normal + found.table.n_abnormal
    seconds = sum(n * (cost.fit_seconds + films * cost.seconds_per_image) for cost, n in costs)
    return {"set": name, "cells_seconds": seconds, **found.to_dict()}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--only", choices=SETS, help="one set alone")
    arguments.add_argument("--seeds", type=int, help="of every recipe, in place of the set's own number")
    given = arguments.parse_args()
    imported_weights()
    for name in [given.only] if given.only else SETS:
        write_result(f"compare_{name}", told(name, given.seeds or SETS[name][1]))


if __name__ == "__main__":
    main()
