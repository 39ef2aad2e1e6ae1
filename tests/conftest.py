"""What every test may use: a salt and a cache of its own, the shared data where there is any, and prepared phantoms."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from anomaly.config import PrepareConfig
from anomaly.prepare.prepare import Preparation
from anomaly.records import Float32, Scan
from anomaly.scans.phantom import make_phantom

# Before torch is first imported: on nets this small, beside other work, threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]

_numbers = count()

PhantomImages = Callable[..., Float32]


@pytest.fixture(scope="session", autouse=True)
def salt() -> Iterator[str]:
    """Hash patients with a fixed salt, so that no test writes one to the user's data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_SALT", "only-for-tests")
        yield "only-for-tests"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what fixtures of the session prepare in a folder of its own, so that no test touches the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_CACHE", str(folder / "session"))
        yield folder


@pytest.fixture(autouse=True)
def own_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test with an empty cache, so that none depends on what another has prepared."""
    monkeypatch.setenv("ANOMALY_CACHE", str(cache_folder / f"test-{next(_numbers)}"))


@pytest.fixture
def decoded_once(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share one cache between tests on many real films: each is decoded once a session."""
    monkeypatch.setenv("ANOMALY_CACHE", str(cache_folder / "real"))


@pytest.fixture(scope="session", autouse=True)
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start with an empty weights folder and no network: no test looks into the user's, or downloads anything."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_WEIGHTS", str(folder))
        patch.setenv("ANOMALY_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real films, or skip the test where there is none."""
    folder = ROOT / os.environ.get("ANOMALY_SHARED", "../shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder.resolve()} (set ANOMALY_SHARED)")
    return folder.resolve()


@pytest.fixture(scope="session")
def phantom_images() -> PhantomImages:
    """Return a function (n, size=32, seed=0) -> normal phantoms, float32 (n, 1, S, S), each drawn once a session."""
    drawn: dict[tuple[int, int], list[Float32]] = {}

    def images(n: int, size: int = 32, seed: int = 0) -> Float32:
        known = drawn.setdefault((size, seed), [])
        prepare = Preparation(PrepareConfig(), size)
        for index in range(len(known), n):
            film = make_phantom(index, seed=seed)
            known.append(prepare(Scan(f"phantom-{index}", film.pixels, 16)).image)
        return np.stack(known[:n])

    return images
