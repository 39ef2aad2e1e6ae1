"""PNG, JPEG, TIFF and BMP, at the depth they were stored.

Which library reads what was settled by experiment (OpenCV 5.0, Pillow 13): OpenCV reads every PNG, JPEG and BMP
right and refuses truncated ones; Pillow reduces 16-bit colour to 8. For TIFF of 8 bits or fewer OpenCV goes through
libtiff's RGBA road, which multiplies colour by alpha and silently fills in damaged strips, so Pillow reads those.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import ScanError
from anomaly.records import Float32
from anomaly.scans.hush import hushed
from anomaly.scans.picture import Picture, check_size

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Format = Literal["png", "jpeg", "tiff", "bmp"]

_DAMAGED = "is truncated or damaged ({why}); copy it again from its source"
_DEPTHS = (8, 10, 12, 14, 16)
_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}
"""EXIF orientation -> what turns the stored rows upright."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What a file says of itself before its pixels are decoded."""

    width: int
    height: int
    frames: int
    orientation: int
    bits: int = 8
    is_float: bool = False
    is_signed: bool = False
    white_is_zero: bool = False


def read_image(data: bytes, kind: Format, *, max_megapixels: float = 100.0) -> Picture:
    """Decode one PNG, JPEG, TIFF or BMP held in memory.

    Args:
        data: The whole file.
        kind: Its format, told from its first bytes.
        max_megapixels: Refuse a larger picture from its header alone.

    Returns:
        A `Picture`: float32 (H, W) or (H, W, 3) RGB in [0, 1]; 8 bits divided by 255, 16 bits by 65,535 (or by the
        full scale of the smallest of 8, 10, 12, 14 bits that holds the values, with a warning). Alpha is dropped.

    Raises:
        ScanError: The file cannot be read whole and right; the sentence says why and what to do, without the name.
    """
    if kind == "png":
        _check_png(data)
    header = _read_header(data, kind)
    check_size(header.width, header.height, max_megapixels)
    if header.frames > 1:
        raise ScanError(f"holds {header.frames} pictures; save the radiograph as a file of its own")
    if kind == "tiff" and header.bits <= 8 and not header.is_float and not header.is_signed:
        stored = _decode_with_pillow(data)
    else:
        stored = _decode_with_opencv(data)
    if stored.shape[:2] not in {(header.height, header.width), (header.width, header.height)}:
        raise ScanError(_DAMAGED.format(why="its pixels do not fill the size its header gives"))

    pixels, bits, notes = _to_unit_range(stored, header)
    if header.orientation in _TURNS:
        notes = (*notes, f"turned upright as its orientation tag asks ({header.orientation})")
        if kind != "tiff":  # both libraries turn a TIFF themselves
            pixels = np.ascontiguousarray(_TURNS[header.orientation](pixels))
    return Picture(pixels=pixels, bits=bits, facts={"format": kind.upper()}, warnings=notes)


def _check_png(data: bytes) -> None:
    """Walk a PNG's chunks to IEND, checking lengths and checksums (libpng would print to stderr)."""
    at = 8
    while True:
        if at + 12 > len(data):
            raise ScanError(_DAMAGED.format(why="the PNG ends before its IEND chunk"))
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ScanError(_DAMAGED.format(why="a PNG chunk runs past the end of the file"))
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ScanError(_DAMAGED.format(why="a PNG checksum is wrong"))
        if name == b"IEND":
            return
        at = end


def _read_header(data: bytes, kind: Format) -> _Header:
    """Read size, depth, orientation and page count; nothing is decoded.

    Pillow's classes are called directly: `Image.open` would add its own process-wide limit on the pixel count.
    """
    with hushed():
        try:
            image = _open_with_pillow(data, kind)
            frames = int(getattr(image, "n_frames", 1))
            if kind != "tiff":
                return _Header(*image.size, frames=frames, orientation=_exif_orientation(image))
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            sample_format = set(tags.get(339, (1,)))
            return _Header(
                *image.size,
                frames=frames,
                orientation=tags.get(274, 1),
                bits=max(tags.get(258, (1,))),
                is_float=3 in sample_format,
                is_signed=2 in sample_format,
                white_is_zero=tags.get(262) == 0,
            )
        except SyntaxError as error:
            if kind == "tiff" and "mode" in str(error):
                raise ScanError(
                    "is a kind of TIFF that is not read here; save it as 8- or 16-bit grey or RGB without alpha"
                ) from error
            raise ScanError(_DAMAGED.format(why=_reason(error))) from error
        except MemoryError:
            raise
        except Exception as error:  # third-party code facing hostile bytes
            raise ScanError(_DAMAGED.format(why=_reason(error))) from error


def _exif_orientation(image: ImageFile) -> int:
    """Return the EXIF orientation, 1 if there is none. `image.getexif()` would decode the whole of a PNG."""
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(0x0112, 1)
    except Exception:  # third-party code facing hostile bytes; damaged EXIF does not damage the film
        return 1
    return orientation if isinstance(orientation, int) else 1


def _open_with_pillow(data: bytes, kind: Format) -> ImageFile:
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

    readers: dict[Format, Callable[[BytesIO], ImageFile]] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
    }
    return readers[kind](BytesIO(data))


def _decode_with_pillow(data: bytes) -> NDArray[Any]:
    """Decode a TIFF of 8 bits or fewer: uint8 (H, W) or (H, W, 3) RGB."""
    with hushed():
        try:
            image = _open_with_pillow(data, "tiff")
            grey = image.mode in ("1", "L", "LA", "La")
            return np.asarray(image.convert("L" if grey else "RGB"))
        except MemoryError:
            raise
        except Exception as error:  # third-party code facing hostile bytes
            raise ScanError(_DAMAGED.format(why=_reason(error))) from error


def _decode_with_opencv(data: bytes) -> NDArray[Any]:
    """Decode with OpenCV as stored: (H, W) or (H, W, 3) RGB, alpha dropped, not turned by EXIF."""
    import cv2

    with hushed():
        try:
            decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except MemoryError:
            raise
        except Exception as error:  # third-party code facing hostile bytes
            raise ScanError(_DAMAGED.format(why=_reason(error))) from error
    if decoded is None:
        raise ScanError(_DAMAGED.format(why="its pixels cannot be decoded to the end"))
    if decoded.ndim == 3:
        return decoded[..., 0] if decoded.shape[2] < 3 else decoded[..., 2::-1]
    return decoded


def _to_unit_range(stored: NDArray[Any], header: _Header) -> tuple[Float32, int, tuple[str, ...]]:
    """Bring stored values to float32 [0, 1]; return the pixels, their depth in bits, and warnings."""
    notes: tuple[str, ...] = ()
    if stored.dtype in (np.float32, np.float64):
        # written so that NaN, which compares with nothing, is refused too
        if not (float(stored.min()) >= 0.0 and float(stored.max()) <= 1.0):
            raise ScanError(
                "holds floating-point values that are not finite or not within [0, 1]; divide them by their full "
                "scale, or save the film as 16-bit integers"
            )
        pixels, bits = stored.astype(np.float32), 16
    elif stored.dtype == np.uint16 and header.bits in (10, 12, 14):
        bits = header.bits  # packed samples: OpenCV moves them to the top of 16 bits
        pixels = (stored >> (16 - bits)).astype(np.float32) / np.float32(2**bits - 1)
    elif stored.dtype == np.uint16:
        top = int(stored.max())
        bits = next(depth for depth in _DEPTHS if top < 2**depth)
        if bits < 16:
            notes = (f"16-bit file whose values fit in {bits} bits (largest {top}): read as {bits}-bit",)
        pixels = stored.astype(np.float32) / np.float32(2**bits - 1)
    elif stored.dtype == np.uint8 and header.bits <= 8:
        bits = 8
        pixels = stored.astype(np.float32) / np.float32(255)
    else:
        raise ScanError(
            f"stores its samples as {stored.dtype} ({header.bits} bits), which is not read here; "
            "save it as 8- or 16-bit unsigned integers"
        )
    if header.white_is_zero and header.bits > 8:  # 8-bit decoders have already turned the negative round
        pixels = np.float32(1) - pixels
    return pixels, bits, notes


def _reason(error: BaseException) -> str:
    """One line of at most 120 characters from a library's exception."""
    text = " ".join(str(error).split())
    return text[:120] if any(char.isalpha() for char in text) else type(error).__name__  # a KeyError is but its key
