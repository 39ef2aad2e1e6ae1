"""Colour from the command line: a classifier and a method that sees normals alone on phantoms of skin, end to end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import anomaly, table

from anomaly.heatmaps import _HEADER, _MARGIN
from anomaly.scans.phantom_skin import write_skin_phantoms
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans
from anomaly.workflows.draw import enlarged, heat_scale
from anomaly.workflows.model import load_model
from anomaly.workflows.panels import load_panel
from anomaly.workflows.predictions import read_predictions

COLOUR = ("size=64", "prepare.channels=3", "prepare.clahe=false", "detector.backbone_weights=none")
SETTINGS = {
    "mobilenet_v2": (
        *("detector.arch=test_resnet", "detector.precision=fp32", "detector.batch=8", "detector.augment=false"),
        *("detector.epochs=15", "detector.step_epochs=10", "detector.patience=15", "detector.frozen_epochs=0"),
        *("detector.learning_rate=3e-3", "detector.backbone_rate=1"),
    ),
    "padim": ("detector.features=30",),
}
"""Of each recipe; the first is a classifier, the other sees normals alone."""
PICTURES = 8


@dataclass(frozen=True)
class Scored:
    """A method fitted on pictures of skin: its run folder, and its results on pictures it has not seen."""

    name: str
    run: Path
    out: Path


@pytest.fixture(scope="module")
def skin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return pictures of 64 moles, half of them melanomas, and in `unseen` of 24 others, as HAM10000 lies on disk."""
    folder = tmp_path_factory.mktemp("skin")
    write_skin_phantoms(folder / "train", n=64, abnormal=32)
    write_skin_phantoms(folder / "unseen", n=24, abnormal=12, seed=1)
    return folder


@pytest.fixture(scope="module", params=SETTINGS)
def scored(request: pytest.FixtureRequest, skin: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Return a method fitted and scored; never written to but by `evaluate`."""
    folder = tmp_path_factory.mktemp(request.param)
    words = [word for setting in (*COLOUR, *SETTINGS[request.param]) for word in ("--set", setting)]
    words += ["--normal-only"] if request.param == "padim" else []
    ran = anomaly("fit", skin / "train", "-d", request.param, *words, "-o", folder / "run")
    assert ran.code == 0, ran.err
    ran = anomaly("score", skin / "unseen", "-m", folder / "run", "-o", folder / "out", "--panels", f"top:{PICTURES}")
    assert ran.code == 0, ran.err
    assert "24 scored" in ran.out
    return Scored(request.param, folder / "run", folder / "out")


def test_a_model_of_colour_pictures_has_three_channels(scored: Scored, skin: Path) -> None:
    model = load_model(scored.run)
    assert model.facts.prepare.channels == 3
    first = read_scan(list_scans(skin / "unseen").files[0], channels=3)
    image = model.preparation(first).image
    assert image.shape == (3, 64, 64)
    grey = np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0)
    in_colour, without = model.detector.score(np.stack([image, grey])).scores
    assert in_colour != without, "it looks at the colours"


def test_melanomas_it_has_not_seen_score_higher(scored: Scored) -> None:
    rows = table(scored.out)
    assert all(np.isfinite(float(row["score"])) for row in rows.values())
    assert not any("colour" in row["warnings"] for row in rows.values()), "colour is what it was fitted on"
    assert anomaly("evaluate", scored.out).code == 0
    found = json.loads((scored.out / "evaluation.json").read_text(encoding="utf-8"))
    ours = found["rows"][0]
    assert (ours["n_normal"], ours["n_abnormal"]) == (12, 12)
    assert ours["auroc"] > 0.75
    if scored.name == "mobilenet_v2":
        assert found["classification"]["accuracy"] > 0.65
        told = read_predictions(scored.out)
        assert {tuple(row.probabilities) for row in told} == {("nv", "mel")}
        assert {row.class_name for row in told} == {"nv", "mel"}
        assert all(sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5) for row in told)


def test_heat_lies_over_pictures_in_colour(scored: Scored) -> None:
    scale, seen, hidden = heat_scale(scored.out), 0, 0
    for row in list(table(scored.out).values())[:PICTURES]:
        panel = enlarged(load_panel(scored.out / "panels" / f"{row['scan_id']}.npz"))
        heat = panel.heat_on_film()
        assert panel.film.shape == (*heat.shape, 3)
        assert np.ptp(panel.film.astype(int), axis=2).mean() > 20, "skin is not grey"
        page = np.asarray(Image.open(scored.out / row["heatmap"]))
        shown = page[_HEADER : _HEADER + heat.shape[0], _MARGIN : _MARGIN + heat.shape[1]]
        np.testing.assert_array_equal(shown[heat <= scale.low], panel.film[heat <= scale.low])
        hot = scale.level(heat) > 0.2
        hidden += np.all(shown[hot] == panel.film[hot], axis=1).sum()
        seen += hot.sum()
    assert seen > 1000
    assert hidden < 0.01 * seen
