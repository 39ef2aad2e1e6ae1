"""What a file is, told from its first bytes; never from its name."""

from __future__ import annotations

import struct
from typing import Literal

Kind = Literal["png", "jpeg", "tiff", "bmp", "dicom"]

HEAD = 132
"""Bytes that `sniff` needs: DICOM's marker ends at the 132nd."""

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})

_STARTS: tuple[tuple[bytes, Kind], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or an Office file"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"\0\0\0\x0cjP  ", "a bare JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a bare JPEG 2000 stream"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer (the picture itself was not downloaded)"),
)


def sniff(head: bytes) -> Kind | None:
    """Name the format that the first `HEAD` bytes of a file announce, or None if it is none that is read here."""
    if head[128:132] == b"DICM" or is_bare_dicom(head):  # first: a DICOM preamble may begin as a TIFF does
        return "dicom"
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head.startswith(b"BM") and len(head) >= 26 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADER_SIZES:
        return "bmp"
    return None


def is_bare_dicom(head: bytes) -> bool:
    """Tell whether the bytes begin with a DICOM element of group 0002 or 0008: a file that lost its preamble.

    Text cannot look so: the second byte is zero.
    """
    if len(head) < 12 or head[1] != 0 or head[0] not in (2, 8) or head[3] != 0 or head[2] > 0x18:
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return explicit or 0 < struct.unpack_from("<I", head, 4)[0] <= 64


def describe_stranger(head: bytes) -> str:
    """Say in words what bytes that are no image seem to be."""
    for start, words in _STRANGERS:
        if head.startswith(start):
            return words
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if not any(head):
        return "nothing but zero bytes"
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "text" if printable >= 0.95 * len(head) else "data of an unknown kind"
