"""Damaged files for fuzz.py: what they are made from, how they are damaged, what the reader says of them.

Case N is the same bytes on every machine with the same libraries: a phantom saved in one of many ways, or a file that
pydicom bundles, with one to three of its bytes, runs, chunks, markers, directory entries or elements changed.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anomaly.errors import ScanError
from anomaly.records import ScanFile
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.phantom import make_phantom
from anomaly.scans.read import decode_scan

KINDS = ("png8", "png16", "jpeg", "tiff", "bmp", "dicom", "dicom", "dicom")
"""Cases take turns; DICOM has the most ways to be written."""

Rng = np.random.Generator
Corpus = dict[str, list[bytes]]
EXTREMES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)

# ---- whole files to start from --------------------------------------------------------------------------------------


def make_corpus() -> Corpus:
    """Save a phantom in every way that the reader knows: kind -> files."""
    film = cv2.resize(make_phantom(3, seed=9).pixels, (160, 144), interpolation=cv2.INTER_AREA)
    deep = np.rint(film * 65535).astype(np.uint16)
    grey = (deep >> 8).astype(np.uint8)
    colour = np.dstack([grey, grey // 2, 255 - grey])
    corpus: Corpus = {
        "png8": [
            _cv2("png", grey),
            _cv2("png", colour),
            _pillow(grey, "PNG", mode="P"),
            _pillow(grey, "PNG", mode="1"),
        ],
        "png16": [_cv2("png", deep), _cv2("png", deep >> 4), _cv2("png", np.dstack([deep] * 3))],
        "jpeg": [_cv2("jpg", grey), _cv2("jpg", colour), _pillow(grey, "JPEG", progressive=True, optimize=True)],
        "bmp": [_cv2("bmp", grey), _cv2("bmp", colour), _pillow(grey, "BMP", mode="1")],
    }
    corpus["tiff"] = [_pillow(grey, "TIFF", compression=way) for way in ("raw", "tiff_lzw", "tiff_deflate", "packbits")]
    corpus["tiff"] += [
        _pillow(colour, "TIFF", compression="jpeg"),
        _pillow(grey, "TIFF", mode="1", compression="group4"),
    ]
    corpus["tiff"] += [_cv2("tif", deep), _cv2("tif", film.astype(np.float32)), _cv2("tif", np.dstack([deep] * 3))]
    corpus["dicom"] = [*_phantom_dicoms(deep), *_bundled_dicoms()]
    return corpus


def _cv2(extension: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(f".{extension}", pixels)[1].tobytes()


def _pillow(pixels: np.ndarray, form: str, *, mode: str | None = None, **options: Any) -> bytes:
    from PIL import Image

    image, buffer = Image.fromarray(pixels), BytesIO()
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def _phantom_dicoms(deep: np.ndarray) -> Iterator[bytes]:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        for bits, photometric in ((8, "MONOCHROME1"), (12, "MONOCHROME2"), (16, "MONOCHROME1")):
            write_dicom(path, deep >> (16 - bits), bits=bits, photometric=photometric, patient="p", spacing_mm=1.0)
            yield path.read_bytes()
            data = pydicom.dcmread(path)
            for syntax in (RLELossless, JPEG2000Lossless, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
                changed = pydicom.dcmread(path)
                if syntax.is_encapsulated:
                    changed.compress(syntax, generate_instance_uid=False)
                changed.file_meta.TransferSyntaxUID = syntax
                yield _saved(changed)
            del data.WindowCenter, data.WindowWidth
            item = pydicom.Dataset()
            item.LUTDescriptor, item.LUTData = (
                [2**bits % 65536, 0, 8],
                (np.arange(2**bits) >> (bits - 8)).astype("<u2").tobytes(),
            )
            item["LUTData"].VR = "OW"
            data.VOILUTSequence = [item]
            data.add_new("PixelPaddingValue", "US", 0)
            yield _saved(data)


def _saved(data: Any) -> bytes:
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _bundled_dicoms() -> Iterator[bytes]:
    """Yield pydicom's own test files that are read as they are; smaller than 200 KB."""
    import pydicom

    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        data = path.read_bytes()
        try:
            decode_scan(ScanFile("seed", path, path.name), data)
        except ScanError:
            continue
        if len(data) < 200_000:
            yield data


# ---- damage ---------------------------------------------------------------------------------------------------------


def _place(rng: Rng, size: int) -> int:
    """Draw a position; three of ten lie in the first 512 bytes, where formats keep their promises."""
    return int(rng.integers(0, min(size, 512) if rng.random() < 0.3 else size))


def _flip(data: bytearray, rng: Rng) -> None:
    for _ in range(int(rng.integers(1, 9))):
        data[_place(rng, len(data))] = rng.integers(256)


def _truncate(data: bytearray, rng: Rng) -> None:
    del data[max(1, int(len(data) * rng.random())) :]


def _zero(data: bytearray, rng: Rng) -> None:
    at, run = _place(rng, len(data)), int(rng.integers(1, 200))
    data[at : at + run] = bytes(len(data[at : at + run]))


def _insert(data: bytearray, rng: Rng) -> None:
    at = _place(rng, len(data))
    data[at:at] = rng.bytes(int(rng.integers(1, 60)))


def _cut_out(data: bytearray, rng: Rng) -> None:
    at = _place(rng, len(data))
    del data[at : at + int(rng.integers(1, 60))]


def _repeat(data: bytearray, rng: Rng) -> None:
    at = _place(rng, len(data))
    data[at:at] = data[at : at + int(rng.integers(1, 400))]


def _extreme(data: bytearray, at: int, width: int, order: str, rng: Rng) -> None:
    """Write an extreme or random number of `width` bytes at a place."""
    value = int(rng.choice(EXTREMES)) if rng.random() < 0.7 else int(rng.integers(0, 2**32))
    data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little" if order == "<" else "big")


def _png_chunk(data: bytearray, rng: Rng) -> None:
    at, starts = 8, []
    while at + 12 <= len(data):
        starts.append(at)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if not starts:
        return
    at = starts[0] if rng.random() < 0.5 else int(rng.choice(starts))
    length = int.from_bytes(data[at : at + 4], "big")
    body = slice(at + 8, at + 8 + length)
    how = rng.integers(4)
    if how == 0:
        _extreme(data, at, 4, ">", rng)
    elif how == 1 and length:
        data[int(rng.integers(body.start, min(body.stop, len(data))))] = rng.integers(256)
    elif how == 2 and length >= 4:
        _extreme(data, body.start + 4 * int(rng.integers(0, length // 4)), 4, ">", rng)
    else:
        data[at:at] = data[at : body.stop + 4]


_CHUNK = re.compile(rb"IDAT|IEND|PLTE|tRNS|gAMA|pHYs")


def _tiff_entry(data: bytearray, rng: Rng) -> None:
    order = "<" if data[:2] == b"II" else ">"
    name = "little" if order == "<" else "big"
    start = int.from_bytes(data[4:8], name)  # type: ignore[arg-type]
    count = int.from_bytes(data[start : start + 2], name)  # type: ignore[arg-type]
    if not 0 < count < 200:
        return
    at = start + 2 + 12 * int(rng.integers(count))
    offset, width = ((0, 2), (2, 2), (4, 4), (8, 4), (8, 2))[int(rng.integers(5))]
    _extreme(data, at + offset, width, order, rng)


def _jpeg_segment(data: bytearray, rng: Rng) -> None:
    starts = [found.start() for found in re.finditer(rb"\xff[\xc0-\xfe]", bytes(data))]
    at = int(rng.choice(starts)) if starts else 0
    how = int(rng.integers(3))
    if how == 0:
        data[at + 1] = rng.integers(0xC0, 0xFF)
    else:
        _extreme(data, at + 2 if how == 1 else at + 2 + int(rng.integers(0, 12)), how, ">", rng)


def _bmp_header(data: bytearray, rng: Rng) -> None:
    _extreme(data, 2 * int(rng.integers(1, 27)), int(rng.choice((2, 4))), "<", rng)


_ELEMENT = re.compile(
    rb"[\x02\x08\x10\x18\x20\x28\x50\x54\xe0][\0\x20\x7f]..(?:AE|AS|CS|DA|DS|IS|LO|OB|OW|PN|SH|SQ|SS|TM|UI|UL|UN|US)",
    re.DOTALL,
)


def _dicom_element(data: bytearray, rng: Rng) -> None:
    """Change the tag, the VR, the length or the value of an explicit element."""
    starts = [found.start() for found in _ELEMENT.finditer(bytes(data[: 2**16]))]
    if not starts:
        _flip(data, rng)
        return
    at = int(rng.choice(starts))
    how = int(rng.integers(5))
    if how == 0:
        _extreme(data, at + 2 * int(rng.integers(2)), 2, "<", rng)
    elif how == 1:
        data[at + 4 : at + 6] = (b"OB", b"SQ", b"UN", b"US", b"DS", b"FD", b"XX", b"LO", b"UT")[int(rng.integers(9))]
    elif how == 2:
        _extreme(data, at + 6, 2, "<", rng)
    elif how == 3:
        _extreme(data, at + 8, int(rng.choice((1, 2, 4))), "<", rng)
    else:
        data[at + 8 : at + 10] = rng.bytes(2)


Mutation = Callable[[bytearray, Rng], None]
ANY: tuple[Mutation, ...] = (_flip, _truncate, _zero, _insert, _cut_out, _repeat)
OWN: dict[str, Mutation] = {
    "png8": _png_chunk,
    "png16": _png_chunk,
    "jpeg": _jpeg_segment,
    "tiff": _tiff_entry,
    "bmp": _bmp_header,
    "dicom": _dicom_element,
}


def make_case(number: int, corpus: Corpus) -> tuple[str, bytes]:
    """Return the kind and the bytes of a case."""
    rng = np.random.default_rng([number, 20])
    kind = KINDS[number % len(KINDS)]
    data = bytearray(corpus[kind][int(rng.integers(len(corpus[kind])))])
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        if len(data) > 64:
            own = rng.random() < (0.8 if kind == "tiff" else 0.5)  # a moved TIFF directory hides all else
            (OWN[kind] if own else ANY[int(rng.integers(len(ANY)))])(data, rng)
    if kind.startswith("png") and rng.random() < 0.7:
        _mend_chunks(data)
    return kind, bytes(data)


def _mend_chunks(data: bytearray) -> None:
    """Make the lengths and checksums of a PNG's chunks right again, so that the damage reaches the decoder."""
    at = 8
    while at + 12 <= len(data):
        found = _CHUNK.search(data, at + 12)
        end = found.start() - 8 if found else len(data) - 4
        data[at : at + 4] = max(0, end - at - 8).to_bytes(4, "big")
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def verdict(kind: str, data: bytes) -> tuple[str, str]:
    """Read a case: ("scan", ""), ("refused", its sentence), or ("fault", what went wrong)."""
    name = f"case.{'dcm' if kind == 'dicom' else kind}"
    try:
        scan = decode_scan(ScanFile("case", Path(name), name), data)
    except ScanError as error:
        text = str(error)
        whole = text.startswith(f"{name}: ") and "; " in text and "\n" not in text and len(text) < 400
        return ("refused", text.removeprefix(f"{name}: ")) if whole else ("fault", f"a bad sentence: {text!r}")
    except Exception as error:  # what this benchmark is looking for
        return "fault", f"{type(error).__name__}: {error}"
    low, high = float(scan.pixels.min()), float(scan.pixels.max())
    right = scan.pixels.dtype == np.float32 and 0 <= low < high <= 1 and scan.pixels.ndim == 2
    return ("scan", "") if right else ("fault", f"a scan of {scan.pixels.dtype} from {low} to {high}")
