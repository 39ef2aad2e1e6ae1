"""A classifier from the command line: fit on labels, score, evaluate, report, and every refusal."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from running import anomaly, table

SMALL = (
    *("-d", "mobilenet_v2", "--set", "size=32", "--set", "detector.backbone_weights=none"),
    *("--set", "detector.classes=two", "--set", "detector.epochs=1", "--set", "detector.score_batch=8"),
    *("--set", "detector.arch=mobilenet_v3_small"),
)


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of a classifier; never written to."""
    run = tmp_path_factory.mktemp("runs") / "classifier"
    ran = anomaly("fit", phantoms, *SMALL, "--test", "0.25", "-o", run)
    assert ran.code == 0, ran.err
    assert "scans of 2 classes" in ran.out
    return run


def test_it_learns_from_every_class_and_says_so(run: Path) -> None:
    with (run / "splits.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_role: dict[str, list[str]] = {}
    for row in rows:
        by_role.setdefault(row["role"], []).append(row["class"])
    assert set(by_role["train"]) == set(by_role["test"]) == {"normal", "abnormal"}
    assert set(by_role["calibration"]) == {"normal"}
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "Trained on labelled scans" in card
    assert "normal scans only" not in card
    assert json.loads((run / "model" / "model.json").read_text(encoding="utf-8"))["data"]["classes"]
    assert (run / "history.png").is_file()


def test_its_results_hold_the_probability_of_every_class(run: Path, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert anomaly("score", phantoms, "-m", run, "-o", out, "--split", "test").code == 0
    rows = table(out)
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        told = {row["path"]: row for row in csv.DictReader(file)}
    assert told.keys() == rows.keys()
    for path, row in told.items():
        assert float(row["P(normal)"]) + float(row["P(abnormal)"]) == pytest.approx(1, abs=1e-5)
        assert float(rows[path]["score"]) == pytest.approx(1 - float(row["P(normal)"]), abs=1e-6)
        assert row["class"] == ("normal" if rows[path]["label"] == "0" else "abnormal")
    ran = anomaly("evaluate", out)
    assert ran.code == 0, ran.err
    assert "macro" in ran.out
    classes = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["classification"]
    assert classes is not None
    assert {p.name for p in (out / "figures").iterdir()} == {"confusion.png", "roc.png", "reliability.png"}
    assert anomaly("report", out).code == 0
    assert "Classes" in (out / "report.html").read_text(encoding="utf-8")
    again = tmp_path / "again"
    assert anomaly("score", phantoms, "-m", run, "-o", again, "--split", "test", "-j", "1").code == 0
    assert (again / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()


def test_an_unlabelled_folder_is_scored_without_classes(run: Path, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert anomaly("score", few, "-m", run, "-o", out).code == 0
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert {row["class"] for row in csv.DictReader(file)} == {""}
    ran = anomaly("evaluate", out)
    assert ran.code == 0
    assert json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["classification"] is None


def test_normal_only_is_refused(phantoms: Path, tmp_path: Path) -> None:
    ran = anomaly("fit", phantoms, "--normal-only", *SMALL, "-o", tmp_path / "run")
    assert ran.code == 2
    assert "supervised" in ran.err
    assert not (tmp_path / "run").exists()


def refused(scans: Path, tmp_path: Path, *words: Any) -> str:
    ran = anomaly("fit", scans, *SMALL, *words, "-o", tmp_path / "run")
    assert ran.code in (2, 4)
    assert not (tmp_path / "run").exists(), "before anything is read or written"
    return ran.err


def test_one_class_tiny_classes_and_missing_labels_are_refused_at_once(
    phantoms: Path, unlabelled: Path, tmp_path: Path
) -> None:
    assert "one class alone" in refused(phantoms / "normal", tmp_path)
    assert "No scan is labelled" in refused(unlabelled, tmp_path)
    few = tmp_path / "few"
    shutil.copytree(phantoms / "normal", few / "NORMAL")
    (few / "PNEUMONIA").mkdir()
    for film in sorted((phantoms / "abnormal").iterdir())[:2]:
        shutil.copy(film, few / "PNEUMONIA")
    assert "too few of abnormal (2)" in refused(few, tmp_path)


def test_class_folders_that_differ_between_train_and_test_are_refused(phantoms: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms / "normal", data / "train" / "NORMAL")
    shutil.copytree(phantoms / "abnormal", data / "train" / "PNEUMONIA")
    (data / "test" / "Pneumonia").mkdir(parents=True)
    shutil.copy(next((phantoms / "abnormal").iterdir()), data / "test" / "Pneumonia" / "other.png")
    assert "test split has classes" in refused(data, tmp_path, "--set", "detector.classes=class")


def test_an_unknown_network_is_refused_before_anything_is_read(phantoms: Path, tmp_path: Path) -> None:
    assert "did you mean 'resnet18'" in refused(phantoms, tmp_path, "--set", "detector.arch=resnet81")
