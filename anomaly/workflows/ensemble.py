"""`anomaly ensemble`: several models and a folder of scans in, one ranked table and one set of pictures out.

Every member is scored by `anomaly score`'s own workflow into members/NAME; the folder above holds what they say
together, in the files that any results folder has.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from anomaly.calibrate import CALIBRATION
from anomaly.errors import DataError, UsageError
from anomaly.records import ResultRow, ScanFile
from anomaly.runs import RECEIPT, claim_folder, read_json, receipt, write_bytes
from anomaly.scans.walk import list_scans
from anomaly.workflows.box_tables import SHAPE, TRUE
from anomaly.workflows.draw import draw_heatmaps
from anomaly.workflows.journal import JOURNAL, Journal, read_journal
from anomaly.workflows.members import Ensemble, Member, find_members
from anomaly.workflows.panels import load_panel, save_panel
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.results import FAILED, SCORED, SCORES, flags, read_scores, write_scores
from anomaly.workflows.score import DERIVED, ScoreSummary, score
from anomaly.workflows.splits import files_of_split
from anomaly.workflows.truth_masks import TRUTH

MEMBERS = "members"


def ensemble(
    scans: Path,
    models: Path,
    output: Path,
    *,
    alpha: float | None = None,
    panels: int | None = 200,
    hash_paths: bool = False,
    split: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 2,
    on_progress: Ticker = silent,
) -> ScoreSummary:
    """Score a folder with several models and write scores.csv, heatmaps, panels, journal and receipt of their mean.

    Args:
        scans: A file, folder or manifest CSV.
        models: A folder whose sub-folders are run folders, each a member.
        output: The results folder; made. members/NAME is the results folder of one member.
        alpha: Flag scans with p <= alpha; None for the smallest of the members' defaults.
        panels: Keep the material of this many pictures a member, its highest-scoring; None for all. The ensemble has
            those that every member kept.
        hash_paths: Write no file name anywhere, nor SCANS itself, only salted hashes.
        split: Only the scans of this split, which must be the same for every member.
        resume: Go on with an interrupted run.
        overwrite: Replace earlier results.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        on_progress: Told how far along things are.

    Raises:
        DataError: No images, or none that could be scored by every member.
        ModelError: A model cannot be used, there is none, or a run is not finished.
        UsageError: Models that cannot be put together; the output folder is taken, or resumes another ensemble's run.
    """
    listing = list_scans(scans)
    members = find_members(models, device=device)
    together = Ensemble.of(members)
    alpha = min(member.alpha for member in members) if alpha is None else alpha
    if split is not None:
        _same_films(listing.files, split, members)
    if resume:
        _same_work(output, members, hash_paths, split)
    claim_folder(output, command="ensemble", resume=resume, overwrite=overwrite, inputs=(scans, models))
    facts: dict[str, Any] = {
        "method": f"ensemble ({', '.join(member.name for member in members)})",
        "members": [_told(member) for member in members],
        "alpha": alpha,
        "heat_unit": "",
        "hashed_paths": hash_paths,
        "split": split,
        "not_images": listing.others,
        "held_out_in_common": len(together.calibration.scores),
        "p_values": together.p_values,
    }
    if hash_paths:
        facts["argv"] = ["SCANS" if Path(word) == scans else word for word in sys.argv[1:]]
    with receipt(output, "ensemble", facts):
        _forget(output)
        started = time.monotonic()
        said = {}
        for member in members:
            said[member.name] = score(
                scans,
                member.folder,
                output / MEMBERS / member.name,
                alpha=alpha,
                panels=panels,
                hash_paths=hash_paths,
                split=split,
                resume=resume,
                device=device,
                workers=workers,
                on_progress=_named(on_progress, member.name),
            ).notes
        took = time.monotonic() - started
        rows = _together(output, together, alpha, on_progress)
        kept = sum(1 for row in rows if (output / "panels" / f"{row.scan_id}.npz").is_file())
        scored = sum(row.score is not None for row in rows)
        flagged = sum(row.p_value is not None and flags(row.p_value, alpha) for row in rows)
        counts = {"scored": scored, "failed": len(rows) - scored, "flagged": flagged}
        facts |= {"files": len(rows), **counts}
    if not scored:
        raise DataError(
            f"None of the {len(rows)} files in {scans} could be scored by every member; {output / SCORES} says why for "
            "each."
        )
    notes = (*_agreed(said), *_notes(together, alpha, kept, scored if panels is None else min(panels, scored)))
    return ScoreSummary(output, **counts, alpha=alpha, images_per_second=len(rows) / max(took, 1e-9), notes=notes)


def _told(member: Member) -> dict[str, Any]:
    """Return what the receipt says of a member."""
    return {
        "name": member.name,
        "method": member.method,
        "model_sha256": member.model_sha256,
        "scored_on": member.scored_on,
        "held_out": len(member.calibration.scores),
        "mean": member.mean,
        "sd": member.sd,
    }


def _same_films(files: Sequence[ScanFile], split: str, members: Sequence[Member]) -> None:
    """Refuse a split that is not the same films to every member: one may have been trained on another's test films."""
    of = {member.name: {file.scan_id for file in files_of_split(files, split, member.folder)} for member in members}
    first = members[0].name
    other = next((name for name, ids in of.items() if ids != of[first]), None)
    if other is not None:
        raise UsageError(
            f"--split {split}: the members {first} and {other} do not have the same scans in it: fit all members with "
            "the same --test and --seed, or publish the split in the manifest."
        )


def _same_work(output: Path, members: Sequence[Member], hash_paths: bool, split: str | None) -> None:
    """Refuse to resume a run of other members, of another split, or one that wrote file names when not to."""
    begun = output / RECEIPT
    before = read_json(begun) if begun.is_file() else {}
    now = {member.name: member.model_sha256 for member in members}
    then = {entry["name"]: entry["model_sha256"] for entry in before.get("members", [])} or now
    changed = sorted({name for name, _ in then.items() ^ now.items()})
    if changed:
        raise UsageError(
            f"--resume: {output} was begun with other members ({', '.join(changed)} came, went or changed): "
            "use the same, or choose another --output."
        )
    for flag, key, value in (("--split", "split", split), ("--hash-paths", "hashed_paths", hash_paths)):
        if before.get(key, value) != value:
            raise UsageError(f"--resume: give {flag} just as {output} was begun, or choose another --output.")


def _forget(output: Path) -> None:
    """Remove what an earlier leg made of its members' results; theirs stay."""
    for name in (SCORES, CALIBRATION, JOURNAL, *DERIVED):
        (output / name).unlink(missing_ok=True)
    for name in ("panels", "heatmaps", TRUTH):
        if (output / name).is_dir():
            shutil.rmtree(output / name)


def _named(on_progress: Ticker, name: str) -> Ticker:
    """Return what shows progress under a member's name."""

    def show(done: int, total: int, what: str) -> None:
        on_progress(done, total, f"{name}: {what}")

    return show


def _together(output: Path, together: Ensemble, alpha: float, on_progress: Ticker) -> list[ResultRow]:
    """Write what the members' results folders say together; return its rows."""
    together.calibration.save(output)
    folders = [output / MEMBERS / member.name for member in together.members]
    found = _rows(together, folders)
    for done, (row, _) in enumerate(found, start=1):
        if row.score is not None:
            _join_panels(output, together, folders, row.scan_id)
        on_progress(done, len(found), "joining maps")
    Journal(output).append([{**asdict(row), **beside} for row, beside in found])
    _take_truth(output, folders[0])
    rows = [row for row, _ in found]
    write_scores(output, rows, alpha=alpha)
    draw_heatmaps(output, on_progress=on_progress)
    write_scores(output, rows, alpha=alpha)  # once more: now it can name the pictures
    return rows


def _take_truth(output: Path, member: Path) -> None:
    """Copy what is known of lesions from a member's results: every member scored the same films."""
    if (member / TRUE).is_file():
        write_bytes(output / TRUE, (member / TRUE).read_bytes())
    for mask in sorted((member / TRUTH).glob("*.png")):
        write_bytes(output / TRUTH / mask.name, mask.read_bytes())


def _rows(together: Ensemble, folders: Sequence[Path]) -> list[tuple[ResultRow, dict[str, Any]]]:
    """Return every scan's row, and what the journal says beside it."""
    names = [member.name for member in together.members]
    tables = [{line.row.scan_id: line.row for line in read_scores(folder)} for folder in folders]
    journals = [read_journal(folder) for folder in folders]
    found = []
    for scan_id in dict.fromkeys(scan_id for table in tables for scan_id in table):
        rows = {name: table[scan_id] for name, table in zip(names, tables, strict=True) if scan_id in table}
        entries = [journal[scan_id] for journal in journals if scan_id in journal]
        beside = {
            "trivial": next((entry["trivial"] for entry in entries if entry["trivial"] is not None), None),
            SHAPE: next((entry[SHAPE] for entry in entries if entry.get(SHAPE) is not None), None),
            "view": next((entry["view"] for entry in entries if entry.get("view") is not None), None),
            "seconds": round(sum(entry["seconds"] for entry in entries), 4),
            "stamp": entries[0]["stamp"],
        }
        first = next(iter(rows.values()))
        row = replace(
            first,
            status=FAILED,
            score=None,
            p_value=None,
            error=None,
            terms={},
            patient=next((row.patient for row in rows.values() if row.patient is not None), None),
            label=next((row.label for row in rows.values() if row.label is not None), None),
            class_name=next((entry["class_name"] for entry in entries if entry["class_name"] is not None), None),
            warnings=_agreed({name: row.warnings for name, row in rows.items()}),
        )
        reasons = {name: _reason(rows.get(name)) for name in names}
        if any(reasons.values()):
            row = replace(row, error="; ".join(_agreed(reasons)))
        else:
            scores = [float(entry["score"]) for entry in entries]  # from the journals: scores.csv rounds
            row = replace(
                row,
                status=SCORED,
                score=together.score(scores),
                p_value=together.p_value(scores),
                terms=together.z(scores),
            )
        found.append((row, beside))
    return found


def _reason(row: ResultRow | None) -> tuple[str, ...]:
    """Return why a member has no score of a scan, as one thing it says; nothing where it has."""
    if row is None:
        return ("it was not there when this member was scored; run again with --resume",)
    return () if row.score is not None else (row.error or "unreadable",)


def _agreed(said: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return what members say, each thing once: plain where all say it, else after the name of who does."""
    common = set.intersection(*(set(words) for words in said.values()))
    told = [word if word in common else f"{name}: {word}" for name, words in said.items() for word in words]
    return tuple(dict.fromkeys(told))


def _join_panels(output: Path, together: Ensemble, folders: Sequence[Path], scan_id: str) -> None:
    """Keep the panel of a scan where every member kept one."""
    name = Path("panels", f"{scan_id}.npz")
    paths = [folder / name for folder in folders]
    if all(path.is_file() for path in paths):
        save_panel(output / name, together.panel([load_panel(path) for path in paths]))


def _notes(together: Ensemble, alpha: float, kept: int, wanted: int) -> list[str]:
    """Return what is worth saying of the ensemble itself."""
    notes = []
    if together.bound is not None:
        notes.append(
            f"p-values are twice the mean of the members' own, at most 1: valid, but conservative. {together.bound} "
            "Sharper ones take members fitted on the same films with the same seed, or all brought to one folder of "
            "normals by `anomaly calibrate`."
        )
    if alpha < together.smallest_alpha:
        notes.append(
            f"No p-value can be below {together.smallest_alpha:.3g}, so nothing is flagged at alpha {alpha:g}: raise "
            "--alpha, or give the members more held-out normals in common."
        )
    if kept < wanted:
        notes.append(
            f"{kept} scans have a picture, those that are among the highest of every member; --panels all keeps all."
        )
    return notes
