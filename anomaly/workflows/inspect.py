"""`anomaly inspect`: what is in a folder, what a fit would make of it, what besides anatomy tells classes apart.

Nothing is trained. Every file is read once; what is found goes to inspection.json, scans.csv, fingerprint.json and a
contact sheet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.config import CalibrationConfig, PrepareConfig, ReadConfig
from anomaly.errors import DataError
from anomaly.heatmaps import write_png
from anomaly.prepare.cache import open_cache
from anomaly.prepare.prepare import Preparation
from anomaly.records import ABNORMAL, NORMAL, ScanFile, UInt8
from anomaly.runs import claim_folder, owner, receipt, write_json, write_table
from anomaly.scans.duplicates import exact_copies
from anomaly.scans.quality import MEANINGS
from anomaly.scans.read import file_bytes, printable
from anomaly.scans.walk import Listing, list_scans
from anomaly.workflows.audit import audit_labels, audit_splits
from anomaly.workflows.contact_sheet import contact_sheet, tile
from anomaly.workflows.fingerprint import FINGERPRINT, fingerprint
from anomaly.workflows.inspection_page import PAGE, write_page
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.reading import Outcome, read_files
from anomaly.workflows.results import EXTRA
from anomaly.workflows.selection import FAILED, Look, Roles, Rules, assign_roles, count_reasons, select_normals

INSPECTION = "inspection.json"
SHEET = "contact_sheet.png"
_PER_CLASS, _PER_FLAG, _EXAMPLES = 16, 8, 5


@dataclass(frozen=True, slots=True)
class Film:
    """What is kept of one file that was read: everything of its findings but the pictures."""

    look: Look
    view: str | None
    shape: tuple[int, int]
    bits: int
    spacing_mm: tuple[float, float] | None
    facts: dict[str, str]
    warnings: tuple[str, ...]
    trivial: dict[str, float]

    @property
    def file(self) -> ScanFile:
        """Return the file."""
        return self.look.file


@dataclass(slots=True)
class _Gathered:
    films: list[Film] = field(default_factory=list)
    failed: list[tuple[ScanFile, str]] = field(default_factory=list)
    tiles: dict[str, UInt8] = field(default_factory=dict)
    flagged: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found: `facts` is inspection.json; `failed` files could not be read."""

    folder: Path
    facts: dict[str, Any]
    failed: int
    page: Path | None


def inspect(
    scans: Path,
    output: Path,
    *,
    html: bool = False,
    include_phi: bool = False,
    overwrite: bool = False,
    workers: int = 2,
    on_progress: Ticker = silent,
) -> Inspection:
    """Look through SCANS and write what is found.

    Args:
        scans: A file, folder, manifest CSV or MedMNIST .npz.
        output: Folder for the results; made. An earlier inspection of the same SCANS is replaced unasked.
        html: Write inspection.html as well, one file with pictures.
        include_phi: Write the patients' ids and other header text of DICOM files into scans.csv, and nowhere else.
        overwrite: Replace an inspection of other scans.
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: SCANS does not exist, holds no image, or its manifest is wrong.
        UsageError: The output folder is taken.
    """
    listing = list_scans(scans)
    again = not overwrite and _same_scans(output, scans)
    claim_folder(output, command="inspect", resume=again, overwrite=overwrite, inputs=(scans,))
    print_of = fingerprint(listing)
    with receipt(output, "inspect", {"scans": str(scans.resolve()), "fingerprint_sha256": print_of["sha256"]}):
        gathered = _gather(listing, workers, on_progress)
        roles, problem = _plan(listing, gathered, scans)
        facts = _facts(scans, listing, gathered, roles, problem) | {"fingerprint_sha256": print_of["sha256"]}
        write_json(output / FINGERPRINT, print_of)
        write_table(output / "scans.csv", _table(gathered, roles, include_phi=include_phi))
        facts["contact_sheet"] = _draw(output, gathered)
        write_json(output / INSPECTION, facts)
        (output / PAGE).unlink(missing_ok=True)  # of an earlier inspection
        page = write_page(output, facts, gathered.tiles) if html else None
    return Inspection(output, facts, len(gathered.failed), page)


def _same_scans(output: Path, scans: Path) -> bool:
    """Tell whether a folder holds an inspection of the same SCANS, which a new one may replace."""
    if owner(output) != "inspect":
        return False
    told = json.loads((output / "receipt.json").read_text(encoding="utf-8"))
    return bool(told.get("scans") == str(scans.resolve()))


def _gather(listing: Listing, workers: int, on_progress: Ticker) -> _Gathered:
    """Read every file once, keeping pictures only of those the contact sheet shows."""
    gathered = _Gathered()
    sampled = {file.scan_id for group in _sample(listing.files).values() for file in group}
    outcomes = read_files(
        listing.files,
        read=ReadConfig(),
        channels=1,
        preparation=Preparation(PrepareConfig(), 64),  # for the cache: a fit that follows decodes nothing again
        workers=workers,
        cache=open_cache(),
    )
    for done, outcome in enumerate(outcomes, start=1):
        on_progress(done, len(listing.files), "reading")
        findings = outcome.findings
        if findings is None:
            gathered.failed.append((outcome.file, outcome.error or "unreadable"))
            continue
        gathered.films.append(_film(outcome))
        shown = outcome.file.scan_id in sampled
        for flag in findings.flags:
            examples = gathered.flagged.setdefault(flag.name, [])
            if len(examples) < _PER_FLAG:
                examples.append(outcome.file.scan_id)
                shown = True
        if shown:
            gathered.tiles[outcome.file.scan_id] = tile(findings.film)
    return gathered


def _film(outcome: Outcome) -> Film:
    findings = outcome.findings
    assert findings is not None
    return Film(
        Look.of(outcome),
        outcome.view,
        findings.shape,
        findings.bits,
        findings.spacing_mm,
        findings.facts,
        findings.warnings,
        findings.trivial,
    )


def _class_of(file: ScanFile) -> str:
    named = {NORMAL: "normal", ABNORMAL: "abnormal", None: "unknown"}[file.label]
    return file.class_name or named


def _sample(files: Sequence[ScanFile]) -> dict[str, list[ScanFile]]:
    """Choose some files of each class: at random, as ids end in a hash, and always the same ones."""
    by_class: dict[str, list[ScanFile]] = {}
    for file in files:
        by_class.setdefault(_class_of(file), []).append(file)
    return {
        name: sorted(sorted(members, key=lambda file: file.scan_id[-16:])[:_PER_CLASS], key=lambda file: file.relative)
        for name, members in sorted(by_class.items())
    }


def _plan(listing: Listing, gathered: _Gathered, scans: Path) -> tuple[Roles | None, str | None]:
    """Return what `fit --normal-only` with its defaults would do, or why it would refuse."""
    rules = Rules(CalibrationConfig())
    try:
        selection = select_normals(listing, normal_only=True)
        read = {file.scan_id for file in selection.to_read(rules)}
        looks = {film.file.scan_id: film.look for film in gathered.films if film.file.scan_id in read}
        failed = {file.scan_id: reason for file, reason in gathered.failed if file.scan_id in read}
        return assign_roles(selection, looks, failed, rules, label=str(scans)), None
    except DataError as error:
        return None, str(error)


def _facts(
    scans: Path, listing: Listing, gathered: _Gathered, roles: Roles | None, problem: str | None
) -> dict[str, Any]:
    films, files = gathered.films, listing.files
    flagged = Counter(flag.name for film in films for flag in film.look.flags)
    reasons = [[printable(file.relative), reason] for file, reason in gathered.failed]
    return {
        "scans": str(scans),
        "layout": listing.layout,
        "notes": list(listing.notes),
        "files": len(files),
        "readable": len(films),
        "failed": [{"path": path, "reason": reason} for path, reason in reasons],
        "other_files": listing.others,
        "set_aside": _count(file.set_aside for file in files if file.set_aside is not None),
        "labels": _count({NORMAL: "normal", ABNORMAL: "abnormal", None: "unknown"}[file.label] for file in files),
        "label_sources": _count(file.label_source or "none" for file in files),
        "classes": _count(_class_of(file) for file in files),
        "splits": _by_split(files),
        "patients": _patients(films, listing),
        "views": _count(film.view or "unknown" for film in films),
        "formats": _count(film.facts.get("format", "unknown") for film in films),
        "bits": _count(str(film.bits) for film in films),
        "photometric": _count(film.facts.get("photometric", "not DICOM") for film in films),
        "transfer_syntaxes": _count(film.facts.get("transfer_syntax", "not DICOM") for film in films),
        "sizes": _sizes(films),
        "spacing_mm": _count(f"{film.spacing_mm[0]:g} x {film.spacing_mm[1]:g}" for film in films if film.spacing_mm),
        "warnings": _count(warning for film in films for warning in film.warnings),
        "quality": {
            name: {"count": flagged[name], "meaning": meaning} for name, meaning in MEANINGS.items() if flagged[name]
        },
        "duplicates": _duplicates(films),
        "fit": _fit_facts(roles, problem),
        **audit_labels([(film.look, film.trivial) for film in films]),
        **audit_splits([(film.look, film.trivial) for film in films]),
    }


def _count(words: Any) -> dict[str, int]:
    """Return how often each word comes, the most frequent first."""
    return dict(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))


def _by_split(files: Sequence[ScanFile]) -> dict[str, dict[str, int]]:
    splits: dict[str, list[str]] = {}
    for file in files:
        splits.setdefault(file.split or "none", []).append(_class_of(file))
    return {name: _count(members) for name, members in sorted(splits.items())}


def _patients(films: Sequence[Film], listing: Listing) -> dict[str, Any]:
    known = [film.look.patient for film in films if film.look.patient is not None]
    counts = Counter(known)
    return {
        "scans_with_id": len(known),
        "scans_without_id": len(films) - len(known),
        "patients": len(counts),
        "most_scans_of_one": max(counts.values(), default=0),
        "ids": listing.patient_scope,
    }


def _sizes(films: Sequence[Film]) -> dict[str, Any]:
    if not films:
        return {}
    sides = np.array([film.shape for film in films])
    common = _count(f"{width} x {height}" for height, width in (film.shape for film in films))
    height, width = (
        {"least": int(side.min()), "median": float(np.median(side)), "most": int(side.max())} for side in sides.T
    )
    return {
        "width": width,
        "height": height,
        "different": len(common),
        "commonest": dict(list(common.items())[:_EXAMPLES]),
    }


def _duplicates(films: Sequence[Film]) -> dict[str, Any]:
    groups = exact_copies([film.look.pixels_sha256 for film in films])
    members = [[films[i].file for i in group] for group in groups]

    def mixed(attribute: str) -> int:
        return sum(len({getattr(file, attribute) for file in group}) > 1 for group in members)

    return {
        "groups": len(groups),
        "extra_copies": sum(len(group) - 1 for group in groups),
        "groups_across_labels": mixed("label"),
        "groups_across_splits": mixed("split"),
        "examples": [[printable(file.relative) for file in group] for group in members[:_EXAMPLES]],
    }


def _fit_facts(roles: Roles | None, problem: str | None) -> dict[str, Any]:
    """Return what `fit --normal-only` would do with its defaults."""
    if roles is None:
        return {"would_refuse": problem}
    return {
        "train": len(roles.train),
        "calibration": len(roles.calibration),
        "test": len(roles.test),
        "left_out": count_reasons(roles.left_out),
        "unreadable": len(roles.failed),
        "notes": list(roles.notes),
    }


def _table(gathered: _Gathered, roles: Roles | None, *, include_phi: bool) -> list[list[str]]:
    """Return scans.csv: one row a file, with its role; header text only when asked for."""
    role_of: dict[str, tuple[str, str]] = {}
    for row in roles.table()[1:] if roles is not None else ():
        role_of[row[0]] = (row[5], row[6])
    trivial = sorted({name for film in gathered.films for name in film.trivial} - {"width", "height"})
    extra = list(dict.fromkeys(name for film in gathered.films for name in film.file.extra))
    header = ["scan_id", "path", "status", "label", "class", "patient", "view", "split", "format", "bits", "width"]
    header += ["height", "photometric", "transfer_syntax", "flags", "warnings", "role", "reason", *trivial]
    header += [f"{EXTRA}{name}" for name in extra]
    rows, phi = [], []
    for film in gathered.films:
        file, look = film.file, film.look
        row = [file.scan_id, file.relative, "read", "" if file.label is None else str(file.label)]
        row += [file.class_name or "", look.patient or "", film.view or "", file.split or ""]
        row += [film.facts.get("format", ""), str(film.bits), str(film.shape[1]), str(film.shape[0])]
        row += [film.facts.get("photometric", ""), film.facts.get("transfer_syntax", "")]
        row += ["; ".join(flag.name for flag in look.flags), "; ".join(film.warnings)]
        row += [*role_of.get(file.scan_id, ("", "")), *(f"{film.trivial[name]:.6g}" for name in trivial)]
        row += [file.extra.get(name, "") for name in extra]
        rows.append(row)
        phi.append(_phi(file) if include_phi else {})
    for file, reason in gathered.failed:
        row = [file.scan_id, file.relative, "failed", "" if file.label is None else str(file.label)]
        row += [file.class_name or "", file.patient or "", file.view or "", file.split or ""]
        row += [""] * (header.index("role") - len(row)) + [FAILED, reason] + [""] * len(trivial)
        rows.append(row + [file.extra.get(name, "") for name in extra])
        phi.append({})
    keywords = sorted({keyword for of_file in phi for keyword in of_file})
    told = [[of_file.get(keyword, "") for keyword in keywords] for of_file in phi]
    return [header + keywords, *(row + more for row, more in zip(rows, told, strict=True))]


def _phi(file: ScanFile) -> Mapping[str, str]:
    from anomaly.scans.dicom_phi import read_phi

    return read_phi(file_bytes(file))


def _draw(output: Path, gathered: _Gathered) -> list[dict[str, str | int]]:
    """Write the contact sheet; return what its numbers stand for."""
    films = {film.file.scan_id: film for film in gathered.films}
    sampled = _sample([film.file for film in gathered.films])
    groups = [
        (f"{name}: {len(shown)} of {total}", [f.scan_id for f in shown])
        for name, total in _count(_class_of(film.file) for film in gathered.films).items()
        if (shown := [f for f in sampled[name] if f.scan_id in gathered.tiles])
    ]
    groups += [(f"flagged {name}: {MEANINGS[name]}", ids) for name, ids in sorted(gathered.flagged.items())]
    if not groups:
        (output / SHEET).unlink(missing_ok=True)
        return []
    write_png(output / SHEET, contact_sheet([(title, [gathered.tiles[i] for i in ids]) for title, ids in groups]))
    told = [(title, scan_id) for title, ids in groups for scan_id in ids]
    return [
        {"number": number, "group": title, "path": printable(films[scan_id].file.relative), "scan_id": scan_id}
        for number, (title, scan_id) in enumerate(told, start=1)
    ]
