"""`anomaly segment apply`: a segmenter and a folder of scans in; a mask, an overlay and a row for every film out."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError, UsageError
from anomaly.heatmaps import write_png
from anomaly.prepare.cache import open_cache
from anomaly.records import ScanFile
from anomaly.runs import RECEIPT, claim_folder, read_json, receipt, sha256_of
from anomaly.scans.quality import excluding
from anomaly.scans.walk import list_scans
from anomaly.segmenters.curve import cut
from anomaly.workflows.disguise import disguise, stamp_of
from anomaly.workflows.gallery import BLUE
from anomaly.workflows.journal import Journal
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.model import MODEL_JSON
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import Outcome, read_files
from anomaly.workflows.segment_evaluate import EVALUATED
from anomaly.workflows.segment_masks import VALIDATION
from anomaly.workflows.segment_model import Segmenter, find_segmenter, load_segmenter
from anomaly.workflows.segment_pictures import overlay
from anomaly.workflows.segment_results import (
    APPLY,
    FAILED,
    MASKS,
    SEEN,
    SEGMENTED,
    Chances,
    MaskRow,
    chances_on_film,
    files_of,
    save_chances,
    save_cut,
    write_masks,
)
from anomaly.workflows.selection import TRAIN
from anomaly.workflows.splits import files_of_split, run_splits

_BESIDE = ("seconds", "stamp")
"""What a line of the journal says beside the row."""
_INSIDE, _OUTSIDE = np.uint8(255), np.uint8(0)


@dataclass(frozen=True, slots=True)
class Segmented:
    """One scan's row, and what is kept of it with its mask, bool (H, W); both None when it failed."""

    row: MaskRow
    kept: Chances | None = None
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class ApplySummary:
    """What a run did."""

    out: Path
    segmented: int
    failed: int
    images_per_second: float
    notes: tuple[str, ...]


def segment_files(
    segmenter: Segmenter, files: Sequence[ScanFile], *, seen: Set[str] = frozenset(), workers: int = 2
) -> Iterator[Segmented]:
    """Segment files in order, a chunk of the model's fixed size at a time; each answer is the file's own.

    A file that cannot be read is one row with its reason, never a stop.

    Args:
        segmenter: Of `load_segmenter`.
        files: What to segment.
        seen: The sha256 of the files that the model was fitted on: they are warned of.
        workers: Reading processes.
    """
    waiting: list[Outcome] = []
    ready = 0
    for outcome in read_files(
        files,
        read=segmenter.facts.read,
        channels=segmenter.preparation.config.channels,
        preparation=segmenter.preparation,
        workers=workers,
        cache=open_cache(),
    ):
        waiting.append(outcome)
        ready += outcome.prepared is not None
        if ready == segmenter.unet.config.segment_batch:
            yield from _segment_chunk(segmenter, waiting, seen)
            waiting, ready = [], 0
    yield from _segment_chunk(segmenter, waiting, seen)


def _segment_chunk(segmenter: Segmenter, outcomes: Sequence[Outcome], seen: Set[str]) -> Iterator[Segmented]:
    ready = [outcome.prepared for outcome in outcomes if outcome.prepared is not None]
    found = segmenter.unet.chances(np.stack([film.image for film in ready])) if ready else np.empty(0, np.float32)
    against = excluding(segmenter.preparation.config.channels)
    index = 0
    for outcome in outcomes:
        file = outcome.file
        row = MaskRow(file.scan_id, file.relative, FAILED, file.patient, file.label)
        if outcome.findings is None or outcome.prepared is None:
            yield Segmented(replace(row, error=outcome.error))
            continue
        geometry = outcome.prepared.geometry
        chances = found[index].astype(np.float16)  # what is kept is what the mask is made of
        mask = cut(chances_on_film(chances.astype(np.float32), geometry), segmenter.unet.threshold)
        flags = [f"{flag.name}: {flag.detail}" for flag in outcome.findings.flags if flag.name in against]
        row = replace(
            row,
            status=SEGMENTED,
            patient=outcome.patient,
            area=float(mask.mean()),
            warnings=(
                *outcome.prepared.warnings,
                *flags,
                *(() if mask.any() else ("nothing found",)),
                *((SEEN,) if outcome.findings.content_sha256 in seen else ()),
            ),
        )
        yield Segmented(row, Chances(chances, geometry, outcome.findings.film), mask)
        index += 1


def apply_segmenter(
    scans: Path,
    model_path: Path,
    output: Path,
    *,
    hash_paths: bool = False,
    split: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> ApplySummary:
    """Segment a folder; write masks.csv, masks, overlays, chances, journal and receipt.

    Args:
        scans: A file, folder or manifest CSV.
        model_path: A run or model folder.
        output: The results folder; made.
        hash_paths: Write no file name anywhere, nor SCANS itself, only salted hashes.
        split: Only the scans of this split: as the fit's splits.csv has it, else as the set publishes it.
        resume: Skip what the journal of an interrupted run already holds.
        overwrite: Replace earlier results.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: No images, or none that could be read (the table is still written).
        ModelError: The model cannot be used.
        UsageError: The output folder is taken, or resumes another model's run.
    """
    listing = list_scans(scans)
    folder = find_segmenter(model_path)
    segmenter = load_segmenter(folder, device=device)
    model_hash = sha256_of(folder / MODEL_JSON)
    if resume:
        _same_work(output, {"model_sha256": model_hash, "hashed_paths": hash_paths, "split": split})
    files = list(listing.files) if split is None else files_of_split(listing.files, split, model_path)
    claim_folder(output, command=APPLY, resume=resume, overwrite=overwrite, inputs=(scans, model_path))
    files = [disguise(file) for file in files] if hash_paths else files
    facts: dict[str, Any] = {
        "model_sha256": model_hash,
        "method": segmenter.facts.method,
        "threshold": segmenter.unet.threshold,
        "files": len(files),
        "segmented_on": segmenter.unet.runs_on(),
        "hashed_paths": hash_paths,
        "split": split,
        "not_images": listing.others,
        "notes": [] if hash_paths else list(listing.notes),  # they name files and folders
    }
    if hash_paths:
        facts["argv"] = ["SCANS" if Path(word) == scans else word for word in sys.argv[1:]]
    with receipt(output, APPLY, facts):
        save_cut(output, segmenter.unet)
        journal = Journal(output)
        stamps = {file.scan_id: stamp_of(file.path) for file in files}
        _forget_changed(output, journal, stamps)
        todo = [file for file in files if file.scan_id not in journal.entries]
        started = time.monotonic()
        try:
            _run(segmenter, todo, output, stamps, journal, _fitted_on(model_path), workers, on_progress)
            took = time.monotonic() - started
        finally:  # what was finished is usable, whatever stopped the rest
            rows = [_row(file, journal.entries[file.scan_id]) for file in files if file.scan_id in journal.entries]
            write_masks(output, rows)
        segmented = sum(row.status == SEGMENTED for row in rows)
        facts |= {"segmented": segmented, "failed": len(rows) - segmented}
    if not segmented:
        raise DataError(f"None of the {len(rows)} files in {scans} could be read; {output / MASKS} says why for each.")
    notes = [*listing.notes]
    empty = sum(row.area == 0 for row in rows)
    if empty:
        notes.append(f"Nothing was found on {empty} of {segmented} films.")
    return ApplySummary(output, segmented, len(rows) - segmented, len(todo) / max(took, 1e-9), tuple(notes))


def _run(
    segmenter: Segmenter,
    todo: Sequence[ScanFile],
    output: Path,
    stamps: Mapping[str, list[int] | None],
    journal: Journal,
    seen: Set[str],
    workers: int,
    on_progress: Ticker,
) -> None:
    """Segment what is left to do, the files of each film on disk before the journal line that says it is done."""
    pending: list[dict[str, Any]] = []
    last = time.monotonic()
    for segmented in segment_files(segmenter, todo, seen=seen, workers=workers):
        row = segmented.row
        if segmented.kept is not None and segmented.mask is not None:
            files = files_of(output, row.scan_id)
            save_chances(files["chances"], segmented.kept)
            write_png(files["mask"], np.where(segmented.mask, _INSIDE, _OUTSIDE))
            write_png(files["overlay"], overlay(segmented.kept.film, [(segmented.mask, BLUE)]))
        now = time.monotonic()
        pending.append({**asdict(row), "seconds": round(now - last, 4), "stamp": stamps[row.scan_id]})
        last = now
        if len(pending) >= segmenter.unet.config.segment_batch:
            journal.append(pending)
            pending = []
        on_progress(len(journal.entries) + len(pending), len(stamps), "segmenting")
    journal.append(pending)


def _fitted_on(model: Path) -> Set[str]:
    """Return the sha256 of the files a model was trained or validated on, where its run's splits.csv tells."""
    return {row["content_sha256"] for row in run_splits(model) if row["role"] in (TRAIN, VALIDATION)}


def _row(file: ScanFile, entry: Mapping[str, Any]) -> MaskRow:
    """Return a file's row: from the journal, but the label as the folder or manifest gives it now."""
    fields = {key: value for key, value in entry.items() if key not in _BESIDE}
    return MaskRow(**{**fields, "label": file.label, "warnings": tuple(fields["warnings"])})


def _forget_changed(output: Path, journal: Journal, stamps: Mapping[str, list[int] | None]) -> None:
    """Drop what an earlier run says of files that failed, are gone or no longer the same; and what rested on it."""
    for derived in EVALUATED:
        (output / derived).unlink(missing_ok=True)
    stale = [
        scan_id
        for scan_id, entry in journal.entries.items()
        if entry["status"] == FAILED
        or scan_id not in stamps
        or entry.get("stamp") != stamps[scan_id]
        or not all(path.is_file() for path in files_of(output, scan_id).values())
    ]
    journal.forget(stale)
    for scan_id in stale:
        for path in files_of(output, scan_id).values():
            path.unlink(missing_ok=True)


def _same_work(output: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to resume a run of another model, or one of other scans or names."""
    begun = output / RECEIPT
    before = read_json(begun) if begun.is_file() else {}
    differs = [name for name, value in asked.items() if before.get(name, value) != value]
    if "model_sha256" in differs:
        raise UsageError(f"--resume: {output} was made with another model; use that, or choose another --output.")
    if differs:
        option = {"split": "--split", "hashed_paths": "--hash-paths"}[differs[0]]
        raise UsageError(f"--resume: give {option} just as {output} was begun, or choose another --output.")
