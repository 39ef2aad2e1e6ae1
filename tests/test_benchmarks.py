"""Figures in the text are those of the committed results: nothing quoted can drift from its file."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("figures", "figures_scans", "common"):
        sys.modules.pop(name, None)
    return importlib.import_module("figures")


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
