"""`anomaly cache`: says what is kept and that it shows patients, and clears it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import anomaly


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a cache of the test's own."""
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_run_finds_everything_and_the_command_clears_it(
    few: Path, model: Path, folder: Path, tmp_path: Path
) -> None:
    assert json.loads(anomaly("cache", "--json").out)["entries"] == 0
    for out in ("a", "b"):
        assert anomaly("score", few, "-m", model, "-o", tmp_path / out).code == 0
    assert (tmp_path / "a/scores.csv").read_bytes() == (tmp_path / "b/scores.csv").read_bytes()
    facts = json.loads(anomaly("cache", "--json").out)
    assert (facts["folder"], facts["entries"], facts["limit_bytes"]) == (str(folder), 8, 10 * 2**30)
    said = anomaly("cache").out
    assert "8 entries" in said
    assert "treat it like the films" in said
    cleared = anomaly("cache", "--clear")
    assert cleared.code == 0
    assert "Cleared 8 entries" in cleared.out
    assert not list(folder.rglob("*.safetensors"))


def test_switched_off(few: Path, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_CACHE", "off")
    assert anomaly("score", few, "-m", model, "-o", tmp_path / "out").code == 0
    assert not folder.exists()
    for command in (("cache",), ("cache", "--clear")):
        assert "switched off" in anomaly(*command).out


def test_a_size_that_is_none(few: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_CACHE_GB", "much")
    ran = anomaly("score", few, "-m", model, "-o", tmp_path / "out")
    assert ran.code == 2
    assert "ANOMALY_CACHE_GB" in ran.err
