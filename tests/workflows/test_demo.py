"""`demo`: the main job end to end, and a tutorial on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import anomaly, table

from anomaly.workflows.demo import demo


def test_every_step_is_said_and_what_is_said_gives_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    report = demo(Path("x"), detector="pixel-stats", normals=16, test=4, abnormal=2, say=said.append)
    assert report == Path("x/out/report.html")
    assert "AUROC" in report.read_text()
    assert json.loads(Path("x/receipt.json").read_text())["status"] == "done"
    assert [line.split()[:2] for line in said] == [
        ["anomaly", command] for command in ("phantom", "phantom", "fit", "score", "evaluate", "report")
    ]
    again = [line.replace(" x/", " y/").split()[1:] for line in said]
    assert [anomaly(*words).code for words in again] == [0] * 6
    assert len(table(Path("x/out"))) == 4
    assert Path("x/out/scores.csv").read_bytes() == Path("y/out/scores.csv").read_bytes()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("normals", 16), ("test", 4), ("abnormal", 2)):  # 400 films take half a minute to draw
        monkeypatch.setitem(demo.__kwdefaults__, name, few)
    ran = anomaly("demo", "-d", "pixel-stats", "-o", tmp_path / "x")
    assert ran.code == 0, ran.err
    assert "never a diagnosis" in ran.out
    assert str(tmp_path / "x/out/report.html") in ran.out
    assert ran.err.count("$ anomaly ") == 6
    again = anomaly("demo", "-d", "pixel-stats", "-o", tmp_path / "x")
    assert again.code == 2
    assert "--resume" not in again.err
