"""`fit --lungs`: a U-Net inside any method's preparation, and inside its model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from running import FLOOR, anomaly, table

from anomaly.scans.phantom import write_phantoms
from anomaly.workflows.model import load_model
from anomaly.workflows.panels import load_panel

FEW = ("--set", "calibration.minimum=8")
UNET = {
    "backbone_weights": "none",
    "encoder": "resnet18",
    "decoder_channels": (32, 16, 16, 8, 8),
    "epochs": 5,
    "batch": 4,
    "learning_rate": 3e-3,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lungs") / "films"
    write_phantoms(folder, n=24, abnormal=4)
    return folder


@pytest.fixture(scope="module")
def lungs(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of a U-Net on lungs."""
    run = tmp_path_factory.mktemp("lungs") / "unet"
    changes = [f"detector.{name}={json.dumps(value)}" for name, value in UNET.items()]
    words = [word for change in ("size=32", *changes) for word in ("--set", change)]
    ran = anomaly("segment", "fit", films, "--masks", films / "lung_masks", *words, "-o", run)
    assert ran.code == 0, ran.err
    return run


Fitted = Callable[[str], Path]


@pytest.fixture(scope="module")
def fitted(films: Path, lungs: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Return a function that gives a run folder for `prepare.lungs`, never written to; its U-Net is gone since."""

    @cache
    def run_of(how: str) -> Path:
        folder = tmp_path_factory.mktemp(how)
        mine = shutil.copytree(lungs, folder / "mine")
        words = ("--normal-only", *FLOOR, *FEW, "--set", f"prepare.lungs={how}", "--lungs", mine)
        ran = anomaly("fit", films, *words, "-o", folder / "run")
        assert ran.code == 0, ran.err
        shutil.rmtree(mine)
        return folder / "run"

    return run_of


@pytest.mark.parametrize("how", ["mask", "crop"])
def test_lungs_are_found_for_any_method_and_travel_inside_its_model(
    how: str, films: Path, fitted: Fitted, tmp_path: Path
) -> None:
    out, moved = tmp_path / "out", shutil.copytree(fitted(how), tmp_path / "moved")
    assert anomaly("score", films / "abnormal", "-m", moved, "-o", out, "--panels", "all").code == 0
    rows = table(out)
    assert all(row["status"] == "scored" for row in rows.values())
    panel = load_panel(next((out / "panels").iterdir()))
    if how == "mask":
        assert 0.05 < (panel.prepared > 0).mean() < 0.9
        assert not panel.heatmap[panel.prepared == 0].any()
    else:
        assert panel.geometry.matrix[0, 0] < panel.film.shape[1] / panel.geometry.size
    facts = json.loads((moved / "model" / "model.json").read_text(encoding="utf-8"))
    assert "lungs/weights.safetensors" in facts["sha256"]
    assert facts["data"]["lungs_sha256"] == facts["sha256"]["lungs/weights.safetensors"]
    weights = moved / "model" / "lungs" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    again = anomaly("score", films / "abnormal", "-m", moved, "-o", tmp_path / "again")
    assert again.code == 5
    assert "damaged" in again.err


def test_a_film_gives_the_same_whatever_films_are_scored_with_it(films: Path, fitted: Fitted, tmp_path: Path) -> None:
    run = fitted("mask")
    some = sorted((films / "abnormal").iterdir())
    alone = load_model(run).preparation.find_lungs
    assert alone is not None
    pixels = np.full((64, 64), 120, np.uint8)
    np.testing.assert_array_equal(alone(pixels), alone(pixels))
    assert anomaly("score", films / "abnormal", "-m", run, "-o", tmp_path / "all").code == 0
    assert anomaly("score", some[1], "-m", run, "-o", tmp_path / "one").code == 0
    together, single = table(tmp_path / "all"), table(tmp_path / "one")
    assert single[some[1].name]["score"] == together[some[1].name]["score"]


def test_a_recipe_that_wants_lungs_and_a_unet_that_nothing_wants_are_refused(
    films: Path, lungs: Path, model: Path, tmp_path: Path
) -> None:
    wanted = ("fit", films, "--normal-only", *FLOOR, "-o", tmp_path / "run")
    ran = anomaly(*wanted, "--set", "prepare.lungs=mask")
    assert ran.code == 2
    assert "add --lungs RUN" in ran.err
    ran = anomaly(*wanted, "--lungs", lungs)
    assert ran.code == 2
    assert "prepare.lungs=mask" in ran.err
    ran = anomaly(*wanted, "--set", "prepare.lungs=mask", "--lungs", model)
    assert ran.code == 5
    assert not (tmp_path / "run").exists()
