"""splits.csv: which scan had which role in a fit, read back from its run, or given to another fit."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anomaly.errors import DataError
from anomaly.records import ScanFile
from anomaly.scans.walk import Listing
from anomaly.workflows.selection import CALIBRATION, TEST, TRAIN

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
    tables = (model / SPLITS, model.parent / SPLITS)
    return next((read_splits(table) for table in tables if table.is_file()), [])


def read_splits(table: Path) -> list[dict[str, str]]:
    """Return the rows of a splits.csv.

    Raises:
        DataError: It cannot be read, or is not one of ours.
    """
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            if missing := {"scan_id", "role"} - set(rows.fieldnames or ()):
                raise DataError(f"{table} lacks the columns {', '.join(sorted(missing))}: give a run's {SPLITS}.")
            return list(rows)
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"Cannot read {table}: {reason}; give the {SPLITS} of a run.") from error


def with_splits(listing: Listing, table: Path) -> Listing:
    """Return the scans under the roles that a splits.csv gives them, in place of any split their set publishes.

    A file of the role train, calibration or test is of the split of that name; any other is set aside, for the reason
    the table has.

    Raises:
        DataError: The table cannot be read, or was drawn from other scans.
    """
    rows = {row["scan_id"]: row for row in read_splits(table)}
    strange = rows.keys() ^ {file.scan_id for file in listing.files}
    if strange:
        raise DataError(
            f"{table} speaks of other scans than {listing.root} holds ({len(strange)} are in one of them alone): give "
            "the SCANS it was drawn from."
        )
    return replace(listing, files=tuple(_given(file, rows[file.scan_id]) for file in listing.files))


def _given(file: ScanFile, row: dict[str, str]) -> ScanFile:
    if row["role"] in (TRAIN, CALIBRATION, TEST):
        return replace(file, split=row["role"], set_aside=None)
    return replace(file, split=None, set_aside=row.get("reason") or row["role"])
