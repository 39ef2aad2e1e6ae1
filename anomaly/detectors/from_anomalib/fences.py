"""Fences around anomalib and Lightning: random states, warnings, logs and progress bars are the process's own."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator
from functools import partialmethod
from typing import Any

import numpy as np

from anomaly.nets.device import seeded
from anomaly.runs import NullRecorder, Recorder

_QUIET = ("lightning.pytorch", "lightning.fabric", "timm")


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put something else in the place of an attribute inside the block only."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def quiet(recorder: Recorder | None = None) -> Iterator[None]:
    """Keep Lightning's and timm's talk, anomalib's bars and warnings off the screen; what anomalib logs is recorded.

    Lightning warns of loaders without workers, logging intervals and missing validation, none of which a user can
    change here; both warn of their own old names.
    """
    import tqdm

    loggers = [logging.getLogger(name) for name in _QUIET]
    levels = [logger.level for logger in loggers]
    own, listener = logging.getLogger("anomalib"), _Heard(recorder or NullRecorder())
    passes_on = own.propagate
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    own.addHandler(listener)
    own.propagate = False
    try:
        with (
            warnings.catch_warnings(),
            replaced(tqdm.tqdm, "__init__", partialmethod(tqdm.tqdm.__init__, disable=True)),
        ):
            for kind in (UserWarning, FutureWarning, DeprecationWarning, SyntaxWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        own.propagate = passes_on
        own.removeHandler(listener)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """Seed what anomalib's models draw from (torch, numpy's old generator, Python's) inside the block only."""
    legacy, plain = np.random.get_state(), random.getstate()  # noqa: NPY002 (theirs, not ours)
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())  # noqa: NPY002
    random.setstate(random.Random(seed).getstate())
    try:
        with seeded(seed):
            yield
    finally:
        np.random.set_state(legacy)  # noqa: NPY002
        random.setstate(plain)


class _Heard(logging.Handler):
    """Passes a library's warnings on to a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.WARNING)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        self._recorder.warn(f"anomalib says: {record.getMessage()}")
