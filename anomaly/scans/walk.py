"""From SCANS, a file, a folder or a manifest, to the list of files that claim to be images. Nothing is decoded."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

from anomaly.errors import DataError, ScanError
from anomaly.records import ScanFile
from anomaly.scans.gather import Found, claims_to_be_image, gather, is_named_as_masks, masks_of
from anomaly.scans.layouts.base import Reading, Tree
from anomaly.scans.layouts.class_folders import SMALL_VAL, by_names, ids_of, kermany_val
from anomaly.scans.layouts.medmnist import medmnist_classes
from anomaly.scans.layouts.names import root_names
from anomaly.scans.layouts.pairs import nested_copies
from anomaly.scans.layouts.recognise import recognise
from anomaly.scans.manifest import IN_ARCHIVE, ManifestRow, has_path_column, picture_of, read_manifest
from anomaly.scans.npz import read_labels
from anomaly.scans.patients import hash_patient, load_salt

_LOOKED_FOR = "DICOM (with or without extension), PNG, JPEG, TIFF and BMP"
_MOST_NAMED = 8
_IDS_OF_MANIFEST = "the manifest's column patient"
_COPY = "copy inside a nested root"
_NAMED_AS_MASKS = "SCANS is named as masks, which are no films; give the folder of the films instead"


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in SCANS. `others` counts files that are no images.

    `layout` names the set, `patient_scope` says what its patient ids are and where they hold, in a sentence, and
    `notes` says what was passed over and what to know of the set, in sentences.
    """

    root: Path
    files: tuple[ScanFile, ...]
    others: int = 0
    notes: tuple[str, ...] = ()
    layout: str | None = None
    patient_scope: str | None = None


@dataclass(frozen=True, slots=True)
class _Archive:
    """A file of the MedMNIST form: its pictures and what is said of them, and the names of its classes."""

    files: list[ScanFile]
    title: str


def list_scans(scans: Path) -> Listing:
    """List every file that claims to be an image, by extension or by its first bytes, with what its place says of it.

    Args:
        scans: A file, a folder (walked to the bottom, sorted, links followed once), a manifest (.csv) or a MedMNIST
            archive (.npz). A folder's own `manifest.csv`, if it has a `path` column, overrules what the layout of a
            known set says of the files found.

    Returns:
        A `Listing`, a picture inside an archive being a file of its own. Labels: 0 normal, 1 abnormal, None unknown;
        patients hashed. Broken links and damaged files with an image's extension are listed: reading them fails with
        the reason.

    Raises:
        DataError: The path does not exist, holds no image, or its manifest, archive or a set's table is wrong.
    """
    try:
        mode = scans.stat().st_mode
    except (OSError, ValueError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", error)
        raise DataError(f"{scans}: cannot be used as SCANS ({reason}); check the path") from error
    if stat.S_ISDIR(mode):
        return _list_folder(scans)
    if scans.suffix.lower() == ".csv":
        return _list_manifest(scans)
    if scans.suffix.lower() == ".npz":
        return _list_archive(scans)
    if not claims_to_be_image(scans):
        raise DataError(
            f"{scans}: is neither an image ({_LOOKED_FOR}) nor a manifest (.csv) nor a folder; give one of these"
        )
    return _list_found(scans.parent, Found(files=[scans.name]), {})


def make_scan_id(relative: str) -> str:
    """Return an id for a relative posix path: unique, stable, safe as a file name (slug, '-', 16 hex digits)."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(relative).stem).strip("-.")[:48].rstrip("-.")
    digest = sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{slug or 'scan'}-{digest}"


def _list_folder(root: Path) -> Listing:
    found = gather(root)
    rows: dict[str, ManifestRow] = {}
    notes: list[str] = []
    manifest = root / "manifest.csv"
    if manifest.is_file():
        try:
            usable = has_path_column(manifest)
        except OSError as error:
            raise DataError(f"{manifest}: cannot be read ({error.strerror}); change its permissions") from error
        if usable:
            found.others = [name for name in found.others if name != manifest.name]
            rows = {_relative(row.path, root): row for row in read_manifest(manifest)}
        else:
            notes.append("manifest.csv has no column 'path' and was not used")
    return _list_found(root, found, rows, notes)


def _list_found(root: Path, found: Found, rows: dict[str, ManifestRow], notes: Sequence[str] = ()) -> Listing:
    """Make the listing of what a walk found; `rows` of a manifest overrule what the layout says."""
    notes = list(notes)
    namer = _Namer()
    archives = _archives(root, found, namer, notes)
    closed = f"{_count(found.closed_folders, 'folder')} could not be opened (permissions)"
    if not found.files and not archives:
        saw = _count(len(found.others), "other file") + (f", {closed}" if found.closed_folders else "")
        if found.mask_folders:
            saw += f", {_count(len(found.mask_folders), 'folder')} of masks ({found.mask_folders[0]})"
        raise DataError(
            f"{root}: holds no image; looked for {_LOOKED_FOR} and found {saw}; give the folder that holds the films"
        )
    top = Path(os.path.abspath(root))  # noqa: PTH100 (links keep their names)
    known = recognise(Tree(top, found.files, found.masks, found.others))
    masks = masks_of(top, found)
    copies = nested_copies(top, found.files)
    files = [file for archive in archives for file in archive.files]
    for relative in found.files:
        reading = known.readings[relative]
        file = namer.name(root / relative, relative, reading)
        mask = reading.mask or masks.of(f"{top.name}/{relative}")
        aside = _COPY if relative in copies else reading.set_aside
        files.append(replace(file, mask=mask, set_aside=aside) if mask or aside else file)
    by_manifest = any(row.patient for row in rows.values())
    files = [namer.annotate(file, rows.pop(file.relative, None)) for file in files]
    if archives:
        files.sort(key=_in_order)
    if rows:
        notes.append(f"{_count(len(rows), 'row')} of manifest.csv name no file found here")
    if found.mask_folders:
        notes.append(f"{_count(len(found.mask_folders), 'folder')} of masks not taken for scans")
    if found.masks_beside:
        notes.append(f"{_count(found.masks_beside, 'mask')} beside a film not taken for scans")
    if is_named_as_masks(top, found.files):
        notes.append(_NAMED_AS_MASKS)
    if found.own_results:
        notes.append(f"{_count(found.own_results, 'folder')} of this tool's own results passed over")
    if found.closed_folders:
        notes.append(closed)
    notes += _about(files)
    titles = [title for title in [*(layout.title for layout in known.layouts), *(a.title for a in archives)] if title]
    scopes = [layout.ids for layout in known.layouts if layout.ids] + [_IDS_OF_MANIFEST] * by_manifest
    notes += [f"{layout.title}: {note}" for layout in known.layouts for note in layout.notes]
    return Listing(
        root,
        tuple(files),
        len(found.others),
        tuple(notes),
        layout="; ".join(dict.fromkeys(titles)) or None,
        patient_scope="; ".join(dict.fromkeys(scopes)) or None,
    )


def _list_manifest(csv_path: Path) -> Listing:
    root = csv_path.parent
    namer = _Namer()
    above = _names_above(root)
    files = []
    rows = read_manifest(csv_path)
    paths = [_relative(row.path, root) for row in rows]
    is_own_split = len(kermany_val(above, paths)) > SMALL_VAL
    for row, relative in zip(rows, paths, strict=True):
        file = namer.name(row.path, relative, by_names(above, relative, is_own_split=is_own_split))
        inside = IN_ARCHIVE.fullmatch(str(row.path))
        if inside:
            file = replace(file, path=Path(inside[1]), member=f"{inside[2].lower()}/{int(inside[3])}")
        files.append(namer.annotate(file, row))
    scopes = [
        ids_of(paths, is_own_split=is_own_split),
        _IDS_OF_MANIFEST if any(row.patient for row in rows) else None,
    ]
    return Listing(
        root,
        tuple(files),
        notes=tuple(_about(files)),
        layout="manifest",
        patient_scope="; ".join(filter(None, scopes)) or None,
    )


def _list_archive(path: Path) -> Listing:
    try:
        archive = _open_archive(path, path.name, _Namer())
    except (OSError, ScanError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if archive is None:
        raise DataError(
            f"{path}: is not of the MedMNIST form (train_images, train_labels, …); give a folder of pictures instead"
        )
    return Listing(path.parent, tuple(archive.files), notes=tuple(_about(archive.files)), layout=archive.title)


def _archives(root: Path, found: Found, namer: _Namer, notes: list[str]) -> list[_Archive]:
    """Open the .npz files of the MedMNIST form, taking them from the other files; one that cannot be is a note."""
    archives: dict[str, _Archive] = {}
    failed: list[str] = []
    for relative in [name for name in found.others if name.lower().endswith(".npz")]:
        try:
            archive = _open_archive(root / relative, relative, namer)
        except (OSError, ScanError) as error:
            failed.append(f"{relative} {getattr(error, 'strerror', None) or error}")
            continue
        if archive is not None:
            archives[relative] = archive
    found.others = [name for name in found.others if name not in archives]
    if failed:
        notes.append(f"{_count(len(failed), '.npz file')} passed over; the first: {failed[0]}")
    return list(archives.values())


def _open_archive(path: Path, relative: str, namer: _Namer) -> _Archive | None:
    labels = read_labels(path)
    if labels is None:
        return None
    files = []
    for split, numbers in labels.items():
        for index, (label, name) in enumerate(medmnist_classes(path.stem, numbers)):
            source = None if label is None else path.name
            reading = Reading(label=label, class_name=name, source=source, split=split)
            file = namer.name(path, f"{relative}/{split}/{index:05d}", reading)
            files.append(replace(file, member=f"{split}/{index}"))
    return _Archive(files, f"MedMNIST ({path.stem})")


def _about(files: Sequence[ScanFile]) -> list[str]:
    """Say how many files are set aside, and which classes are neither normal nor abnormal."""
    aside = Counter(file.set_aside for file in files if file.set_aside is not None)
    notes = [f"{_count(number, 'file')} set aside, scored but not trained on: {why}" for why, number in aside.items()]
    labelled = {file.class_name for file in files if file.label is not None}
    unknown = sorted({file.class_name for file in files if file.class_name is not None} - labelled - {None}, key=str)
    if unknown:
        named = ", ".join(map(str, unknown[:_MOST_NAMED])) + (", …" if len(unknown) > _MOST_NAMED else "")
        notes.append(
            f"whether these classes are normal or abnormal is unknown: {named}; say it in a manifest.csv with the "
            "columns path and label"
        )
    return notes


def _names_above(root: Path) -> list[str]:
    return root_names(Path(os.path.abspath(root)).parts[1:])  # noqa: PTH100 (links keep their names)


class _Namer:
    """Makes ScanFiles: id, and what layouts and manifest rows say. Reads the salt once, when first needed."""

    def __init__(self) -> None:
        self._salt: bytes | None = None

    def name(self, path: Path, relative: str, reading: Reading) -> ScanFile:
        return ScanFile(
            scan_id=make_scan_id(relative),
            path=path,
            relative=relative,
            label=reading.label,
            class_name=reading.class_name,
            label_source=reading.source,
            patient=self._hash(reading.patient),
            view=reading.view,
            split=reading.split,
            boxes=reading.boxes,
            extra=reading.extra,
        )

    def annotate(self, file: ScanFile, row: ManifestRow | None) -> ScanFile:
        """Let a manifest's row overrule what the layout says, where it speaks; label and class go together."""
        if row is None:
            return file
        if row.labelled:
            source = None if row.label is None else "manifest"
            file = replace(file, label=row.label, label_source=source, class_name=None)
        elif row.class_name is not None and row.class_name.lower() != (file.class_name or "").lower():
            file = replace(file, label=None, label_source=None)
        return replace(
            file,
            class_name=row.class_name or file.class_name,
            patient=self._hash(row.patient) or file.patient,
            view=row.view or file.view,
            split=row.split or file.split,
            mask=row.mask or file.mask,
            boxes=row.boxes or file.boxes,
            set_aside=None if row.split else file.set_aside,
            extra={**file.extra, **row.extra},
        )

    def _hash(self, key: str | None) -> str | None:
        if key is None:
            return None
        if self._salt is None:
            self._salt = load_salt()
        return hash_patient(key, self._salt)


def _relative(path: Path, root: Path) -> str:
    """Return `path` as posix, relative to `root` where that is possible."""
    try:
        return picture_of(Path(os.path.relpath(path, root)).as_posix())
    except ValueError:  # another Windows drive
        return picture_of(path.as_posix())


def _in_order(file: ScanFile) -> str:
    """Return what files are sorted by: their path, a picture's number in an archive in figures of one width."""
    return file.relative if file.member is None else re.sub(r"\d+$", lambda n: n[0].zfill(12), file.relative)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
