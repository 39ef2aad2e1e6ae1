"""`prepare.central_crop` through the whole road: fit, model folder, score, panels, pictures, report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from running import FLOOR, anomaly

from anomaly import load_model
from anomaly.workflows.panels import load_panel


@pytest.mark.parametrize("register", ["none", "affine"])
def test_what_lies_around_the_middle_gets_no_heat_on_the_film(register: str, phantoms: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    settings = ("--set", "prepare.central_crop=0.6", "--set", f"prepare.register={register}")
    ran = anomaly("fit", phantoms, "--normal-only", *FLOOR, *settings, "-o", run)
    assert ran.code == 0, ran.err
    assert load_model(run).preparation.config.central_crop == 0.6
    assert "the middle 0.6 of the side" in (run / "model/README.md").read_text()
    assert anomaly("score", phantoms / "abnormal", "-m", run, "-o", out).code == 0
    panels = [load_panel(path) for path in sorted((out / "panels").iterdir())]
    assert len(panels) == 8
    for panel in panels:
        assert panel.registered is (register == "affine")
        height, width = panel.film.shape
        heat = panel.heat_on_film()
        assert heat.max() > 0
        rim = np.ones_like(heat, dtype=bool)
        rim[height // 8 : -(height // 8), width // 8 : -(width // 8)] = False
        assert not heat[rim].any(), "registration moves films by less than 0.2 - 1 / 8 of the side"
    assert anomaly("report", out).code == 0
