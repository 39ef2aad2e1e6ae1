"""The model folder: it knows everything `score` needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import anomaly

from anomaly import load_model
from anomaly.errors import ModelError, UsageError
from anomaly.workflows.model import find_model


def test_run_and_model_folder_are_the_same_model(model: Path) -> None:
    assert find_model(model) == find_model(model / "model") == model / "model"
    one, two = load_model(model), load_model(str(model / "model"))
    assert one.facts == two.facts
    assert one.facts.method == "pixel-stats"
    assert one.facts.size == one.preparation.size == one.detector.size == 32
    images = np.zeros((2, 1, 32, 32), np.float32)
    assert np.array_equal(one.detector.score(images).scores, two.detector.score(images).scores)


def test_the_folder_holds_no_pickle_and_says_what_it_is_for(model: Path) -> None:
    names = {path.name for path in (model / "model").iterdir()}
    assert names == {"model.json", "weights.safetensors", "calibration.safetensors", "README.md"}
    facts = json.loads((model / "model/model.json").read_text())
    assert "never a diagnosis" in facts["intended_use"]
    assert facts["data"]["trained_on"] == facts["data"]["held_out_normals"] == 20
    assert "never a diagnosis" in (model / "model/README.md").read_text()


def test_weights_of_another_model_are_refused(model: Path, phantoms: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    assert anomaly("fit", phantoms, "--normal-only", "-d", "pixel-stats", "-o", tmp_path / "other").code == 0
    shutil.copy(tmp_path / "other/model/weights.safetensors", run / "model")
    with pytest.raises(ModelError, match="sha256"):
        load_model(run)


def test_a_device_that_is_not_there_is_a_usage_error(few: Path, model: Path, tmp_path: Path) -> None:
    ran = anomaly("score", few, "-m", model, "-o", tmp_path / "out", "--device", "gpu")
    assert ran.code == 2
    assert "cuda" in ran.err


def test_a_gpu_that_is_not_there_does_not_make_the_model_wrong(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomaly.detectors.pixel_stats import PixelStats

    def load(folder: Path, *, device: str) -> PixelStats:
        raise UsageError(f"--device {device}: torch finds no GPU here; use --device cpu.")

    monkeypatch.setattr(PixelStats, "load", load)
    with pytest.raises(UsageError, match="no GPU"):
        load_model(model, device="cuda")
