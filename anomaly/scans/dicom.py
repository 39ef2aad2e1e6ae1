"""DICOM in and out: the only file that knows pydicom, and the only one that sees a header.

Order of reading: modality LUT or rescale -> VOI LUT or window -> MONOCHROME1 inversion, last -> [0, 1], bone bright
(DICOM PS3.3 C.11.1, C.11.2, C.7.6.3.1.2). Of the header only the view, the spacing, photometric facts, the name of
the transfer syntax and a salted hash of the patient's id leave this file; messages quote no other value.

The two look-up steps are our own (luts.py): pydicom 3.0's `apply_voi` wraps around when a LUT of 8-bit entries has more
than 256 of them, and its `apply_windowing` turns the picture negative when RescaleSlope is negative.
"""

from __future__ import annotations

import hashlib
import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, ScanError
from anomaly.records import Float32, Float64
from anomaly.runs import writing
from anomaly.scans.hush import hushed
from anomaly.scans.luts import look_up, window
from anomaly.scans.magic import is_bare_dicom
from anomaly.scans.patients import hash_patient, is_identifier
from anomaly.scans.picture import Picture, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_TRUNCATED = "is truncated or damaged ({why}); fetch it again from its source"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC"})
_OTHER_IMAGES = frozenset({"CT", "MR", "US", "NM", "PT", "MG", "ES", "XC", "SM", "GM", "OP", "OPT", "IVUS", "IO", "PX"})
_NO_IMAGES = frozenset({"SEG", "RTDOSE", "RTPLAN", "RTSTRUCT", "RTIMAGE", "SR", "PR", "KO", "ECG", "REG", "DOC", "AU"})
_FRONTAL = frozenset({"PA", "AP", "AP SUPINE", "AP ERECT", "AP AXIAL", "PA AXIAL"})
_LATERAL = frozenset({"LL", "RL", "LAT", "LATERAL", "LLD", "RLD"})
_OBLIQUE = frozenset({"LAO", "RAO", "LPO", "RPO", "RLO", "LLO"})
_J2K_SYNTAXES = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_DICOMDIR = "1.2.840.10008.1.3.10"

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


def read_dicom(data: bytes, *, max_megapixels: float = 100.0) -> Picture:
    """Decode one DICOM radiograph held in memory.

    Args:
        data: The whole file, with or without preamble.
        max_megapixels: Refuse a larger picture from its header alone.

    Returns:
        A `Picture`: float32 (H, W), or (H, W, 3) RGB for a colour capture, in [0, 1], bone bright. The range is that
        of the VOI LUT or window if there is one, else the range that BitsStored allows after the modality step.

    Raises:
        ScanError: It is no single image, is truncated, or cannot be decoded; the sentence does not name the file.
        DataError: The salt for hashing patients cannot be stored (see `anomaly.scans.patients`).
    """
    with hushed():
        try:
            header = _parse(data, header_only=True)
            _refuse_what_is_no_single_image(header)
            check_size(_integer(header, "Columns"), _integer(header, "Rows"), max_megapixels)
            dataset = _parse(data, header_only=False)
            if not dataset.get("PixelData"):  # of a file that ends in mid-pixels pydicom keeps nothing
                raise ScanError(_TRUNCATED.format(why="its PixelData is missing or cut off"))
            return _to_picture(dataset, _decode(dataset))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a header may hold anything; its values stay out of the message
            raise ScanError(_TRUNCATED.format(why=f"its header cannot be read: {type(error).__name__}")) from error


def _parse(data: bytes, *, header_only: bool) -> Dataset:
    """Parse a file, giving one that lost its preamble or its group 0002 what it lacks; never by force."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if data[128:132] != b"DICM" and is_bare_dicom(data[:12]):
        data = b"".join((bytes(128), b"DICM", data))
    dataset = dcmread(BytesIO(data), stop_before_pixels=header_only)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _refuse_what_is_no_single_image(dataset: Dataset) -> None:
    if _DICOMDIR in (dataset.file_meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID")):
        raise ScanError("is a DICOMDIR, an index of other files; give the folder that holds the images")
    modality = str(dataset.get("Modality") or "")
    if modality in _NO_IMAGES or dataset.get("Rows") is None or dataset.get("Columns") is None:
        kind = f" ({modality})" if modality in _NO_IMAGES else ""
        raise ScanError(f"is a DICOM object that holds no radiograph{kind}; remove it or give the image itself")
    frames = str(dataset.get("NumberOfFrames") or 1)
    if frames != "1":
        count = frames if frames.isdigit() else "an unreadable number of"
        raise ScanError(f"is multi-frame ({count} frames); export the radiograph as a single-frame image")
    if _photometric(dataset) not in (*_GREY, *_COLOUR):
        raise ScanError("has an unknown PhotometricInterpretation; export it as MONOCHROME2")
    allocated = _integer(dataset, "BitsAllocated")
    if allocated not in (8, 16) or not 1 <= _integer(dataset, "BitsStored") <= allocated:
        raise ScanError(f"stores {allocated} bits a sample, which is not read here; export it with 8 or 16")


def _decode(dataset: Dataset) -> NDArray[Any]:
    """Return the stored values: integer (H, W), or (H, W, 3) RGB."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    # Every JPEG, JPEG-LS and JPEG 2000 stream ends with the same marker; decoders fill in what is missing.
    marked = syntax.is_encapsulated and "RLE" not in syntax.name
    if marked and not get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ScanError(_TRUNCATED.format(why="its compressed PixelData stops before its end marker"))
    if not syntax.is_encapsulated:
        samples = 2 if _photometric(dataset) == "YBR_FULL_422" else _integer(dataset, "SamplesPerPixel")
        wanted = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
        if len(dataset.PixelData) < wanted:
            raise ScanError(_TRUNCATED.format(why=f"PixelData holds {len(dataset.PixelData)} of {wanted} bytes"))
    try:
        # One codec for JPEG 2000, whatever else is installed; GDCM's prints to stderr when a stream is damaged.
        stored = pixel_array(dataset, decoding_plugin="pylibjpeg" if syntax in _J2K_SYNTAXES else "")
        if _photometric(dataset) == "PALETTE COLOR":
            stored = apply_color_lut(stored, dataset)
    except MemoryError:
        raise
    except Exception as error:  # third-party codecs facing hostile bytes
        text = " ".join(str(error).split())
        why = text.removeprefix("Unable to decode as exceptions were raised by all available plugins: ")[:160]
        raise ScanError(
            f"has PixelData that cannot be decoded ({syntax.name}: {why}); fetch it again or export it uncompressed"
        ) from error
    expected = (dataset.Rows, dataset.Columns) + (() if _photometric(dataset) in _GREY else (3,))
    if stored.shape != expected:
        raise ScanError(_TRUNCATED.format(why="its PixelData does not fill the size its header gives"))
    return stored


def _to_picture(dataset: Dataset, stored: NDArray[Any]) -> Picture:
    photometric = _photometric(dataset)
    bits = _integer(dataset, "BitsStored")
    notes = _warnings_of(dataset)
    if photometric in _GREY:
        fraction, window_notes = _apply_luts(stored, dataset, bits)
        notes += window_notes
        if photometric == "MONOCHROME1":
            np.subtract(1.0, fraction, out=fraction)
        pixels: Float32 = fraction.astype(np.float32)
    else:
        full = np.iinfo(stored.dtype).max if photometric == "PALETTE COLOR" else 2**bits - 1
        pixels = np.clip(stored.astype(np.float32) / np.float32(full), 0, 1)
    identifier = str(dataset.get("PatientID") or "")
    view = _view(dataset)
    return Picture(
        pixels=pixels,
        bits=max(8, bits),
        facts={
            "format": "DICOM",
            "transfer_syntax": dataset.file_meta.TransferSyntaxUID.name,
            "photometric": photometric,
        },
        warnings=tuple(notes),
        patient=hash_patient(identifier) if is_identifier(identifier) else None,
        view=view,
        spacing_mm=_spacing(dataset),
    )


def _apply_luts(stored: NDArray[Any], dataset: Dataset, bits: int) -> tuple[Float64, list[str]]:
    """Apply the modality step, then the VOI step: float64 (H, W) in [0, 1], not yet inverted, and warnings."""
    if dataset.get("ModalityLUTSequence"):
        values, top = _look_up(stored, dataset.ModalityLUTSequence[0], dataset)
        low, high = 0.0, float(top)
    else:
        slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
        if not slope or slope is None or intercept is None:
            raise ScanError("has an unusable RescaleSlope or RescaleIntercept; export it again")
        signed = bool(dataset.get("PixelRepresentation"))
        least = -(2 ** (bits - 1)) if signed else 0
        values = stored.astype(np.float64)
        values *= slope
        values += intercept
        low, high = sorted((least * slope + intercept, (least + 2**bits - 1) * slope + intercept))

    voi = dataset.get("VOILUTSequence")
    if voi and voi[0].get("LUTDescriptor") is not None and voi[0].get("LUTData") is not None:
        looked_up, top = _look_up(np.floor(values), voi[0], dataset)
        return np.clip(looked_up / top, 0.0, 1.0), []

    notes: list[str] = []
    center, width = _number(dataset, "WindowCenter", None), _number(dataset, "WindowWidth", None)
    if center is not None and width is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
        if width >= 1 or (width > 0 and function in ("LINEAR_EXACT", "SIGMOID")):
            return window(values, center, width, function), notes
        notes.append("window ignored: its width is not positive")
    values -= low
    values /= high - low
    np.clip(values, 0.0, 1.0, out=values)
    used = float(values.max()) if values.size else 0.0
    if bits > 8 and used < 1 / 8:
        notes.append(f"dark: there is no window and the values use less than an eighth of the {bits} bits stored")
    return values, notes


def _look_up(values: NDArray[Any], item: Dataset, dataset: Dataset) -> tuple[Float64, int]:
    """Send values through an item of a Modality or VOI LUT sequence; also return the largest value it can give."""
    entries, first, depth = (int(part) for part in item.LUTDescriptor)
    entries = entries or 2**16
    if not 8 <= depth <= 16:
        raise ScanError(f"has a look-up table of {depth} bits, which is not read here; export it without one")
    table: Any = item.LUTData
    if isinstance(table, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        table = np.frombuffer(table, f"{order}u2" if len(table) >= 2 * entries else "u1")
    lut = np.atleast_1d(np.asarray(table, dtype=np.float64))[:entries]
    if len(lut) < entries:
        raise ScanError(_TRUNCATED.format(why="a look-up table is shorter than it says"))
    return look_up(values, lut, first), 2**depth - 1


def _warnings_of(dataset: Dataset) -> list[str]:
    notes = []
    modality = str(dataset.get("Modality") or "")
    if modality in _OTHER_IMAGES:
        notes.append(f"a {modality} image, not a radiograph")
    elif modality and modality not in _RADIOGRAPHS:
        notes.append("not marked as a radiograph (modality unknown)")
    if (_view(dataset) or "") in _LATERAL:
        notes.append("lateral view: models of frontal films do not know it")
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        notes.append("burned-in annotation: the pixels may show names or marks")
    return notes


def _photometric(dataset: Dataset) -> str:
    return str(dataset.get("PhotometricInterpretation") or "").strip().upper()


def _view(dataset: Dataset) -> str | None:
    """Return ViewPosition if it is a known term: free text could name a person."""
    view = " ".join(str(dataset.get("ViewPosition") or "").upper().split())
    return view if view in _FRONTAL | _LATERAL | _OBLIQUE else None


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


def _number(dataset: Dataset, keyword: str, default: float | None) -> float | None:
    """Return the first value of a numeric element; the default if it is absent or empty; None if it is no number."""
    value: Any = dataset.get(keyword)
    if value is not None and not isinstance(value, (str, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return default
    number = float(value)
    return number if math.isfinite(number) else None


def _integer(dataset: Dataset, keyword: str) -> int:
    value = dataset.get(keyword)
    if not isinstance(value, int):
        raise ScanError(_TRUNCATED.format(why=f"its header has no usable {keyword}"))
    return value


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
