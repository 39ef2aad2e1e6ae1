"""A fit of several stages through one recorder: what resumes, what is skipped, how steps are counted."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly.detectors.anogan.stages import Stages
from anomaly.errors import DataError
from anomaly.records import Float32
from anomaly.runs import Arrays, NullRecorder, Recorder, RunRecorder

LENGTHS = {"gan": 4, "encoder": 3, "variance": 2}
TICKS = sum(LENGTHS.values())


class Kept(NullRecorder):
    """Keeps everything in memory; is interrupted at the given tick of progress."""

    def __init__(self, kept: tuple[Arrays, dict[str, Any]] | None = None, stop_at: int | None = None) -> None:
        self.kept, self.stop_at = kept, stop_at
        self.scalars: list[tuple[int, str, float]] = []
        self.grids: list[int] = []
        self.said: list[tuple[int, int, str]] = []
        self.warnings: list[str] = []

    def scalar(self, step: int, name: str, value: float) -> None:
        self.scalars.append((step, name, value))

    def images(self, step: int, images: Float32) -> None:
        self.grids.append(step)

    def progress(self, done: int, total: int, what: str) -> None:
        self.said.append((done, total, what))
        if len(self.said) == self.stop_at:
            raise KeyboardInterrupt

    def warn(self, words: str) -> None:
        self.warnings.append(words)

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.kept = ({name: array.copy() for name, array in arrays.items()}, dict(meta))

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        return self.kept


def train(recorder: Recorder, name: str, start: float) -> Arrays:
    """A stage that hangs on its start, counts in a way that order and repetition change, and keeps every 2nd step."""
    weights, step = np.array([start, 0.0]), 0
    before = recorder.restore()
    if before is not None:
        weights, step = before[0]["net/weights"].copy(), before[1]["step"]
        assert before[1]["best"] == [step, "so far"]
    while step < LENGTHS[name]:
        weights[0], weights[1] = weights[0] * 1.1 + step, weights[1] + weights[0]
        step += 1
        recorder.scalar(step, f"{name}_loss", weights[1])
        if step == 2:
            recorder.warn(f"{name} is sick")
        recorder.progress(step, LENGTHS[name], name)
        if step % 2 == 0 or step == LENGTHS[name]:
            recorder.images(step, np.zeros((1, 1, 4, 4), np.float32))
            recorder.checkpoint({"net/weights": weights}, {"step": step, "best": [step, "so far"]})
    return {"weights": weights, "empty/shape": np.zeros((0, 3))}


def fit(recorder: Recorder) -> dict[str, Arrays]:
    stages = Stages(recorder)
    results: dict[str, Arrays] = {}
    start = 1.0
    for name in LENGTHS:
        left = stages.result(name)
        if left is None:
            left = train(stages.stage(name), name, start)
            stages.finish(name, left)
        results[name] = left
        start = float(left["weights"][1])
    return results


def same(a: dict[str, Arrays], b: dict[str, Arrays]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].keys() == b[name].keys()
        for key in a[name]:
            np.testing.assert_array_equal(a[name][key], b[name][key], err_msg=f"{name}/{key}")


@pytest.mark.parametrize("stop_at", range(1, TICKS + 1))
def test_a_fit_interrupted_anywhere_goes_on_bit_for_bit(stop_at: int) -> None:
    straight = Kept()
    whole = fit(straight)
    stopped = Kept(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped)
    resumed = Kept(stopped.kept)
    same(whole, fit(resumed))
    assert straight.kept is not None
    assert resumed.kept is not None
    assert straight.kept[1] == resumed.kept[1]
    step = 0 if stopped.kept is None else stopped.kept[1]["step"]
    assert [row for row in straight.scalars if row[0] > step] == resumed.scalars
    assert len(resumed.said) == TICKS - step, "no finished stage runs again"
    assert resumed.warnings == straight.warnings == [f"{name} is sick" for name in LENGTHS]


def test_a_finished_fit_runs_nothing_again() -> None:
    recorder = Kept()
    whole = fit(recorder)
    again = Kept(recorder.kept)
    same(whole, fit(again))
    assert again.said == again.scalars == []
    assert again.warnings == recorder.warnings


def test_steps_are_counted_on_and_progress_is_handed_through() -> None:
    recorder = Kept()
    fit(recorder)
    assert [(step, name) for step, name, _ in recorder.scalars] == [
        *((step, "gan_loss") for step in (1, 2, 3, 4)),
        *((step, "encoder_loss") for step in (5, 6, 7)),
        *((step, "variance_loss") for step in (8, 9)),
    ]
    assert recorder.grids == [2, 4, 6, 7, 9]
    assert recorder.said == [(step, n, name) for name, n in LENGTHS.items() for step in range(1, n + 1)]
    assert recorder.kept is not None
    assert recorder.kept[1]["step"] == TICKS


def test_a_checkpoint_tells_its_stage() -> None:
    recorder = Kept(stop_at=7)
    with pytest.raises(KeyboardInterrupt):
        fit(recorder)
    assert recorder.kept is not None
    assert recorder.kept[1]["stage"] == "encoder"
    assert recorder.kept[1]["step"] == 6
    stages = Stages(recorder)
    assert stages.result("gan") is not None
    assert stages.result("encoder") is None
    assert stages.stage("variance").restore() is None, "the state of another stage"
    with pytest.raises(ValueError, match="'gan' has finished"):
        stages.stage("gan")


def test_what_a_stage_leaves_is_copied() -> None:
    stages = Stages(NullRecorder())
    weights = np.ones(3)
    stages.finish("gan", {"weights": weights})
    weights[:] = 0.0
    left = stages.result("gan")
    assert left is not None
    np.testing.assert_array_equal(left["weights"], np.ones(3))


def test_a_stage_warns_through_the_recorder() -> None:
    recorder = Kept()
    Stages(recorder).stage("gan").warn("the generator collapses")
    assert recorder.warnings == ["the generator collapses"]


def test_a_checkpoint_that_tells_of_no_warnings_is_gone_on_with() -> None:
    stopped = Kept(stop_at=7)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped)
    assert stopped.kept is not None
    del stopped.kept[1]["warnings"]
    resumed = Kept(stopped.kept)
    same(fit(Kept()), fit(resumed))
    assert resumed.warnings == ["variance is sick"]


@pytest.mark.parametrize("meta", [{"step": 20}, {"step": 3, "finished": [], "stage": "gan", "state": 4, "before": 0}])
def test_a_checkpoint_without_stages_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="--overwrite"):
        Stages(Kept(({}, meta)))


class Interrupted(RunRecorder):
    """A run on disk that is interrupted in its second stage, after a step that no checkpoint keeps."""

    def progress(self, done: int, total: int, what: str) -> None:
        if (what, done) == ("encoder", 3):
            self.flush()
            raise KeyboardInterrupt


def test_the_history_on_disk_is_that_of_a_fit_never_interrupted(tmp_path: Path) -> None:
    straight = RunRecorder(tmp_path / "straight", resume=False)
    whole = fit(straight)
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(tmp_path / "stopped", resume=False))
    resumed = RunRecorder(tmp_path / "stopped", resume=True)
    same(whole, fit(resumed))
    assert resumed.warnings == straight.warnings
    rows = []
    for name in ("straight", "stopped"):
        with (tmp_path / name / "history.csv").open(newline="", encoding="utf-8") as file:
            rows.append(list(csv.DictReader(file)))
    assert len(rows[0]) == TICKS
    assert rows[0] == rows[1]
    assert sorted(path.name for path in (tmp_path / "stopped" / "samples").iterdir()) == [
        f"step-{step:06d}.png" for step in (2, 4, 6, 7, 9)
    ]
