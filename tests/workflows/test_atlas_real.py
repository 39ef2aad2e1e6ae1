"""The atlas on real films: the floors it was accepted on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import anomaly, table

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.usefixtures("decoded_once")]

SETS = {
    "children": ("kermany/train/NORMAL", "kermany/dev", 348, 0.90),
    "adults": ("rsna_adult/train/normal", "rsna_adult/dev", 151, 0.78),
}


@pytest.mark.parametrize("name", SETS)
def test_the_atlas_tells_ill_from_well_and_draws_its_terms(name: str, shared_data: Path, tmp_path: Path) -> None:
    normals, dev, films, floor = SETS[name]
    run, out = tmp_path / "run", tmp_path / "out"
    fitted = anomaly("fit", shared_data / "data" / normals, "--normal-only", "-d", "atlas", "-o", run)
    assert fitted.code == 0, fitted.err
    scored = anomaly("score", shared_data / "data" / dev, "-m", run, "-o", out, "--panels", "top:3")
    assert scored.code == 0, scored.err
    assert anomaly("evaluate", out).code == 0
    found = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert found["rows"][0]["auroc"] > floor
    rows = table(out)
    assert len(rows) == films
    assert {"opacity", "deficit", "darker"} <= set(next(iter(rows.values())))
    unregistered = [row for row in rows.values() if "not registered" in row["warnings"]]
    assert len(unregistered) <= 0.02 * films
    assert json.loads((out / "receipt.json").read_text(encoding="utf-8"))["heat_unit"] == "σ"
    assert len(list((out / "heatmaps").iterdir())) == 3
