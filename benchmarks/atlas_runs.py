"""What the benchmarks of the atlas share: runs kept in build/benchmarks/atlas/, and their scored films as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import WORK
from numpy.typing import NDArray

from anomaly.config import Recipe, load_recipe
from anomaly.evaluate.baselines import softness
from anomaly.evaluate.intervals import Interval
from anomaly.prepare.register import NOT_REGISTERED
from anomaly.records import Float64, Int64, ScanFile
from anomaly.runs import read_json, write_table
from anomaly.workflows.fit import fit, resolve
from anomaly.workflows.journal import read_journal
from anomaly.workflows.panels import load_panel
from anomaly.workflows.progress import PlainTicker
from anomaly.workflows.results import read_scores
from anomaly.workflows.score import score

FOLDER = WORK / "atlas"
TRAIN = {"kermany": "kermany/train/NORMAL", "rsna": "rsna_adult/train/normal"}
DEV = {"kermany": "kermany/dev", "rsna": "rsna_adult/dev"}
TESTS = {
    "kermany": {"pneumonia": ("NORMAL", "PNEUMONIA")},
    "rsna": {
        "lung opacity": ("normal", "lung_opacity"),
        "all abnormal": ("normal", "lung_opacity", "abnormal_no_opacity"),
    },
}
"""What is told from what: for each set the class folders of dev that take part, the normal one first."""


@dataclass(frozen=True, slots=True)
class Films:
    """Scored films in the order of their paths, N of them; `trivial` is the nuisances' and baselines' table."""

    out: Path
    ids: list[str]
    paths: list[str]
    labels: Int64
    scores: Float64
    p_values: Float64
    patients: list[str]
    terms: dict[str, Float64]
    file_size: Float64
    kinds: list[str]
    registered: NDArray[np.bool_]

    def where(self, folders: tuple[str, ...]) -> Int64:
        """Return the places of the films that lie in one of these class folders."""
        return np.flatnonzero([path.partition("/")[0] in folders for path in self.paths])

    def softness(self) -> Float64:
        """Return the softness of each film as the model prepared it; the run has every panel."""
        panels = (load_panel(self.out / "panels" / f"{scan_id}.npz") for scan_id in self.ids)
        return np.array([softness(panel.prepared / np.float32(255.0)) for panel in panels])


def fitted(run: Path, scans: Path, recipe: Recipe) -> Path:
    """Fit a recipe on normals unless that is done already; return the run."""
    recipe, _ = resolve(recipe)
    if (run / "config.yaml").is_file() and load_recipe(None, run / "config.yaml") != recipe:
        raise SystemExit(f"{run} was fitted with other settings: remove it to measure the recipe as it is now")
    if not (run / "model" / "model.json").is_file():
        fit(scans, run, recipe, normal_only=True, resume=run.exists(), on_progress=PlainTicker())
    return run


def scored(out: Path, scans: Path, run: Path, *, panels: int | None = 0, split: str | None = None) -> Films:
    """Score films unless that is done already; return what was found."""
    if not (out / "receipt.json").is_file() or read_json(out / "receipt.json")["status"] != "done":
        score(scans, run, out, panels=panels, split=split, resume=out.exists(), on_progress=PlainTicker())
    rows = sorted((line.row for line in read_scores(out)), key=lambda row: row.path)
    journal = read_journal(out)
    failed = [row.path for row in rows if row.score is None]
    if failed:
        raise SystemExit(f"{out}: {len(failed)} films could not be scored, {failed[0]} for one")
    return Films(
        out,
        [row.scan_id for row in rows],
        [row.path for row in rows],
        np.array([-1 if row.label is None else row.label for row in rows]),
        np.array([row.score for row in rows], dtype=np.float64),
        np.array([row.p_value for row in rows], dtype=np.float64),
        [row.patient or row.scan_id for row in rows],
        {name: np.array([row.terms[name] for row in rows]) for name in rows[0].terms},
        np.array([journal[row.scan_id]["trivial"]["file_size"] for row in rows]),
        [row.extra.get("kind", "") for row in rows],
        np.array([not any(w.startswith(NOT_REGISTERED) for w in row.warnings) for row in rows]),
    )


def manifest(path: Path, files: Sequence[ScanFile]) -> Path:
    """Write a manifest of some films, with the labels and patients their folder gives them; return its path."""
    rows = [[file.path, "" if file.label is None else file.label, file.patient or ""] for file in files]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, [["path", "label", "patient"], *rows])
    return path


def bounds(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}
