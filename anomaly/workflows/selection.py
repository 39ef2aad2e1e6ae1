"""Which scans a fit trains on, holds out, tests on and leaves out, and why: decided once, for `fit` and `inspect`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anomaly.config import CalibrationConfig
from anomaly.errors import DataError, UsageError
from anomaly.records import ABNORMAL, NORMAL, Int64, ScanFile, UInt8
from anomaly.scans.leaks import Item, check_leaks
from anomaly.scans.quality import Flag
from anomaly.scans.read import printable
from anomaly.scans.split import number_patients, patients_or_permission, split_normals, split_test
from anomaly.scans.walk import Listing
from anomaly.workflows.reading import Outcome

FEWEST_NORMALS = 16
_SPLITS = frozenset({None, "train", "calibration", "val", "dev", "test"})
TRAIN, CALIBRATION, TEST, LEFT_OUT, FAILED = "train", "calibration", "test", "left out", "failed"

LeftOut = tuple[tuple[ScanFile, str], ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What labels and published splits alone say, before anything is read; `left_out` gives each file's reason."""

    chosen: tuple[ScanFile, ...]
    """Normals that may be trained on."""
    calibration: tuple[ScanFile, ...]
    """Normals that a manifest's split column sets apart for calibration."""
    test: tuple[ScanFile, ...]
    """Files of published splits that are neither: the test set, of which nothing may be in training."""
    left_out: LeftOut
    basis: str
    """How the chosen are known to be normal, or how many there are of each class; goes into the receipt."""
    supervised: bool = False
    """Whether the chosen are of every class, for a method that learns from labels."""

    @property
    def abnormal(self) -> tuple[ScanFile, ...]:
        """Files left out of training for their label alone: a drawn test set takes its abnormal films from them."""
        return tuple(file for file, _ in self.left_out if file.label == ABNORMAL and file.set_aside is None)

    def to_read(self, rules: Rules) -> tuple[ScanFile, ...]:
        """Return every file that must be read before roles can be given: first those to train and calibrate on.

        Of the abnormal films only those that may be copies of a normal one matter, unless a test set is drawn.
        """
        normals = (*self.chosen, *self.calibration)
        sizes = {_size(file) for file in normals}
        abnormal = [file for file in self.abnormal if rules.test or _size(file) in sizes]
        return (*normals, *self.test, *abnormal)

    def check(self, rules: Rules, label: str) -> None:
        """Refuse, before anything is read, to draw a test set where the data publish one.

        Raises:
            UsageError: They do, with labels.
        """
        if rules.test and any(file.label is not None for file in self.test):
            raise UsageError(
                f"{label} publishes its own split ({len(self.test)} scans are not for training): leave out --test."
            )


@dataclass(frozen=True, slots=True)
class Look:
    """What reading left to know of a scan: `patient` hashed, hashes of file and picture, `thumb` uint8 (64, 64)."""

    file: ScanFile
    patient: str | None
    content_sha256: str
    pixels_sha256: str
    thumb: UInt8
    flags: tuple[Flag, ...]

    @classmethod
    def of(cls, outcome: Outcome) -> Look:
        """Keep what is light of a file that was read and examined."""
        findings = outcome.findings
        if findings is None:
            raise ValueError("an outcome without findings cannot be looked at")
        return cls(
            outcome.file,
            outcome.patient,
            findings.content_sha256,
            findings.pixels_sha256,
            findings.thumb.copy(),
            findings.flags,
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """How roles are drawn.

    `test` is the share of the patients to draw as a test set, 0 for none; films with a quality flag in `exclude` are
    left out of training.
    """

    calibration: CalibrationConfig
    seed: int = 0
    test: float = 0.0
    allow_image_split: bool = False
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Roles:
    """What became of every file. Indices of `groups` go with `train` followed by `calibration`."""

    train: tuple[Look, ...]
    calibration: tuple[Look, ...]
    test: tuple[Look, ...]
    left_out: LeftOut
    failed: LeftOut
    groups: Int64
    notes: tuple[str, ...]

    @property
    def patients(self) -> int:
        """Number of patients among the films trained on and held out; one without an id counts as its own."""
        return len(np.unique(self.groups))

    def table(self, remarks: Mapping[str, str] | None = None) -> list[list[str]]:
        """Return splits.csv: every file, the role it has, and why; `remarks` by scan_id are added to the reason."""
        rows = [["scan_id", "path", "patient", "label", "class", "role", "reason", "content_sha256"]]
        for role, looks in ((TRAIN, self.train), (CALIBRATION, self.calibration), (TEST, self.test)):
            for look in looks:
                said = (_published(look.file), (remarks or {}).get(look.file.scan_id, ""))
                reason = "; ".join(part for part in said if part)
                rows.append([*_row(look.file, look.patient, role, reason), look.content_sha256])
        for role, files in ((FAILED, self.failed), (LEFT_OUT, self.left_out)):
            rows += [[*_row(file, file.patient, role, reason), ""] for file, reason in files]
        return rows


def select_normals(listing: Listing, *, normal_only: bool) -> Selection:
    """Choose the scans an unsupervised fit may see: normals, of the train split where there is one.

    Args:
        listing: Of the folder or manifest.
        normal_only: The user's flag. With labels, only those labelled normal are taken; without any, it is the
            user's declaration that all of it is normal. Where the folder holds a train split, only that is used.

    Raises:
        DataError: No flag and not wholly labelled normal.
    """
    aside = [(f, f.set_aside) for f in listing.files if f.set_aside is not None]
    for_training, held, test = parted([f for f in listing.files if f.set_aside is None])
    labelled = [f for f in for_training if f.label is not None]
    if normal_only and not labelled:
        basis = "declared normal by --normal-only (no labels found)"
        return Selection(tuple(for_training), tuple(held), tuple(test), tuple(aside), basis)
    aside += [(f, "in the calibration split, not labelled normal") for f in held if f.label != NORMAL]
    held = [f for f in held if f.label == NORMAL]
    normal = [f for f in for_training if f.label == NORMAL]
    if not normal_only and len(normal) < len(for_training):
        raise DataError(
            f"{len(for_training) - len(normal)} of {len(for_training)} scans are not labelled normal, and this method "
            "learns from normals alone: add --normal-only to train on the scans labelled normal (or, where there are "
            "no labels at all, to declare the folder normal)."
        )
    aside += [(f, f"labelled {f.class_name or 'abnormal'}") for f in for_training if f.label not in (None, NORMAL)]
    aside += [(f, "label unknown") for f in for_training if f.label is None]
    sources = sorted({f.label_source or "labels" for f in labelled})
    basis = f"labelled normal ({', '.join(sources)})"
    return Selection(tuple(normal), tuple(held), tuple(test), tuple(aside), basis)


def parted(files: Sequence[ScanFile]) -> tuple[list[ScanFile], list[ScanFile], list[ScanFile]]:
    """Return files to train on, those of a calibration split, and those of other published splits: the test set.

    Raises:
        DataError: A split of a name that is not known.
    """
    strange = next((f for f in files if f.split not in _SPLITS), None)
    if strange is not None:
        raise DataError(
            f"{printable(strange.relative)}: the split {strange.split!r} is not known; use train, calibration, val, "
            "dev or test, or nothing."
        )
    any_train = any(is_train(f) for f in files)
    for_training = [f for f in files if is_train(f) or not any_train]
    held = [f for f in files if any_train and f.split == CALIBRATION]
    test = [f for f in files if any_train and not is_train(f) and f.split != CALIBRATION]
    return for_training, held, test


def is_train(file: ScanFile) -> bool:
    """Tell whether a file may be trained on as far as published splits go."""
    return file.split in (None, TRAIN)


def assign_roles(
    selection: Selection, looks: Mapping[str, Look], failed: Mapping[str, str], rules: Rules, *, label: str = "scans"
) -> Roles:
    """Give every file its role, whole patients at a time.

    Copies of a film and, on request, flagged films are left out of training; a test set is the published one or is
    drawn here; calibration normals are drawn from what is left; then training is checked against the test set.

    Args:
        selection: From `select_normals`.
        looks: scan_id -> what reading left, for every file of the selection that was read.
        failed: scan_id -> why it could not be read.
        rules: How to draw.
        label: What the user called SCANS, for messages.

    Raises:
        DataError: Too few normals; no patient ids to draw a test set by; or training and test set share a film or a
            patient.
        UsageError: A test set is to be drawn where the data publish one.
    """
    selection.check(rules, label)
    left_out = [(file, reason) for file, reason in selection.left_out if file.scan_id not in failed]
    notes: list[str] = []
    learnt = (*selection.chosen, *selection.calibration)
    contrary = _contrary(_readable((*learnt, *selection.abnormal), looks), supervised=selection.supervised)
    kept = _worth_training(_readable(learnt, looks), rules, contrary, left_out)
    test = _readable(selection.test, looks)
    if rules.test:
        pool = kept + _worth_training(_readable(selection.abnormal, looks), rules, contrary, [])
        left_out += [(look.file, "published for testing without a label") for look in test]
        kept, test = _draw_test(pool, rules, notes, supervised=selection.supervised)
        drawn = {look.file.scan_id for look in test}
        left_out = [(file, reason) for file, reason in left_out if file.scan_id not in drawn]
    elif (anonymous := _anonymous(kept, test)) is not None:
        notes.append(anonymous)
    enough(sum(look.file.label != ABNORMAL for look in kept), label, left_out)
    leaks = check_leaks(_items(kept), _items(test))
    stop = leaks.stop()
    if stop is not None:
        raise DataError(stop)
    warning = leaks.warn()
    notes += [] if warning is None else [warning]
    groups, (train, held_out) = _groups(kept), _draw_calibration(kept, selection, rules)
    return Roles(
        train=tuple(kept[i] for i in train),
        calibration=tuple(kept[i] for i in held_out),
        test=tuple(test),
        left_out=tuple(left_out),
        failed=tuple((f, failed[f.scan_id]) for f in selection.to_read(rules) if f.scan_id in failed),
        groups=groups[np.concatenate([train, held_out])],
        notes=tuple(notes),
    )


def enough(count: int, label: str, left_out: Sequence[tuple[ScanFile, str]]) -> None:
    """Refuse too few normals, saying what was left out.

    Raises:
        DataError: Fewer than 16.
    """
    if count < FEWEST_NORMALS:
        others = ", ".join(f"{number} {reason}" for reason, number in count_reasons(left_out).items())
        raise DataError(
            f"{label} gives {count} normal scan{'s' if count != 1 else ''} to learn from"
            f"{f' (left out: {others})' if others else ''}; at least {FEWEST_NORMALS} are needed, and hundreds for a "
            "useful model: give more."
        )


def count_reasons(left_out: Sequence[tuple[ScanFile, str]]) -> dict[str, int]:
    """Return how many scans were left out for each reason, films named in a reason taken together."""
    return dict(sorted(Counter(reason.partition(":")[0] for _, reason in left_out).items()))


def data_digest(files: Sequence[ScanFile]) -> str:
    """Return a hash of which files these are: relative paths and sizes, whatever their order."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.relative):
        size = _size(file)
        digest.update(f"{file.relative}\0{size}\n".encode("utf-8", errors="surrogateescape"))
    return digest.hexdigest()


def _size(file: ScanFile) -> int:
    try:
        return file.path.stat().st_size
    except (OSError, ValueError):
        return -1


def _readable(files: Sequence[ScanFile], looks: Mapping[str, Look]) -> list[Look]:
    return [looks[file.scan_id] for file in files if file.scan_id in looks]


def _groups(looks: Sequence[Look]) -> Int64:
    return number_patients([look.patient for look in looks], [look.file.relative for look in looks])


def _items(looks: Sequence[Look]) -> list[Item]:
    return [Item(look.file.relative, look.patient, look.pixels_sha256, look.thumb) for look in looks]


def _draw_calibration(kept: Sequence[Look], selection: Selection, rules: Rules) -> tuple[Int64, Int64]:
    """Return indices to train on and to hold out: the published calibration split, or whole patients drawn here."""
    parts = rules.calibration
    published = {file.scan_id for file in selection.calibration}
    if not published:
        sick = {look.patient for look in kept if look.file.label == ABNORMAL} - {None}
        healthy = [i for i, look in enumerate(kept) if look.file.label != ABNORMAL and look.patient not in sick]
        groups = _groups([kept[i] for i in healthy])  # numbered among normals alone: whatever else is learnt from
        _, drawn = split_normals(groups.tolist(), parts.fraction, rules.seed, minimum=parts.minimum)
        out = np.asarray(healthy, dtype=np.int64)[drawn]
        return np.setdiff1d(np.arange(len(kept), dtype=np.int64), out), out
    held = np.array([look.file.scan_id in published for look in kept])
    patients = [{look.patient for look, on in zip(kept, side, strict=True) if on} - {None} for side in (held, ~held)]
    if patients[0] & patients[1]:
        raise DataError(
            f"{len(patients[0] & patients[1])} patients are in both the train and the calibration split: put all films "
            "of a patient on one side."
        )
    if held.sum() < parts.minimum or held.all():
        raise DataError(
            f"the calibration split holds {held.sum()} of {len(held)} usable normals: at least {parts.minimum} are "
            "needed there, and some to train on; give more, or leave the split column empty to have them drawn."
        )
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def _worth_training(
    looks: Sequence[Look], rules: Rules, contrary: Mapping[str, str], left_out: list[tuple[ScanFile, str]]
) -> list[Look]:
    """Drop what also carries another label, copies, and, on request, what flags exclude; say so in `left_out`."""
    kept: list[Look] = []
    first: dict[str, str] = {}
    for look in looks:
        original = first.setdefault(look.pixels_sha256, look.file.relative)
        bad = [flag for flag in look.flags if flag.name in rules.exclude]
        if look.pixels_sha256 in contrary:
            left_out.append((look.file, f"the same film is labelled both {contrary[look.pixels_sha256]}"))
        elif original != look.file.relative:
            left_out.append((look.file, f"copy of another film: {original}"))
        elif bad:
            left_out.append((look.file, f"quality, {bad[0].name}: {bad[0].detail}"))
        else:
            kept.append(look)
    return kept


def _contrary(looks: Sequence[Look], *, supervised: bool) -> dict[str, str]:
    """Return what carries labels that exclude each other: hash of the picture -> "normal and abnormal"."""
    said: dict[str, set[str]] = {}
    for look in looks:
        plain = "abnormal" if look.file.label == ABNORMAL else "normal"
        said.setdefault(look.pixels_sha256, set()).add(str(look.file.class_name) if supervised else plain)
    order = {"normal": ""}  # first
    return {
        pixels: " and ".join(sorted(names, key=lambda name: order.get(name, name)))
        for pixels, names in said.items()
        if len(names) > 1
    }


def _draw_test(
    pool: Sequence[Look], rules: Rules, notes: list[str], *, supervised: bool
) -> tuple[list[Look], list[Look]]:
    """Draw a test set of normal and abnormal patients; return the others that may be trained on, and the test set."""
    known = sum(look.patient is not None for look in pool)
    note = patients_or_permission(known, len(pool), rules.allow_image_split)
    notes += [] if note is None else [note]
    strata = [look.file.class_name or str(look.file.label) for look in pool]
    rest, test = split_test(_groups(pool).tolist(), strata, rules.test, rules.seed)
    kept = [pool[i] for i in rest if supervised or pool[i].file.label != ABNORMAL]
    return kept, [pool[i] for i in test]


def _anonymous(kept: Sequence[Look], test: Sequence[Look]) -> str | None:
    """Say that patients cannot be told apart between training and a published test set."""
    without = sum(look.patient is None for look in (*kept, *test))
    if not test or not without:
        return None
    return (
        f"{without} of {len(kept) + len(test)} scans carry no patient id, so nothing shows that no patient is both in "
        "training and in the test set."
    )


def _published(file: ScanFile) -> str:
    return f"published split: {file.split}" if file.split is not None else ""


def _row(file: ScanFile, patient: str | None, role: str, reason: str) -> list[str]:
    label = "" if file.label is None else str(file.label)
    return [file.scan_id, file.relative, patient or "", label, file.class_name or "", role, reason]
