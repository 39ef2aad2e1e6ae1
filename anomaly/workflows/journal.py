"""journal.jsonl: one line a finished scan, appended as it finishes, so that a killed run loses nothing it had done."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import OutputError
from anomaly.records import Float32

JOURNAL = "journal.jsonl"
_GONE = "forgotten"


def read_journal(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the finished scans of a run by scan id, the last word on each; damaged lines are passed over.

    Reads only: the run may still be going on.
    """
    path = folder / JOURNAL
    entries: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "scan_id" in entry:
            entries[entry["scan_id"]] = entry
    return {scan_id: entry for scan_id, entry in entries.items() if not entry.get(_GONE)}


def pack_features(features: Float32) -> str:
    """Return features, float32 (F,), as text that `unpack_features` turns back to the bit."""
    return base64.b64encode(features.astype("<f4").tobytes()).decode("ascii")


def unpack_features(text: str) -> Float32:
    """Return what `pack_features` was given."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


class Journal:
    """The append-only record of a scoring run.

    Args:
        folder: The output folder; an existing journal is read, and a last line cut short by a crash is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self._good = 0
        if self.path.is_file():
            data = self.path.read_bytes()
            self._good = data.rfind(b"\n") + 1
            if self._good < len(data):
                os.truncate(self.path, self._good)
        self.entries = read_journal(folder)

    def forget(self, scan_ids: Sequence[str]) -> None:
        """Take back what is said of scans, for later runs too: what was drawn of them is about to be removed.

        Raises:
            OutputError: The disk is full.
        """
        self.append([{"scan_id": scan_id, _GONE: True} for scan_id in scan_ids])
        for scan_id in scan_ids:
            del self.entries[scan_id]

    def append(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add finished scans and see them onto the disk.

        Raises:
            OutputError: The disk is full; the journal is cut back to its last whole line.
        """
        data = b"".join(json.dumps(entry, ensure_ascii=True).encode() + b"\n" for entry in entries)
        try:
            with self.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if self.path.is_file():
                os.truncate(self.path, self._good)
            reason = error.strerror or error
            raise OutputError(
                f"Cannot write {self.path}: {reason}. Free some space, then go on with --resume; nothing done is lost."
            ) from error
        self._good += len(data)
        self.entries |= {entry["scan_id"]: entry for entry in entries}
