"""The one split of a comparison: who is trained on, held out and tested on, the same for every recipe and seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anomaly.config import CalibrationConfig, ReadConfig
from anomaly.detectors.base import SupervisedConfig
from anomaly.errors import DataError
from anomaly.prepare.cache import open_cache
from anomaly.records import ABNORMAL, NORMAL, ScanFile
from anomaly.scans.walk import Listing
from anomaly.workflows.audit import audit_numbers
from anomaly.workflows.classes import FEWEST_OF_A_CLASS, select_labelled
from anomaly.workflows.progress import Ticker
from anomaly.workflows.reading import read_files
from anomaly.workflows.selection import (
    CALIBRATION,
    TEST,
    TRAIN,
    Look,
    Roles,
    Rules,
    Selection,
    assign_roles,
    enough,
    is_train,
    select_normals,
)
from anomaly.workflows.splits import read_splits, with_splits

DRAWN = 0.3
"""Share of the patients that a test set is drawn from, where none is published."""
_TESTS = ("test", "dev", "val")


@dataclass(frozen=True, slots=True)
class Film:
    """A scan of the comparison's test set; `patient` is hashed, or the scan's own id where it is not known."""

    file: ScanFile
    label: int
    patient: str

    @property
    def scan_id(self) -> str:
        """Return the scan's id."""
        return self.file.scan_id


@dataclass(frozen=True, slots=True)
class Split:
    """What is tested on, and how many films are learnt from."""

    published: str | None
    """The published split that is tested on; None where one was drawn."""
    films: tuple[Film, ...]
    train: Mapping[str, int]
    """Films to learn from: "normal" and "abnormal"."""
    calibration: int

    @property
    def counts(self) -> dict[int, int]:
        """Return the test films by label."""
        found = Counter(film.label for film in self.films)
        return {NORMAL: found[NORMAL], ABNORMAL: found[ABNORMAL]}


def choose_test(listing: Listing) -> tuple[Listing, str | None]:
    """Return the scans with one published split left to test on, and which: test, else dev, else val; None without.

    Others are set aside: what is tuned on is not tested on.
    """
    named = {file.split for file in listing.files if file.label is not None}
    chosen = next((name for name in _TESTS if name in named), None)

    def kept(file: ScanFile) -> ScanFile:
        if chosen is None or file.set_aside is not None or is_train(file) or file.split in (CALIBRATION, chosen):
            return file
        return replace(file, split=None, set_aside=f"of the published split {file.split}, {chosen} is tested on")

    return replace(listing, files=tuple(kept(file) for file in listing.files)), chosen


def draw_roles(
    listing: Listing, rules: Rules, *, read: ReadConfig, channels: int, workers: int, on_progress: Ticker
) -> tuple[Roles, list[dict[str, Any]]]:
    """Draw the split, whole patients at a time, copies left out, as a fit would: once, for all.

    And audit it: how well one trivial number tells its test normals from those trained on, as `audit_numbers` says.

    Args:
        listing: From `choose_test`.
        rules: How to draw; `test` is 0 where a test set is published.
        read: How films are read.
        channels: Of the films, 1 or 3.
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: Labels that do not allow a comparison, too few normals, or a film or patient on two sides.
    """
    selection = _selection(listing)
    healthy = sum(file.label != ABNORMAL for file in (*selection.chosen, *selection.calibration))
    enough(healthy, str(listing.root), selection.left_out)
    looks: dict[str, Look] = {}
    trivial: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    every = selection.to_read(rules)
    for outcome in read_files(
        every, read=read, channels=channels, preparation=None, workers=workers, cache=open_cache()
    ):
        if outcome.findings is None:
            failed[outcome.file.scan_id] = outcome.error or "unreadable"
        else:
            looks[outcome.file.scan_id] = Look.of(outcome)
            trivial[outcome.file.scan_id] = outcome.findings.trivial
        on_progress(len(looks) + len(failed), len(every), "reading")
    roles = assign_roles(selection, looks, failed, rules, label=str(listing.root))
    return roles, _audit(roles, trivial)


def _audit(roles: Roles, trivial: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Say how well single numbers tell the test normals from those trained on, the strongest first; [] without two.

    What is told apart by them, a method may call abnormal for no disease.
    """
    sides = (roles.train, roles.test)
    normals = [(look, int(side is roles.test)) for side in sides for look in side if look.file.label == NORMAL]
    if len({held for _, held in normals}) < 2:
        return []
    films = [(look, trivial[look.file.scan_id]) for look, _ in normals]
    return audit_numbers(films, [held for _, held in normals])


def _selection(listing: Listing) -> Selection:
    """Choose what is learnt from: every label where there are abnormal films to train on, else normals alone."""
    learnt = [file for file in listing.files if file.set_aside is None and is_train(file)]
    if not any(file.label is not None for file in learnt):
        raise DataError(
            f"{listing.root} says of no film that it is normal or abnormal: a comparison needs labels (class folders, "
            "or a manifest with a label column)."
        )
    if sum(file.label == ABNORMAL for file in learnt) >= FEWEST_OF_A_CLASS:
        return select_labelled(listing, SupervisedConfig(classes="two"))
    return select_normals(listing, normal_only=True)


def read_split(table: Path, listing: Listing, published: str | None) -> Split:
    """Read a comparison's splits.csv.

    Args:
        table: Its path.
        listing: Of the scans it was drawn from.
        published: See `Split`.

    Raises:
        DataError: It cannot be read, or one of the labels is not among the films to test on.
    """
    rows = read_splits(table)
    files = {file.scan_id: file for file in with_splits(listing, table).files}
    films = tuple(
        Film(files[row["scan_id"]], int(row["label"]), row["patient"] or row["scan_id"])
        for row in rows
        if row["role"] == TEST and row["label"]
    )
    missing = [name for label, name in _NAMED.items() if not any(film.label == label for film in films)]
    if missing:
        raise DataError(
            f"The test set holds {len(films)} labelled scans and none that is {missing[0]}: a comparison needs both."
        )
    learnt = Counter(_NAMED[int(row["label"])] for row in rows if row["role"] == TRAIN and row["label"])
    return Split(published, films, dict(learnt), sum(row["role"] == CALIBRATION for row in rows))


_NAMED = {NORMAL: "normal", ABNORMAL: "abnormal"}


def rules_of(seed: int, test: float, *, allow_image_split: bool) -> Rules:
    """Return how the split is drawn: calibration as recipes have it unless they say otherwise."""
    return Rules(CalibrationConfig(), seed, test, allow_image_split)


def same_scans(films: Sequence[Film], scored: Mapping[str, Sequence[str]]) -> None:
    """Refuse to compare what was scored on different scans, naming some.

    Args:
        films: Of the test set.
        scored: Name of a cell -> ids of the scans that it has a score of.

    Raises:
        DataError: A cell misses scans that another has scored.
    """
    every = set().union(*(set(ids) for ids in scored.values())) & {film.scan_id for film in films}
    for name, ids in scored.items():
        lacking = sorted(every - set(ids))
        if lacking:
            raise DataError(
                f"{name} has no score of {len(lacking)} scans that others scored ({', '.join(lacking[:3])}): detectors "
                "are compared on the same scans alone; remove its folder and give the command again with --resume."
            )
