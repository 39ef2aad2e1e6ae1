"""From PixelData to stored values: one codec for each transfer syntax, whatever else is installed.

What a compressed stream says of its own size is held against the header before a codec sees it: the codecs are C, and
some trust one of the two. Every JPEG, JPEG-LS and JPEG 2000 stream ends with the same marker, and decoders fill in what
is missing, so a stream without it is refused as truncated.

pydicom 3.0 pays no heed to HighBit; samples that do not start at the lowest bit are moved down here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import ScanError
from anomaly.scans.dicom_header import GREY, TRUNCATED, integer, photometric, syntax_name

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_RLE = "1.2.840.10008.1.2.5"
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
"""The uncompressed transfer syntaxes."""

_CODECS = {
    "1.2.840.10008.1.2.4.50": "gdcm",
    _JPEG_EXTENDED: "gdcm",
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "gdcm",
    "1.2.840.10008.1.2.4.81": "gdcm",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # GDCM's prints to stderr when a stream is damaged
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    _RLE: "pydicom",  # pylibjpeg's, written in Rust, panics at damaged runs: no Exception, so it would end the run
}
"""Compressed transfer syntax -> pydicom's plugin that decodes it here."""


class _Frame(NamedTuple):
    """What a compressed stream says of itself."""

    rows: int
    columns: int
    samples: int
    bits: int


def stored_values(dataset: Dataset) -> NDArray[Any]:
    """Decode the one frame of a data set.

    Returns:
        Integers of 8 or 16 bits as stored, (H, W), or (H, W, 3) RGB for a colour capture; bits of a sample's cell that
        are not BitsStored are cleared, or copies of the sign.

    Raises:
        ScanError: PixelData is missing, cut off, contradicts the header, or cannot be decoded.
    """
    from pydicom.pixels.processing import apply_color_lut

    if not dataset.get("PixelData"):  # of a file that ends in mid-pixels pydicom keeps nothing
        raise ScanError(TRUNCATED.format(why="its PixelData is missing or cut off"))
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in PLAIN:
        _check_length(dataset)
    elif syntax not in _CODECS:
        raise ScanError(f"is encoded in a way that is not read here ({syntax_name(dataset)}); export it uncompressed")
    shift = lowest_bit(dataset)
    try:
        stored = _decode_shifted(dataset, shift) if shift else _decode(dataset)
        if photometric(dataset) == "PALETTE COLOR":
            stored = apply_color_lut(stored, dataset)
    except (ScanError, MemoryError):
        raise
    except Exception as error:  # third-party codecs facing hostile bytes; their words may quote the header: no cause
        why = f"({syntax_name(dataset)}): {type(error).__name__}"
        raise ScanError(
            f"has PixelData that cannot be decoded {why}; fetch it again or export it uncompressed"
        ) from None
    expected = (dataset.Rows, dataset.Columns) + (() if photometric(dataset) in GREY else (3,))
    if stored.shape != expected or stored.dtype.itemsize > 2:
        raise ScanError(TRUNCATED.format(why="its PixelData does not fill the size its header gives"))
    return stored


def lowest_bit(dataset: Dataset) -> int:
    """Return how many bits lie below a sample in its cell, mostly 0: HighBit + 1 - BitsStored.

    Raises:
        ScanError: HighBit is impossible, or other than BitsStored - 1 where samples have no bits to spare below them.
    """
    bits = integer(dataset, "BitsStored")
    high = bits - 1 if dataset.get("HighBit") is None else integer(dataset, "HighBit")
    if not bits - 1 <= high < integer(dataset, "BitsAllocated"):
        raise ScanError(f"has HighBit {high}, impossible with {bits} bits stored; export it again")
    if high >= bits and dataset.file_meta.TransferSyntaxUID not in PLAIN:
        raise ScanError(f"is compressed, yet has HighBit {high} with {bits} bits stored; export it uncompressed")
    if high >= bits and photometric(dataset).startswith("YBR"):
        raise ScanError(f"has YBR colours with HighBit {high} for {bits} bits stored; export it as RGB")
    return high + 1 - bits


def _check_length(dataset: Dataset) -> None:
    samples = 2 if photometric(dataset) == "YBR_FULL_422" else integer(dataset, "SamplesPerPixel")
    wanted = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
    if len(dataset.PixelData) < wanted:
        raise ScanError(TRUNCATED.format(why=f"PixelData holds {len(dataset.PixelData)} of {wanted} bytes"))


def _decode_shifted(dataset: Dataset, shift: int) -> NDArray[Any]:
    """Decode uncompressed samples that lie `shift` bits up in their cells."""
    from pydicom.pixels.utils import pixel_array

    cells = pixel_array(dataset, correct_unused_bits=False)
    above = integer(dataset, "BitsAllocated") - integer(dataset, "BitsStored") - shift
    samples: NDArray[Any] = (cells << above) >> (above + shift)  # in this order: it repeats the sign, if there is one
    return samples


def _decode(dataset: Dataset) -> NDArray[Any]:
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _CODECS and syntax != _RLE:
        data = get_frame(dataset.PixelData, 0, number_of_frames=1)
        if not data.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
            raise ScanError(TRUNCATED.format(why="its compressed PixelData stops before its end marker"))
        frame = _read_frame(data)
        samples = integer(dataset, "SamplesPerPixel")
        if (frame.rows, frame.columns, frame.samples) != (dataset.Rows, dataset.Columns, samples):
            raise ScanError(TRUNCATED.format(why="its compressed PixelData has not the size its header gives"))
        if frame.bits > dataset.BitsAllocated:
            raise ScanError(TRUNCATED.format(why="its compressed PixelData is deeper than its header says"))
        if syntax == _JPEG_EXTENDED and frame.bits == 12 and frame.samples == 1:
            return _decode_12_bit_jpeg(data, dataset)
    return pixel_array(dataset, decoding_plugin=_CODECS.get(syntax, ""))


def _read_frame(data: bytes) -> _Frame:
    """Read the size that a JPEG, JPEG-LS or JPEG 2000 stream gives itself."""
    if data.startswith(b"\0\0\0\x0cjP  "):  # a whole JP2 file where only its stream belongs
        data = data[max(0, data.find(b"\xff\x4f\xff\x51")) :]
    if data.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000: SOC, then SIZ (ISO/IEC 15444-1, A.5.1)
        right, bottom, left, top = struct.unpack_from(">4I", data, 8)
        samples, bits = struct.unpack_from(">HB", data, 40)
        return _Frame(bottom - top, right - left, samples, (bits & 0x7F) + 1)
    at = 2  # JPEG: after SOI, segments up to the first start of frame (ISO/IEC 10918-1, B.2.2; 14495-1, C.2.2)
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at + 4)
            return _Frame(rows, columns, samples, bits)
        else:
            at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    raise ScanError(TRUNCATED.format(why="its compressed PixelData has no readable start"))


def _decode_12_bit_jpeg(data: bytes, dataset: Dataset) -> NDArray[np.uint16]:
    """Decode 12-bit JPEG Extended with GDCM itself: pydicom's plugin refuses, though GDCM decodes it right.

    GDCM picks its codec by BitsAllocated; told 16, it first tries one that cannot do it and complains on stderr.
    """
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(_JPEG_EXTENDED)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    text = image.GetBuffer()
    wanted = 2 * dataset.Rows * dataset.Columns
    if text is None or len(raw := text.encode("utf-8", "surrogateescape")) != wanted:  # GDCM returns char* as str
        raise ScanError(TRUNCATED.format(why="its compressed PixelData cannot be decoded to the end"))
    return np.frombuffer(raw, "<u2").reshape(dataset.Rows, dataset.Columns)
