"""DICOM in: with the dicom_*.py beside it all that knows pydicom, and all that sees a header.

Order of reading: decode (dicom_codecs.py) -> modality LUT or rescale -> VOI LUT or window -> inversion, last
(dicom_values.py; DICOM PS3.3 C.11.1, C.11.2, C.11.6) -> [0, 1], bone bright. Of the header only the view, the spacing,
photometric facts, the name of the transfer syntax and a salted hash of the patient's id leave these files; messages
quote no other value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, ScanError
from anomaly.scans.dicom_codecs import lowest_bit, stored_values
from anomaly.scans.dicom_header import GREY, TRUNCATED, integer, parse, photometric, syntax_name
from anomaly.scans.dicom_values import displayed
from anomaly.scans.dicom_view import LATERAL, view_of
from anomaly.scans.hush import hushed
from anomaly.scans.patients import hash_patient, is_identifier
from anomaly.scans.picture import Picture, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC"})
_OTHER_IMAGES = frozenset({"CT", "MR", "US", "NM", "PT", "MG", "ES", "XC", "SM", "GM", "OP", "OPT", "IVUS", "IO", "PX"})
_NO_IMAGES = frozenset({"SEG", "RTDOSE", "RTPLAN", "RTSTRUCT", "RTIMAGE", "SR", "PR", "KO", "ECG", "REG", "DOC", "AU"})
_DICOMDIR = "1.2.840.10008.1.3.10"


def read_dicom(data: bytes, *, max_megapixels: float = 100.0) -> Picture:
    """Decode one DICOM radiograph held in memory.

    Args:
        data: The whole file, with or without preamble.
        max_megapixels: Refuse a larger picture from its header alone.

    Returns:
        A `Picture`: float32 (H, W), or (H, W, 3) RGB for a colour capture, in [0, 1], bone bright. The range is that
        of the VOI LUT or window if there is one; see `dicom_values.displayed` for films without, for padding and for
        inversion. Overlays are not drawn.

    Raises:
        ScanError: It is no single image, is truncated, or cannot be decoded; the sentence does not name the file.
        DataError: The salt for hashing patients cannot be stored (see `anomaly.scans.patients`).
    """
    with hushed():
        try:
            header = parse(data, header_only=True)
            _refuse_what_is_no_single_image(header)
            check_size(integer(header, "Columns"), integer(header, "Rows"), max_megapixels)
            dataset = parse(data, header_only=False)
            return _to_picture(dataset, stored_values(dataset))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a header may hold anything; its values stay out of the message and of any cause
            raise ScanError(TRUNCATED.format(why=f"its header cannot be read: {type(error).__name__}")) from None


def _refuse_what_is_no_single_image(dataset: Dataset) -> None:
    if _DICOMDIR in (dataset.file_meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID")):
        raise ScanError("is a DICOMDIR, an index of other files; give the folder that holds the images")
    modality = str(dataset.get("Modality") or "")
    sizeless = dataset.get("Rows") is None or dataset.get("Columns") is None
    if sizeless and modality in _RADIOGRAPHS | _OTHER_IMAGES:  # an image by its own word
        raise ScanError(TRUNCATED.format(why="its header does not give the size of a picture"))
    if sizeless or modality in _NO_IMAGES:
        kind = f" ({modality})" if modality in _NO_IMAGES else ""
        raise ScanError(f"is a DICOM object that holds no radiograph{kind}; remove it or give the image itself")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ScanError(f"is multi-frame ({frames} frames); export the radiograph as a single-frame image")
    if photometric(dataset) not in (*GREY, *_COLOUR):
        raise ScanError("has an unknown PhotometricInterpretation; export it as MONOCHROME2")
    allocated = integer(dataset, "BitsAllocated")
    if allocated not in (8, 16) or not 1 <= integer(dataset, "BitsStored") <= allocated:
        raise ScanError(f"stores {allocated} bits a sample, which is not read here; export it with 8 or 16")


def _to_picture(dataset: Dataset, stored: NDArray[Any]) -> Picture:
    bits = integer(dataset, "BitsStored")
    notes = _warnings_of(dataset)
    if photometric(dataset) in GREY:
        pixels, more = displayed(stored, dataset)
        notes += more
    else:
        full = np.iinfo(stored.dtype).max if photometric(dataset) == "PALETTE COLOR" else 2**bits - 1
        pixels = np.clip(stored.astype(np.float32) / np.float32(full), 0, 1)
    identifier = str(dataset.get("PatientID") or "")
    return Picture(
        pixels=pixels,
        bits=max(8, bits),
        facts={
            "format": "DICOM",
            "transfer_syntax": syntax_name(dataset),
            "photometric": photometric(dataset),
        },
        warnings=tuple(notes),
        patient=hash_patient(identifier) if is_identifier(identifier) else None,
        view=view_of(dataset),
        spacing_mm=_spacing(dataset),
    )


def _warnings_of(dataset: Dataset) -> list[str]:
    notes = []
    modality = str(dataset.get("Modality") or "")
    if modality in _OTHER_IMAGES:
        notes.append(f"a {modality} image, not a radiograph")
    elif modality and modality not in _RADIOGRAPHS:
        notes.append("not marked as a radiograph (modality unknown)")
    if str(dataset.get("PresentationIntentType") or "").strip().upper() == "FOR PROCESSING":
        notes.append("FOR PROCESSING: raw detector values, not a picture made for display")
    if lowest_bit(dataset):
        notes.append("HighBit is not BitsStored - 1: samples are taken from the upper bits, as it says")
    if view_of(dataset) in LATERAL:
        notes.append("lateral view: models of frontal films do not know it")
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        notes.append("burned-in annotation: the pixels may show names or marks")
    if any((0x6000 + 2 * plane, 0x3000) in dataset for plane in range(16)):
        notes.append("overlay not drawn: its header holds marks that lie over the film")
    return notes


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return (row, column) spacing in mm: PixelSpacing, else ImagerPixelSpacing, if sensible."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(part) for part in dataset.get(keyword) or ())
        except (TypeError, ValueError):
            continue
        if math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0:
            return row, column
    return None
