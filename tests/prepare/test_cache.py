"""The cache: the same bits back or a miss, within its size, for this user alone, and never in the way."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import UsageError
from anomaly.prepare.cache import LIMIT_GIB, Cache, Usage, key_of, open_cache

ARRAYS = {"image": np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 10, 10), "film": np.arange(6, dtype=np.uint8)}
META = {"warnings": ["caf\xe9 \udce9"], "value": 0.1, "none": None}


def key(number: int) -> str:
    return key_of({"number": number})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 2**30)


def test_what_was_put_comes_back_to_the_last_bit(cache: Cache) -> None:
    assert cache.get(key(0)) is None
    cache.put(key(0), ARRAYS, META)
    found = Cache(cache.folder, 2**30).get(key(0))
    assert found is not None
    arrays, meta = found
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes()
    assert cache.usage().entries == 1


@pytest.mark.parametrize("at", [0, 9, 200, -700, -1])
def test_a_damaged_entry_is_a_miss_and_removed(at: int, cache: Cache) -> None:
    cache.put(key(0), ARRAYS, META)
    (path,) = cache.folder.rglob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert cache.get(key(0)) is None
    assert not path.exists()
    cache.put(key(0), ARRAYS, META)
    assert cache.get(key(0)) is not None


def test_a_truncated_entry_is_a_miss(cache: Cache) -> None:
    cache.put(key(0), ARRAYS, META)
    (path,) = cache.folder.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    assert cache.get(key(0)) is None


def test_only_the_user_may_look(cache: Cache) -> None:
    cache.put(key(0), ARRAYS, META)
    for path in (cache.folder, *cache.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_least_recently_used_go_first(cache: Cache) -> None:
    for number in range(20):
        cache.put(key(number), ARRAYS, META)
        shelf = cache.folder / key(number)[:2]
        os.utime(shelf / f"{key(number)}.safetensors", (number, number))
    assert cache.get(key(3)) is not None  # old, but used now
    size = cache.usage().bytes // 20
    small = Cache(cache.folder, 10 * size)
    assert small.trim() == 1 * size
    kept = {number for number in range(20) if small.get(key(number))}
    assert kept == {3, *range(12, 20)}


def test_putting_stays_within_the_limit_and_looks_round_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path, 2**30)
    cache.put(key(0), ARRAYS, META)
    size = cache.usage().bytes
    looks = []
    whole = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path == tmp_path) or whole(path))
    cache = Cache(tmp_path, 50 * size)
    for number in range(200):
        cache.put(key(number), ARRAYS, META)
    assert cache.usage().bytes <= 50 * size
    assert cache.get(key(199)) is not None
    assert sum(looks) < 200 / 4


def test_clear_removes_entries_and_nothing_else(cache: Cache) -> None:
    for number in range(3):
        cache.put(key(number), ARRAYS, META)
    mine = [cache.folder / "notes.txt", cache.folder / "ab" / "mine.safetensors", cache.folder / "letters" / "a.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert cache.clear().entries == 3
    assert cache.usage() == Usage(0, 0)
    assert all(path.is_file() for path in mine)
    assert Cache(cache.folder / "nowhere", 1).clear() == Usage(0, 0)


def test_what_killed_processes_left_is_swept_up_later(cache: Cache) -> None:
    cache.put(key(0), ARRAYS, META)
    shelf = cache.folder / key(0)[:2]
    old, new = shelf / ".part-old", shelf / ".part-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    assert cache.usage().entries == 1
    assert (old.exists(), new.exists()) == (False, True)


WRITER = """
import sys, numpy as np
from pathlib import Path
from anomaly.prepare.cache import Cache, key_of
cache = Cache(Path(sys.argv[1]), 300_000)
for turn in range(3):
    for number in range(60):
        array = np.full(2000, number, np.float32)
        found = cache.get(key_of({"number": number}))
        if found is None:
            cache.put(key_of({"number": number}), {"a": array}, {"number": number})
        else:
            assert found[1] == {"number": number} and (found[0]["a"] == number).all()
"""


def test_two_processes_share_a_cache_that_is_too_small_for_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert said == ["", ""]
    assert not list(tmp_path.rglob(".part-*"))
    assert 0 < Cache(tmp_path, 1).usage().bytes <= 2 * 300_000


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file", 2**30)
    with caplog.at_level(logging.WARNING, "anomaly"):
        for number in range(3):
            assert cache.get(key(number)) is None
            cache.put(key(number), ARRAYS, META)
    assert len(caplog.records) == 1
    assert "ANOMALY_CACHE" in caplog.text


def test_a_full_disk_is_said_once_and_leaves_nothing_half(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING, "anomaly"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        try:
            cache.put(key(0), ARRAYS, META)
            cache.put(key(1), ARRAYS, META)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caplog.records) == 1
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("folder", "gib", "expected"),
    [("off", "", None), ("here", "", LIMIT_GIB), ("here", "0.5", 0.5), ("", "2", 2)],
)
def test_the_environment_says_where_and_how_much(
    folder: str, gib: str, expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / folder) if folder == "here" else folder)
    monkeypatch.setenv("ANOMALY_CACHE_GB", gib)
    cache = open_cache()
    if expected is None:
        assert cache is None
        return
    assert cache is not None
    assert cache.limit_bytes == expected * 2**30
    where = tmp_path / "here" if folder else tmp_path / "home" / "anomaly-cxr" / "films"
    assert cache.folder == where
    assert not where.exists()


@pytest.mark.parametrize("gib", ["much", "0", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused(gib: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_CACHE_GB", gib)
    with pytest.raises(UsageError, match="positive number"):
        open_cache()
