"""Options and messages that every command shares."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from anomaly.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_SOME_FAILED, AnomalyError, UsageError

Scans = Annotated[
    Path,
    typer.Argument(metavar="SCANS", help="A file, a folder (walked recursively), a manifest CSV or a MedMNIST .npz."),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder for the results; made.")]
Results = Annotated[Path, typer.Argument(metavar="OUT", help="A folder written by `anomaly score`.")]
ModelPath = Annotated[Path, typer.Option("-m", "--model", help="A run folder written by `anomaly fit`.")]
SegmenterPath = Annotated[Path, typer.Option("-m", "--model", help="A run folder written by `anomaly segment fit`.")]
Masks = Annotated[Path, typer.Option("--masks", help="Folder of masks, laid out and named as the scans.")]
DetectorName = Annotated[str | None, typer.Option("-d", "--detector", help="Recipe; `anomaly models` lists them.")]
ConfigFile = Annotated[Path | None, typer.Option("-c", "--config", help="Your own recipe file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: detector.search_steps=50.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where networks run.")]
Workers = Annotated[int, typer.Option("-j", "--workers", min=1, help="Reading processes.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result of the same command.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more; show tracebacks.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only results and errors.")]
Offline = Annotated[
    bool, typer.Option("--offline", envvar="ANOMALY_OFFLINE", help="Never use the network, not even for weights.")
]
Alpha = Annotated[float | None, typer.Option("--alpha", min=0.0, max=1.0, help="Flag scans with p <= alpha.")]
Panels = Annotated[str, typer.Option("--panels", help="Keep pictures of top:N, all or none.")]
HashPaths = Annotated[bool, typer.Option("--hash-paths", help="Write hashes in place of file names.")]
AllowImageSplit = Annotated[
    bool, typer.Option("--allow-image-split", help="Draw --test image by image where patients are not known.")
]
Split = Annotated[
    str | None, typer.Option("--split", help="Only scans of this split of the fit or the set: test, dev, …")
]

WORKERS = min(4, os.cpu_count() or 1)


@contextmanager
def front(verbose: bool = False, quiet: bool = False, *, resumable: bool = False) -> Iterator[Any]:
    """Set up messages and progress, and turn errors into one sentence and an exit code."""
    from anomaly.workflows.progress import ticker

    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("anomaly").setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    try:
        with ticker(quiet) as on_progress:
            yield on_progress
    except KeyboardInterrupt:
        go_on = " What was finished is kept; run the same command with --resume (not --overwrite) to go on."
        say("Interrupted." + (go_on if resumable else ""))
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except AnomalyError as error:
        if verbose:
            logging.getLogger("anomaly").exception("error")
        say(f"error: {error}")
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BUG) from None


def say(text: str) -> None:
    """Say something to people, on stderr."""
    typer.echo(text.encode("utf-8", errors="backslashreplace").decode("utf-8"), err=True)


def tell(text: str) -> None:
    """Give a result, on stdout."""
    typer.echo(text.encode("utf-8", errors="backslashreplace").decode("utf-8"))


def tell_notes(notes: Sequence[str], quiet: bool) -> None:
    """Say notes, unless it is to be quiet."""
    for note in () if quiet else notes:
        say(f"note: {note}")


def recipe_of(detector: str | None, config: Path | None, overrides: list[str] | None, seed: int | None) -> Any:
    """Return the recipe that the options name, with their changes.

    Raises:
        UsageError: Both a recipe and a file, or a wrong one.
    """
    from anomaly.config import load_recipe

    if detector is not None and config is not None:
        raise UsageError("--detector and --config exclude each other: a recipe file already names its method.")
    changes = [*(overrides or ()), *([f"seed={seed}"] if seed is not None else [])]
    return load_recipe(detector, config, changes)


def plain(summary: Any) -> dict[str, Any]:
    """Return a summary as JSON can hold it."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(summary).items()}


def exit_for(failed: int) -> None:
    """End with the exit code of a run in which some files failed, if any did."""
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
