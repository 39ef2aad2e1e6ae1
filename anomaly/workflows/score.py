"""`anomaly score`: a model and a folder of scans in, a ranked table and pictures out."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.base import SupervisedConfig
from anomaly.errors import DataError, UsageError
from anomaly.prepare.cache import open_cache
from anomaly.records import Float32, Float64, Prepared, ResultRow, ScanFile
from anomaly.runs import RECEIPT, claim_folder, read_json, receipt, sha256_of
from anomaly.scans.quality import excluding
from anomaly.scans.walk import list_scans
from anomaly.workflows.attention import ATTENDED
from anomaly.workflows.box_tables import BOXED, BOXES, SHAPE, true_boxes, write_boxes, write_true_boxes
from anomaly.workflows.boxes import to_film_boxes
from anomaly.workflows.classes import as_known
from anomaly.workflows.classification import CLASSIFIED
from anomaly.workflows.disguise import disguise, stamp_of
from anomaly.workflows.draw import draw_heatmaps
from anomaly.workflows.evaluate import EVALUATION
from anomaly.workflows.journal import Journal, pack_features
from anomaly.workflows.model import MODEL_JSON, Model, find_model, load_model
from anomaly.workflows.panels import Panel, PanelShelf, make_panel
from anomaly.workflows.predictions import PREDICTIONS, write_predictions
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import Outcome, read_files
from anomaly.workflows.results import FAILED, SCORED, flags, write_scores
from anomaly.workflows.splits import files_of_split, with_splits
from anomaly.workflows.truth_masks import forget_true_masks, lesion_masks, write_true_masks
from anomaly.workflows.tsne import TSNE

_BESIDE = ("trivial", "view", "seconds", "stamp", "features", BOXES, SHAPE)
"""What a line of the journal says beside the row."""
DERIVED = (EVALUATION, "evaluation.md", "report.html", TSNE, PREDICTIONS, *CLASSIFIED, *ATTENDED, *BOXED)
"""Files made of a run's results, which no longer hold once it goes on."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One scan's row, with what its pictures and its baselines need; all None when it failed.

    `features` float32 (F,), None where the method has none. `shape` is the film's (H, W), `boxes` float64 (n, 5): x, y,
    w, h in its pixels and confidence, best first; None where the method draws none. `view` is the projection.
    """

    row: ResultRow
    panel: Panel | None = None
    trivial: dict[str, float] | None = None
    features: Float32 | None = None
    boxes: Float64 | None = None
    shape: tuple[int, int] | None = None
    view: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """What a scoring run did."""

    out: Path
    scored: int
    failed: int
    flagged: int
    alpha: float
    images_per_second: float
    notes: tuple[str, ...]


def score_paths(model: Model, paths: str | Path | Iterable[str | Path], *, workers: int = 2) -> Iterator[ResultRow]:
    """Score a file, folder or manifest, or several, with a loaded model: one row a file, in the order found.

    A file that cannot be read is one row with status "failed" and its reason, never a stop.

    Raises:
        DataError: A path that does not exist, or a folder without images.
    """
    for path in [paths] if isinstance(paths, str | Path) else paths:
        for scored in score_files(model, list_scans(Path(path)).files, workers=workers):
            yield scored.row


def score_files(model: Model, files: Sequence[ScanFile], *, workers: int = 2) -> Iterator[Scored]:
    """Score files in order, a chunk of the model's fixed size at a time; each answer is the file's own."""
    waiting: list[Outcome] = []
    ready = 0
    for outcome in read_files(
        files,
        read=model.facts.read,
        channels=model.preparation.config.channels,
        preparation=model.preparation,
        workers=workers,
        cache=open_cache(),
    ):
        waiting.append(outcome)
        ready += outcome.prepared is not None
        if ready == model.detector.config.score_batch:
            yield from _score_chunk(model, waiting)
            waiting, ready = [], 0
    yield from _score_chunk(model, waiting)


def _stacked(films: Sequence[Prepared]) -> tuple[Float32, NDArray[np.bool_]]:
    """Return a detector's input: images float32 (n, C, S, S), and which of their pixels show film, bool (n, S, S)."""
    everywhere = np.ones(films[0].image.shape[1:], np.bool_)
    inside = [everywhere if film.inside is None else film.inside for film in films]
    return np.stack([film.image for film in films]), np.stack(inside)


def _score_chunk(model: Model, outcomes: Sequence[Outcome]) -> Iterator[Scored]:
    ready = [outcome.prepared for outcome in outcomes if outcome.prepared is not None]
    output = None
    if ready:
        images, inside = _stacked(ready)
        output = model.detector.score(images, inside=inside)
    against = excluding(model.preparation.config.channels)
    index = 0
    for outcome in outcomes:
        file = outcome.file
        row = ResultRow(file.scan_id, file.relative, FAILED, file.patient, file.label, file.class_name)
        if outcome.findings is None or outcome.prepared is None or output is None:
            yield Scored(replace(row, error=outcome.error))
            continue
        score = float(output.scores[index])
        row = replace(
            row,
            status=SCORED,
            patient=outcome.patient,
            score=score,
            p_value=model.calibration.p_value(score),
            warnings=(
                *outcome.prepared.warnings,
                *(f"{f.name}: {f.detail}" for f in outcome.findings.flags if f.name in against),
            ),
            terms={name: float(values[index]) for name, values in output.terms.items()},
        )
        found = outcome.findings
        features = None if output.features is None else output.features[index]
        panel = make_panel(found.film, outcome.prepared, output, index)
        way = outcome.prepared.geometry
        scored = Scored(row, panel, found.trivial, features, shape=way.film_shape, view=outcome.view)
        if output.boxes is not None:
            scored = replace(scored, boxes=to_film_boxes(output.boxes[index], way))
        yield scored
        index += 1


def score(
    scans: Path,
    model_path: Path,
    output: Path,
    *,
    alpha: float | None = None,
    panels: int | None = 200,
    hash_paths: bool = False,
    split: str | None = None,
    splits: Path | None = None,
    draw: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> ScoreSummary:
    """Score a folder and write scores.csv, heatmaps, panels, journal and receipt.

    Args:
        scans: A file, folder or manifest CSV.
        model_path: A run or model folder.
        output: The results folder; made.
        alpha: Flag scans with p <= alpha; None for the model's default.
        panels: Keep the material of this many highest-scoring pictures; None for all.
        hash_paths: Write no file name anywhere, nor SCANS itself, only salted hashes.
        split: Only the scans of this split: as the set publishes it, else as the fit's splits.csv has it.
        splits: A splits.csv drawn from the same scans, which then says what is of which split.
        draw: Draw heatmaps; `anomaly heatmaps` draws them later as well.
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
    listing = list_scans(scans) if splits is None else with_splits(list_scans(scans), splits)
    folder = find_model(model_path)
    model = load_model(folder, device=device)
    alpha = model.facts.alpha if alpha is None else alpha
    model_hash = sha256_of(folder / MODEL_JSON)
    if resume:
        _same_work(output, model_hash, hash_paths, split)
    files = list(listing.files) if split is None else files_of_split(listing.files, split, model_path)
    classes = model.detector.classes
    if isinstance(model.detector.config, SupervisedConfig) and classes:
        files = [as_known(file, model.detector.config.classes, classes) for file in files]
    boxes, remarks = true_boxes(listing.files, files)
    masks, doubts = lesion_masks(listing, files)
    remarks += doubts
    claim_folder(output, command="score", resume=resume, overwrite=overwrite, inputs=(scans, model_path))
    files = [disguise(file) for file in files] if hash_paths else files
    facts: dict[str, Any] = {
        "model_sha256": model_hash,
        "method": model.facts.method,
        "alpha": alpha,
        "files": len(files),
    }
    facts |= {
        "scored_on": model.detector.runs_on(),
        "heat_unit": model.detector.heat_unit,
        "heat_range": model.detector.heat_range,
        "hashed_paths": hash_paths,
        "split": split,
        "not_images": listing.others,
        "notes": [] if hash_paths else list(listing.notes),  # they name files and folders
    }
    if classes:
        facts["classes"] = list(classes)
    if model.detector.cut is not None:
        facts["cut"] = model.detector.cut
    if hash_paths:
        facts["argv"] = ["SCANS" if Path(word) == scans else word for word in sys.argv[1:]]
    with receipt(output, "score", facts):
        model.calibration.save(output)
        journal = Journal(output)
        shelf = PanelShelf(output / "panels", panels)
        stamps = {file.scan_id: stamp_of(file.path) for file in files}
        _forget_changed(output, journal, stamps)
        for entry in journal.entries.values():
            if entry["score"] is not None:
                shelf.already_kept(entry["score"], entry["scan_id"])
        todo = [file for file in files if file.scan_id not in journal.entries]
        started = time.monotonic()
        try:
            _run(model, todo, stamps, journal, shelf, workers, on_progress)
            took = time.monotonic() - started
        finally:  # what was finished is usable, whatever stopped the rest
            rows = [_row(file, journal.entries[file.scan_id]) for file in files if file.scan_id in journal.entries]
            write_scores(output, rows, alpha=alpha)
            if classes:
                write_predictions(output, rows, classes)
            if model.detector.boxes:
                write_boxes(output, rows, journal.entries)
            boxed = {file.scan_id: own for file, own in zip(files, boxes, strict=True) if own is not None}
            masked = {file.scan_id: own for file, own in zip(files, masks, strict=True) if own is not None}
            remarks += write_true_boxes(output, rows, boxed, journal.entries)
            remarks += write_true_masks(output, rows, masked, journal.entries)
        if draw:
            draw_heatmaps(output, on_progress=on_progress)
            write_scores(output, rows, alpha=alpha)  # once more: now it can name the pictures
        scored = sum(row.score is not None for row in rows)
        flagged = sum(row.p_value is not None and flags(row.p_value, alpha) for row in rows)
        counts = {"scored": scored, "failed": len(rows) - scored, "flagged": flagged}
        facts |= counts
    if not scored:
        raise DataError(
            f"None of the {len(rows)} files in {scans} could be read; {output / 'scores.csv'} says why for each."
        )
    notes = [*listing.notes, *remarks]
    calibrated_on = model.facts.data.get("scored_on")
    if calibrated_on != model.detector.runs_on():
        notes.append(
            f"The model was calibrated on {calibrated_on} and these scores come from {model.detector.runs_on()}: "
            "p-values may be a little off; `anomaly calibrate` here mends it."
        )
    if alpha < model.calibration.smallest_alpha:
        notes.append(
            f"The model's {len(model.calibration.scores)} held-out normals cannot give a p-value below "
            f"{model.calibration.smallest_alpha:.3g}, so nothing is flagged at alpha {alpha:g}: raise --alpha, or "
            "recalibrate with more normals."
        )
    return ScoreSummary(
        output, **counts, alpha=alpha, images_per_second=len(todo) / max(took, 1e-9), notes=tuple(notes)
    )


def _run(
    model: Model,
    todo: Sequence[ScanFile],
    stamps: Mapping[str, list[int] | None],
    journal: Journal,
    shelf: PanelShelf,
    workers: int,
    on_progress: Ticker,
) -> None:
    """Score what is left to do, each panel on disk before the journal line that says it is done."""
    pending: list[dict[str, Any]] = []
    last = time.monotonic()
    for scored in score_files(model, todo, workers=workers):
        row = scored.row
        if scored.panel is not None and row.score is not None and shelf.wants(row.score):
            shelf.put(row.score, row.scan_id, scored.panel)
        now = time.monotonic()
        beside: dict[str, Any] = {
            "trivial": scored.trivial,
            "view": scored.view,
            "seconds": round(now - last, 4),
            "stamp": stamps[row.scan_id],
            SHAPE: scored.shape,
        }
        if scored.features is not None:
            beside["features"] = pack_features(scored.features)
        if scored.boxes is not None:
            beside[BOXES] = scored.boxes.tolist()
        pending.append({**asdict(row), **beside})
        last = now
        if len(pending) >= model.detector.config.score_batch:
            journal.append(pending)
            pending = []
        on_progress(len(journal.entries) + len(pending), len(stamps), "scoring")
    journal.append(pending)


def _row(file: ScanFile, entry: dict[str, Any]) -> ResultRow:
    """Return a file's row: scores from the journal, labels as the folder or manifest gives them now."""
    fields = {k: v for k, v in entry.items() if k not in _BESIDE}
    known = {"label": file.label, "class_name": file.class_name, "extra": file.extra}
    return ResultRow(**{**fields, **known, "warnings": tuple(fields["warnings"])})


def _forget_changed(output: Path, journal: Journal, stamps: Mapping[str, list[int] | None]) -> None:
    """Drop what an earlier run says of files that failed, are gone or no longer the same; and what rested on it."""
    for derived in DERIVED:
        (output / derived).unlink(missing_ok=True)
    forget_true_masks(output)
    stale = [
        scan_id
        for scan_id, entry in journal.entries.items()
        if entry["status"] == FAILED or scan_id not in stamps or entry.get("stamp") != stamps[scan_id]
    ]
    journal.forget(stale)
    for scan_id in stale:
        for picture in (output / "panels" / f"{scan_id}.npz", output / "heatmaps" / f"{scan_id}.png"):
            picture.unlink(missing_ok=True)


def _same_work(output: Path, model_hash: str, hash_paths: bool, split: str | None) -> None:
    """Refuse to resume a run of another model, or one that wrote file names when they are to be hashed."""
    begun = output / RECEIPT
    before = read_json(begun) if begun.is_file() else {}
    if before.get("model_sha256", model_hash) != model_hash:
        raise UsageError(
            f"--resume: {output} was scored with another model; use that model, or choose another --output."
        )
    if before.get("split", split) != split:
        raise UsageError(f"--resume: give --split just as {output} was begun, or choose another --output.")
    if before.get("hashed_paths", hash_paths) != hash_paths:
        raise UsageError(f"--resume: give --hash-paths just as {output} was begun, or choose another --output.")
