"""Running commands, in this process or in one of their own that can be stopped."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from anomaly.cli import app

FLOOR = ("-d", "pixel-stats", "--set", "calibration.minimum=20", "--set", "detector.score_batch=4", "--set", "size=32")
"""pixel-stats with 20 of 40 normals held out (so that alpha 0.05 can flag) and small chunks (to be interrupted in)."""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


def anomaly(*args: Any) -> Ran:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def spawn(*args: Any, **options: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "anomaly", *(str(arg) for arg in args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True, **options)


def finish(process: subprocess.Popen[str]) -> Ran:
    """Wait for a started command."""
    out, err = process.communicate(timeout=300)
    return Ran(process.returncode, out, err)


def stop_when(process: subprocess.Popen[str], seen: Callable[[], bool], sent: signal.Signals) -> Ran:
    """Send a signal to a started command as soon as `seen` is true."""
    until = time.monotonic() + 300
    while process.poll() is None and not seen() and time.monotonic() < until:
        time.sleep(0.005)
    assert process.poll() is None, f"it ended before it could be stopped: {process.communicate()}"
    os.kill(process.pid, sent)
    return finish(process)


def table(out: Path) -> dict[str, dict[str, str]]:
    """Return scores.csv as path -> row."""
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def parts_left(folder: Path) -> list[Path]:
    """Return the half-written files in a folder."""
    return list(folder.rglob(".part-*"))
