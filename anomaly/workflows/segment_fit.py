"""`anomaly segment fit`: films and their masks in, a run folder with a segmenter out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from anomaly.config import Recipe, load_recipe, validate
from anomaly.errors import DataError, UsageError
from anomaly.prepare.cache import open_cache
from anomaly.prepare.geometry import mask_to_square
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.source import ImageSpool
from anomaly.records import ScanFile
from anomaly.registry import segmenter_class
from anomaly.runs import RECEIPT, RunRecorder, claim_folder, read_json, receipt, write_json, write_table, write_text
from anomaly.scans.leaks import Item, check_leaks
from anomaly.scans.split import number_patients
from anomaly.scans.walk import list_scans
from anomaly.segmenters.unet import UNet
from anomaly.workflows.fingerprint import FINGERPRINT, content_digest, fingerprint
from anomaly.workflows.history import draw_history
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import Outcome, read_files
from anomaly.workflows.segment_masks import (
    VALIDATION,
    Masked,
    check_masks,
    enough_masked,
    mask_of,
    refuse_masks,
    select_masked,
)
from anomaly.workflows.segment_model import FIT, save_segmenter
from anomaly.workflows.segment_pictures import draw_curves
from anomaly.workflows.selection import FAILED, LEFT_OUT, TEST, TRAIN, Look, count_reasons
from anomaly.workflows.splits import SPLITS, run_splits
from anomaly.workflows.weights import ensure_weights

log = logging.getLogger("anomaly")

CURVE = "iou_curve.png"


@dataclass(frozen=True, slots=True)
class SegmentFit:
    """What a fit did."""

    run: Path
    trained: int
    validated: int
    threshold: float
    validation_iou: float
    left_out: dict[str, int]
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Films:
    """What reading gave: looks and masks of the films to learn from, in order, and what became of the others."""

    looks: list[Look] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    test: list[Look] = field(default_factory=list)
    left_out: list[tuple[ScanFile, str]] = field(default_factory=list)
    failed: list[tuple[ScanFile, str]] = field(default_factory=list)


def resolve_segmenter(recipe: Recipe, *, device: str = "auto") -> tuple[Recipe, UNet]:
    """Return the recipe with every setting of its method written out, and the unfitted network it describes.

    Raises:
        UsageError: No such method, or settings it does not know or cannot work with.
    """
    cls = segmenter_class(recipe.method)
    if recipe.prepare.registration != "none" or recipe.prepare.lungs != "none":
        raise UsageError(
            f"{recipe.method} draws masks on films as they are, and what it draws may serve to prepare them: leave "
            "prepare.register and prepare.lungs at none."
        )
    if "calibration" in recipe.model_fields_set:
        raise UsageError(f"calibration is for methods that score, and {recipe.method} draws masks: leave it out.")
    settings = validate(cls.Config, recipe.detector, f"recipe, detector of method {recipe.method!r}")
    full = recipe.model_copy(update={"detector": settings.model_dump(mode="json")})
    return full, cls(settings, size=recipe.size, device=device, seed=recipe.seed)


def fit_segmenter(
    scans: Path,
    output: Path,
    recipe: Recipe,
    *,
    masks: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    offline: bool = False,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> SegmentFit:
    """Fit a recipe on films and their masks, and write a run folder.

    Args:
        scans: A file, folder or manifest CSV. Of a published split the train part alone is learnt from.
        output: The run folder; made.
        recipe: What to fit. With `resume` it must be that of the run's own config.yaml.
        masks: A folder of masks, laid out and named as the films; None for those the set or its manifest names.
        resume: Go on with an interrupted run.
        overwrite: Replace an earlier run.
        offline: Never use the network, not even for the weights of the encoder.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: Too few films with masks, masks that cannot be used or are of another size than their film, or a
            film or patient in both training and test set.
        MissingError: The weights of the encoder are not at hand.
        UsageError: Wrong settings or output folder.
    """
    recipe, unet = resolve_segmenter(recipe, device=device)
    if unet.backbone is not None:
        ensure_weights(unet.backbone, offline=offline, say=log.warning)
    unet.check()
    listing = list_scans(scans)
    chosen = select_masked(listing, masks)
    hashes = check_masks(chosen.masks, on_progress)
    inputs = (scans,) if masks is None else (scans, masks)
    claim_folder(output, command=FIT, resume=resume, overwrite=overwrite, inputs=inputs)
    told = fingerprint(listing)
    drawn = content_digest(f"{scan_id} {sha256}" for scan_id, sha256 in hashes.items())
    if resume:
        _same_run(output, recipe, told["sha256"], drawn)
    facts: dict[str, Any] = {
        "method": recipe.method,
        "seed": recipe.seed,
        "segmented_on": unet.runs_on(),
        "masks": chosen.basis,
        "fingerprint_sha256": told["sha256"],
        "masks_sha256": drawn,
        "layout": listing.layout,
    }
    with receipt(output, FIT, facts), ImageSpool(output) as images:
        write_text(output / "config.yaml", _config(recipe))
        write_json(output / FINGERPRINT, told)
        films = _read(chosen, recipe, images, workers, on_progress)
        enough_masked(len(films.looks), str(scans), films.left_out)
        notes = [*listing.notes, *chosen.notes, *_leaks(films)]
        groups = number_patients([look.patient for look in films.looks], [look.file.relative for look in films.looks])
        train, held = unet.parts(groups)
        table = _table(films, set(held.tolist()))
        _same_split(output, table, resume=resume)
        write_table(output / SPLITS, table)
        notes += _anonymous(films)
        recorder = RunRecorder(output, resume=resume, on_progress=on_progress)
        unet.fit(images.source(films.places, groups), np.stack(films.masks), recorder=recorder)
        recorder.flush()
        notes += recorder.warnings
        facts |= {**unet.made_of(), "trained": len(train), "validated": len(held), "test": len(films.test)}
        facts |= {"left_out": count_reasons(films.left_out), "failed": len(films.failed), "notes": notes}
        data = {
            "fingerprint_sha256": told["sha256"],
            "masks_sha256": drawn,
            "trained_sha256": content_digest(films.looks[place].content_sha256 for place in train),
            "masks": chosen.basis,
            "trained_on": len(train),
            "validated_on": len(held),
            "patients": len(np.unique(groups)),
            "segmented_on": unet.runs_on(),
            **unet.made_of(),
        }
        save_segmenter(output / "model", recipe, unet, data=data)
        draw_history(output)
        draw_curves(output / CURVE, unet.threshold, unet.curve)
    failed = tuple(reason for _, reason in films.failed)
    reasons = count_reasons(films.left_out)
    best = unet.curve.highest
    return SegmentFit(output, len(train), len(held), unet.threshold, best, reasons, failed, tuple(notes))


def _config(recipe: Recipe) -> str:
    """Return the recipe as YAML that can be fed back."""
    return str(yaml.safe_dump(recipe.model_dump(mode="json", exclude={"calibration"}), sort_keys=False))


def _read(chosen: Masked, recipe: Recipe, images: ImageSpool, workers: int, on_progress: Ticker) -> _Films:
    """Read films and masks; copies of a film are left out but the first, what is of a test split is only looked at.

    Raises:
        DataError: Masks that are not of their films' size, or of which nothing is left on the square.
    """
    films = _Films(left_out=list(chosen.left_out))
    wrong: list[str] = []
    first: dict[str, str] = {}
    total = len(chosen.chosen) + len(chosen.test)
    preparation = Preparation(recipe.prepare, recipe.size)
    cache = open_cache()
    done = 0
    for files, prepare in ((chosen.chosen, preparation), (chosen.test, None)):
        for outcome in read_files(
            files,
            read=recipe.read,
            channels=recipe.prepare.channels,
            preparation=prepare,
            workers=workers,
            cache=cache,
        ):
            done += 1
            on_progress(done, total, "reading")
            if outcome.findings is None:
                films.failed.append((outcome.file, outcome.error or "unreadable"))
                continue
            look = Look.of(outcome)
            if prepare is None:
                films.test.append(look)
                continue
            original = first.setdefault(look.pixels_sha256, look.file.relative)
            if original != look.file.relative:
                films.left_out.append((look.file, f"copy of another film: {original}"))
                continue
            try:
                mask = _on_square(outcome, chosen.masks[look.file.scan_id])
            except DataError as error:
                wrong.append(str(error))
                continue
            assert outcome.prepared is not None
            films.looks.append(look)
            films.places.append(images.append(outcome.prepared.image))
            films.masks.append(mask)
    refuse_masks(wrong)
    return films


def _on_square(outcome: Outcome, path: Path) -> Mask:
    """Return a film's mask on its prepared square, bool (S, S).

    Raises:
        DataError: It cannot be used, or nothing of it is left there.
    """
    assert outcome.prepared is not None
    geometry = outcome.prepared.geometry
    mask = mask_to_square(mask_of(path, geometry.film_shape, outcome.file.relative), geometry)
    if not mask.any():
        raise DataError(
            f"Of the mask {path} nothing is left on a square of {geometry.size} pixels: choose a larger size, or "
            "remove it."
        )
    return mask


def _leaks(films: _Films) -> list[str]:
    """Compare what is trained on with the published test set.

    Raises:
        DataError: A film or a patient is in both.
    """
    parts = ([_item(look) for look in looks] for looks in (films.looks, films.test))
    leaks = check_leaks(*parts)
    stop = leaks.stop()
    if stop is not None:
        raise DataError(stop)
    warning = leaks.warn()
    return [] if warning is None else [warning]


def _item(look: Look) -> Item:
    return Item(look.file.relative, look.patient, look.pixels_sha256, look.thumb)


def _anonymous(films: _Films) -> list[str]:
    without = sum(look.patient is None for look in films.looks)
    if not without:
        return []
    return [
        f"{without} of {len(films.looks)} scans carry no patient id: each counts as its own patient, so one patient's "
        "scans may be both trained on and validated on (a manifest with a patient column mends it)."
    ]


def _table(films: _Films, held: set[int]) -> list[list[str]]:
    """Return splits.csv: every file, the role it has, and why."""
    rows = [["scan_id", "path", "patient", "label", "class", "role", "reason", "content_sha256"]]
    for place, look in enumerate(films.looks):
        rows.append(_line(look.file, VALIDATION if place in held else TRAIN, "", look.patient, look.content_sha256))
    rows += [_line(look.file, TEST, "", look.patient, look.content_sha256) for look in films.test]
    for role, files in ((FAILED, films.failed), (LEFT_OUT, films.left_out)):
        rows += [_line(file, role, reason, file.patient, "") for file, reason in files]
    return rows


def _line(file: ScanFile, role: str, reason: str, patient: str | None, sha256: str) -> list[str]:
    label = "" if file.label is None else str(file.label)
    reason = reason or (f"published split: {file.split}" if file.split is not None else "")
    return [file.scan_id, file.relative, patient or "", label, file.class_name or "", role, reason, sha256]


def _same_run(output: Path, recipe: Recipe, fingerprint_sha256: str, masks_sha256: str) -> None:
    """Refuse to resume a run with other settings, on other scans or with other masks than it was begun with."""
    config, begun = output / "config.yaml", output / RECEIPT
    if config.is_file() and load_recipe(None, config) != recipe:
        raise UsageError(
            f"--resume: the settings differ from those in {config}; resume with the same, or choose another --output."
        )
    before = read_json(begun) if begun.is_file() else {}
    for what, now in (("fingerprint", fingerprint_sha256), ("masks", masks_sha256)):
        if before.get(f"{what}_sha256", now) != now:
            named = "scans" if what == "fingerprint" else "masks"
            raise UsageError(
                f"--resume: {output} was begun on other {named}; give the same, or choose another --output."
            )


def _same_split(output: Path, table: list[list[str]], *, resume: bool) -> None:
    """Refuse to go on when films would change sides: the checkpoint may have seen what is now held out."""
    if not resume or not (output / SPLITS).is_file():
        return
    if {row["scan_id"]: row["role"] for row in run_splits(output)} != {row[0]: row[5] for row in table[1:]}:
        raise UsageError(
            f"--resume: the films or patients are not those {output / SPLITS} was drawn from, so some would change "
            "from training to validation: start afresh with --overwrite."
        )
