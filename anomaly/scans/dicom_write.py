"""DICOM out: digital X-rays as phantoms are saved, reproducible to the byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anomaly.runs import writing

if TYPE_CHECKING:
    from pydicom.uid import UID

_REQUIRED_BUT_UNKNOWN = (
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "SeriesNumber",
    "InstanceNumber",
    "Laterality",
    "PatientOrientation",
    "PositionerType",
)
"""Attributes a DX object must have and may leave empty (type 2)."""


def write_dicom(
    path: Path,
    pixels: NDArray[np.uint16],
    *,
    bits: int,
    photometric: str = "MONOCHROME2",
    patient: str,
    spacing_mm: float,
    view: str = "PA",
) -> None:
    """Write one uncompressed Explicit VR Little Endian digital X-ray (DX, FOR PRESENTATION), whole or not at all.

    The same arguments give the same bytes: UIDs are derived from them, and no date or name is written.

    Args:
        path: File to write; an existing one is replaced. Its folder must exist.
        pixels: uint16 (H, W), bone bright, values in [0, 2**bits - 1].
        bits: BitsStored, 8 to 16 (stored in 8 bits when 8, otherwise in 16).
        photometric: "MONOCHROME2", or "MONOCHROME1" to store the negative, (2**bits - 1) - v.
        patient: PatientID, the only thing said of the patient.
        spacing_mm: Pixel spacing on the detector, the same for rows and columns.
        view: ViewPosition, such as "PA", "AP" or "LL".

    Raises:
        ValueError: The arguments cannot be written as such a file.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise ValueError(f"pixels must be uint16 (H, W), not {pixels.dtype} {pixels.shape}")
    if not 8 <= bits <= 16 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"bits must be 8 to 16 and photometric MONOCHROME1 or 2, not {bits} and {photometric!r}")
    top = 2**bits - 1
    if int(pixels.max()) > top:
        raise ValueError(f"pixels reach {int(pixels.max())}, more than {bits} bits hold ({top})")

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    inverted = photometric == "MONOCHROME1"
    stored = np.uint16(top) - pixels if inverted else pixels
    allocated = 8 if bits == 8 else 16
    payload = stored.astype("<u1" if allocated == 8 else "<u2").tobytes()
    payload += b"\0" * (len(payload) % 2)
    shape = f"{pixels.shape}|{bits}|{photometric}|{spacing_mm}|{view}"

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid("instance", patient, shape, payload)

    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = _uid("study", patient, shape, payload)
    data.SeriesInstanceUID = _uid("series", patient, shape, payload)
    data.ImageType = ["ORIGINAL", "PRIMARY", ""]
    data.Modality = "DX"
    data.PresentationIntentType = "FOR PRESENTATION"
    data.PatientID = patient
    for empty in _REQUIRED_BUT_UNKNOWN:
        setattr(data, empty, "")
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = view
    data.ImageLaterality = "U"
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    data.ImagerPixelSpacing = [spacing_mm, spacing_mm]
    data.PixelSpacing = [spacing_mm, spacing_mm]
    data.PixelIntensityRelationship = "LOG"
    data.PixelIntensityRelationshipSign = 1 if inverted else -1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.WindowCenter, data.WindowWidth = 2 ** (bits - 1), 2**bits  # LINEAR: exactly the values that `bits` hold
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = photometric
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = allocated, bits, bits - 1
    data.PixelRepresentation = 0
    data.PixelData = payload
    data["PixelData"].VR = "OB" if allocated == 8 else "OW"

    with writing(path) as file:
        data.save_as(file, enforce_file_format=True)


def _uid(role: str, patient: str, shape: str, payload: bytes) -> UID:
    """Return a DICOM UID (2.25 + a 128-bit number) that depends on nothing but the arguments."""
    digest = hashlib.sha256(b"\0".join((role.encode(), patient.encode(), shape.encode(), payload))).digest()
    from pydicom.uid import UID

    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")
