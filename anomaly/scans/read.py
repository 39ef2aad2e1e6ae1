"""The only door to pixels: one file in, one `Scan` or one sentence out."""

from __future__ import annotations

import stat
from pathlib import Path

from anomaly.errors import ScanError
from anomaly.records import Scan, ScanFile
from anomaly.scans.dicom import read_dicom
from anomaly.scans.image import read_image
from anomaly.scans.magic import HEAD, describe_stranger, sniff
from anomaly.scans.npz import decode_member, read_member
from anomaly.scans.picture import Picture, settle_colour

_MAX_BYTES = 2**30
_NO_MEMORY = "does not fit in this machine's memory; make the picture smaller"


def read_scan(file: ScanFile, *, max_megapixels: float = 100.0, channels: int = 1) -> Scan:
    """Read one file at full depth; its first bytes decide how, never its extension.

    Args:
        file: From `list_scans`.
        max_megapixels: Refuse a larger picture from its header alone.
        channels: 1 turns real colour to grey with a warning, 3 keeps it. Grey files are (H, W) either way.

    Returns:
        A `Scan`: float32 (H, W), or (H, W, 3) RGB, in [0, 1], bone bright.

    Raises:
        ScanError: The file cannot be read, or holds no picture; one sentence naming the file and what to do.
        DataError: Patients cannot be hashed on this machine; not the file's fault, so it stops the run.
    """
    return decode_scan(file, file_bytes(file), max_megapixels=max_megapixels, channels=channels)


def file_bytes(file: ScanFile) -> bytes:
    """Return what a file, or the member of one, holds, undecoded; its hash is what a cache goes by.

    Raises:
        ScanError: The file cannot be read; one sentence naming it and what to do.
    """
    try:
        return _read_bytes(file.path) if file.member is None else read_member(file.path, file.member)
    except ScanError as error:
        raise ScanError(f"{printable(file.relative)}: {error}") from error
    except MemoryError as error:
        raise ScanError(f"{printable(file.relative)}: {_NO_MEMORY}") from error


def decode_scan(file: ScanFile, data: bytes, *, max_megapixels: float = 100.0, channels: int = 1) -> Scan:
    """Decode what `file_bytes` returned; see `read_scan`."""
    name = printable(file.relative)
    try:
        if file.member is None:
            picture = _read_picture(data, file.path.suffix.lower(), max_megapixels)
        else:
            picture = decode_member(data, max_megapixels)
        low, high = float(picture.pixels.min()), float(picture.pixels.max())
        if low == high:
            raise ScanError("holds no picture: every pixel has the same value; export the film again")
        pixels, colour_notes = settle_colour(picture.pixels, channels)
    except ScanError as error:
        raise ScanError(f"{name}: {error}") from error
    except MemoryError as error:
        raise ScanError(f"{name}: {_NO_MEMORY}") from error
    return Scan(
        scan_id=file.scan_id,
        pixels=pixels,
        bits=picture.bits,
        patient=file.patient or picture.patient,
        view=file.view or picture.view,
        spacing_mm=picture.spacing_mm,
        file_size=len(data),
        facts=picture.facts,
        warnings=(*picture.warnings, *colour_notes),
    )


def printable(text: str) -> str:
    """Return a file name fit for one line of text: control characters and undecodable bytes are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _read_picture(data: bytes, extension: str, max_megapixels: float) -> Picture:
    kind = sniff(data[:HEAD])
    if kind == "dicom":
        return read_dicom(data, max_megapixels=max_megapixels)
    if kind is not None:
        return read_image(data, kind, max_megapixels=max_megapixels)
    found = describe_stranger(data[:HEAD])
    if extension in (".dcm", ".dicom"):
        raise ScanError(f"is named as DICOM but has no DICM marker and holds {found}; export it again as DICOM")
    raise ScanError(f"is not a DICOM, PNG, JPEG, TIFF or BMP file but holds {found}; remove it or convert it to PNG")


def _read_bytes(path: Path) -> bytes:
    """Read the whole of a regular file, or say why not."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # looked at first: opening a pipe would wait for ever
            raise ScanError("is not a file; remove it or give the file it should be")
        if facts.st_size > _MAX_BYTES:
            raise ScanError(f"is too large ({facts.st_size / 2**30:.1f} GiB, the limit is 1 GiB); export a single film")
        with path.open("rb") as stream:
            data = stream.read()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ScanError("is a link to a file that does not exist; mend the link or remove it") from error
        raise ScanError("does not exist; check the path") from error
    except PermissionError as error:
        raise ScanError("may not be read (permission denied); change its permissions") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a path from a manifest
        reason = getattr(error, "strerror", None) or error
        raise ScanError(f"cannot be read ({reason}); check the disk and the path") from error
    if not data:
        raise ScanError("is empty (0 bytes); copy it again from its source")
    return data
