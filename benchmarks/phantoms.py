"""Phantoms: learn from normal ones, score 400 unseen, half of them with a lesion; where does the map point?

    python benchmarks/phantoms.py --seeds 3

Prints AUROC with intervals for anogan, pixel-stats (on the films as anogan's recipe prepares them, not its own) and
the trivial statistics, paired differences, and the pointing-game rate of each map beside the mean-lesion-location prior
and the lesions' share of the lungs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import WORK, parser, spread, write_result
from numpy.typing import NDArray

from anomaly.config import Recipe, dump_recipe, load_recipe
from anomaly.evaluate.baselines import trivial_statistics
from anomaly.evaluate.intervals import paired_difference
from anomaly.evaluate.localise import hit_rates
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.prepare.geometry import to_film_points
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import Template, fit_template, small_copy, template_sample
from anomaly.prepare.source import ArraySource
from anomaly.records import Prepared, Scan
from anomaly.runs import RunRecorder, read_tensors, write_tensors, write_text
from anomaly.scans.phantom import make_phantom
from anomaly.workflows.fit import resolve
from anomaly.workflows.progress import PlainTicker

FOLDER = WORK / "phantoms"
TRAIN, TEST, TRAIN_SEED, TEST_SEED = 1200, 400, 100, 200


def films(name: str, count: int, seed: int, abnormal_from: int) -> dict[str, Any]:
    """Draw phantoms and prepare them as the anogan recipe does; kept on disk for the next run.

    The lungs' and lesions' outlines are brought onto the prepared squares.
    """
    path = FOLDER / f"{name}-films.npz"
    recipe = load_recipe("anogan")
    how = recipe.prepare.model_dump_json()
    if path.is_file():
        found = dict(np.load(path, allow_pickle=False))
        if str(found.pop("how")) != how:
            raise SystemExit(f"{path} was prepared with other settings: remove it to measure the recipe as it is now")
        return found
    preparation = _preparation(recipe)
    names = ("images", "inside", "lungs", "lesions", "labels", "kinds", "trivial")
    kept: dict[str, list[Any]] = {key: [] for key in names}
    ticker = PlainTicker()
    for index in range(count):
        phantom = make_phantom(index, seed=seed, abnormal=index >= abnormal_from)
        prepared = preparation(Scan(f"{name}-{index}", phantom.pixels, bits=16))
        whole = np.ones(prepared.image.shape[1:], np.bool_)
        kept["images"].append(prepared.image)
        kept["inside"].append(whole if prepared.inside is None else prepared.inside)
        kept["lungs"].append(_on_square(phantom.lung_mask, prepared))
        kept["lesions"].append(_on_square(phantom.lesion_mask, prepared))
        kept["labels"].append(int(index >= abnormal_from))
        kept["kinds"].append(phantom.lesion or "normal")
        kept["trivial"].append(list(trivial_statistics(phantom.pixels, 0).items()))
        ticker(index + 1, count, f"drawing {name}")
    told = [key for key, _ in kept["trivial"][0]]
    kept["trivial"] = [[value for _, value in row] for row in kept["trivial"]]
    arrays = {key: np.array(values) for key, values in kept.items()} | {"names": np.array(told)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays, how=np.array(how))
    return arrays


def _preparation(recipe: Recipe) -> Preparation:
    """Return the preparation, with the template of the training phantoms where films are registered."""
    preparation = Preparation(recipe.prepare, recipe.size)
    if not preparation.registers:
        return preparation
    path = FOLDER / "template.safetensors"
    if not path.is_file():
        drawn = (make_phantom(i, seed=TRAIN_SEED, abnormal=False) for i in template_sample(TRAIN))
        shrunk = (preparation.shrink(Scan(str(i), film.pixels, bits=16)) for i, film in enumerate(drawn))
        write_tensors(path, *fit_template(np.stack([small_copy(film.pixels) for film in shrunk])).to_entry())
    return preparation.with_template(Template.from_entry(*read_tensors(path)))


def _on_square(mask: NDArray[np.bool_], prepared: Prepared) -> NDArray[np.bool_]:
    """Return which pixels of the prepared square have their centre in a film's mask, bool (S, S)."""
    side = np.arange(prepared.geometry.size, dtype=np.float64)
    x, y = np.meshgrid(side, side)
    places = to_film_points(np.column_stack([x.ravel(), y.ravel()]), prepared.geometry)
    column, row = np.rint(places).astype(np.int64).T
    height, width = mask.shape
    seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    found = np.zeros(len(places), np.bool_)
    found[seen] = mask[row[seen], column[seen]]
    return found.reshape(len(side), len(side))


def scored(method: str, seed: int, train: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    """Fit a shipped recipe on the training phantoms and score the unseen ones; kept on disk."""
    folder = FOLDER / f"{method}-{seed}"
    path = folder / "scores.npz"
    recipe, detector = resolve(load_recipe(method, overrides=[f"seed={seed}"]))
    if (folder / "config.yaml").is_file() and load_recipe(None, folder / "config.yaml") != recipe:
        raise SystemExit(f"{folder} was fitted with other settings: remove it to measure the recipe as it is now")
    if path.is_file():
        return dict(np.load(path, allow_pickle=False))
    write_text(folder / "config.yaml", dump_recipe(recipe))
    recorder = RunRecorder(folder, resume=True, on_progress=PlainTicker())
    detector.fit(ArraySource(train["images"]), recorder=recorder)
    output = detector.score(test["images"], inside=test["inside"])
    arrays = {"scores": output.scores, "maps": output.heatmaps, **{f"term {k}": v for k, v in output.terms.items()}}
    np.savez_compressed(path, **arrays)
    return arrays


def pointing(maps: Any, test: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pointing-game table over the films whose lesion is visible on the square."""
    seen = [i for i in np.flatnonzero(test["labels"]) if test["lesions"][i].any()]
    rows = hit_rates([maps[i] for i in seen], [test["lesions"][i] for i in seen], [test["lungs"][i] for i in seen])
    return [
        {"name": row.name, "n": row.n, "rate": row.rate, "low": row.interval.low, "high": row.interval.high}
        for row in rows
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    chosen = arguments.parse_args()
    train = films("train", TRAIN, TRAIN_SEED, TRAIN)
    test = films("test", TEST, TEST_SEED, TEST // 2)
    labels, groups = test["labels"], np.arange(TEST)
    floor = scored("pixel-stats", 0, train, test)
    baselines = {str(name): test["trivial"][:, i] for i, name in enumerate(test["names"]) if name != "file_size"}
    runs = []
    for seed in range(chosen.seeds):
        ours = scored("anogan", seed, train, test)
        rows = evaluate_scores(
            labels, ours["scores"], groups, baselines={"pixel-stats": floor["scores"], **baselines}, name="anogan"
        )
        others = {"pixel-stats": floor["scores"]}
        for row in rows[2:]:
            others[row.name] = baselines[row.name] * (1.0 if row.direction == "higher" else -1.0)
        differences = {}
        for name, other in others.items():
            found = paired_difference(labels, ours["scores"], other, groups)
            differences[name] = {"difference": found.difference, "low": found.interval.low, "high": found.interval.high}
        kinds = {}
        for kind in ("consolidation", "nodule", "effusion"):
            part = (labels == 0) | (test["kinds"] == kind)
            row = evaluate_scores(labels[part], ours["scores"][part], groups[part])[0]
            interval = row.auroc_interval
            assert interval is not None
            kinds[kind] = {"n": row.n_abnormal, "auroc": row.auroc, "low": interval.low, "high": interval.high}
        runs.append(
            {
                "seed": seed,
                "rows": to_dicts(rows),
                "minus": differences,
                "by_kind": kinds,
                "pointing": pointing(ours["maps"], test),
            }
        )
        print(f"seed {seed}: AUROC {rows[0].auroc:.3f}, pixel-stats {rows[1].auroc:.3f}, {differences}", flush=True)
        print(runs[-1]["pointing"], kinds, flush=True)
    write_result(
        "phantoms",
        {
            "train_normals": TRAIN,
            "test": {"normal": TEST // 2, "abnormal": TEST // 2},
            "anogan_auroc": spread([run["rows"][0]["auroc"] for run in runs]),
            "pixel_stats_pointing": pointing(floor["maps"], test),
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
