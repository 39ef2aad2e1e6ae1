"""One cell of a comparison: fitted and scored in a process of its own, so that it is alone with its memory.

What a process took is then what the cell took, and one that is killed for its hunger stops no other.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from anomaly.config import load_recipe
from anomaly.errors import AnomalyError, UsageError
from anomaly.runs import RECEIPT, read_json, write_json, write_text
from anomaly.workflows.compare.entrants import Cell
from anomaly.workflows.fit import fit
from anomaly.workflows.journal import read_journal
from anomaly.workflows.progress import Ticker
from anomaly.workflows.score import score
from anomaly.workflows.selection import TEST

RUN, OUT, TOOK, FAILED = "run", "out", "took.json", "failed.txt"
_KILLED = "its process was killed ({}): most likely this machine has too little memory for it"


@dataclass(frozen=True, slots=True)
class Job:
    """What a cell's process is told; `folder` is the cell's own."""

    cell: Cell
    folder: Path
    scans: Path
    splits: Path
    panels: int | None
    offline: bool
    device: str
    workers: int


@dataclass(frozen=True, slots=True)
class Took:
    """What a cell took.

    `fit_seconds` with reading and calibrating; `seconds_per_image` of scoring, reading and map included; `peak_bytes`
    of memory of its process, readers not counted; `model_bytes` on disk; `trained` films.
    """

    fit_seconds: float
    seconds_per_image: float
    peak_bytes: int
    model_bytes: int
    trained: int
    runs_on: str


def is_done(folder: Path) -> bool:
    """Tell whether a cell was fitted and scored to the end."""
    return (folder / TOOK).is_file()


def read_took(folder: Path) -> Took:
    """Return what a finished cell took."""
    return Took(**read_json(folder / TOOK))


def check_settings(cell: Cell, folder: Path) -> None:
    """Refuse to go on with a cell that was begun with other settings.

    Raises:
        UsageError: It was.
    """
    config = folder / RUN / "config.yaml"
    if config.is_file() and load_recipe(None, config) != cell.recipe:
        raise UsageError(
            f"{folder} was fitted with other settings of {cell.entrant}: remove that folder to fit it anew, or give "
            "the recipe another name."
        )


def do(job: Job, on_progress: Ticker) -> str | None:
    """Fit and score a cell in a process of its own, or go on with it.

    Returns:
        None, or why it failed, in a sentence; kept in the cell's failed.txt.

    Raises:
        KeyboardInterrupt: The user's; what was done is kept.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_alone, args=(job, theirs))
    (job.folder / FAILED).unlink(missing_ok=True)
    process.start()
    theirs.close()
    reason: str | None = None
    try:
        reason = _listen(ours, on_progress)
    finally:
        if process.is_alive() and sys.exc_info()[0] is not None:
            process.terminate()  # a terminal's Ctrl-C reaches it by itself, other signals do not
        process.join()
        ours.close()
    if reason is None and process.exitcode:
        code = process.exitcode
        reason = _KILLED.format(signal.Signals(-code).name if code < 0 else f"exit code {code}")
    if reason is None and not is_done(job.folder):
        raise KeyboardInterrupt
    if reason is not None:
        write_text(job.folder / FAILED, reason + "\n")
    return reason


def _listen(connection: Connection, on_progress: Ticker) -> str | None:
    """Pass a process's progress on until it has no more to say; return why it failed, if it says so."""
    reason = None
    while True:
        try:
            kind, *said = connection.recv()
        except EOFError:
            return reason
        if kind == "failed":
            reason = str(said[0])
        else:
            on_progress(int(said[0]), int(said[1]), str(said[2]))


def _alone(job: Job, connection: Connection) -> None:
    """Fit and score; the whole life of a cell's process."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)

    def on_progress(done: int, total: int, what: str) -> None:
        connection.send(("progress", done, total, what))

    try:
        _fit_and_score(job, on_progress)
    except AnomalyError as error:
        connection.send(("failed", str(error)))
    except KeyboardInterrupt:
        pass  # what was finished is kept, and whoever waits was interrupted too
    except Exception as error:  # a bug of one method is no reason to lose the others
        write_text(job.folder / "traceback.txt", traceback.format_exc())
        connection.send(("failed", f"{type(error).__name__}: {error} (see traceback.txt in its folder)"))
    finally:
        connection.close()


def _fit_and_score(job: Job, on_progress: Ticker) -> None:
    run, out = job.folder / RUN, job.folder / OUT
    if not _finished(run):
        fit(
            job.scans,
            run,
            job.cell.recipe,
            normal_only=not job.cell.supervised,
            splits=job.splits,
            resume=run.exists(),
            offline=job.offline,
            device=job.device,
            workers=job.workers,
            on_progress=on_progress,
        )
    if not _finished(out):
        score(
            job.scans,
            run,
            out,
            panels=job.panels,
            split=TEST,
            splits=job.splits,
            draw=False,
            resume=out.exists(),
            device=job.device,
            workers=job.workers,
            on_progress=on_progress,
        )
    fitted, scored = read_json(run / RECEIPT), read_json(out / RECEIPT)
    seconds = [float(entry["seconds"]) for entry in read_journal(out).values()]
    took = {
        "fit_seconds": float(fitted["seconds"]),
        "seconds_per_image": sum(seconds) / len(seconds),
        "peak_bytes": _peak(),
        "model_bytes": sum(path.stat().st_size for path in (run / "model").rglob("*") if path.is_file()),
        "trained": int(fitted["trained"]),
        "runs_on": str(scored["scored_on"]),
    }
    write_json(job.folder / TOOK, took)


def _finished(folder: Path) -> bool:
    return (folder / RECEIPT).is_file() and read_json(folder / RECEIPT)["status"] == "done"


def _peak() -> int:
    """Return the most memory this process has held, in bytes.

    Linux's ru_maxrss begins at what the process held that started this one; VmHWM is its own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        known = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(known["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes
