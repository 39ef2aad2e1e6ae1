"""`anomaly calibrate`: the same weights for another site, with that site's normals behind the p-values and scales."""

from __future__ import annotations

import shutil
from pathlib import Path

from anomaly.calibrate import calibrate, film_keys
from anomaly.prepare.cache import open_cache
from anomaly.prepare.source import ImageSpool
from anomaly.runs import claim_folder, receipt, sha256_of, write_table
from anomaly.scans.walk import list_scans
from anomaly.workflows.fingerprint import fingerprint
from anomaly.workflows.fit import FitSummary, score_in_chunks
from anomaly.workflows.model import MODEL_JSON, describe_model, find_model, load_model
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import read_files
from anomaly.workflows.register import refusal_notes, was_refused
from anomaly.workflows.selection import TEST, TRAIN, count_reasons, enough, select_normals
from anomaly.workflows.splits import SPLITS, run_splits


def recalibrate(
    model_path: Path,
    normals: Path,
    output: Path,
    *,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> FitSummary:
    """Write a new run folder with the model's weights and a calibration from another site's normals.

    Args:
        model_path: A run or model folder; left untouched.
        normals: That site's normals. With labels, only those labelled normal are used; without, the folder is taken
            at the user's word. Published test splits are left alone, and so are films that the model was trained
            on or is to be tested on, as far as the run's splits.csv tells.
        output: The new run folder; made.
        overwrite: Replace an earlier one.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: Fewer than 16 such normals can be read.
        ModelError: The model cannot be used.
    """
    folder = find_model(model_path)
    model = load_model(folder, device=device)
    listing = list_scans(normals)
    selection = select_normals(listing, normal_only=True)
    chosen = (*selection.chosen, *selection.calibration)
    enough(len(chosen), str(normals), selection.left_out)
    claim_folder(output, command="calibrate", overwrite=overwrite, inputs=(model_path, normals))
    parent = sha256_of(folder / MODEL_JSON)
    seen = fingerprint(listing)["sha256"]
    begun = {"parent": parent, "normal": selection.basis, "fingerprint_sha256": seen}
    with receipt(output, "calibrate", begun) as facts, ImageSpool(output) as images:
        seen_by = run_splits(model_path)
        used = {row["content_sha256"] for row in seen_by if row["role"] in (TRAIN, TEST)}
        refused: list[bool] = []
        contents: list[str] = []
        failed, left_out = [], [*selection.left_out, *((file, "of a test split") for file in selection.test)]
        outcomes = read_files(
            chosen,
            read=model.facts.read,
            channels=model.preparation.config.channels,
            preparation=model.preparation,
            workers=workers,
            cache=open_cache(),
        )
        for done, outcome in enumerate(outcomes, start=1):
            on_progress(done, len(chosen), "reading")
            if outcome.prepared is None or outcome.findings is None:
                failed.append(outcome.error or "unreadable")
            elif outcome.findings.content_sha256 in used:
                left_out.append((outcome.file, "trained or tested on by this model"))
            else:
                images.append(outcome.prepared.image, outcome.prepared.inside)
                refused.append(was_refused(outcome.prepared))
                contents.append(outcome.findings.content_sha256)
        reasons = count_reasons(left_out)
        enough(len(images), str(normals), left_out)
        inside = images.inside(range(len(images)))
        found = score_in_chunks(model.detector, images.all(), inside, on_progress, "calibrating")
        calibration = calibrate(*found, scans=film_keys(contents))
        if seen_by:  # so that the new run, too, says what its weights have seen
            write_table(output / SPLITS, [list(seen_by[0]), *(list(row.values()) for row in seen_by)])
        new = output / "model"
        new.mkdir(parents=True, exist_ok=True)
        for name in model.facts.files:
            shutil.copyfile(folder / name, new / name)
        calibration.save(new)
        data = {
            **{f"parent_{key}": value for key, value in model.facts.data.items()},
            "held_out_normals": len(images),
            "normal": selection.basis,
            "fingerprint_sha256": seen,
            "scored_on": model.detector.runs_on(),
        }
        if model.preparation.registers:
            data["not_registered"] = sum(refused)
        describe_model(new, model.facts.model_copy(update={"parent": parent, "data": data}))
        facts |= {"held_out": len(images), "failed": len(failed), "left_out": reasons}
        notes = refusal_notes(refused, "normals")
        notes += [f"The smallest p-value these {len(images)} normals can give is {calibration.smallest_alpha:.3g}."]
    if not seen_by:
        notes.append("The model came without its splits.csv, so nothing shows that it was not trained on these scans.")
    return FitSummary(
        output, 0, "normals", data["held_out_normals"], 0, reasons, tuple(failed), (*listing.notes, *notes)
    )
