"""Folders on disk: written aside then renamed, never overwritten unasked, with a receipt of how they came to be."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import anomaly
from anomaly.errors import DataError, OutputError, UsageError
from anomaly.records import Float32

Arrays = dict[str, NDArray[Any]]

RECEIPT = "receipt.json"
_PART = ".part-"
_RESUMABLE = ("fit", "score", "ensemble", "compare", "segment fit", "segment apply")
_VERSIONED = (
    *("torch", "torchvision", "timm", "anomalib", "lightning", "segmentation-models-pytorch", "numpy"),
    *("opencv-python-headless", "pydicom"),
)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name only when wholly written; on any failure nothing is left behind.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PART, dir=path.parent)
        part = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"Cannot write {path}: {reason}. Free some space or choose another --output.") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, whole or not at all."""
    with writing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all (undecodable bytes of file names survive as they were)."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV, lines ending in "\\n", whole or not at all."""
    text = io.StringIO(newline="")
    for row in rows:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(row)  # so that a "\r" in a file name is quoted too
        text.write(line.getvalue().removesuffix("\r\n") + "\n")
    write_text(path, text.getvalue())


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON with a final newline, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: The file is missing, not JSON, or holds something else than an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"Cannot read {path}: it holds no JSON object.")
    return found


def write_tensors(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write named arrays with JSON metadata as one safetensors file, whole or not at all."""
    from safetensors.numpy import save

    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with writing(path) as file:
        file.write(save(plain, metadata={"meta": json.dumps(meta)}))


def read_tensors(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a file of `write_tensors`: arrays and metadata. Never unpickles.

    Raises:
        DataError: The file is missing or not a safetensors file of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            meta = json.loads((file.metadata() or {})["meta"])
            return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error


def under(arrays: Arrays, prefix: str) -> Arrays:
    """Return the arrays named PREFIX/…, by the rest of their names."""
    start = prefix + "/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim_folder(
    folder: Path, *, command: str, resume: bool = False, overwrite: bool = False, inputs: Sequence[Path] = ()
) -> None:
    """Make an output folder, refusing to mix with or destroy anything already there.

    Args:
        folder: The output folder.
        command: What writes it ("fit"); --resume and --overwrite act only on a folder of the same command.
        resume: Keep what is there and go on.
        overwrite: Delete what is there; only ever a folder with a receipt of this tool.
        inputs: What the command reads; nothing of it may lie in a folder to be deleted.

    Raises:
        UsageError: The folder is not empty and neither flag was given, both were, it is not ours, or holds an input.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other: give one.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: choose a folder for --output.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (resume or overwrite):
            go_on = "--resume to go on with it or " if command in _RESUMABLE else ""
            raise UsageError(
                f"{folder} is not empty: choose another --output, or add {go_on}--overwrite to replace it."
            )
        if owner(folder) != command:
            raise UsageError(
                f"{folder} was not written by `anomaly {command}`, so it is left alone: choose another --output."
            )
        inside = [path for path in inputs if path.resolve().is_relative_to(folder.resolve())]
        if overwrite and inside:
            raise UsageError(f"{inside[0]} lies in {folder}, which would be replaced: choose another --output.")
        if overwrite:
            _empty(folder)
        for part in folder.rglob(f"{_PART}*"):  # left by a process that was killed
            part.unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make the folder {folder}: {error.strerror}. Choose another --output.") from error


def _empty(folder: Path) -> None:
    """Delete what a folder holds but not itself: it may be a link or a mount point."""
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise OutputError(f"Cannot empty the folder {folder}: {error.strerror}. Choose another --output.") from error


def owner(folder: Path) -> str | None:
    """Return the command that wrote a folder, or None when it has no receipt of ours."""
    try:
        return str(read_json(folder / RECEIPT)["command"])
    except (DataError, KeyError, TypeError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of this tool, Python and the packages that shape a score, without importing them."""
    found = {"anomaly": anomaly.__version__, "python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@contextlib.contextmanager
def receipt(folder: Path, command: str, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep receipt.json true while a command works: running, then done, interrupted or failed with the reason.

    Args:
        folder: The claimed output folder.
        command: "fit", "score", …
        facts: Everything worth knowing of the run; must be JSON. Add to what is yielded as results come in. A fact
            named "argv" stands in for the command line as typed.
    """
    earlier = _seconds_before(folder)
    started = time.monotonic() - earlier
    _write_receipt(folder, command, "running", {**facts, "seconds": earlier})
    try:
        yield facts
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with contextlib.suppress(OutputError):  # a full disk is what failed: its own message matters more
            took = round(time.monotonic() - started, 2)
            _write_receipt(folder, command, status, {**facts, "error": str(error), "seconds": took})
        raise
    _write_receipt(folder, command, "done", {**facts, "seconds": round(time.monotonic() - started, 2)})


def _seconds_before(folder: Path) -> float:
    """Return what the interrupted legs of a resumed run took; what a killed one took is not known."""
    try:
        return float(read_json(folder / RECEIPT)["seconds"])
    except (DataError, KeyError, TypeError, ValueError):
        return 0.0


def _write_receipt(folder: Path, command: str, status: str, facts: Mapping[str, Any]) -> None:
    ran: dict[str, Any] = {
        "argv": sys.argv[1:],
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    ran |= {"cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS", "all cores")}
    write_json(folder / RECEIPT, {"command": command, "status": status, **ran, **facts})


class Recorder(Protocol):
    """What a detector tells the world while it fits; passed in, never inherited."""

    def scalar(self, step: int, name: str, value: float) -> None:
        """Record one number of the training history."""

    def images(self, step: int, images: Float32) -> None:
        """Record a grid of sample images, float32 (N, C, S, S) in [-1, 1]."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Say how far along the fit is."""

    def warn(self, words: str) -> None:
        """Tell the user what is wrong with the fit, though it goes on."""

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Keep a state from which the fit can go on."""

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Return the last state kept, or None when the fit starts afresh."""


class NullRecorder:
    """Records nothing."""

    def scalar(self, step: int, name: str, value: float) -> None:
        """Ignore."""

    def images(self, step: int, images: Float32) -> None:
        """Ignore."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Ignore."""

    def warn(self, words: str) -> None:
        """Ignore."""

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Ignore."""

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Start afresh."""
        return None


class RunRecorder:
    """Records a fit into its run folder: history.csv, samples/*.png, checkpoints/last.safetensors."""

    def __init__(self, folder: Path, *, resume: bool, on_progress: Any = None) -> None:
        self._folder = folder
        self._resume = resume
        self._on_progress = on_progress
        self._rows: list[tuple[int, str, float]] = []
        self.warnings: list[str] = []
        """What the detector warned of, in order."""
        if resume and (folder / "history.csv").is_file():
            try:
                with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
                    self._rows = [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{folder / 'history.csv'} is damaged ({error}): delete it to resume.") from error

    @property
    def _checkpoint_file(self) -> Path:
        return self._folder / "checkpoints" / "last.safetensors"

    def scalar(self, step: int, name: str, value: float) -> None:
        """Append to the history; it reaches the disk at the next checkpoint or `flush`."""
        self._rows.append((step, name, float(value)))

    def images(self, step: int, images: Float32) -> None:
        """Write a grid of samples as samples/step-NNNNNN.png."""
        import cv2

        n, c, s, _ = images.shape
        columns = int(np.ceil(np.sqrt(n)))
        rows = -(-n // columns)
        grid = np.zeros((rows * s, columns * s, c), np.uint8)
        for i, image in enumerate(images):
            y, x = divmod(i, columns)
            grid[y * s : (y + 1) * s, x * s : (x + 1) * s] = _to_uint8(image).transpose(1, 2, 0)
        encoded, data = cv2.imencode(".png", grid[..., ::-1])
        if not encoded:
            raise OutputError(f"Cannot encode the sample grid of step {step}.")
        with writing(self._folder / "samples" / f"step-{step:06d}.png") as file:
            file.write(data.tobytes())

    def progress(self, done: int, total: int, what: str) -> None:
        """Hand progress to whoever shows it."""
        if self._on_progress is not None:
            self._on_progress(done, total, what)

    def warn(self, words: str) -> None:
        """Keep a warning for those who called."""
        self.warnings.append(words)

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        """Replace checkpoints/last.safetensors and bring history.csv up to date."""
        self.flush()
        write_tensors(self._checkpoint_file, arrays, meta)

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Return the last checkpoint when resuming, dropping history recorded after it; else None."""
        if not (self._resume and self._checkpoint_file.is_file()):
            self._rows = []
            return None
        arrays, meta = read_tensors(self._checkpoint_file)
        self._rows = [row for row in self._rows if row[0] <= int(meta.get("step", 0))]
        return arrays, meta

    def flush(self) -> None:
        """Write history.csv."""
        lines = ["step,name,value", *(f"{step},{name},{value!r}" for step, name, value in self._rows)]
        write_text(self._folder / "history.csv", "\n".join(lines) + "\n")


def _to_uint8(image: Float32) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = np.clip(np.rint((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
    return values
