"""A fit of several stages, each resumable, through the one recorder a fit is given.

Steps are counted on through the stages (the encoder's first step follows the generator's last), so that the history is
one time axis and a checkpoint's step tells which of its rows came later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.records import Float32
from anomaly.runs import Arrays, Recorder, under

_FINISHED = "finished"
_RUNNING = "running"


class Stages:
    """What each stage of a fit has left, and the recorder of the one that runs.

    Run the stages in one order, each under a name without a slash: where `result(name)` is None, run it with
    `stage(name)` for its recorder and `finish(name, …)` it.

    Args:
        recorder: The fit's; its checkpoint, where it has one, is read at once and its warnings are said again.

    Raises:
        DataError: The checkpoint is not one of stages.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._finished: dict[str, Arrays] = {}
        self._interrupted: tuple[str, Arrays, dict[str, Any]] | None = None
        self._before = 0  # steps of the finished stages
        self._furthest = 0  # step of the running stage
        self._warnings: list[str] = []
        kept = recorder.restore()
        if kept is not None:
            self._take(*kept)

    def result(self, name: str) -> Arrays | None:
        """Return what a stage left when it finished; None when it has not."""
        return self._finished.get(name)

    def stage(self, name: str) -> Recorder:
        """Return the recorder of a stage that is to run, or to go on, now.

        Raises:
            ValueError: It has finished.
        """
        if name in self._finished:
            raise ValueError(f"the stage {name!r} has finished: use its result")
        return _Stage(self, self._recorder, name)

    def finish(self, name: str, arrays: Arrays) -> None:
        """Keep what a stage leaves, copied, and a checkpoint after it."""
        self._finished[name] = {key: np.array(array) for key, array in arrays.items()}
        self._before += self._furthest
        self._furthest = 0
        self._interrupted = None
        self._checkpoint(None, 0, {}, {})

    def _take(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        try:
            finished, stage, state = list(meta["finished"]), meta["stage"], dict(meta["state"])
            self._before = int(meta["before"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "The checkpoint was written by another version of this program: fit again with --overwrite."
            ) from error
        self._finished = {name: under(arrays, f"{_FINISHED}/{name}") for name in finished}
        for words in meta.get("warnings", []):
            self._warn(str(words))
        if stage is not None:
            self._interrupted = (str(stage), under(arrays, _RUNNING), state)
            self._furthest = int(state["step"])

    def _restore(self, name: str) -> tuple[Arrays, dict[str, Any]] | None:
        if self._interrupted is None or self._interrupted[0] != name:
            return None
        return self._interrupted[1], self._interrupted[2]

    def _count(self, step: int) -> int:
        """Return a stage's step as counted through all stages."""
        self._furthest = max(self._furthest, step)
        return self._before + step

    def _warn(self, words: str) -> None:
        """Warn, now and whenever the fit is gone on with: a stage that has finished does not say it again."""
        self._warnings.append(words)
        self._recorder.warn(words)

    def _checkpoint(self, name: str | None, step: int, arrays: Arrays, state: Mapping[str, Any]) -> None:
        kept = {f"{_RUNNING}/{key}": array for key, array in arrays.items()}
        for stage, left in self._finished.items():
            kept |= {f"{_FINISHED}/{stage}/{key}": array for key, array in left.items()}
        meta = {
            "step": self._count(step),
            "stage": name,
            "state": dict(state),
            "finished": list(self._finished),
            "before": self._before,
            "warnings": list(self._warnings),
        }
        self._recorder.checkpoint(kept, meta)


class _Stage:
    """The recorder of one stage."""

    def __init__(self, stages: Stages, recorder: Recorder, name: str) -> None:
        self._stages = stages
        self._recorder = recorder
        self._name = name

    def scalar(self, step: int, name: str, value: float) -> None:
        """Record a number at this step, counted through all stages."""
        self._recorder.scalar(self._stages._count(step), name, value)

    def images(self, step: int, images: Float32) -> None:
        """Record a sample grid at this step, counted through all stages."""
        self._recorder.images(self._stages._count(step), images)

    def progress(self, done: int, total: int, what: str) -> None:
        """Hand progress on."""
        self._recorder.progress(done, total, what)

    def warn(self, words: str) -> None:
        """Hand a warning on, and keep it."""
        self._stages._warn(words)

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Keep this stage's state beside what the finished ones left; `meta` holds its own `step`."""
        self._stages._checkpoint(self._name, int(meta["step"]), arrays, meta)

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Return this stage's state if it was the one interrupted, else None."""
        return self._stages._restore(self._name)
