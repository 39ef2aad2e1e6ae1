"""Scan files as results name them: under a salted hash where names are not to be written; and what tells them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from anomaly.records import ScanFile
from anomaly.scans.patients import hash_patient


def stamp_of(path: Path) -> list[int] | None:
    """Return what tells a file from a later one of the same name: its size and time; None when it is not there."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return [facts.st_size, facts.st_mtime_ns]


def disguise(file: ScanFile) -> ScanFile:
    """Return the file under a salted hash of its name, in id and path alike."""
    name = hash_patient(f"path:{file.relative}")
    return replace(file, scan_id=f"scan-{name}", relative=f"hashed/{name}", extra={})
