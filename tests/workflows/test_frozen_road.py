"""Methods on a backbone from the command line: weights asked for first, memory told, models that travel alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import anomaly, table

from anomaly.nets.zoo import build
from anomaly.weights import WeightsFacts, store_weights

SMALL = ("--set", "size=64", "--set", "calibration.minimum=20", "--set", "detector.score_batch=4")


def fit(phantoms: Path, run: Path, *words: str) -> Any:
    return anomaly("fit", phantoms, "--normal-only", *words, *SMALL, "-o", run)


@pytest.fixture
def resnet18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a resnet18 of random weights into a weights folder of the test's own; return the file's sha256."""
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    tensors = {name: tensor.numpy() for name, tensor in build("resnet18").state_dict().items()}
    return store_weights(tensors, WeightsFacts("resnet18", "random.safetensors")).sha256


@pytest.mark.parametrize("recipe", ["padim", "padim-max", "patchcore", "patchcore-max", "feature-gaussian"])
def test_weights_that_are_missing_are_asked_for_before_anything_is_read(
    recipe: str, phantoms: Path, tmp_path: Path
) -> None:
    ran = fit(phantoms, tmp_path / "run", "-d", recipe)
    assert ran.code == 6
    assert "anomaly weights fetch resnet18" in ran.err
    assert "resnet18.safetensors" in ran.err
    assert "ANOMALY_OFFLINE" in ran.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["padim", "patchcore-max", "feature-gaussian"])
def test_a_model_holds_its_backbone_and_says_which(
    recipe: str,
    phantoms: Path,
    few: Path,
    resnet18: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    ran = fit(phantoms, run, "-d", recipe)
    assert ran.code == 0, ran.err
    assert "GiB of memory" in caplog.text
    facts = json.loads((run / "model" / "model.json").read_text(encoding="utf-8"))
    assert facts["data"]["backbone"] == "resnet18"
    assert facts["data"]["backbone_sha256"] == resnet18
    receipt = json.loads((run / "receipt.json").read_text(encoding="utf-8"))
    assert receipt["memory_estimate"] > 0
    assert receipt["backbone_sha256"] == resnet18

    def no_network(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(socket, "socket", no_network)
    ran = anomaly("score", few, "-m", run, "-o", out)
    assert ran.code == 0, ran.err
    rows = table(out)
    assert len(rows) == 4
    assert all(np.isfinite(float(row["score"])) for row in rows.values())
    assert len(list((out / "heatmaps").iterdir())) == 4


def test_weights_of_too_few_layers_are_refused_before_anything_is_read(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    tensors = {name: tensor.numpy() for name, tensor in build("resnet18").state_dict().items()}
    store_weights({k: v for k, v in tensors.items() if "layer3" not in k}, WeightsFacts("resnet18", "part.safetensors"))
    ran = fit(phantoms, tmp_path / "run", "-d", "patchcore")
    assert ran.code == 5
    assert "layer3.0.conv1.weight" in ran.err
    assert not (tmp_path / "run").exists()


def test_random_weights_are_allowed_and_noted(phantoms: Path, tmp_path: Path) -> None:
    ran = fit(phantoms, tmp_path / "run", "-d", "padim", "--set", "detector.backbone_weights=none")
    assert ran.code == 0, ran.err
    assert "note: The backbone resnet18 has random weights" in ran.err
    facts = json.loads((tmp_path / "run" / "model" / "model.json").read_text(encoding="utf-8"))
    assert facts["data"]["backbone_sha256"] == "none: random weights"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("detector.backbone=resnet81", "did you mean 'resnet18'"),
        ("detector.layers=[layer9]", "did you mean 'layer4'"),
        ("detector.features=500", "448 channels"),
        ("detector.pooling=median", "pooling"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_read(
    setting: str, says: str, phantoms: Path, resnet18: str, tmp_path: Path
) -> None:
    ran = fit(phantoms, tmp_path / "run", "-d", "padim", "--set", setting)
    assert ran.code == 2
    assert says in ran.err
    assert not (tmp_path / "run").exists()


def test_models_lists_those_of_anomalib_with_what_they_need() -> None:
    shown = anomaly("models").out
    assert "anomalib:Fastflow" in shown
    assert "anomalib:EfficientAd" in shown
    listed = json.loads(anomaly("models", "--json").out)
    names = {model["name"] for model in listed}
    assert {"padim", "patchcore-max", "anomalib:Stfpm"} <= names


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.usefixtures("decoded_once")
@pytest.mark.parametrize("recipe", ["padim", "patchcore", "feature-gaussian"])
def test_children_are_told_apart(
    recipe: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    given = shared_data / "weights" / "resnet18_imagenet_conv1-layer3.safetensors"
    assert anomaly("weights", "import", given, "--as", "resnet18").code == 0
    run, out, normals = tmp_path / "run", tmp_path / "out", tmp_path / "NORMAL"
    normals.mkdir()
    for film in sorted((shared_data / "data/kermany/train/NORMAL").iterdir())[::3]:
        (normals / film.name).symlink_to(film)
    fitted = anomaly("fit", normals, "--normal-only", "-d", recipe, "-o", run)
    assert fitted.code == 0, fitted.err
    scored = anomaly("score", shared_data / "data/kermany/dev", "-m", run, "-o", out, "--panels", "top:3")
    assert scored.code == 0, scored.err
    assert anomaly("evaluate", out).code == 0
    found = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert found["rows"][0]["auroc"] > 0.75
