"""`anomaly compare`: one split, every recipe and seed fitted and scored on it, one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.errors import DataError, UsageError
from anomaly.records import ABNORMAL, NORMAL
from anomaly.runs import RECEIPT, claim_folder, read_json, receipt, write_json, write_table
from anomaly.scans.walk import Listing, list_scans
from anomaly.workflows.compare.entrants import Cell, Entrant, entrants
from anomaly.workflows.compare.pages import write_pages
from anomaly.workflows.compare.results import read_results
from anomaly.workflows.compare.roles import DRAWN, choose_test, draw_roles, read_split, rules_of
from anomaly.workflows.compare.summary import Summary, summarise
from anomaly.workflows.compare.work import Job, check_settings, do, is_done
from anomaly.workflows.fingerprint import fingerprint
from anomaly.workflows.progress import Ticker, seconds, silent
from anomaly.workflows.selection import is_train
from anomaly.workflows.splits import SPLITS

CELLS, AUDIT = "cells", "split_audit.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison would do, before anything is read; counts are of the labels alone."""

    entrants: tuple[Entrant, ...]
    published: str | None
    share: float
    """Of the patients, to draw a test set from; 0 where one is published."""
    normals: int
    abnormal: int
    """Films to learn from; only those that learn from labels see the abnormal ones."""
    test: int
    done: tuple[str, ...]
    """Cells that are finished already."""

    def lines(self) -> list[str]:
        """Return the plan in words, a line each."""
        told = f"the published split {self.published}" if self.published else f"{self.share:g} of the patients, drawn"
        learnt = f"about {self.normals} normal and {self.abnormal} abnormal films to learn from"
        lines = [f"{learnt}, {self.test} to test on ({told})"]
        known: list[float] = []
        for entrant in self.entrants:
            left = [cell for cell in entrant.cells if cell.name not in self.done]
            took = entrant.seconds(self.normals + self.abnormal * entrant.supervised, self.test)
            share = len(left) / len(entrant.cells)
            known += [] if took is None else [took * share]
            said = "no committed time to go by" if took is None else f"about {seconds(took * share)}"
            seeds = ", ".join(str(cell.recipe.seed) for cell in entrant.cells)
            kind = "learns from labels" if entrant.supervised else "learns from normals alone"
            lines.append(f"  {entrant.name}: {kind}, seed {seeds}: {said if left else 'done'}")
        total = f"about {seconds(sum(known))} in all on 2 cores, of what has a committed time"
        return [*lines, total] if known else lines


def plan(listing: Listing, published: str | None, taking: Sequence[Entrant], test: float | None, output: Path) -> Plan:
    """Return what would be done.

    Raises:
        UsageError: A share to draw a test set from, where one is published.
    """
    if published is not None and test is not None:
        raise UsageError(f"{listing.root} publishes the split {published} to test on: leave out --test.")
    share = 0.0 if published else DRAWN if test is None else test
    usable = [file for file in listing.files if file.set_aside is None and file.label is not None]
    learnt = [file.label for file in usable if is_train(file)]
    tested = [file for file in usable if not is_train(file)]
    normals, abnormal = (round((1 - share) * learnt.count(label)) for label in (NORMAL, ABNORMAL))
    cells = [cell for entrant in taking for cell in entrant.cells]
    done = tuple(cell.name for cell in cells if is_done(output / CELLS / cell.name))
    test_films = len(tested) or len(learnt) - normals - abnormal
    return Plan(tuple(taking), published, share, normals, abnormal, test_films, done)


def compare(
    scans: Path,
    output: Path,
    detectors: Sequence[str],
    *,
    seeds: int = 1,
    seed: int = 0,
    test: float | None = None,
    allow_image_split: bool = False,
    changes: Sequence[str] = (),
    alpha: float = 0.05,
    dry_run: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    offline: bool = False,
    device: str = "auto",
    workers: int = 2,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Ticker = silent,
) -> Summary | Plan:
    """Fit and score recipes on one patient-disjoint split and write what they and their differences are worth.

    Args:
        scans: A folder or manifest of labelled scans.
        output: Made: splits.csv, cells/ (run and results of each recipe and seed), table.csv, table.md, pairs.csv,
            scores.csv, comparison.json, figures/, report.html.
        detectors: Names of recipes, or recipe files.
        seeds: Fits of each.
        seed: The first, and that of the split.
        test: Share of the patients to draw a test set from; None: the published one, or else 0.3.
        allow_image_split: Draw that test set though scans carry no patient ids.
        changes: `a.b=value` for every recipe.
        alpha: At which to count false alarms.
        dry_run: Only say what would be done.
        resume: Keep finished cells, go on with the others; recipes may be added.
        overwrite: Replace an earlier comparison.
        offline: Never use the network.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        say: Told which cell is next.
        on_progress: Told how far along things are.

    Returns:
        The summary, or the plan of a dry run.

    Raises:
        DataError: Scans that do not allow a comparison, or not one recipe could be fitted.
        UsageError: Wrong recipes, settings or output folder.
    """
    taking = entrants(detectors, seeds=seeds, seed=seed, changes=changes)
    listing, published = choose_test(list_scans(scans))
    planned = plan(listing, published, taking, test, output)
    if dry_run:
        return planned
    claim_folder(output, command="compare", resume=resume, overwrite=overwrite, inputs=(scans,))
    facts: dict[str, Any] = {
        "fingerprint_sha256": fingerprint(listing)["sha256"],
        "layout": listing.layout,
        "published_split": published,
        "test_share": planned.share,
        "seed": seed,
        "detectors": [entrant.name for entrant in taking],
        "seeds": seeds,
        "alpha": alpha,
        "notes": list(listing.notes),
    }
    if resume:
        _same_comparison(output, facts)
    cells = [cell for entrant in taking for cell in entrant.cells]
    for cell in cells:
        check_settings(cell, output / CELLS / cell.name)
    with receipt(output, "compare", facts):
        if not (output / SPLITS).is_file():
            rules = rules_of(seed, planned.share, allow_image_split=allow_image_split)
            first = taking[0].cells[0].recipe
            roles, audit = draw_roles(
                listing,
                rules,
                read=first.read,
                channels=first.prepare.channels,
                workers=workers,
                on_progress=on_progress,
            )
            unreadable = [reason for _, reason in roles.failed]
            write_json(output / AUDIT, {"rows": audit, "notes": list(roles.notes), "unreadable": unreadable})
            write_table(output / SPLITS, roles.table())
        split = read_split(output / SPLITS, listing, published)
        failed = _work(cells, taking, scans, output, say, on_progress, offline=offline, device=device, workers=workers)
        done = [(cell, output / CELLS / cell.name) for cell in cells if cell.name not in failed]
        if not done:
            raise DataError(f"Not one recipe could be fitted and scored; the first said: {next(iter(failed.values()))}")
        results = read_results(split.films, done)
        summary = summarise(taking, split, results, failed, read_json(output / AUDIT), alpha=alpha)
        write_pages(output, summary, results, on_progress)
        facts |= {"failed": failed, "scored": len(results.films)}
    return summary


def _work(
    cells: Sequence[Cell],
    taking: Sequence[Entrant],
    scans: Path,
    output: Path,
    say: Callable[[str], None],
    on_progress: Ticker,
    *,
    offline: bool,
    device: str,
    workers: int,
) -> dict[str, str]:
    """Fit and score every cell that is not finished; return why some failed, by cell."""
    pictured = {entrant.cells[0].name for entrant in taking}
    failed: dict[str, str] = {}
    for place, cell in enumerate(cells, start=1):
        folder = output / CELLS / cell.name
        if is_done(folder):
            continue
        say(f"[{place}/{len(cells)}] {cell.entrant}, seed {cell.recipe.seed}")
        folder.mkdir(parents=True, exist_ok=True)
        panels = None if cell.name in pictured else 0
        job = Job(cell, folder, scans.absolute(), (output / SPLITS).absolute(), panels, offline, device, workers)
        reason = do(job, on_progress)
        if reason is not None:
            failed[cell.name] = reason
            say(f"    failed: {reason}")
    return failed


def _same_comparison(output: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on with a comparison of other scans or on another split."""
    if not (output / RECEIPT).is_file():
        return
    before = read_json(output / RECEIPT)
    for name, what in (
        ("fingerprint_sha256", "the scans"),
        ("published_split", "the published split"),
        ("test_share", "--test"),
        ("seed", "--seed"),
    ):
        if before.get(name, facts[name]) != facts[name]:
            raise UsageError(f"--resume: {output} was begun with another choice of {what}; choose another --output.")
