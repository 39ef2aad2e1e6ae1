"""The benchmarks of evaluation: what they ask is what the library answers, and what was not measured is not told."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from anomaly.evaluate.delong import contrast, delong
from anomaly.evaluate.intervals import bootstrap, paired_difference
from anomaly.evaluate.metrics import auroc, auroc_of

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("coverage", "common", "figures_evaluate", "figures_tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("coverage")


def test_answers_are_those_of_the_library(coverage: ModuleType) -> None:
    labels, scores, patients = coverage.Case(True, 35, 25, 0.93).draw(np.random.default_rng(0))
    found = coverage.answers(labels, scores, patients, 50, seed=3)
    paired = paired_difference(labels, scores[:, 0], scores[:, 1], patients, n=50, seed=3)
    assert found["bootstrap"].area == bootstrap(auroc_of, labels, scores[:, 0], patients, n=50, seed=3)
    assert found["bootstrap"].difference.low == pytest.approx(paired.interval.low)
    assert found["bootstrap"].p_value == paired.p_value
    assert found["delong"].p_value == contrast(delong(labels, scores), [1, -1]).p_value


def test_simulated_films_are_what_they_are_said_to_be(coverage: ModuleType) -> None:
    labels, scores, patients = coverage.Case(True, 20_000, 10_000, 0.76).draw(np.random.default_rng(0))
    assert [auroc(labels, column) for column in scores.T] == pytest.approx([0.76, 0.76], abs=0.01)
    noise = scores - scores[labels == 1].mean(axis=0) * labels[:, None]
    assert np.corrcoef(noise.T)[0, 1] == pytest.approx(0.5, abs=0.02)
    first, second = (noise[np.searchsorted(patients, np.arange(30_000)) + k, 0] for k in (0, 1))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.5, abs=0.02)


def test_what_was_not_measured_is_not_told(
    coverage: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = importlib.import_module("figures_evaluate")
    monkeypatch.setattr(sys.modules["common"], "RESULTS", tmp_path)
    assert module.page() == []
