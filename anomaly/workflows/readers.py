"""Processes that decode, from the side of the one that asks them.

`multiprocessing` would run the caller's script again in every worker, which a script without a main guard, a notebook
or a program on stdin does not survive, and one dead worker breaks its whole pool. Here each worker is a plain program
on two pipes that holds one file at a time, so it is always known which file it died of.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from anomaly.workflows.reader_process import receive, send

_OF_THE_SALT = ("ANOMALY_SALT", "HOME", "XDG_DATA_HOME")
_NO_START = "A process for reading files cannot be started ({why}); `anomaly doctor` examines the installation."
_PROGRAM = "import sys; sys.path[:] = {path!r}; from anomaly.workflows.reader_process import main; main()"


class ReaderDied(Exception):  # noqa: N818 (it is an event, and handled)
    """The process ended in the middle of a file; `overran` tells that the file took too long."""

    def __init__(self, *, overran: bool) -> None:
        super().__init__("took too long" if overran else "crashed")
        self.overran = overran


class Reader:
    """One process that decodes one file at a time."""

    def __init__(self) -> None:
        self._world = _world()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM.format(path=self._world[0])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C reaches only the parent, which then ends its readers
            )
        except OSError as error:
            raise AnomalyError(_NO_START.format(why=error.strerror)) from error
        try:
            receive(self._stdout)
        except EOFError:
            code = self._process.wait()
            self.close()
            if code in (-signal.SIGKILL, -signal.SIGTERM):  # from outside: that says nothing of the installation
                raise ReaderDied(overran=False) from None
            raise AnomalyError(_NO_START.format(why=f"it ended with code {code}")) from None

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def fits(self) -> bool:
        """Whether the process runs, and would be started the same way now."""
        return self._process.poll() is None and self._world == _world()

    def ask(self, request: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Have one file decoded.

        Raises:
            ReaderDied: The process crashed or overran its time; it is gone.
        """
        started = time.monotonic()
        try:
            send(self._stdin, request, data)
            return receive(self._stdout)
        except (EOFError, OSError):
            self.close()
            raise ReaderDied(overran=time.monotonic() - started >= request["seconds"]) from None

    def kill(self) -> None:
        """End the process at once; a thread that waits for its answer gets `ReaderDied`."""
        self._process.kill()

    def close(self) -> None:
        """End the process at once and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):  # what was not yet sent cannot be
                stream.close()


class ReaderPool:
    """The readers of one run: started when there is work for them, each lent to one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Reader] = []
        self._busy: set[Reader] = set()
        self._closed = threading.Event()

    def ask(self, request: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Have one file decoded by a free reader, or by a new one; called from many threads.

        Raises:
            ReaderDied: As `Reader.ask`, or the pool was closed.
            AnomalyError: No reader can be started.
        """
        reader = self._take()
        try:
            answer = reader.ask(request, data)
        except BaseException:
            with self._lock:
                self._busy.discard(reader)
            raise
        with self._lock:
            self._busy.discard(reader)
            if not self._closed.is_set():
                self._idle.append(reader)
                return answer
        reader.close()
        return answer

    def _take(self) -> Reader:
        with self._lock:
            if self._closed.is_set():
                raise ReaderDied(overran=False)
            reader = self._idle.pop() if self._idle else None
        reader = reader or _take_spare() or Reader()
        with self._lock:
            if self._closed.is_set():
                reader.close()
                raise ReaderDied(overran=False)
            self._busy.add(reader)
        return reader

    def close(self) -> None:
        """End all readers but one, which is kept for the next run; whoever waits for an answer gets none."""
        with self._lock:
            self._closed.set()
            idle, self._idle = self._idle, []
            for reader in self._busy:
                reader.kill()
        for reader in idle:
            _keep_spare(reader)


def _world() -> tuple[list[str], list[str | None]]:
    """Return where a new process imports from ("" is the working folder), and where it finds the patients' salt.

    While another thread imports cv2, cv2's own folder stands in sys.path, and its `typing` before Python's.
    """
    path = [os.path.abspath(part) for part in sys.path]  # noqa: PTH100
    path = [part for part in path if "cv2" not in Path(part).parts[-2:]]
    return path, [os.environ.get(name) for name in _OF_THE_SALT]


def _take_spare() -> Reader | None:
    with _spare_lock:
        reader = _spare.pop() if _spare else None
    if reader is not None and not reader.fits():
        reader.close()
        return None
    return reader


def _keep_spare(reader: Reader) -> None:
    with _spare_lock:
        if not _spare:
            _spare.append(reader)
            return
    reader.close()


def _end_spare() -> None:
    while _spare:
        _spare.pop().close()


_spare: list[Reader] = []
"""At most one idle reader: starting one takes half a second, and scripts score one film after the other."""
_spare_lock = threading.Lock()
atexit.register(_end_spare)
os.register_at_fork(after_in_child=_spare.clear)  # the pipes are the parent's
