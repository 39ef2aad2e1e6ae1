"""`anomaly fit`: normals in, a run folder with a calibrated model out."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.calibrate import Calibration, calibrate
from anomaly.config import Recipe, dump_recipe, load_recipe, validate
from anomaly.detectors.base import Detector
from anomaly.errors import DataError, UsageError
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.source import ArraySource
from anomaly.records import NORMAL, Float32, Int64, ScanFile
from anomaly.registry import detector_class
from anomaly.runs import RECEIPT, RunRecorder, claim_folder, read_json, receipt, write_table, write_text
from anomaly.scans.split import split_normals
from anomaly.scans.walk import Listing, list_scans
from anomaly.workflows.model import save_model
from anomaly.workflows.prepare_scans import Outcome, prepare_scans
from anomaly.workflows.progress import Ticker, silent

log = logging.getLogger("anomaly")

FEWEST_NORMALS = 16


@dataclass(frozen=True, slots=True)
class Selection:
    """Which scans a fit uses, and why not the others (file, reason)."""

    chosen: tuple[ScanFile, ...]
    left_out: tuple[tuple[ScanFile, str], ...]
    basis: str
    """How the chosen are known to be normal; goes into the receipt."""


@dataclass(frozen=True, slots=True)
class FitSummary:
    """What a fit did."""

    run: Path
    trained: int
    held_out: int
    left_out: int
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Films:
    """Prepared films of a fit, with what is known of each."""

    files: list[ScanFile] = field(default_factory=list)
    images: list[Float32] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    without_id: int = 0
    failed: list[tuple[ScanFile, str]] = field(default_factory=list)


def select_normals(listing: Listing, *, normal_only: bool) -> Selection:
    """Choose the scans an unsupervised fit may see: normals, of the train split where there is one.

    Args:
        listing: Of the folder or manifest.
        normal_only: The user's flag. With labels, only those labelled normal are taken; without any, it is the
            user's declaration that all of it is normal. Where the folder holds a train split, only that is used.

    Raises:
        DataError: No flag and not wholly labelled normal.
    """
    any_train = any(_is_train(f) for f in listing.files)
    for_training = [f for f in listing.files if _is_train(f) or not any_train]
    left = [(f, f"belongs to the {f.split} split") for f in listing.files if any_train and not _is_train(f)]
    labelled = [f for f in for_training if f.label is not None]
    if normal_only and not labelled:
        return Selection(tuple(for_training), tuple(left), "declared normal by --normal-only (no labels found)")
    normal = [f for f in for_training if f.label == NORMAL]
    if not normal_only and len(normal) < len(for_training):
        raise DataError(
            f"{len(for_training) - len(normal)} of {len(for_training)} scans are not labelled normal, and this method "
            "learns from normals alone: add --normal-only to train on the scans labelled normal (or, where there are "
            "no labels at all, to declare the folder normal)."
        )
    left += [(f, f"labelled {f.class_name or 'abnormal'}") for f in for_training if f.label not in (None, NORMAL)]
    left += [(f, "label unknown") for f in for_training if f.label is None]
    sources = sorted({f.label_source or "labels" for f in labelled})
    return Selection(tuple(normal), tuple(left), f"labelled normal ({', '.join(sources)})")


def resolve(recipe: Recipe, *, device: str = "auto") -> tuple[Recipe, Detector]:
    """Return the recipe with every setting of its method written out, and the unfitted detector it describes.

    Raises:
        UsageError: No such method, or settings it does not know or cannot work with.
    """
    cls = detector_class(recipe.method)
    settings = validate(cls.Config, recipe.detector, f"recipe, detector of method {recipe.method!r}")
    full = recipe.model_copy(update={"detector": settings.model_dump(mode="json")})
    return full, cls(settings, size=recipe.size, device=device, seed=recipe.seed)


def _is_train(file: ScanFile) -> bool:
    return (file.split or "train").lower() in ("train", "training")


def fit(
    scans: Path,
    output: Path,
    recipe: Recipe,
    *,
    normal_only: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> FitSummary:
    """Fit a recipe on a folder of normals and write a run folder.

    Args:
        scans: A file, folder or manifest CSV.
        output: The run folder; made.
        recipe: What to fit. With `resume`, the run's own config.yaml is used instead and must say the same.
        normal_only: See `select_normals`.
        resume: Go on with an interrupted run.
        overwrite: Replace an earlier run.
        device: "auto", "cpu" or "cuda".
        workers: Reading threads.
        on_progress: Told how far along things are.

    Raises:
        DataError: Too few normals, or scans whose labels do not allow the fit.
        UsageError: Wrong settings or output folder.
    """
    recipe, detector = resolve(recipe, device=device)
    listing = list_scans(scans)
    selection = select_normals(listing, normal_only=normal_only)
    enough(len(selection.chosen), scans, selection)
    claim_folder(output, command="fit", resume=resume, overwrite=overwrite, inputs=(scans,))
    if resume:
        _same_run(output, recipe, selection)
    facts: dict[str, Any] = {
        "method": recipe.method,
        "seed": recipe.seed,
        "scored_on": detector.runs_on(),
        "normal": selection.basis,
        "scans_sha256": fingerprint(selection),
        "left_out": count_reasons(selection),
    }
    with receipt(output, "fit", facts):
        write_text(output / "config.yaml", dump_recipe(recipe))
        films = _read(selection.chosen, recipe, workers, on_progress)
        enough(len(films.files), scans, selection)
        parts = recipe.calibration
        groups = _number(films.patients)
        train, held_out = split_normals(groups.tolist(), parts.fraction, recipe.seed, minimum=parts.minimum)
        splits = _split_rows(films, train, held_out, selection)
        if resume:
            _same_split(output / "splits.csv", splits)
        write_table(output / "splits.csv", splits)
        images = np.stack(films.images)
        recorder = RunRecorder(output, resume=resume, on_progress=on_progress)
        detector.fit(ArraySource(images[train], groups[train]), recorder=recorder)
        recorder.flush()
        calibration = calibrate(*score_in_chunks(detector, images[held_out], on_progress, "calibrating"))
        facts |= {"trained": len(train), "held_out": len(held_out), "failed": len(films.failed)}
        data = {
            "scans_sha256": facts["scans_sha256"],
            "normal": selection.basis,
            "trained_on": len(train),
            "held_out_normals": len(held_out),
            "patients": len(set(films.patients)),
            "scored_on": detector.runs_on(),
        }
        save_model(output / "model", recipe, detector, calibration, data=data)
    failed = tuple(f"{file.relative}: {reason}" for file, reason in films.failed)
    notes = (*listing.notes, *_notes(films, calibration, parts.alpha))
    return FitSummary(output, len(train), len(held_out), len(selection.left_out), failed, notes)


def _number(patients: Sequence[str]) -> Int64:
    """Number patients in the order of their first films: the salt of their hashes must not shape a split."""
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients], dtype=np.int64)


def _same_split(before: Path, rows: Sequence[Sequence[str]]) -> None:
    """Refuse to go on when films would change sides: the checkpoint may have seen what is now held out."""
    if not before.is_file():
        return
    with before.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        drawn = {row["scan_id"]: row["role"] for row in csv.DictReader(file)}
    if drawn != {row[0]: row[3] for row in rows[1:]}:
        raise UsageError(
            f"--resume: the films or patients are not those {before} was drawn from, so some would change from "
            "training to calibration: start afresh with --overwrite."
        )


def _notes(films: _Films, calibration: Calibration, alpha: float) -> list[str]:
    notes = []
    if films.without_id:
        notes.append(
            f"{films.without_id} of {len(films.files)} scans carry no patient id: each counts as its own patient, so "
            "one patient's scans may sit on both sides of the calibration split (a manifest with a patient column "
            "mends it)."
        )
    if alpha < calibration.smallest_alpha:
        notes.append(
            f"{len(calibration.scores)} held-out normals cannot give a p-value below {calibration.smallest_alpha:.3g}: "
            f"at alpha {alpha:g} nothing will be flagged. Give more normals or a larger alpha."
        )
    return notes


def score_in_chunks(detector: Detector, images: Float32, on_progress: Ticker, what: str) -> tuple[Float32, Float32]:
    """Score many images a chunk at a time, so that progress can be shown; the answer is that of one call."""
    batch = detector.config.score_batch
    scores, heatmaps = [], []
    for start in range(0, len(images), batch):
        out = detector.score(images[start : start + batch])
        if out.heatmaps is None:
            raise DataError(f"{detector.name} drew no map for a held-out normal.")
        scores.append(out.scores)
        heatmaps.append(out.heatmaps)
        on_progress(min(start + batch, len(images)), len(images), what)
    return np.concatenate(scores), np.concatenate(heatmaps)


def _prepared(files: Sequence[ScanFile], recipe: Recipe, workers: int) -> Iterator[Outcome[str | None]]:
    """Prepare files, keeping of each scan its patient (of the manifest, the file name or the DICOM header)."""
    preparation = Preparation(recipe.prepare, recipe.size)
    return prepare_scans(files, preparation, recipe.read, lambda scan: scan.patient, workers=workers)


def _read(files: Sequence[ScanFile], recipe: Recipe, workers: int, on_progress: Ticker) -> _Films:
    films = _Films()
    for done, outcome in enumerate(_prepared(files, recipe, workers), start=1):
        on_progress(done, len(files), "reading")
        if outcome.prepared is None:
            films.failed.append((outcome.file, outcome.error or "unreadable"))
            continue
        patient = outcome.kept
        films.without_id += patient is None
        films.files.append(outcome.file)
        films.images.append(outcome.prepared.image)
        films.patients.append(patient or f"scan:{outcome.file.scan_id}")
    return films


def enough(count: int, scans: Path, selection: Selection) -> None:
    """Refuse too few normals, saying what was left out.

    Raises:
        DataError: Fewer than 16.
    """
    if count < FEWEST_NORMALS:
        others = ", ".join(f"{number} {reason}" for reason, number in count_reasons(selection).items())
        raise DataError(
            f"{scans} gives {count} normal scan{'s' if count != 1 else ''} to learn from"
            f"{f' (left out: {others})' if others else ''}; at least {FEWEST_NORMALS} are needed, and hundreds for a "
            "useful model: give more."
        )


def fingerprint(selection: Selection) -> str:
    """Return a hash of which files are trained on: relative paths and sizes."""
    digest = hashlib.sha256()
    for file in selection.chosen:
        size = file.path.stat().st_size if file.path.is_file() else -1
        digest.update(f"{file.relative}\0{size}\n".encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


def _same_run(output: Path, recipe: Recipe, selection: Selection) -> None:
    """Refuse to resume a run with other settings or on other scans than it was begun with."""
    config, begun = output / "config.yaml", output / RECEIPT
    if config.is_file() and load_recipe(None, config) != recipe:
        raise UsageError(
            f"--resume: the settings differ from those in {config}; resume with the same, or choose another --output."
        )
    if begun.is_file() and read_json(begun).get("scans_sha256") not in (None, fingerprint(selection)):
        raise UsageError(f"--resume: {output} was begun on other scans; give the same, or choose another --output.")


def count_reasons(selection: Selection) -> dict[str, int]:
    """Return how many scans were left out for each reason."""
    return dict(sorted(Counter(reason for _, reason in selection.left_out).items()))


def _split_rows(films: _Films, train: Int64, held_out: Int64, selection: Selection) -> list[list[str]]:
    """Return splits.csv: every file found, the role it has, and why."""
    rows = [["scan_id", "path", "patient", "role", "reason"]]
    role = {int(i): "train" for i in train} | {int(i): "calibration" for i in held_out}
    for i, file in enumerate(films.files):
        patient = "" if films.patients[i].startswith("scan:") else films.patients[i]
        rows.append([file.scan_id, file.relative, patient, role[i], ""])
    for what, files in (("failed", films.failed), ("left out", selection.left_out)):
        rows += [[file.scan_id, file.relative, file.patient or "", what, reason] for file, reason in files]
    return rows
