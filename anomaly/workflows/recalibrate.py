"""`anomaly calibrate`: the same weights for another site, with that site's normals behind the p-values and scales."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomaly.calibrate import calibrate
from anomaly.detectors.base import WEIGHTS
from anomaly.prepare.cache import open_cache
from anomaly.runs import claim_folder, receipt, sha256_of
from anomaly.scans.walk import Listing, list_scans
from anomaly.workflows.fingerprint import fingerprint
from anomaly.workflows.fit import FitSummary, score_in_chunks
from anomaly.workflows.model import MODEL_JSON, describe_model, find_model, load_model
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import read_files
from anomaly.workflows.selection import count_reasons, enough, select_normals


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
        normals: That site's normals, none of which the model was trained on. With labels, only those labelled
            normal are used; without, the folder is taken at the user's word.
        output: The new run folder; made.
        overwrite: Replace an earlier one.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: Fewer than 16 readable normals outside a published train split.
        ModelError: The model cannot be used.
    """
    folder = find_model(model_path)
    model = load_model(folder, device=device)
    listing = list_scans(normals)
    selection = select_normals(_unseen(listing), normal_only=True)
    enough(len(selection.chosen), str(normals), selection.left_out)
    claim_folder(output, command="calibrate", overwrite=overwrite, inputs=(model_path, normals))
    parent = sha256_of(folder / MODEL_JSON)
    seen = fingerprint(listing)["sha256"]
    begun = {"parent": parent, "normal": selection.basis, "fingerprint_sha256": seen}
    with receipt(output, "calibrate", begun | {"left_out": count_reasons(selection.left_out)}) as facts:
        images, failed = [], []
        outcomes = read_files(
            selection.chosen,
            read=model.facts.read,
            channels=model.preparation.config.channels,
            preparation=model.preparation,
            examine=False,
            workers=workers,
            cache=open_cache(),
        )
        for done, outcome in enumerate(outcomes, start=1):
            on_progress(done, len(selection.chosen), "reading")
            if outcome.prepared is None:
                failed.append(outcome.error or "unreadable")
            else:
                images.append(outcome.prepared.image)
        enough(len(images), str(normals), selection.left_out)
        calibration = calibrate(*score_in_chunks(model.detector, np.stack(images), on_progress, "calibrating"))
        new = output / "model"
        new.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / WEIGHTS, new / WEIGHTS)
        calibration.save(new)
        data = {
            **{f"parent_{key}": value for key, value in model.facts.data.items()},
            "held_out_normals": len(images),
            "normal": selection.basis,
            "fingerprint_sha256": seen,
            "scored_on": model.detector.runs_on(),
        }
        describe_model(new, model.facts.model_copy(update={"parent": parent, "data": data}))
        facts |= {"held_out": len(images), "failed": len(failed)}
    note = f"The smallest p-value these {len(images)} normals can give is {calibration.smallest_alpha:.3g}."
    return FitSummary(output, 0, len(images), 0, len(selection.left_out), tuple(failed), (*listing.notes, note))


def _unseen(listing: Listing) -> Listing:
    """Leave out a published train split where there are others: those films may be what the model was trained on."""
    others = tuple(f for f in listing.files if (f.split or "train").lower() not in ("train", "training"))
    return replace(listing, files=others) if others else listing
