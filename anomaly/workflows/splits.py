"""splits.csv: which scan had which role in a fit, read back from its run."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from anomaly.errors import DataError
from anomaly.records import ScanFile

SPLITS = "splits.csv"


def files_of_split(files: Sequence[ScanFile], split: str, model: Path) -> list[ScanFile]:
    """Return the files that the set publishes as this split, or else those the model's run gave this role.

    Args:
        files: For a role of the run, of the very SCANS the model was fitted on.
        split: A split the set publishes ("test", "dev", "val", "train") or a role of splits.csv.
        model: A run folder or the model folder in it.

    Raises:
        DataError: No file has it, or the run was fitted on other scans.
    """
    published = [file for file in files if file.split == split]
    if published:
        return published
    roles = {row["scan_id"]: row["role"] for row in run_splits(model)}
    if split in roles.values() and set(roles) != {file.scan_id for file in files}:
        raise DataError(
            f"--split {split}: these are not the scans {model} was fitted on, whose splits.csv says which are "
            f"{split}: give the same SCANS as to the fit."
        )
    named = [file for file in files if roles.get(file.scan_id) == split]
    if not named:
        known = sorted(set(roles.values()) | {file.split for file in files if file.split is not None})
        raise DataError(f"no scan belongs to the split {split!r} (there are: {', '.join(known) or 'none'}).")
    return named


def run_splits(model: Path) -> list[dict[str, str]]:
    """Return the rows of the splits.csv of a run, given its folder or the model folder in it; [] without one."""
    for table in (model / SPLITS, model.parent / SPLITS):
        if table.is_file():
            with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                return list(csv.DictReader(file))
    return []
