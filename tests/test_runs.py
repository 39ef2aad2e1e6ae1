"""Folders on disk: whole files or none, nothing overwritten unasked, a receipt that stays true."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.errors import DataError, OutputError, UsageError
from anomaly.runs import (
    RECEIPT,
    RunRecorder,
    claim_folder,
    read_json,
    read_tensors,
    receipt,
    sha256_of,
    write_json,
    write_tensors,
    write_text,
    writing,
)


def inside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# writing


def test_a_file_appears_only_when_wholly_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with writing(target) as file:
        file.write(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert inside(target.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    expected = OutputError if error is OSError else error
    with pytest.raises(expected), writing(target) as file:  # noqa: PT012
        file.write(b"new")
        raise error
    assert target.read_text() == "old"
    assert inside(tmp_path) == ["file.txt"]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "usual").write_text("x")
    ours, usual = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual"))
    assert ours == usual


FULL_DISK = """
import resource, sys
from pathlib import Path
from anomaly.errors import OutputError
from anomaly.runs import receipt, write_text
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with receipt(folder, "fit", {}):
        write_text(folder / "big.csv", "x" * 100_000)
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_said_with_the_file_and_the_fix_and_leaves_no_part(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: to the writer it is the same failure."""
    run = [sys.executable, "-W", "error", "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "big.csv") in done.stdout
    assert "space" in done.stdout
    assert "--output" in done.stdout
    assert inside(tmp_path) == [RECEIPT]
    assert read_json(tmp_path / RECEIPT)["status"] == "failed"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_text_keeps_undecodable_bytes_of_file_names(tmp_path: Path) -> None:
    write_text(tmp_path / "a", os.fsdecode(b"caf\xe9 \xc3\xa9"))
    assert (tmp_path / "a").read_bytes() == b"caf\xe9 \xc3\xa9"


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    data = {"a": [1, 2.5, None], "ü": "é"}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == data
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_missing_or_damaged_json_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_tensors_go_there_and_back_with_their_types_and_layouts(tmp_path: Path) -> None:
    arrays = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "d": np.array([np.pi]),
        "i": np.arange(3),
        "none": np.zeros((0, 4), np.float32),
    }
    meta = {"a": {"b": [1, 2]}, "ü": "é"}
    write_tensors(tmp_path / "t.safetensors", arrays, meta)
    found, found_meta = read_tensors(tmp_path / "t.safetensors")
    assert found_meta == meta
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "pickle", "foreign"])
def test_damaged_tensors_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    import pickle

    from safetensors.numpy import save

    file = tmp_path / "t.safetensors"
    write_tensors(file, {"a": np.zeros(100)}, {})
    content = {
        "empty": b"",
        "truncated": file.read_bytes()[:-1],
        "pickle": pickle.dumps({"a": 1}),
        "foreign": save({"a": np.zeros(3)}),
    }
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[damage])
    with pytest.raises(DataError, match=r"t\.safetensors"):
        read_tensors(file)


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea")


# claiming a folder


def ours(folder: Path, command: str = "fit") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("x")
    write_json(folder / RECEIPT, {"command": command, "status": "interrupted"})
    return folder


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_new_or_empty_folder_is_taken(tmp_path: Path, flags: dict[str, bool]) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        claim_folder(folder, command="fit", **flags)
        assert folder.is_dir()


def test_a_folder_that_is_not_empty_is_refused_with_both_ways_on(tmp_path: Path) -> None:
    folder = ours(tmp_path / "run")
    before = inside(folder)
    with pytest.raises(UsageError, match=r"run.*--resume.*--overwrite"):
        claim_folder(folder, command="fit")
    assert inside(folder) == before


def test_resume_keeps_what_is_there(tmp_path: Path) -> None:
    folder = ours(tmp_path / "run")
    before = inside(folder)
    claim_folder(folder, command="fit", resume=True)
    assert inside(folder) == before


def test_overwrite_empties_a_folder_of_the_same_command(tmp_path: Path) -> None:
    folder = ours(tmp_path / "run")
    claim_folder(folder, command="fit", overwrite=True)
    assert folder.is_dir()
    assert inside(folder) == []


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_a_folder_of_another_command_is_left_alone(tmp_path: Path, flag: str) -> None:
    folder = ours(tmp_path / "run", "score")
    before = inside(folder)
    with pytest.raises(UsageError, match="fit"):
        claim_folder(folder, command="fit", **{flag: True})
    assert inside(folder) == before


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '"fit"', "3", "null", '{"command": null}', '{"status": "done"}']
)
def test_a_foreign_folder_or_one_with_a_damaged_receipt_is_never_touched(
    tmp_path: Path, flag: str, content: str | None
) -> None:
    (tmp_path / "precious").write_text("x")
    if content is not None:
        (tmp_path / RECEIPT).write_text(content)
    before = inside(tmp_path)
    with pytest.raises(UsageError, match="left alone"):
        claim_folder(tmp_path, command="fit", **{flag: True})
    assert inside(tmp_path) == before


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_file_in_place_of_the_folder_is_left_alone(tmp_path: Path, flags: dict[str, bool]) -> None:
    file = tmp_path / "run"
    file.write_text("precious")
    with pytest.raises(UsageError, match="run is a file"):
        claim_folder(file, command="fit", **flags)
    assert file.read_text() == "precious"


def test_a_file_above_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((OutputError, UsageError), match="file"):
        claim_folder(tmp_path / "file" / "run", command="fit")


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude"):
        claim_folder(ours(tmp_path / "run"), command="fit", resume=True, overwrite=True)
    assert (tmp_path / "run" / "model" / "weights").exists()


def test_a_linked_folder_is_overwritten_where_it_lies(tmp_path: Path) -> None:
    folder = ours(tmp_path / "big disk" / "run")
    link = tmp_path / "run"
    link.symlink_to(folder)
    claim_folder(link, command="fit", overwrite=True)
    assert link.is_symlink()
    assert folder.is_dir()
    assert inside(folder) == []


# receipts


def test_a_receipt_says_running_then_done_with_what_was_added(tmp_path: Path) -> None:
    with receipt(tmp_path, "fit", {"seed": 1}) as facts:
        running = read_json(tmp_path / RECEIPT)
        facts["trained"] = 20
    assert (running["command"], running["status"], running["seed"]) == ("fit", "running", 1)
    done = read_json(tmp_path / RECEIPT)
    assert (done["status"], done["seed"], done["trained"]) == ("done", 1, 20)
    assert done["seconds"] >= 0
    assert done["versions"].keys() >= {"anomaly", "python", "torch", "numpy"}
    assert isinstance(done["argv"], list)


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("no luck"), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(1), "failed")],
)
def test_a_receipt_says_how_it_ended(tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), receipt(tmp_path, "score", {}) as facts:  # noqa: PT012
        facts["files"] = 7
        raise error
    written = read_json(tmp_path / RECEIPT)
    assert (written["status"], written["files"], written["error"]) == (status, 7, str(error))


def test_a_receipt_is_what_lets_the_next_run_resume(tmp_path: Path) -> None:
    claim_folder(tmp_path / "run", command="fit")
    with pytest.raises(KeyboardInterrupt), receipt(tmp_path / "run", "fit", {}):
        raise KeyboardInterrupt
    claim_folder(tmp_path / "run", command="fit", resume=True)


# recording a fit


def history(folder: Path) -> list[tuple[int, str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]


def test_history_is_written_in_order_and_exactly(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, resume=False)
    recorder.scalar(10, "loss", 0.1)
    recorder.scalar(10, "real", np.float32(0.3))
    assert not (tmp_path / "history.csv").exists()
    recorder.flush()
    assert history(tmp_path) == [(10, "loss", 0.1), (10, "real", float(np.float32(0.3)))]


def test_a_checkpoint_brings_the_history_to_disk_and_is_restored_on_resume_only(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, resume=False)
    assert recorder.restore() is None
    recorder.scalar(10, "loss", 1.0)
    recorder.checkpoint({"w": np.arange(3.0)}, {"step": 10})
    recorder.scalar(20, "loss", 0.5)
    recorder.flush()
    resumed = RunRecorder(tmp_path, resume=True)
    kept = resumed.restore()
    assert kept is not None
    np.testing.assert_array_equal(kept[0]["w"], np.arange(3.0))
    assert kept[1] == {"step": 10}
    resumed.scalar(20, "loss", 0.25)
    resumed.flush()
    assert history(tmp_path) == [(10, "loss", 1.0), (20, "loss", 0.25)], "what came after the checkpoint is redone"
    afresh = RunRecorder(tmp_path, resume=False)
    assert afresh.restore() is None
    afresh.flush()
    assert history(tmp_path) == []


def test_resuming_before_the_first_checkpoint_starts_afresh(tmp_path: Path) -> None:
    first = RunRecorder(tmp_path, resume=False)
    first.scalar(10, "loss", 1.0)
    first.flush()
    resumed = RunRecorder(tmp_path, resume=True)
    assert resumed.restore() is None
    resumed.scalar(10, "loss", 1.0)
    resumed.flush()
    assert history(tmp_path) == [(10, "loss", 1.0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_written_as_one_grid(tmp_path: Path, channels: int) -> None:
    images = np.full((5, channels, 8, 8), -1, np.float32)
    images[4] = 1
    images[1, 0] = 0.5
    RunRecorder(tmp_path, resume=False).images(30, images)
    grid = cv2.imread(str(tmp_path / "samples" / "step-000030.png"), cv2.IMREAD_UNCHANGED)
    assert grid.shape[:2] == (16, 24)
    assert (grid[8:, 8:16] == 255).all()
    assert (grid[:8, :8] == 0).all()
    assert (grid[8:, 16:] == 0).all()
    second = grid[:8, 8:16].reshape(8, 8, channels)[0, 0]
    assert second.tolist() == ([191] if channels == 1 else [0, 0, 191]), "red first, as cv2 reads it last"


def test_progress_is_handed_on(tmp_path: Path) -> None:
    heard: list[tuple[int, int, str]] = []
    RunRecorder(tmp_path, resume=False, on_progress=lambda *what: heard.append(what)).progress(1, 2, "training")
    RunRecorder(tmp_path, resume=False).progress(1, 2, "training")
    assert heard == [(1, 2, "training")]


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, resume=False)
    recorder.checkpoint({"w": np.zeros(9)}, {"step": 1})
    file = tmp_path / "checkpoints" / "last.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match="last"):
        RunRecorder(tmp_path, resume=True).restore()


def test_a_receipt_is_json_with_facts_that_are_not_ascii(tmp_path: Path) -> None:
    with receipt(tmp_path, "fit", {"note": "Röntgen"}):
        pass
    assert json.loads((tmp_path / RECEIPT).read_text())["note"] == "Röntgen"
