"""Phantoms, a fitted model and a scored folder, made once a session; a test that changes one copies it first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import FLOOR, anomaly

from anomaly.scans.phantom import write_phantoms
from anomaly.workflows import evaluate, reading


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Read in one process, which is kept for the next command, and draw few resamples where no number is asked for.

    What several processes do is test_reading.py's matter, and intervals are that of tests/evaluate.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_FILES_A_READER", 1000)
        patch.setitem(evaluate.evaluate.__kwdefaults__, "n_boot", 200)
        yield


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a labelled folder: 40 normal and 8 abnormal films, masks and a manifest."""
    folder = tmp_path_factory.mktemp("films") / "phantoms"
    write_phantoms(folder, n=48, abnormal=8)
    return folder


@pytest.fixture(scope="session")
def unlabelled(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 18 normal films of which nothing says so."""
    folder = tmp_path_factory.mktemp("films") / "mine"
    folder.mkdir()
    for film in sorted((phantoms / "normal").iterdir())[:18]:
        shutil.copy(film, folder)
    return folder


@pytest.fixture(scope="session")
def other_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 18 normal films that no model has seen."""
    folder = tmp_path_factory.mktemp("films") / "site"
    write_phantoms(folder, n=18, abnormal=0, seed=1)
    return folder / "normal"


@pytest.fixture(scope="session")
def few(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 4 films of unknown label."""
    folder = tmp_path_factory.mktemp("films") / "few"
    folder.mkdir()
    for film in sorted((phantoms / "abnormal").iterdir())[:4]:
        shutil.copy(film, folder)
    return folder


@pytest.fixture(scope="session")
def model(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of pixel-stats; never written to."""
    run = tmp_path_factory.mktemp("runs") / "floor"
    assert anomaly("fit", phantoms, "--normal-only", *FLOOR, "-o", run).code == 0
    return run


@pytest.fixture(scope="session")
def scored(phantoms: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the phantoms' results folder; never written to."""
    out = tmp_path_factory.mktemp("outs") / "out"
    assert anomaly("score", phantoms, "-m", model, "-o", out).code == 0
    return out


@pytest.fixture
def results(scored: Path, tmp_path: Path) -> Path:
    """Return a results folder of the test's own."""
    return Path(shutil.copytree(scored, tmp_path / "results"))
