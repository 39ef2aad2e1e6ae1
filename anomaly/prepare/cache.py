"""Prepared films and findings kept on disk, so that a second run or a second detector never decodes again.

One safetensors file an entry, named by a hash of the film's bytes and of all that was done to them; nothing in it names
a file or a person, but it shows patients, so only the user may enter the folder. Two processes may share a cache: an
entry appears under its name only when whole, and whoever writes it writes the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache as once
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, OutputError, UsageError
from anomaly.runs import Arrays, read_tensors

log = logging.getLogger("anomaly")

LIMIT_GIB = 10.0
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_PART = ".part-"
_PART_SECONDS = 3600  # after which a half-written entry is taken for the leavings of a killed process
_TRIM_TO = 0.9
_LOOK_AGAIN = 0.2  # of the limit: so much may be written before sizes are measured again


@dataclass(frozen=True, slots=True)
class Usage:
    """How many entries, and what they take on disk in bytes."""

    entries: int
    bytes: int


class Cache:
    """Entries by key, up to `limit_bytes`; the least recently used go first.

    A folder that cannot be written (read-only, full) costs one warning and no run.

    Args:
        folder: Made on first use, for this user alone.
        limit_bytes: What the entries may take.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._unmeasured = math.inf
        self._room = 0
        self._writable = True

    def get(self, key: str) -> tuple[Arrays, Any] | None:
        """Return the arrays and metadata put under a key, or None; a damaged entry is removed."""
        path = self._path(key)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError:
            pass  # a read-only cache still serves
        try:
            arrays, kept = read_tensors(path)
            if kept["crc32"] != _checksum(arrays, kept["meta"]):
                raise ValueError("its checksum is wrong")
        except (DataError, KeyError, TypeError, ValueError) as error:
            if isinstance(error.__cause__, OSError):  # not to be had now, which says nothing against it
                return None
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return arrays, kept["meta"]

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]], meta: Any) -> None:
        """Keep arrays and JSON metadata under a key."""
        if not self._writable:
            return
        from safetensors.numpy import save

        plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        kept = json.dumps({"crc32": _checksum(plain, meta), "meta": meta})
        data = save(plain, metadata={"meta": kept})
        try:
            self._write(self._path(key), data)
            with self._lock:
                self._unmeasured += len(data)
                self._room -= len(data)
                if self._unmeasured > self.limit_bytes * _LOOK_AGAIN:  # other processes write here, too
                    self._room, self._unmeasured = self.limit_bytes - self.usage().bytes, 0.0
                if self._room < 0:
                    self._room = self.trim()
        except (OSError, OutputError) as error:
            with self._lock:
                first, self._writable = self._writable, False
            if first:
                log.warning(
                    "The cache %s cannot be written (%s): going on without; `anomaly cache --clear` frees it, "
                    'ANOMALY_CACHE names another folder or "off".',
                    self.folder,
                    getattr(error, "strerror", None) or error,
                )

    def usage(self) -> Usage:
        """Count what is there."""
        sizes = [facts.st_size for _, facts in self._entries()]
        return Usage(len(sizes), sum(sizes))

    def trim(self) -> int:
        """Drop the least recently used entries until nine tenths of the limit are kept; return the room left."""
        entries = sorted(self._entries(), key=lambda entry: entry[1].st_mtime_ns)
        left = sum(facts.st_size for _, facts in entries)
        if left > self.limit_bytes:
            for path, facts in entries:
                if left <= _TRIM_TO * self.limit_bytes:
                    break
                path.unlink(missing_ok=True)
                left -= facts.st_size
        return self.limit_bytes - left

    def clear(self) -> Usage:
        """Remove every entry, and nothing else; return what was there.

        Raises:
            OutputError: An entry cannot be removed.
        """
        removed = size = 0
        try:
            for path, facts in self._entries(part_seconds=-1.0):
                path.unlink(missing_ok=True)
                removed, size = removed + 1, size + facts.st_size
        except OSError as error:
            raise OutputError(f"Cannot clear the cache {self.folder}: {error.strerror}; remove it by hand.") from error
        for folder in self._shelves():
            with contextlib.suppress(OSError):  # another process has just put something there
                folder.rmdir()
        return Usage(removed, size)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _shelves(self) -> list[Path]:
        try:
            with os.scandir(self.folder) as found:
                return [Path(item.path) for item in found if re.fullmatch(r"[0-9a-f]{2}", item.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(
                f"The cache {self.folder} cannot be read ({error.strerror}): set ANOMALY_CACHE to another folder."
            ) from error

    def _entries(self, *, part_seconds: float = _PART_SECONDS) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield every entry with its facts; sweep away what killed processes left half-written so long ago."""
        for shelf in self._shelves():
            with contextlib.suppress(FileNotFoundError), os.scandir(shelf) as found:
                for item in found:
                    with contextlib.suppress(FileNotFoundError):
                        facts = item.stat(follow_symlinks=False)
                        if _ENTRY.fullmatch(item.name):
                            yield Path(item.path), facts
                        elif item.name.startswith(_PART) and time.time() - facts.st_mtime > part_seconds:
                            Path(item.path).unlink()

    def _write(self, path: Path, data: bytes) -> None:
        """Write aside, then rename; mkstemp makes files that only the user may read."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PART, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def open_cache() -> Cache | None:
    """Return the user's cache, or None when it is switched off.

    ANOMALY_CACHE names the folder, or is "off"; ANOMALY_CACHE_GB is its size in GiB, 10 if unset.

    Raises:
        UsageError: ANOMALY_CACHE_GB is no positive number.
    """
    wanted = os.environ.get("ANOMALY_CACHE", "")
    if wanted.lower() in ("off", "0", "no", "none", "false"):
        return None
    text = os.environ.get("ANOMALY_CACHE_GB", "") or str(LIMIT_GIB)
    try:
        limit = int(float(text) * 2**30)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UsageError(f"ANOMALY_CACHE_GB is {text!r}: give a positive number of GiB, or set ANOMALY_CACHE=off.")
    if wanted:
        return _opened(Path(wanted).expanduser(), limit)

    import platformdirs

    return _opened(Path(platformdirs.user_cache_dir("anomaly-cxr")) / "films", limit)


@once
def _opened(folder: Path, limit_bytes: int) -> Cache:
    """Return one and the same cache all along: it has to look round for its size once a process."""
    return Cache(folder, limit_bytes)


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of an entry: the hex sha256 of everything its content depends on, as canonical JSON."""
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _checksum(arrays: Mapping[str, NDArray[Any]], meta: Any) -> int:
    """Return a CRC over names, shapes, types, values and metadata: safetensors keeps none."""
    shapes = [[name, str(array.dtype), list(array.shape)] for name, array in sorted(arrays.items())]
    total = zlib.crc32(json.dumps([shapes, meta], sort_keys=True).encode("ascii"))
    for _, array in sorted(arrays.items()):
        total = zlib.crc32(np.ascontiguousarray(array).data, total)
    return total
