"""The commands of `anomaly segment`: parse, call one workflow, print."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from anomaly.options import (
    WORKERS,
    ConfigFile,
    DetectorName,
    Device,
    HashPaths,
    Json,
    Masks,
    Offline,
    Output,
    Overrides,
    Overwrite,
    Quiet,
    Resume,
    Scans,
    Seed,
    SegmenterPath,
    Split,
    Verbose,
    Workers,
    exit_for,
    front,
    plain,
    recipe_of,
    say,
    tell,
    tell_notes,
)

segment_app = typer.Typer(
    help="Outline lungs or lesions with a network that learnt it from masks people drew.\n\n"
    "Example: anomaly segment fit SCANS --masks MASKS -o runs/lungs",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@segment_app.command(
    "fit",
    help="Learn to outline from films and their masks.\n\n"
    "Example: anomaly segment fit SCANS --masks MASKS -o runs/lungs",
)
def fit(
    scans: Scans,
    output: Output,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Folder of masks, laid out and named as the scans; default: the set's own."),
    ] = None,
    detector: DetectorName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    offline: Offline = False,
    device: Device = "auto",
    workers: Workers = WORKERS,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Fit a recipe and write a run folder."""
    with front(verbose, quiet, resumable=True) as on_progress:
        from anomaly.workflows.segment_fit import fit_segmenter

        recipe = recipe_of(detector or (None if config else "unet"), config, overrides, seed)
        work = partial(fit_segmenter, scans, output, recipe, masks=masks, offline=offline, device=device)
        summary = work(workers=workers, resume=resume, overwrite=overwrite, on_progress=on_progress)
        tell_notes(summary.notes, quiet)
        for reason in summary.failed:
            say(f"skipped: {reason}")
        if as_json:
            tell(json.dumps(plain(summary), indent=2))
        else:
            for reason, count in summary.left_out.items():
                say(f"left out: {count} {reason}")
            tell(
                f"{summary.run}: trained on {summary.trained} films, validated on {summary.validated} of other "
                f"patients: mean IoU {summary.validation_iou:.3f} at threshold {summary.threshold:.2f}; left out "
                f"{sum(summary.left_out.values())}, unreadable {len(summary.failed)}"
            )
        exit_for(len(summary.failed))


@segment_app.command("apply", help="Outline scans.\n\nExample: anomaly segment apply SCANS -m runs/lungs -o out")
def apply(
    scans: Scans,
    model: SegmenterPath,
    output: Output,
    hash_paths: HashPaths = False,
    split: Split = None,
    device: Device = "auto",
    workers: Workers = WORKERS,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write masks.csv, masks, overlays and chances."""
    with front(verbose, quiet, resumable=True) as on_progress:
        from anomaly.workflows.segment import apply_segmenter

        work = partial(apply_segmenter, scans, model, output, hash_paths=hash_paths, split=split, device=device)
        summary = work(workers=workers, resume=resume, overwrite=overwrite, on_progress=on_progress)
        tell_notes(summary.notes, quiet)
        if not (quiet or hash_paths):
            say("note: file names may hold patients' names, and they are in the results; --hash-paths leaves them out.")
        if as_json:
            tell(json.dumps(plain(summary), indent=2))
        else:
            tell(
                f"{output / 'masks.csv'}\n{summary.segmented} segmented, {summary.failed} failed, "
                f"{summary.images_per_second:.1f} images/s"
            )
        exit_for(summary.failed)


@segment_app.command(
    "evaluate",
    help="Compare masks with true ones: Dice, IoU, with intervals and a trivial baseline.\n\n"
    "Example: anomaly segment evaluate out --masks MASKS",
)
def evaluate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder written by `anomaly segment apply`.")],
    masks: Masks,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate the masks of a results folder."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.segment_evaluate import evaluate_masks

        found = evaluate_masks(out, masks, on_progress=on_progress)
        tell_notes(found.notes, quiet)
        tell(json.dumps(found.to_dict(), indent=2) if as_json else found.to_markdown())
