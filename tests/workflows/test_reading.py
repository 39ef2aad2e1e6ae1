"""Reading in processes: what comes back is the file's own, whatever dies, hangs, is cached or interrupted."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from anomaly.config import PrepareConfig, ReadConfig
from anomaly.prepare.cache import Cache
from anomaly.prepare.prepare import Preparation
from anomaly.records import ScanFile
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.patients import hash_patient
from anomaly.scans.phantom import make_phantom
from anomaly.scans.read import read_scan
from anomaly.workflows import readers, reading
from anomaly.workflows.examine import Findings, examine
from anomaly.workflows.reader_process import receive, send
from anomaly.workflows.reading import _FILES_A_READER, Outcome, read_files


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[ScanFile]:
    """Return a film in every form that is read its own way, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("films")
    pixels = make_phantom(1, seed=3).pixels
    grey8 = np.rint(pixels * 255).astype(np.uint8)
    cv2.imwrite(str(folder / "grey.png"), grey8)
    cv2.imwrite(str(folder / "lossy.jpg"), grey8)
    cv2.imwrite(str(folder / "deep.png"), np.rint(pixels * 65535).astype(np.uint16))
    cv2.imwrite(str(folder / "colour.png"), np.dstack([grey8, grey8 // 2, 255 - grey8]))
    twelve = np.rint(pixels * 4095).astype(np.uint16)
    write_dicom(folder / "film.dcm", twelve, bits=12, patient="P-17", spacing_mm=0.2, view="AP")
    (folder / "text.png").write_text("no picture")
    names = ["grey.png", "text.png", "deep.png", "colour.png", "film.dcm", "missing.png", "lossy.jpg"]
    return [ScanFile(name, folder / name, name) for name in names]


def outcomes(files: Sequence[ScanFile], **changes: Any) -> list[Outcome]:
    settings: dict[str, Any] = {"read": ReadConfig(), "channels": 1, "workers": 1}
    settings["preparation"] = Preparation(PrepareConfig(), 32)
    return list(read_files(files, **(settings | changes)))


def same_findings(a: Findings | None, b: Findings | None) -> bool:
    if a is None or b is None:
        return a is b
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Findings)]
    return all(
        x.dtype == y.dtype and np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y and type(x) is type(y)
        for x, y in pairs
    )


def same(a: Outcome, b: Outcome) -> bool:
    """Whether two outcomes are equal to the last bit."""
    if (a.prepared is None) != (b.prepared is None):
        return False
    if a.prepared is not None and b.prepared is not None:
        arrays = [(a.prepared.image, b.prepared.image), (a.prepared.geometry.matrix, b.prepared.geometry.matrix)]
        rest = [(p.prepared.warnings, p.prepared.geometry.film_shape, p.prepared.geometry.size) for p in (a, b)]
        if rest[0] != rest[1] or any(x.dtype != y.dtype or x.tobytes() != y.tobytes() for x, y in arrays):
            return False
    return (a.file, a.error) == (b.file, b.error) and same_findings(a.findings, b.findings)


@pytest.mark.parametrize("channels", [1, 3])
def test_processes_and_cache_give_what_reading_here_gives(channels: int, films: list[ScanFile], tmp_path: Path) -> None:
    preparation = Preparation(PrepareConfig(channels=channels), 32)
    settings: dict[str, Any] = {"channels": channels, "preparation": preparation}
    cache = Cache(tmp_path, 2**30)
    first = outcomes(films, workers=2, cache=cache, **settings)
    assert [outcome.file for outcome in first] == films
    assert {outcome.file.relative for outcome in first if outcome.error} == {"text.png", "missing.png"}
    for failed in (outcome for outcome in first if outcome.error):
        assert (failed.prepared, failed.findings) == (None, None)
        assert str(failed.error).startswith(f"{failed.file.relative}: ")
    assert cache.usage().entries == 2 * 5
    read = [outcome for outcome in first if not outcome.error]
    again = outcomes([outcome.file for outcome in read], cache=cache, seconds=1e-6, **settings)  # too short to decode
    for fresh, cached in zip(read, again, strict=True):
        scan = read_scan(fresh.file, channels=channels)
        digest = sha256(fresh.file.path.read_bytes()).hexdigest()
        here = Outcome(fresh.file, preparation(scan), examine(scan, digest))
        assert same(fresh, here), fresh.file.relative
        assert same(cached, here), fresh.file.relative


def test_only_the_missing_part_is_made(films: list[ScanFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2**30)
    (prepared,) = outcomes(films[:1], cache=cache, examine=False)
    assert prepared.findings is None
    (kept,) = tmp_path.rglob("*.safetensors")
    before = kept.stat().st_ino
    (both,) = outcomes(films[:1], cache=cache)
    assert same(both, outcomes(films[:1])[0])
    assert kept.stat().st_ino == before
    assert cache.usage().entries == 2
    (found,) = outcomes(films[:1], cache=cache, preparation=None, seconds=1e-6)
    assert found.prepared is None
    assert same_findings(found.findings, both.findings)


@pytest.mark.parametrize(
    "change",
    [
        {"preparation": Preparation(PrepareConfig(clahe_size=256), 32)},
        {"preparation": Preparation(PrepareConfig(crop="auto"), 32)},
        {"preparation": Preparation(PrepareConfig(clahe=False), 32)},
        {"channels": 3},
        {"read": ReadConfig(max_megapixels=50)},
    ],
)
def test_other_settings_are_other_entries(change: dict[str, Any], films: list[ScanFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2**30)
    outcomes(films[:1], cache=cache)
    outcomes(films[:1], cache=cache, **change)
    assert cache.usage().entries == (3 if change.keys() == {"preparation"} else 4)


def test_a_second_detector_of_another_size_decodes_nothing_again(films: list[ScanFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2**30)
    files = [films[0], *films[2:5], films[6]]
    outcomes(files, cache=cache)
    other = Preparation(PrepareConfig(clahe_clip=1.0, clahe_tiles=4, central_crop=0.8), 48)
    found = outcomes(files, cache=cache, preparation=other, seconds=1e-6)  # no decoder is that fast
    assert all(same(a, b) for a, b in zip(found, outcomes(files, preparation=other), strict=True))
    assert all(outcome.prepared is not None for outcome in found)


def test_a_copy_under_another_name_is_a_hit_and_no_name_is_kept(films: list[ScanFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 2**30)
    (original,) = outcomes(films[4:5], cache=cache)
    copy = tmp_path / "JANE^DOE.dcm"
    copy.write_bytes(films[4].path.read_bytes())
    file = ScanFile("another-id", copy, "ward/JANE^DOE.dcm", patient="of the manifest", view="PA")
    (found,) = outcomes([file], cache=cache, seconds=1e-6)
    assert same(replace(found, file=films[4]), original)
    assert (original.patient, original.view) == (hash_patient("P-17"), "AP")
    assert (found.patient, found.view) == ("of the manifest", "PA")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*.safetensors"))
    assert not [word for word in (b"JANE", b"film.dcm", b"another-id", b"P-17", b"manifest") if word in kept]


def test_another_salt_gives_other_hashes_and_entries(films: list[ScanFile], tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2**30)
    patients = [outcomes(films[4:5], cache=cache)[0].patient]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_SALT", "another hospital's")
        patients.append(outcomes(films[4:5], cache=cache)[0].patient)
        assert patients[1] == hash_patient("P-17")
    assert patients[0] == hash_patient("P-17") != patients[1]


@pytest.fixture(autouse=True)
def several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start as many processes as users have, which other tests do without."""
    monkeypatch.setattr(reading, "_FILES_A_READER", _FILES_A_READER)


def children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def test_a_killed_process_costs_nothing(films: list[ScanFile]) -> None:
    files = [films[0], *films[2:5], films[6]] * 4
    preparation = Preparation(PrepareConfig(), 32)
    outcome_of_each = read_files(
        files, read=ReadConfig(), channels=1, preparation=preparation, examine=False, workers=2
    )
    found = [next(outcome_of_each)]
    assert children()
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    found += outcome_of_each
    assert all(same(a, b) for a, b in zip(found, outcomes(files, examine=False), strict=True))


@pytest.mark.parametrize(
    ("codec", "seconds", "said"),
    [
        ("import os; os.abort()", 60, "crashed the decoder"),
        ("import ctypes; ctypes.PyDLL(None).sleep(600)", 3, "took longer than 3 s"),  # it holds Python's lock
    ],
    ids=["crash", "hang"],
)
def test_a_file_that_kills_its_process_is_one_outcome(
    codec: str, seconds: float, said: str, films: list[ScanFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openjpeg.py").write_text(codec)  # found first by the processes: pydicom loads its codecs when asked
    monkeypatch.syspath_prepend(tmp_path)
    files = [films[0], films[4], films[2], films[3], films[6], *films[:1] * 5]  # enough for two processes
    cache = Cache(tmp_path / "cache", 2**30)
    found = outcomes(files, workers=2, examine=False, seconds=seconds, cache=cache)
    errors = {outcome.file.relative: outcome.error for outcome in found if outcome.error}
    assert errors == {"film.dcm": f"film.dcm: {said}; convert it to PNG or remove it"}
    assert sum(outcome.prepared is not None for outcome in found) == 9


def test_a_bug_is_one_outcome_that_quotes_nothing_of_the_file(
    films: list[ScanFile], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "anomaly"):
        (found,) = outcomes(films[:1], preparation=Preparation(PrepareConfig(clahe=False), 0))  # divides by it
    said = "grey.png: met a bug of anomaly (ZeroDivisionError in prepare/geometry.py, line "
    assert (found.error or "").startswith(said)
    assert "Traceback" in caplog.text


class Counted(Sequence[ScanFile]):
    """Files that count how many were asked for."""

    def __init__(self, files: Sequence[ScanFile]) -> None:
        self.files, self.asked = files, 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        return self.files[index]

    def __iter__(self) -> Iterator[ScanFile]:
        for file in self.files:
            self.asked += 1
            yield file


def test_no_more_files_are_under_way_than_the_processes_need(films: list[ScanFile]) -> None:
    files = Counted(films[:1] * 500)
    outcome_of_each = read_files(files, read=ReadConfig(), channels=1, preparation=None, workers=2)
    next(outcome_of_each)
    time.sleep(0.2)
    assert files.asked <= 10
    outcome_of_each.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_nothing_to_read_starts_nothing() -> None:
    before = children()
    assert outcomes([]) == []
    assert children() == before


SCRIPT = """
from anomaly.config import PrepareConfig, ReadConfig
from anomaly.prepare.prepare import Preparation
from anomaly.records import ScanFile
from anomaly.workflows.reading import read_files
from pathlib import Path
import sys
print("started", flush=True)
path = Path(sys.argv[-1])
files = [ScanFile(str(i), path, path.name) for i in range(int(sys.argv[-2]))]
prepare = Preparation(PrepareConfig(), 32)
for outcome in read_files(files, read=ReadConfig(), channels=1, preparation=prepare, examine=False, workers=2):
    print(outcome.file.scan_id, outcome.error, flush=True)
"""


@pytest.mark.parametrize("way", ["stdin", "-c", "file"])
def test_a_script_without_a_main_guard_runs_once(way: str, films: list[ScanFile], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    how = {"stdin": ["-"], "-c": ["-c", SCRIPT], "file": [str(tmp_path / "script.py")]}[way]
    ran = subprocess.run(
        [sys.executable, *how, "4", str(films[0].path)],
        input=SCRIPT if way == "stdin" else "",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ran.stdout.splitlines() == ["started", *(f"{i} None" for i in range(4))], ran.stderr
    assert ran.stderr == ""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process_and_no_word_of_them(sent: signal.Signals, films: list[ScanFile]) -> None:
    command = [sys.executable, "-c", SCRIPT, "100000", str(films[0].path)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    assert [run.stdout.readline() for _ in range(9)]
    readers = Path(f"/proc/{run.pid}/task").iterdir()
    pids = {pid for task in readers for pid in (task / "children").read_text().split()}
    assert len(pids) == 2
    os.killpg(run.pid, sent)  # as a terminal does
    _, said = run.communicate(timeout=20)
    assert run.returncode == -sent
    assert said.count("Traceback") == (sent == signal.SIGINT)
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_processes_need_no_torch(films: list[ScanFile]) -> None:
    program = (
        "import atexit, json, sys; atexit.register(lambda: json.dump(sorted(sys.modules), open(sys.argv[1], 'w')));"
        "from anomaly.workflows.reader_process import main; main()"
    )
    asked = io.BytesIO()
    wanted = {
        "seconds": 60,
        "kinds": ["prepared", "shrunk", "findings"],
        "prepare": {},
        "size": 32,
        "max_megapixels": 100,
    }
    for file in (films[0], films[4]):
        told = {"path": str(file.path), "relative": file.relative, "member": None, "channels": 1, "content_sha256": ""}
        send(asked, wanted | told, file.path.read_bytes())
    listing = films[0].path.parent / "modules.json"
    command = [sys.executable, "-c", program, str(listing)]
    ran = subprocess.run(command, input=asked.getvalue(), capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answers = io.BytesIO(ran.stdout)
    assert [set(receive(answers)[0]) for _ in range(3)] == [{"ready"}, *[{"prepared", "shrunk", "findings"}] * 2]
    modules = {name.partition(".")[0] for name in json.loads(listing.read_text())}
    assert "pydicom" in modules
    assert not modules & {"torch", "torchvision", "lightning", "anomalib", "sklearn", "matplotlib", "pandas"}


def test_a_new_process_does_not_look_into_cv2s_folder_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sys.path stands while another thread imports cv2: its `typing` would be taken for Python's."""
    monkeypatch.setattr(sys, "path", ["/site/cv2/python-3", "/site/cv2", *sys.path])
    path, _ = readers._world()
    assert path == [str(Path(part).absolute()) for part in sys.path[2:]]
