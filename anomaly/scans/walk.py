"""From SCANS, a file, a folder or a manifest, to the list of files that claim to be images. Nothing is decoded."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

from anomaly.errors import DataError
from anomaly.records import ScanFile
from anomaly.runs import RECEIPT, read_json
from anomaly.scans.layouts import class_of_folders, is_mask_folder, patient_key, root_names, split_of_folders
from anomaly.scans.magic import HEAD, IMAGE_EXTENSIONS, sniff
from anomaly.scans.manifest import ManifestRow, has_path_column, read_manifest
from anomaly.scans.patients import hash_patient, load_salt

_LOOKED_FOR = "DICOM (with or without extension), PNG, JPEG, TIFF and BMP"


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in SCANS. `others` counts files that are no images; `notes` says what was passed over, in sentences."""

    root: Path
    files: tuple[ScanFile, ...]
    others: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """What a walk gathers."""

    files: list[str]
    others: int = 0
    mask_folders: int = 0
    own_results: int = 0
    closed_folders: int = 0


def list_scans(scans: Path) -> Listing:
    """List every file that claims to be an image, by extension or by its first bytes, with what its place says of it.

    Args:
        scans: A file, a folder (walked to the bottom, sorted, links followed once) or a manifest (.csv). A folder's
            own `manifest.csv`, if it has a `path` column, annotates the files found.

    Returns:
        A `Listing`. Labels: 0 normal, 1 abnormal, None unknown; patients hashed. Broken links and damaged files with
        an image's extension are listed: reading them fails with the reason.

    Raises:
        DataError: The path does not exist, holds no image, or its manifest is wrong.
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
    if not _claims_to_be_image(scans):
        raise DataError(
            f"{scans}: is neither an image ({_LOOKED_FOR}) nor a manifest (.csv) nor a folder; give one of these"
        )
    return Listing(scans.parent, (_Namer(scans.parent).name(scans, scans.name),))


def make_scan_id(relative: str) -> str:
    """Return an id for a relative posix path: unique, stable, safe as a file name (slug, '-', 16 hex digits)."""
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(relative).stem).strip("-.")[:48].rstrip("-.")
    digest = sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{slug or 'scan'}-{digest}"


def _list_folder(root: Path) -> Listing:
    found = _walk(root)
    closed = f"{_count(found.closed_folders, 'folder')} could not be opened (permissions)"
    rows: dict[str, ManifestRow] = {}
    notes: list[str] = []
    manifest = root / "manifest.csv"
    if manifest.is_file():
        try:
            usable = has_path_column(manifest)
        except OSError as error:
            raise DataError(f"{manifest}: cannot be read ({error.strerror}); change its permissions") from error
        if usable:
            found.others -= 1
            rows = {_relative(row.path, root): row for row in read_manifest(manifest)}
        else:
            notes.append("manifest.csv has no column 'path' and was not used")
    if not found.files:
        saw = _count(found.others, "other file") + (f", {closed}" if found.closed_folders else "")
        raise DataError(
            f"{root}: holds no image; looked for {_LOOKED_FOR} and found {saw}; give the folder that holds the films"
        )
    namer = _Namer(root)
    files = [
        namer.annotate(namer.name(root / relative, relative), rows.pop(relative, None)) for relative in found.files
    ]
    if rows:
        notes.append(f"{_count(len(rows), 'row')} of manifest.csv name no file found here")
    if found.mask_folders:
        notes.append(f"{_count(found.mask_folders, 'folder')} of masks passed over")
    if found.own_results:
        notes.append(f"{_count(found.own_results, 'folder')} of this tool's own results passed over")
    if found.closed_folders:
        notes.append(closed)
    return Listing(root, tuple(files), found.others, tuple(notes))


def _list_manifest(csv_path: Path) -> Listing:
    root = csv_path.parent
    namer = _Namer(root)
    files = [namer.annotate(namer.name(row.path, _relative(row.path, root)), row) for row in read_manifest(csv_path)]
    return Listing(root, tuple(files))


class _Namer:
    """Makes ScanFiles: id, and what folders, names and manifest rows say. Reads the salt once, when first needed."""

    def __init__(self, root: Path) -> None:
        self._root_names = root_names(Path(os.path.abspath(root)).parts[1:])  # noqa: PTH100 (links keep their names)
        self._salt: bytes | None = None

    def name(self, path: Path, relative: str) -> ScanFile:
        posix = PurePosixPath(relative)
        folders = [*self._root_names, *posix.parts[:-1]]
        label, class_name = class_of_folders(folders)
        split = split_of_folders(folders)
        return ScanFile(
            scan_id=make_scan_id(relative),
            path=path,
            relative=relative,
            label=label,
            class_name=class_name,
            label_source=None if label is None else "folder",
            patient=self._hash(patient_key(posix.stem, split)),
            split=split,
        )

    def annotate(self, file: ScanFile, row: ManifestRow | None) -> ScanFile:
        """Let a manifest's row overrule what the folders say."""
        if row is None:
            return file
        if row.labelled:
            agrees = row.label == file.label
            file = replace(
                file,
                label=row.label,
                label_source=None if row.label is None else "manifest",
                class_name=file.class_name if agrees else None,
            )
        return replace(
            file,
            class_name=row.class_name or file.class_name,
            patient=self._hash(row.patient) or file.patient,
            view=row.view,
            split=row.split or file.split,
            mask=row.mask,
            extra=row.extra,
        )

    def _hash(self, key: str | None) -> str | None:
        if key is None:
            return None
        if self._salt is None:
            self._salt = load_salt()
        return hash_patient(key, self._salt)


def _walk(root: Path) -> _Found:
    """Gather the relative posix paths of image files, sorted. Every folder is entered once, whatever links say."""
    found = _Found(files=[])
    top = os.path.realpath(root)
    entered = {top}
    pending: list[tuple[str, str, str]] = [(str(root), "", top)]  # path, relative with slash, real path
    while pending:
        folder, prefix, real = pending.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            found.closed_folders += 1
            continue
        if prefix and any(entry.name == RECEIPT for entry in inside) and _is_ours(Path(folder)):
            found.own_results += 1
            continue
        deeper: list[tuple[str, str, str]] = []
        for entry in inside:
            name = entry.name
            if name.startswith(".") or name == "__MACOSX":
                continue
            if not _is_folder(entry):
                if name.upper() == "DICOMDIR":
                    continue
                if _claims_to_be_image(Path(entry.path)):
                    found.files.append(prefix + name)
                else:
                    found.others += 1
            elif is_mask_folder(name):
                found.mask_folders += 1
            else:
                target = os.path.realpath(entry.path)
                is_above = (real + os.sep).startswith(target.rstrip(os.sep) + os.sep)  # a link up: a loop, or strangers
                if target not in entered and not is_above:
                    entered.add(target)
                    deeper.append((entry.path, f"{prefix}{name}/", target))
        pending.extend(reversed(deeper))
    found.files.sort()
    return found


def _is_ours(folder: Path) -> bool:
    """Tell whether this tool wrote a folder: its heatmaps and sample grids are no scans."""
    try:
        return "anomaly" in read_json(folder / RECEIPT)["versions"]
    except (DataError, KeyError, TypeError):
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points to itself
        return False


def _claims_to_be_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as stream:
            return sniff(stream.read(HEAD)) is not None
    except (OSError, ValueError):
        return False


def _relative(path: Path, root: Path) -> str:
    """Return `path` as posix, relative to `root` where that is possible."""
    try:
        return Path(os.path.relpath(path, root)).as_posix()
    except ValueError:  # another Windows drive
        return path.as_posix()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
