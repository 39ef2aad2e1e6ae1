"""Small DICOM files made from a header recipe, and how to read them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from anomaly.records import Scan, ScanFile
from anomaly.scans.read import decode_scan

ABSENT = object()
"""As a tag's value: leave the tag out."""


def recipe(stored: np.ndarray, *, bits: int, **tags: Any) -> Dataset:
    """Return a digital X-ray without window or look-up table, changed by `tags` (keyword -> value or ABSENT)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "2.25.1"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.InstanceNumber = "2.25.2", "2.25.3", 1
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "P-1", "", "", ""
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "", "", "", ""
    data.ReferringPhysicianName, data.SeriesNumber, data.Manufacturer = "", 1, ""
    data.Modality, data.ViewPosition = "DX", "PA"
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit = (8 if bits <= 8 else 16), bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    payload = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    data.PixelData = payload + b"\0" * (len(payload) % 2)
    data["PixelData"].VR = "OB" if bits <= 8 else "OW"
    for keyword, value in tags.items():
        if value is ABSENT:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def lut(table: Any, first: int, depth: int, *, words: bool = True) -> Dataset:
    """Return an item of a look-up table sequence: entries as 16-bit numbers, or as bytes two to a word."""
    item = Dataset()
    item.LUTDescriptor = [len(table) % 65536, first, depth]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = np.asarray(table, "<u2" if words else "u1").tobytes()
    item["LUTData"].VR = "OW"
    return item


def saved(data: Dataset) -> bytes:
    """Return the file a data set makes."""
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(data: Dataset | bytes, name: str = "film.dcm", **settings: Any) -> Scan:
    """Read a data set, or the bytes of a file."""
    path = Path(name)
    return decode_scan(ScanFile("id", path, path.name), data if isinstance(data, bytes) else saved(data), **settings)
