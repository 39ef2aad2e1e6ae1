"""Figures in the text are those of the committed results: nothing quoted can drift from its file."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from anomaly.records import ScanFile

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmark_of(monkeypatch):
    """Return a function that imports a benchmark's module afresh."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for path in (ROOT / "benchmarks").glob("*.py"):
        sys.modules.pop(path.stem, None)
    return importlib.import_module


@pytest.fixture
def figures(benchmark_of):
    return benchmark_of("figures")


def test_results_page_is_what_the_results_say(figures):
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == figures.results_page()


def test_figures_of_the_recipes_are_what_the_results_say(figures):
    assert json.loads((ROOT / "configs" / "dev_auroc.json").read_text(encoding="utf-8")) == figures.dev_auroc()


def test_figures_in_the_readme_are_what_the_results_say(figures):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert figures.readme_block() in readme


def test_every_result_names_its_command_and_versions():
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert results
    for path in results:
        found = json.loads(path.read_text(encoding="utf-8"))
        script = found["command"].split()[1]
        assert (ROOT / script).is_file(), path
        assert {"torch", "numpy", "anomaly"} <= set(found["versions"])


def test_draws_of_normals_keep_patients_whole_and_nest(benchmark_of):
    draw = benchmark_of("atlas_transfer").draw
    films = [
        ScanFile(f"{patient}-{n}", Path("x"), "x", patient=f"p{patient}")
        for patient in range(40)
        for n in range(1 + patient % 3)
    ]
    small, large, other = draw(films, 20, 0), draw(films, 40, 0), draw(films, 40, 1)
    assert [len({file.scan_id for file in drawn}) for drawn in (small, large, other)] == [20, 40, 40]
    for drawn in (small, large):
        patients = {file.patient for file in drawn}
        assert {file.scan_id for file in drawn} == {file.scan_id for file in films if file.patient in patients}
    assert {file.patient for file in small[:15]} <= {file.patient for file in large}
    assert {file.scan_id for file in large} != {file.scan_id for file in other}
    with pytest.raises(SystemExit, match="only"):
        draw(films, len(films) + 1, 0)
