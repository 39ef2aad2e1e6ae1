"""`anomaly fit`: normals in, a run folder with a calibrated model out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.calibrate import Calibration, calibrate, film_keys
from anomaly.config import Recipe, dump_recipe, load_recipe, validate
from anomaly.detectors.base import Detector, SupervisedConfig
from anomaly.errors import DataError, UsageError
from anomaly.prepare.cache import open_cache
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import NOT_REGISTERED
from anomaly.prepare.source import FilmSpool, ImageSpool
from anomaly.records import ABNORMAL, Float32, Float64, Geometry
from anomaly.registry import detector_class
from anomaly.runs import (
    RECEIPT,
    RunRecorder,
    claim_folder,
    read_json,
    receipt,
    sha256_of,
    write_json,
    write_table,
    write_text,
)
from anomaly.scans.quality import excluding
from anomaly.scans.walk import Listing, list_scans
from anomaly.workflows.boxes import BOXES_HASH, boxes_digest, boxes_to_learn, same_boxes, targets_of
from anomaly.workflows.classes import select_labelled
from anomaly.workflows.fingerprint import FINGERPRINT, content_digest, fingerprint
from anomaly.workflows.history import draw_history
from anomaly.workflows.lungs import check_lungs, copy_lungs, lung_finder
from anomaly.workflows.model import save_model
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import read_files
from anomaly.workflows.register import finish_films, fit_preparation, refusal_notes
from anomaly.workflows.selection import (
    Look,
    Roles,
    Rules,
    Selection,
    assign_roles,
    count_reasons,
    enough,
    select_normals,
)
from anomaly.workflows.splits import SPLITS, run_splits, with_splits
from anomaly.workflows.weights import ensure_weights

log = logging.getLogger("anomaly")


@dataclass(frozen=True, slots=True)
class FitSummary:
    """What a fit did."""

    run: Path
    trained: int
    kind: str
    """What it was trained on, in words: "normals"."""
    held_out: int
    test: int
    left_out: dict[str, int]
    failed: tuple[str, ...]
    notes: tuple[str, ...] = ()


def resolve(recipe: Recipe, *, device: str = "auto") -> tuple[Recipe, Detector]:
    """Return the recipe with every setting of its method written out, and the unfitted detector it describes.

    Raises:
        UsageError: No such method, or settings it does not know or cannot work with.
    """
    cls = detector_class(recipe.method)
    settings = validate(cls.Config, recipe.detector, f"recipe, detector of method {recipe.method!r}")
    full = recipe.model_copy(update={"detector": settings.model_dump(mode="json")})
    return full, cls(settings, size=recipe.size, device=device, seed=recipe.seed)


def fit(
    scans: Path,
    output: Path,
    recipe: Recipe,
    *,
    normal_only: bool = False,
    test: float = 0.0,
    allow_image_split: bool = False,
    exclude_flagged: bool = False,
    splits: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    offline: bool = False,
    lungs: Path | None = None,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> FitSummary:
    """Fit a recipe on a folder of normals, or of labelled scans where its method is supervised; write a run folder.

    Args:
        scans: A file, folder or manifest CSV.
        output: The run folder; made.
        recipe: What to fit. With `resume`, the run's own config.yaml is used instead and must say the same.
        normal_only: See `select_normals`.
        test: Share of the patients to keep out as a test set, where the data publish no split of their own.
        allow_image_split: Draw that test set though scans carry no patient ids.
        exclude_flagged: Leave out films with an excluding quality flag.
        splits: A splits.csv drawn from the same scans, such as another run's: who is trained on, held out and tested on
            is as it says. None to have that drawn.
        resume: Go on with an interrupted run.
        overwrite: Replace an earlier run.
        offline: Never use the network, not even for the weights of a backbone that are not in the weights folder.
        lungs: A run of `anomaly segment fit` on lungs, for `prepare.lungs`; it travels inside the model.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: Too few normals, scans whose labels do not allow the fit, or a film or patient in both training and
            test set, or films too unlike one another to be registered.
        MissingError: The weights of the backbone are not at hand.
        UsageError: Wrong settings or output folder.
    """
    recipe, detector = resolve(recipe, device=device)
    preparation = _open_preparation(recipe, lungs, device)
    if detector.backbone is not None:
        ensure_weights(detector.backbone, offline=offline, say=log.warning)
    listing = list_scans(scans) if splits is None else with_splits(list_scans(scans), splits)
    selection = _select(listing, detector, recipe, normal_only=normal_only)
    boxes: dict[str, Float64] = {}
    if detector.boxes:
        boxes, selection = boxes_to_learn(listing.files, selection)
    healthy = sum(file.label != ABNORMAL for file in (*selection.chosen, *selection.calibration))
    enough(healthy, str(scans), selection.left_out)
    exclude = excluding(recipe.prepare.channels) if exclude_flagged else frozenset()
    rules = Rules(recipe.calibration, recipe.seed, test, allow_image_split, exclude)
    selection.check(rules, str(scans))
    memory = detector.memory(len(selection.chosen), recipe.prepare.channels)
    notes = _say_memory(memory, len(selection.chosen))
    claim_folder(output, command="fit", resume=resume, overwrite=overwrite, inputs=(scans,))
    told = fingerprint(listing)
    if resume:
        _same_run(output, recipe, told["sha256"], rules, boxes)
    facts: dict[str, Any] = {
        "method": recipe.method,
        "seed": recipe.seed,
        "scored_on": detector.runs_on(),
        "normal": selection.basis,
        "fingerprint_sha256": told["sha256"],
        "test_share": rules.test,
        "exclude": sorted(rules.exclude),
        "layout": listing.layout,
        "splits_sha256": None if splits is None else sha256_of(splits),
        "memory_estimate": memory,
    }
    if detector.boxes:
        facts[BOXES_HASH] = boxes_digest(boxes)
    with receipt(output, "fit", facts), ImageSpool(output) as images, ExitStack() as waiting:
        films = waiting.enter_context(FilmSpool(output))
        write_text(output / "config.yaml", dump_recipe(recipe))
        write_json(output / FINGERPRINT, told)
        looks, failed, place, ways = _read(
            selection, rules, recipe, preparation, images, films, workers, on_progress, keep_ways=detector.boxes
        )
        roles = assign_roles(selection, looks, failed, rules, label=str(scans))
        facts |= {
            "left_out": count_reasons(roles.left_out),
            "failed": len(roles.failed),
            "allow_image_split": rules.allow_image_split,
            "notes": [*listing.notes, *roles.notes],
        }
        if resume:
            _same_split(output / SPLITS, roles)
        write_table(output / SPLITS, roles.table())
        train, held_out = ([place[look.file.scan_id] for look in part] for part in (roles.train, roles.calibration))
        unregistered: list[str] = []
        if not preparation.fitted:
            normals = [place[look.file.scan_id] for look in roles.train if look.file.label != ABNORMAL]
            preparation = fit_preparation(preparation, films, normals, on_progress)
            finished = finish_films(preparation, films, train + held_out, images, workers, on_progress)
            refused = [was for was, _ in finished]
            looked = (*roles.train, *roles.calibration)
            if detector.boxes:
                ways = {look.file.scan_id: way for look, (_, way) in zip(looked, finished, strict=True)}
            kept = zip(looked, refused, strict=True)
            remarks = {look.file.scan_id: NOT_REGISTERED for look, was in kept if was}
            write_table(output / SPLITS, roles.table(remarks))
            train, held_out = list(range(len(train))), list(range(len(train), len(images)))
            parts = {"training": refused[: len(train)], "held-out": refused[len(train) :]}
            facts["not_registered"] = {name: sum(part) for name, part in parts.items()}
            unregistered = [
                note for name, part in parts.items() for note in refusal_notes(part, f"{name} normals (see splits.csv)")
            ]
            facts["notes"] += unregistered
        waiting.close()
        recorder = RunRecorder(output, resume=resume, on_progress=on_progress)
        targets = targets_of(roles.train, boxes, ways) if detector.supervised else None
        detector.fit(images.source(train, roles.groups[: len(train)]), targets, recorder=recorder)
        recorder.flush()
        facts["notes"] += recorder.warnings
        inside = images.inside(held_out)
        found = score_in_chunks(detector, images.take(held_out), inside, on_progress, "calibrating")
        calibration = calibrate(*found, scans=film_keys(look.content_sha256 for look in roles.calibration))
        facts |= {**detector.made_of(), "trained": len(train), "held_out": len(held_out), "test": len(roles.test)}
        data = {
            "fingerprint_sha256": told["sha256"],
            "trained_sha256": content_digest(look.content_sha256 for look in roles.train),
            "normal": selection.basis,
            "trained_on": len(train),
            "held_out_normals": len(held_out),
            "patients": roles.patients,
            "split_notes": list(roles.notes),
            "scored_on": detector.runs_on(),
            **detector.made_of(),
        }
        if preparation.registers:
            data["not_registered"] = sum(facts["not_registered"].values())
        if lungs is not None:
            data["lungs_sha256"] = facts["lungs_sha256"] = copy_lungs(lungs, output / "model")
        save_model(output / "model", recipe, preparation, detector, calibration, data=data)
        draw_history(output)
    unreadable = tuple(reason for _, reason in roles.failed)
    warned = (*unregistered, *recorder.warnings)
    notes = (*notes, *listing.notes, *roles.notes, *warned, *_notes(roles, calibration, recipe.calibration.alpha))
    reasons = count_reasons(roles.left_out)
    kind = f"scans of {len(detector.classes)} classes" if detector.classes else "normals"
    kind = "labelled scans with boxes" if detector.boxes else kind
    return FitSummary(output, len(train), kind, len(held_out), len(roles.test), reasons, unreadable, notes)


def _select(listing: Listing, detector: Detector, recipe: Recipe, *, normal_only: bool) -> Selection:
    """Choose what may be learnt from: normals, or for a supervised method every class."""
    if not isinstance(detector.config, SupervisedConfig):
        return select_normals(listing, normal_only=normal_only)
    if normal_only:
        raise UsageError(
            f"--normal-only: {recipe.method} is supervised and learns from scans of every class; leave the flag out, "
            "or take an unsupervised recipe (`anomaly models`)."
        )
    return select_labelled(listing, detector.config)


def _open_preparation(recipe: Recipe, lungs: Path | None, device: str) -> Preparation:
    """Return the preparation of a recipe, not fitted yet, with what finds its lungs where it looks for any."""
    preparation = Preparation(recipe.prepare, recipe.size)
    check_lungs(preparation, lungs)
    return preparation if lungs is None else preparation.with_lungs(lung_finder(lungs, device=device))


def _say_memory(memory: int | None, films: int) -> tuple[str, ...]:
    """Say what a fit takes before it is begun, and warn where this machine does not have it."""
    if memory is None:
        return ()
    gib = memory / 2**30
    log.info("a fit on up to %d films takes about %.2f GiB of memory beside what is loaded to start with", films, gib)
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        (f"The fit takes about {gib:.2f} GiB of memory, and this machine has {here:.2f}.",) if gib > 0.8 * here else ()
    )


def _same_split(before: Path, roles: Roles) -> None:
    """Refuse to go on when films would change sides: the checkpoint may have seen what is now held out."""
    if not before.is_file():
        return
    drawn = {row["scan_id"]: row["role"] for row in run_splits(before.parent)}
    if drawn != {row[0]: row[5] for row in roles.table()[1:]}:
        raise UsageError(
            f"--resume: the films or patients are not those {before} was drawn from, so some would change from "
            "training to calibration: start afresh with --overwrite."
        )


def _notes(roles: Roles, calibration: Calibration, alpha: float) -> list[str]:
    notes = []
    kept = (*roles.train, *roles.calibration)
    without_id = sum(look.patient is None for look in kept)
    if without_id:
        notes.append(
            f"{without_id} of {len(kept)} scans carry no patient id: each counts as its own patient, so "
            "one patient's scans may sit on both sides of the calibration split (a manifest with a patient column "
            "mends it)."
        )
    if alpha < calibration.smallest_alpha:
        notes.append(
            f"{len(calibration.scores)} held-out normals cannot give a p-value below {calibration.smallest_alpha:.3g}: "
            f"at alpha {alpha:g} nothing will be flagged. Give more normals or a larger alpha."
        )
    return notes


def score_in_chunks(
    detector: Detector, images: Float32, inside: NDArray[np.bool_], on_progress: Ticker, what: str
) -> tuple[Float32, Float32, Float32 | None]:
    """Score many images a chunk at a time, so that progress can be shown; the answer is that of one call.

    Returns:
        Scores (n,); what the maps say of every pixel they speak of that shows film, float32 (p,); features (n, F) or
        None.
    """
    batch = detector.config.score_batch
    scores, heat, features, mapped = [], [], [], detector.mapped()
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        out = detector.score(images[part], inside=inside[part])
        if out.heatmaps is None:
            raise DataError(f"{detector.name} drew no map for a held-out normal.")
        scores.append(out.scores)
        heat.append(out.heatmaps[inside[part] & mapped])
        if out.features is not None:
            features.append(out.features)
        on_progress(min(start + batch, len(images)), len(images), what)
    return np.concatenate(scores), np.concatenate(heat), np.concatenate(features) if features else None


def _read(
    selection: Selection,
    rules: Rules,
    recipe: Recipe,
    preparation: Preparation,
    images: ImageSpool,
    films: FilmSpool,
    workers: int,
    on_progress: Ticker,
    *,
    keep_ways: bool,
) -> tuple[dict[str, Look], dict[str, str], dict[str, int], dict[str, Geometry]]:
    """Read what roles hang on; what is not a normal is only looked at.

    Normals go into `images`, at the place told; into `films` where the preparation is not fitted yet. Their geometries
    are told where they are to be kept and known yet.
    """
    looks: dict[str, Look] = {}
    failed: dict[str, str] = {}
    place: dict[str, int] = {}
    ways: dict[str, Geometry] = {}
    cache = open_cache()
    every, normals = selection.to_read(rules), len(selection.chosen) + len(selection.calibration)
    parts = ((every[:normals], preparation), (every[normals:], None))
    for files, prepare in parts:
        for outcome in read_files(
            files,
            read=recipe.read,
            channels=recipe.prepare.channels,
            preparation=prepare,
            workers=workers,
            cache=cache,
        ):
            scan_id = outcome.file.scan_id
            if outcome.findings is None:
                failed[scan_id] = outcome.error or "unreadable"
            else:
                looks[scan_id] = Look.of(outcome)
            if outcome.prepared is not None:
                place[scan_id] = images.append(outcome.prepared.image)
                if keep_ways:
                    ways[scan_id] = outcome.prepared.geometry
            elif outcome.shrunk is not None:
                place[scan_id] = films.append(outcome.shrunk)
            on_progress(len(looks) + len(failed), len(every), "reading")
    return looks, failed, place, ways


def _same_run(
    output: Path, recipe: Recipe, fingerprint_sha256: str, rules: Rules, boxes: Mapping[str, Float64]
) -> None:
    """Refuse to resume a run with other settings or on other scans or boxes than it was begun with."""
    config, begun = output / "config.yaml", output / RECEIPT
    if config.is_file() and load_recipe(None, config) != recipe:
        raise UsageError(
            f"--resume: the settings differ from those in {config}; resume with the same, or choose another --output."
        )
    before = read_json(begun) if begun.is_file() else {}
    if before.get("fingerprint_sha256", fingerprint_sha256) != fingerprint_sha256:
        raise UsageError(f"--resume: {output} was begun on other scans; give the same, or choose another --output.")
    same_boxes(before, boxes)
    asked = {"test_share": rules.test, "exclude": sorted(rules.exclude)}
    if any(before.get(name, value) != value for name, value in asked.items()):
        raise UsageError(f"--resume: give --test and --exclude-flagged just as {output} was begun.")
