"""Parsing DICOM and reading single elements of a header that may hold anything."""

from __future__ import annotations

import math
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

from anomaly.errors import ScanError
from anomaly.scans.magic import is_bare_dicom

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TRUNCATED = "is truncated or damaged ({why}); fetch it again from its source"
GREY = ("MONOCHROME1", "MONOCHROME2")

_MAX_INFLATED = 2**30
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def parse(data: bytes, *, header_only: bool) -> Dataset:
    """Parse a file, giving one that lost its preamble or its group 0002 what it lacks; never by force.

    Args:
        data: The whole file, with or without preamble.
        header_only: Stop before PixelData.

    Raises:
        ScanError: It is deflated and would fill the memory.
        Exception: Whatever pydicom raises at bytes that are no DICOM.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if data[128:132] != b"DICM" and is_bare_dicom(data[:12]):
        data = b"".join((bytes(128), b"DICM", data))
    _refuse_bomb(data)
    dataset = dcmread(BytesIO(data), stop_before_pixels=header_only)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _refuse_bomb(data: bytes) -> None:
    """Refuse a deflated data set that grows beyond all measure; pydicom inflates the whole before it looks at it."""
    if _DEFLATED not in data[132:2048] or len(data) < 144:
        return
    start = 144 + struct.unpack_from("<I", data, 140)[0]  # group 0002 and its length are never deflated
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, data[start:]
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, 2**24))
        rest = inflater.unconsumed_tail
        if size > _MAX_INFLATED:
            raise ScanError("is deflated and grows beyond 1 GiB; export it uncompressed")


def photometric(dataset: Dataset) -> str:
    """Return PhotometricInterpretation in capitals, "" if there is none."""
    return str(dataset.get("PhotometricInterpretation") or "").strip().upper()


def syntax_name(dataset: Dataset) -> str:
    """Return the transfer syntax in words; one that the standard does not know stays unnamed."""
    uid = dataset.file_meta.TransferSyntaxUID
    return "unknown transfer syntax" if uid.name == str(uid) else str(uid.name)


def integer(dataset: Dataset, keyword: str) -> int:
    """Return an element that a picture cannot do without.

    Raises:
        ScanError: It is missing or no whole number.
    """
    value = dataset.get(keyword)
    if not isinstance(value, int):
        raise ScanError(TRUNCATED.format(why=f"its header has no usable {keyword}"))
    return value


def number(dataset: Dataset, keyword: str, default: float | None) -> float | None:
    """Return the first value of a numeric element; the default if it is absent or empty; None if it is no number."""
    value: Any = dataset.get(keyword)
    if value is not None and not isinstance(value, (str, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return default
    result = float(value)
    return result if math.isfinite(result) else None


def count(dataset: Dataset, keyword: str) -> int:
    """Return how many values an element has."""
    value: Any = dataset.get(keyword)
    if value is None or value == "":
        return 0
    return 1 if isinstance(value, (str, int, float)) or not hasattr(value, "__len__") else len(value)
