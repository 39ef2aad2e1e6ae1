"""How the atlas fares with few normals, and at a site it was not fitted for, before and after `anomaly calibrate`.

    OMP_NUM_THREADS=1 python benchmarks/atlas_transfer.py

Sizes: whole patients drawn at random from the train normals, three draws of each size, a larger one holding all but
the last few films of a smaller; the recipe as shipped, so that a fifth of them is held out for calibration and the
template is made of the rest. Transfer: fitted on children and scored on adults, and the reverse; recalibrated with 100
normals of the other site, three draws. False alarms are counted on that site's dev normals and on 200 more of its
train normals, which were neither fitted to nor calibrated on. Goes through the workflows of `anomaly fit`, `score` and
`calibrate`; shares the runs of atlas.py and keeps its own beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from atlas_runs import DEV, FOLDER, TESTS, TRAIN, Films, bounds, fitted, manifest, scored
from common import parser, shared_data, spread, write_result

from anomaly.config import load_recipe
from anomaly.evaluate.intervals import wilson
from anomaly.evaluate.table import evaluate_scores, to_dicts
from anomaly.records import Int64, ScanFile
from anomaly.runs import read_json
from anomaly.scans.walk import list_scans
from anomaly.workflows.progress import PlainTicker
from anomaly.workflows.recalibrate import recalibrate
from anomaly.workflows.results import flags

SIZES = (50, 100, 200, 400, 800)
SEEDS = (0, 1, 2)
ALPHA = 0.05
LOCAL, FURTHER = 100, 200
"""Normals of the other site to calibrate on, and to count false alarms on."""
SITES = (("kermany", "rsna"), ("rsna", "kermany"))


def draw(files: Sequence[ScanFile], count: int, seed: int) -> list[ScanFile]:
    """Draw `count` films, patients whole, in an order that the seed alone decides; one too many is passed over."""
    patients = [file.patient or file.scan_id for file in files]
    order = np.random.default_rng(seed).permutation(sorted(set(patients)))
    films: dict[str, list[ScanFile]] = {}
    for patient, file in zip(patients, files, strict=True):
        films.setdefault(patient, []).append(file)
    drawn: list[ScanFile] = []
    for patient in order:
        if len(drawn) + len(films[patient]) <= count:
            drawn += films[patient]
        if len(drawn) == count:
            return drawn
    raise SystemExit(f"only {len(drawn)} of {count} films to be drawn")


def aurocs(films: Films, data_set: str, *, registered_only: bool = False) -> dict[str, Any]:
    """Return AUROC and its interval for each test of a set, of all its films or of those that could be registered."""
    found = {}
    for name, folders in TESTS[data_set].items():
        at = films.where(folders)
        at = at[films.registered[at]] if registered_only else at
        row = evaluate_scores(films.labels[at], films.scores[at], [films.patients[i] for i in at])[0]
        found[name] = {key: value for key, value in to_dicts([row])[0].items() if key.startswith(("n_", "auroc"))}
    return found


def alarms(films: Films, at: Int64) -> dict[str, Any]:
    """Count the normals at these places that are flagged at alpha 0.05."""
    flagged = sum(flags(float(p), ALPHA) for p in films.p_values[at])
    return {"flagged": flagged, "normals": len(at), "rate": flagged / len(at), **bounds(wilson(flagged, len(at)))}


def sizes(data_set: str, data: Path) -> list[dict[str, Any]]:
    """Fit on ever more normals of a set and score its dev films."""
    normals = list_scans(data / TRAIN[data_set]).files
    rows = []
    for size in (*SIZES, len(normals)):
        runs = []
        for seed in SEEDS if size < len(normals) else (None,):
            run = FOLDER / (f"{data_set}-atlas" if seed is None else f"sizes/{data_set}-{size}-{seed}")
            scans = data / TRAIN[data_set]
            if seed is not None:
                scans = manifest(run.with_name(f"{run.name}.csv"), draw(normals, size, seed))
            fitted(run, scans, load_recipe("atlas"))
            panels = None if seed is None else 0  # as atlas.py keeps them
            films = scored(run.with_name(f"{run.name}-dev"), data / DEV[data_set], run, panels=panels)
            told = read_json(run / "receipt.json")
            normal = np.flatnonzero(films.labels == 0)
            facts = {"seed": seed, "trained": told["trained"], "held_out": told["held_out"]}
            runs.append({**facts, "tests": aurocs(films, data_set), "false_alarms": alarms(films, normal)})
        tests = {name: spread([run["tests"][name]["auroc"] for run in runs]) for name in TESTS[data_set]}
        rows.append({"normals": size, "auroc": tests, "runs": runs})
        print(data_set, size, {name: round(found["mean"], 3) for name, found in tests.items()}, flush=True)
    return rows


def transfer(home: str, away: str, data: Path) -> dict[str, Any]:
    """Score another site's films with a model of `home`, before and after calibrating it there."""
    run = fitted(FOLDER / f"{home}-atlas", data / TRAIN[home], load_recipe("atlas"))
    at_home = scored(FOLDER / f"{home}-atlas-dev", data / DEV[home], run, panels=None)
    dev, normals = list_scans(data / DEV[away]).files, list_scans(data / TRAIN[away]).files
    draws = []
    for seed in SEEDS:
        local = draw(normals, LOCAL, seed)
        known = {file.patient or file.scan_id for file in local}
        further = draw([file for file in normals if (file.patient or file.scan_id) not in known], FURTHER, seed)
        place = FOLDER / "transfer" / f"{home}-{away}-{seed}"
        if not (place / "model" / "model.json").is_file():
            listed = manifest(FOLDER / f"transfer/{place.name}-local.csv", local)
            recalibrate(run, listed, place, overwrite=place.exists(), on_progress=PlainTicker())
        films = manifest(FOLDER / f"transfer/{place.name}-films.csv", [*dev, *further])
        before, after = (
            scored(FOLDER / f"transfer/{place.name}-{when}", films, model)
            for when, model in (("before", run), ("after", place))
        )
        told = {"before": away_figures(before, away), "after": away_figures(after, away)}
        draws.append({"seed": seed, **told, "scores_unchanged": bool(np.array_equal(before.scores, after.scores))})
        for when in ("before", "after"):
            print(f"{home} to {away}, draw {seed}, {when}:", told[when]["false_alarms"], flush=True)
    alarms_at_home = alarms(at_home, np.flatnonzero(at_home.labels == 0))
    return {
        "at_home": {"tests": aurocs(at_home, home), "false_alarms": {"dev normals": alarms_at_home}},
        "calibrated_on": LOCAL,
        "draws": draws,
    }


def away_figures(films: Films, away: str) -> dict[str, Any]:
    """Return what a model makes of another site: AUROC on dev, false alarms on dev normals and on further ones."""
    inside = [path.partition(f"/{DEV[away]}/")[2] for path in films.paths]
    on_dev = np.array([path != "" for path in inside])
    places = {
        "dev normals": np.flatnonzero(on_dev & (films.labels == 0)),
        "further train normals": np.flatnonzero(~on_dev),
    }
    dev = replace(films, paths=inside)
    return {
        "tests": aurocs(dev, away),
        "tests_of_registered": aurocs(dev, away, registered_only=True),
        "false_alarms": {name: alarms(films, at) for name, at in places.items()},
        "not_registered": {
            name: f"{int((~films.registered[at]).sum())} of {len(at)}"
            for name, at in {**places, "dev abnormals": np.flatnonzero(on_dev & (films.labels == 1))}.items()
        },
    }


def main() -> None:
    parser(__doc__).parse_args()
    data = shared_data()
    figures = {
        "transfer": {f"{home} to {away}": transfer(home, away, data) for home, away in SITES},
        "sizes": {data_set: sizes(data_set, data) for data_set in TRAIN},
    }
    note = "calibration leaves scores alone, and so AUROC, by construction: only p-values and the heat's scale change"
    write_result("atlas_transfer", {"alpha": ALPHA, "note": note, **figures})


if __name__ == "__main__":
    main()
