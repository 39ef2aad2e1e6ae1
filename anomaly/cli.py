"""Every command: parse, call one workflow, print. Results and --json on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from anomaly.cli_segment import segment_app
from anomaly.cli_weights import weights_app
from anomaly.options import (
    WORKERS,
    AllowImageSplit,
    Alpha,
    ConfigFile,
    DetectorName,
    Device,
    HashPaths,
    Json,
    ModelPath,
    Offline,
    Output,
    Overrides,
    Overwrite,
    Panels,
    Quiet,
    Results,
    Resume,
    Scans,
    Seed,
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

RESEARCH_ONLY = "Research software, never a diagnosis."

app = typer.Typer(
    name="anomaly",
    help="Learn from normal chest X-rays alone, rank unlabelled scans, show where to look. " + RESEARCH_ONLY,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(weights_app, name="weights")
app.add_typer(segment_app, name="segment")


def _tell_scores(summary: Any, hash_paths: bool, as_json: bool, quiet: bool) -> None:
    tell_notes(summary.notes, quiet)
    if not (quiet or hash_paths):
        say("note: file names may hold patients' names, and they are in the results; --hash-paths leaves them out.")
    if as_json:
        tell(json.dumps(plain(summary), indent=2))
    else:
        tell(
            f"{summary.out / 'scores.csv'}\n{summary.scored} scored ({summary.flagged} flagged at alpha "
            f"{summary.alpha:g}), {summary.failed} failed, {summary.images_per_second:.1f} images/s"
        )
    exit_for(summary.failed)


def _version(show: bool) -> None:
    if show:
        import anomaly

        tell(anomaly.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of `anomaly` itself."""


@app.command(help="Run the main job end to end on generated phantoms, offline.\n\nExample: anomaly demo -o demo")
def demo(
    output: Output = Path("demo"),
    detector: DetectorName = None,
    overrides: Overrides = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    device: Device = "auto",
    workers: Workers = WORKERS,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Generate, fit, score, evaluate, report."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.demo import DEMO_SETTINGS, demo

        quick = DEMO_SETTINGS if detector in (None, "anogan") else ()
        report = demo(
            output,
            detector=detector or "anogan",
            overrides=(*quick, *(overrides or ())),
            seed=seed or 0,
            overwrite=overwrite,
            device=device,
            workers=workers,
            say=lambda command: None if quiet else say(f"$ {command}"),
            on_progress=on_progress,
        )
        tell((output / "out" / "evaluation.md").read_text(encoding="utf-8"))
        tell(f"{report}\n{RESEARCH_ONLY}")


@app.command(
    help="Write procedural phantoms: chest films, or pictures of skin in colour, with exact masks.\n\n"
    "Example: anomaly phantom phantoms --n 64 --abnormal 16 --seed 0"
)
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; made.")],
    n: Annotated[int, typer.Option("--n", help="How many in all.")] = 64,
    abnormal: Annotated[
        int, typer.Option("--abnormal", help="How many of them with a lesion; of skin, with a melanoma for a naevus.")
    ] = 16,
    kind: Annotated[
        Literal["chest", "skin"],
        typer.Option("--kind", help="chest: films, masks, boxes, a manifest. skin: laid out as HAM10000."),
    ] = "chest",
    seed: Seed = 0,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write chest films with lesion masks, lung masks, boxes.csv and manifest.csv, or pictures of skin with masks."""
    with front(verbose, quiet) as on_progress:
        from anomaly.scans.phantom import write_phantoms
        from anomaly.scans.phantom_skin import write_skin_phantoms

        write = write_skin_phantoms if kind == "skin" else write_phantoms
        rows = write(out, n=n, abnormal=abnormal, seed=seed or 0, on_film=lambda done: on_progress(done, n, "drawing"))
        tell(f"{out}: {len(rows)} phantoms, {abnormal} with a {'melanoma' if kind == 'skin' else 'lesion'}")


@app.command(
    help="Say what is in a folder, what a fit would make of it, and what will be skipped and why.\n\n"
    "Example: anomaly inspect SCANS --html"
)
def inspect(
    scans: Scans,
    output: Output = Path("inspection"),
    html: Annotated[bool, typer.Option("--html", help="Write inspection.html too, with pictures.")] = False,
    include_phi: Annotated[
        bool, typer.Option("--include-phi", help="Write DICOM header text (names, ids, dates) into scans.csv.")
    ] = False,
    workers: Workers = WORKERS,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Inspect a folder."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.inspect import inspect
        from anomaly.workflows.inspection_text import render

        found = inspect(
            scans,
            output,
            html=html,
            include_phi=include_phi,
            overwrite=overwrite,
            workers=workers,
            on_progress=on_progress,
        )
        tell_notes(found.facts["notes"], quiet)
        if as_json:
            tell(json.dumps(found.facts, indent=2))
        else:
            tell(f"{render(found.facts)}\n\n{found.page or output / 'inspection.json'}")
        if include_phi:
            say(f"note: {output / 'scans.csv'} holds patients' header text, as asked: treat it as medical records.")
        exit_for(found.failed)


@app.command(
    help="Learn from normal scans alone; supervised recipes from labels.\n\n"
    "Example: anomaly fit NORMALS --normal-only -o runs/a"
)
def fit(
    scans: Scans,
    output: Output,
    normal_only: Annotated[
        bool, typer.Option("--normal-only", help="Train on scans labelled normal; unlabelled: declare all normal.")
    ] = False,
    test: Annotated[
        float, typer.Option("--test", min=0.0, max=0.9, help="Keep out this share of the patients as a test set.")
    ] = 0.0,
    allow_image_split: AllowImageSplit = False,
    exclude_flagged: Annotated[
        bool, typer.Option("--exclude-flagged", help="Leave out films that `anomaly inspect` flags as unfit.")
    ] = False,
    splits: Annotated[
        Path | None, typer.Option("--splits", help="Train, hold out and test as this splits.csv of another run says.")
    ] = None,
    detector: DetectorName = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    lungs: Annotated[
        Path | None, typer.Option("--lungs", help="A run of `anomaly segment fit` on lungs, for prepare.lungs.")
    ] = None,
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
        from anomaly.workflows.fit import fit
        from anomaly.workflows.models import strongest_line

        recipe = recipe_of(detector, config, overrides, seed)
        if not quiet:
            say(strongest_line(detector or (config.stem if config else "anogan")))
        work = partial(fit, scans, output, recipe, normal_only=normal_only, test=test, offline=offline, lungs=lungs)
        work = partial(
            work, device=device, allow_image_split=allow_image_split, exclude_flagged=exclude_flagged, splits=splits
        )
        summary = work(workers=workers, resume=resume, overwrite=overwrite, on_progress=on_progress)
        tell_notes(summary.notes, quiet)
        for reason in summary.failed:
            say(f"skipped: {reason}")
        if as_json:
            tell(json.dumps(plain(summary), indent=2))
        else:
            for reason, count in summary.left_out.items():
                say(f"left out: {count} {reason}")
            kept = f"{summary.test} kept for testing, " if summary.test else ""
            tell(
                f"{summary.run}: trained on {summary.trained} {summary.kind}, calibrated on {summary.held_out} "
                f"normals held out, {kept}left out {sum(summary.left_out.values())}, unreadable {len(summary.failed)}"
            )
        exit_for(len(summary.failed))


@app.command(help="Score and rank scans.\n\nExample: anomaly score SCANS -m runs/a -o out")
def score(
    scans: Scans,
    model: ModelPath,
    output: Output,
    alpha: Alpha = None,
    panels: Panels = "top:200",
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
    """Write scores.csv, heatmaps and panels."""
    with front(verbose, quiet, resumable=True) as on_progress:
        from anomaly.workflows.panels import parse_limit
        from anomaly.workflows.score import score

        work = partial(score, scans, model, output, alpha=alpha, panels=parse_limit(panels), hash_paths=hash_paths)
        work = partial(work, split=split, resume=resume, overwrite=overwrite, device=device, workers=workers)
        _tell_scores(work(on_progress=on_progress), hash_paths, as_json, quiet)


@app.command(help="Score with all models of a folder together.\n\nExample: anomaly ensemble SCANS models -o out")
def ensemble(
    scans: Scans,
    models: Annotated[Path, typer.Argument(metavar="MODELS", help="A folder of run folders: the members.")],
    output: Output,
    alpha: Alpha = None,
    panels: Panels = "top:200",
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
    """Score every member, and write what they say together."""
    with front(verbose, quiet, resumable=True) as on_progress:
        from anomaly.workflows.ensemble import ensemble
        from anomaly.workflows.panels import parse_limit

        work = partial(ensemble, scans, models, output, alpha=alpha, panels=parse_limit(panels), hash_paths=hash_paths)
        work = partial(work, split=split, resume=resume, overwrite=overwrite, device=device, workers=workers)
        _tell_scores(work(on_progress=on_progress), hash_paths, as_json, quiet)


@app.command(
    help="Compare scores with labels: AUROC, AP, sensitivity, with intervals and trivial baselines.\n\n"
    "Example: anomaly evaluate out --labels labels.csv"
)
def evaluate(
    out: Results,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="CSV with path (or scan_id) and label; default: as found by score.")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", min=0.0, max=1.0, help="Count false alarms at p <= alpha; default: the run's."),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a results folder."""
    with front(verbose, quiet):
        from anomaly.workflows.classification import TABLES
        from anomaly.workflows.evaluate import EVALUATION, evaluate

        result = evaluate(out, labels=labels, alpha=alpha)
        if as_json:
            tell((out / EVALUATION).read_text(encoding="utf-8"))
            return
        tell((out / "evaluation.md").read_text(encoding="utf-8").rstrip())
        if result.alarms:
            a = result.alarms
            tell(
                f"flagged at alpha {a['alpha']:g}: {a['flagged']} of {a['normals']} normals "
                f"({a['rate']:.3f} [{a['low']:.3f}, {a['high']:.3f}])"
            )
        if result.classification:
            tell("\n" + (out / TABLES).read_text(encoding="utf-8", errors="replace").rstrip())
        tell_notes(
            [*result.notes, f"{result.unknown} of unknown label and {result.failed} unreadable left out."], quiet
        )


@app.command(
    help="Fit and score recipes on one split, and say what they and their differences are worth.\n\n"
    "Example: anomaly compare DATASET --detectors atlas,padim,patchcore -o comparison"
)
def compare(
    scans: Scans,
    output: Output,
    detectors: Annotated[
        str, typer.Option("--detectors", help="Recipes, or recipe files (.yaml), with commas between.")
    ] = "anogan,anogan-2017,atlas,padim,patchcore,feature-gaussian,mobilenet_v2",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Fits of each recipe.")] = 1,
    seed: Seed = 0,
    test: Annotated[
        float | None,
        typer.Option("--test", min=0.05, max=0.9, help="Draw a test set of this share; default: as published, or 0.3."),
    ] = None,
    allow_image_split: AllowImageSplit = False,
    overrides: Overrides = None,
    alpha: Annotated[float, typer.Option("--alpha", min=0.0, max=1.0, help="Count false alarms at p <= alpha.")] = 0.05,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and about how long.")
    ] = False,
    offline: Offline = False,
    device: Device = "auto",
    workers: Workers = WORKERS,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare recipes."""
    with front(verbose, quiet, resumable=True) as on_progress:
        from anomaly.workflows.compare.run import Plan, compare

        names = [name.strip() for name in detectors.split(",") if name.strip()]
        work = partial(compare, scans, output, names, seeds=seeds, seed=seed or 0, test=test, alpha=alpha)
        work = partial(work, allow_image_split=allow_image_split, changes=overrides or (), dry_run=dry_run)
        work = partial(work, offline=offline, device=device, workers=workers, resume=resume, overwrite=overwrite)
        found = work(say=lambda text: None if quiet else say(text), on_progress=on_progress)
        if isinstance(found, Plan):
            tell("\n".join(found.lines()))
            return
        tell((output / ("comparison.json" if as_json else "table.md")).read_text(encoding="utf-8").rstrip())
        if not as_json:
            tell(f"\n{output / 'report.html'}")
        exit_for(len(found.failed) + len(found.unreadable))


@app.command(help="Write one self-contained HTML page.\n\nExample: anomaly report out")
def report(
    out: Results,
    alpha: Alpha = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Show this many of the highest scores.")] = 24,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write report.html."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.report import write_report

        tell(str(write_report(out, alpha=alpha, top=top, on_progress=on_progress)))


@app.command(help="Redraw the heatmaps without scoring again.\n\nExample: anomaly heatmaps out --contour --top 50")
def heatmaps(
    out: Results,
    contour: Annotated[bool, typer.Option("--contour", help="Outlines in place of colour.")] = False,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Only the highest scores.")] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Redraw heatmaps/*.png."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.draw import draw_heatmaps

        count = draw_heatmaps(out, contour=contour, top=top, on_progress=on_progress)
        tell(f"{out / 'heatmaps'}: {count} drawn")


@app.command(help="Say how much of the heat lies inside the lungs.\n\nExample: anomaly attention out --masks MASKS")
def attention(
    out: Results,
    masks: Annotated[Path, typer.Option("--masks", help="Folder of lung masks, laid out and named as the scans.")],
    top: Annotated[int, typer.Option("--top", min=0, help="Draw this many of the worst.")] = 24,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure where a method looks."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.attention import attention, render

        found = attention(out, masks, top=top, on_progress=on_progress)
        tell_notes(found.notes, quiet)
        tell(json.dumps(found.to_dict(), indent=2) if as_json else render(found))


@app.command(
    help="Recalibrate a model on another site's normals; the weights stay.\n\n"
    "Example: anomaly calibrate runs/a NORMALS -o runs/b"
)
def calibrate(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder written by `anomaly fit`.")],
    normals: Annotated[
        Path, typer.Argument(metavar="NORMALS", help="Normals of that site, none of which the model was trained on.")
    ],
    output: Output,
    device: Device = "auto",
    workers: Workers = WORKERS,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a new run folder with new p-values and scales."""
    with front(verbose, quiet) as on_progress:
        from anomaly.workflows.recalibrate import recalibrate

        summary = recalibrate(
            model, normals, output, overwrite=overwrite, device=device, workers=workers, on_progress=on_progress
        )
        tell_notes(summary.notes, quiet)
        for reason in summary.failed:
            say(f"skipped: {reason}")
        for reason, count in summary.left_out.items():
            say(f"left out: {count} {reason}")
        tell(f"{summary.run}: calibrated on {summary.held_out} normals, unreadable {len(summary.failed)}")
        exit_for(len(summary.failed))


@app.command(help="List the recipes and what each reached on the development data.\n\nExample: anomaly models")
def models(as_json: Json = False) -> None:
    """List recipes."""
    with front():
        from anomaly.workflows.models import list_anomalib, list_models, render_models

        listed, theirs = list_models(), list_anomalib()
        tell(json.dumps([*listed, *theirs], indent=2) if as_json else render_models(listed, theirs))


@app.command(help="Print a recipe, to read or to start your own from.\n\nExample: anomaly config anogan > my.yaml")
def config(name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe; `anomaly models` lists them.")]) -> None:
    """Print a recipe's commented YAML."""
    with front():
        from anomaly.config import recipe_text

        tell(recipe_text(name).rstrip())


@app.command(help="Show what the cache of prepared scans holds, or clear it.\n\nExample: anomaly cache --clear")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all of it.")] = False, as_json: Json = False
) -> None:
    """Show or clear the cache."""
    with front():
        from anomaly.workflows.cache import clear_cache, describe_cache, render

        facts = clear_cache() if clear else describe_cache()
        tell(json.dumps(facts, indent=2) if as_json else render(facts))


@app.command(help="Show versions, devices and what is missing.\n\nExample: anomaly doctor")
def doctor(as_json: Json = False) -> None:
    """Examine the installation."""
    with front():
        from anomaly.workflows.doctor import examine, render

        facts = examine()
        tell(json.dumps(facts, indent=2) if as_json else render(facts))
