"""Progress with time left: a bar on a terminal, a plain line every ten seconds elsewhere, always on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger("anomaly")

_FIRST_WORD_AFTER = 2.0
_PLAIN_EVERY = 10.0
_MEASURE = 0.1
"""Share of the work by which to guess the rest before ten seconds have gone."""


class Ticker(Protocol):
    """Told how far along something is."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Say that `done` of `total` are done."""


def silent(done: int, total: int, what: str) -> None:
    """Show nothing; the default when called from Python."""


class PlainTicker:
    """Writes "training 120/600, about 40 s left" to the log, at most every ten seconds.

    The first word comes soon and says no time: what has started lately is no measure of the rest.
    """

    def __init__(self) -> None:
        self._what = ""
        self._started = self._spoke = time.monotonic()
        self._from = 0

    def __call__(self, done: int, total: int, what: str) -> None:
        """Say it if the time has come."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._spoke, self._from = what, now, now - _PLAIN_EVERY + _FIRST_WORD_AFTER, done
        if now - self._spoke >= _PLAIN_EVERY and done < total and done > self._from:
            gone = now - self._started
            left = gone / (done - self._from) * (total - done)
            known = gone >= _PLAIN_EVERY or done - self._from >= _MEASURE * total
            log.info("%s %d/%d%s", what, done, total, f", about {seconds(left)} left" if known else "")
            self._spoke = now


@contextmanager
def ticker(quiet: bool) -> Iterator[Ticker]:
    """Yield what shows progress here: nothing when quiet, a rich bar on a terminal, else plain lines."""
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, object] = {}

            def show(done: int, total: int, what: str) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

            yield show
    else:
        yield PlainTicker()


def seconds(value: float) -> str:
    """Return a duration as people say it: "40 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
