"""From stored values to the picture that the header describes: modality, VOI, presentation (DICOM PS3.3 C.11).

The two look-up steps are our own (luts.py): pydicom 3.0's `apply_voi` wraps around when a LUT of 8-bit entries has more
than 256 of them, and its `apply_windowing` turns the picture negative when RescaleSlope is negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import ScanError
from anomaly.records import Float32, Float64
from anomaly.scans.dicom_codecs import PLAIN, lowest_bit
from anomaly.scans.dicom_header import TRUNCATED, count, integer, number, photometric
from anomaly.scans.luts import look_up, window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def displayed(stored: NDArray[Any], dataset: Dataset) -> tuple[Float32, list[str]]:
    """Bring a grey picture to the range it is displayed over.

    Of a VOI LUT and a window the LUT is used, of several the first. Without either, a picture of 8 bits keeps its full
    range, and a deeper one is stretched to the values that occur in it: what BitsStored allows says little there (12
    bits in a file that claims 16 are common), and the 8-bit stages further on would lose what lies close together.

    Padding (PixelPaddingValue to PixelPaddingRangeLimit) lies outside the film: it takes no part in that stretch and is
    black in the result, whether it was stored as black or as white. A padding value that BitsStored cannot hold is cut
    to those bits, as its pixels are.

    PhotometricInterpretation alone says whether the values so far are inverted: PresentationLUTShape shall only repeat
    it (C.7.6.1: IDENTITY with MONOCHROME2, INVERSE with MONOCHROME1), and in films where the two contradict each other
    it is the shape that is known to be written wrongly (dcm4che issue 944).

    Args:
        stored: Integers of 8 or 16 bits, (H, W), as decoded.
        dataset: The header.

    Returns:
        float32 (H, W) in [0, 1], bone bright, and warnings.

    Raises:
        ScanError: The modality step or a table cannot be used.
    """
    # Every step maps value to value, so it is taken once for each of the at most 65,536 values, not for each pixel.
    native = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    codes = native.view(f"u{native.dtype.itemsize}")
    every = np.arange(2 ** (8 * native.dtype.itemsize), dtype=codes.dtype).view(native.dtype)
    values, low, high = _after_modality(every, dataset)
    padding = _is_padding(every, dataset)
    used = np.zeros(every.shape, dtype=bool)
    used[codes] = True
    shades, notes = _after_voi(values, low, high, used & ~padding, dataset)
    inverted, more = _is_inverted(dataset)
    if inverted:
        np.subtract(1.0, shades, out=shades)
    shades[padding] = 0.0
    return shades.astype(np.float32)[codes], notes + more


def _after_modality(stored: NDArray[Any], dataset: Dataset) -> tuple[Float64, float, float]:
    """Apply the modality LUT or the rescale: float64 (N,), and the least and largest value possible."""
    if dataset.get("ModalityLUTSequence"):
        values, depth, _ = _look_up(stored, dataset.ModalityLUTSequence[0], dataset, signed=_is_signed(dataset))
        return values, 0.0, 2.0**depth - 1
    slope, intercept = number(dataset, "RescaleSlope", 1.0), number(dataset, "RescaleIntercept", 0.0)
    if not slope or intercept is None:
        raise ScanError("has an unusable RescaleSlope or RescaleIntercept; export it again")
    bits = integer(dataset, "BitsStored")
    least = -(2 ** (bits - 1)) if _is_signed(dataset) else 0
    low, high = sorted((least * slope + intercept, (least + 2**bits - 1) * slope + intercept))
    values = stored.astype(np.float64)
    values *= slope
    values += intercept
    return values, low, high


def _after_voi(
    values: Float64, low: float, high: float, used: NDArray[np.bool_], dataset: Dataset
) -> tuple[Float64, list[str]]:
    """Apply the VOI LUT, the window, or neither: float64 (N,) in [0, 1], and warnings.

    `low` and `high` are the least and largest value possible; `used`, bool (N,), marks those that occur in the film.
    """
    notes: list[str] = []
    tables = dataset.get("VOILUTSequence")
    if tables and tables[0].get("LUTDescriptor") is not None and tables[0].get("LUTData") is not None:
        if len(tables) > 1:
            notes.append(f"{len(tables)} VOI look-up tables in its header: the first is used")
        looked_up, depth, largest = _look_up(np.floor(values), tables[0], dataset, signed=low < 0)
        needed = next(bits for bits in (8, 10, 12, 14, 16) if largest < 2**bits)
        if needed < depth:
            notes.append(f"its VOI look-up table says {depth} bits but uses {needed}: taken as {needed}")
        top = 2 ** min(needed, depth) - 1
        return np.clip(looked_up / top, 0.0, 1.0), notes

    center, width = number(dataset, "WindowCenter", None), number(dataset, "WindowWidth", None)
    if center is not None and width is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
        if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            notes.append("its window has an unknown shape: taken as linear")
            function = "LINEAR"
        if width >= 1 or (width > 0 and function != "LINEAR"):
            windows = min(count(dataset, "WindowCenter"), count(dataset, "WindowWidth"))
            if windows > 1:
                notes.append(f"{windows} windows in its header: the first is used")
            return window(values, center, width, function), notes
        notes.append("window ignored: its width cannot be used")

    if integer(dataset, "BitsStored") > 8 and used.any():
        full = (low, high)
        low, high = float(values[used].min()), float(values[used].max())
        if (low, high) != full:
            notes.append("no window in its header: stretched to the range its values use")
    values -= low
    values /= max(high - low, np.finfo(np.float64).tiny)
    return np.clip(values, 0.0, 1.0, out=values), notes


def _is_inverted(dataset: Dataset) -> tuple[bool, list[str]]:
    negative = photometric(dataset) == "MONOCHROME1"
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if shape not in ("IDENTITY", "INVERSE"):
        return negative, []
    contradiction = "PresentationLUTShape contradicts PhotometricInterpretation: the latter is followed"
    return negative, [contradiction] if negative != (shape == "INVERSE") else []


def _is_padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Tell which stored values are padding, bool (N,)."""
    ends = [dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")]
    if not isinstance(ends[0], int):
        return np.zeros(stored.shape, dtype=bool)
    known = [_as_signed(end) if _is_signed(dataset) else end for end in ends if isinstance(end, int)]
    low, high = min(known), max(known)
    modulus = 2 ** integer(dataset, "BitsStored")  # decoding keeps BitsStored of what it finds
    cut = np.unique((_cells_beyond(low, high, dataset) >> lowest_bit(dataset)) % modulus)
    padding: NDArray[np.bool_] = (stored >= low) & (stored <= high) | np.isin(stored.astype(np.int64) % modulus, cut)
    return padding


def _cells_beyond(low: int, high: int, dataset: Dataset) -> NDArray[np.int64]:
    """Return the padding that BitsStored cannot hold: what of it PixelData has, or, where that is compressed, its ends.

    A value that the pixels do not have is not cut to size: 65535 in a header that no pixel uses would make padding of
    all that is white in 12 bits.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    cells = np.array([low, high])
    if syntax in PLAIN:
        kind = f"{'<' if syntax.is_little_endian else '>'}{'i' if _is_signed(dataset) else 'u'}"
        kind += str(integer(dataset, "BitsAllocated") // 8)
        cells = np.frombuffer(dataset.PixelData, kind, count=dataset.Rows * dataset.Columns)
    bits = integer(dataset, "BitsStored")
    least = -(2 ** (bits - 1)) if _is_signed(dataset) else 0
    beyond = (cells >= low) & (cells <= high) & ((cells < least) | (cells >= least + 2**bits))
    return np.asarray(cells[beyond], dtype=np.int64)


def _look_up(values: NDArray[Any], item: Dataset, dataset: Dataset, *, signed: bool) -> tuple[Float64, int, int]:
    """Send values through an item of a Modality or VOI LUT sequence; also return its bits and its largest entry."""
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
        raise ScanError(TRUNCATED.format(why="a look-up table is shorter than it says"))
    return look_up(values, lut, _as_signed(first) if signed else first), depth, int(lut.max())


def _is_signed(dataset: Dataset) -> bool:
    return bool(dataset.get("PixelRepresentation"))


def _as_signed(value: int) -> int:
    """Read 16 bits as a signed number: many writers call such elements unsigned (US) even where samples are signed."""
    return value - 2**16 if value >= 2**15 else value
