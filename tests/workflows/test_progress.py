"""Progress as plain lines: seldom, and no guess of the time before there is something to guess from."""

from __future__ import annotations

import logging

import pytest

from anomaly.workflows import progress
from anomaly.workflows.progress import PlainTicker


def test_no_time_is_guessed_from_the_first_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock)
    tick = PlainTicker()
    with caplog.at_level(logging.INFO, logger="anomaly"):
        for now, done, what in ((0, 0, "reading"), (1, 1, "reading"), (3, 2, "reading"), (9, 40, "reading")):
            clock = float(now)
            tick(done, 200, what)
        for now, done, what in (
            (13, 100, "reading"),
            (14, 0, "training"),
            (16.5, 50, "training"),
            (30, 200, "training"),
        ):
            clock = float(now)
            tick(done, 200, what)
    assert [record.getMessage() for record in caplog.records] == [
        "reading 2/200",
        "reading 100/200, about 13 s left",
        "training 50/200, about 8 s left",
    ]
