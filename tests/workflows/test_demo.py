"""`demo`: the main job end to end, and a tutorial on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import anomaly, table

from anomaly.workflows.demo import demo


def test_the_demo_goes_through_every_step_and_says_each(tmp_path: Path) -> None:
    said: list[str] = []
    report = demo(tmp_path / "x", detector="pixel-stats", normals=24, test=8, abnormal=3, say=said.append)
    assert report == tmp_path / "x/out/report.html"
    assert [line.split()[1] for line in said] == ["phantom", "phantom", "fit", "score", "evaluate", "report"]
    assert all(line.startswith("anomaly ") for line in said)
    assert len(table(tmp_path / "x/out")) == 8
    assert "AUROC" in report.read_text()
    assert json.loads((tmp_path / "x/receipt.json").read_text())["status"] == "done"


def test_what_the_demo_says_gives_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    demo(Path("x"), detector="pixel-stats", normals=20, test=4, abnormal=2, say=said.append)
    again = [line.replace(" x/", " y/").split()[1:] for line in said]
    assert [anomaly(*words).code for words in again] == [0] * 6
    assert Path("x/out/scores.csv").read_bytes() == Path("y/out/scores.csv").read_bytes()


def test_the_command(tmp_path: Path) -> None:
    ran = anomaly("demo", "-d", "pixel-stats", "-o", tmp_path / "x")
    assert ran.code == 0, ran.err
    assert "never a diagnosis" in ran.out
    assert str(tmp_path / "x/out/report.html") in ran.out
    assert ran.err.count("$ anomaly ") == 6
    assert anomaly("demo", "-d", "pixel-stats", "-o", tmp_path / "x").code == 2
