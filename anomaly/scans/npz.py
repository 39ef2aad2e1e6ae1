"""Pictures inside a NumPy archive of the MedMNIST form: {train,val,test}_images and {train,val,test}_labels.

Such an archive can hold gigabytes, so its pictures are decompressed in blocks, in order, and only a few blocks are
kept. Whoever reads them one after the other decompresses everything once.
"""

from __future__ import annotations

import math
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from anomaly.errors import ScanError
from anomaly.records import Int64, UInt8
from anomaly.scans.picture import Picture, check_size

SPLITS = ("train", "val", "test")
_BLOCK_BYTES = 32 * 2**20
_BLOCKS_KEPT = 4
_LARGEST = 2**30
_DAMAGED = "is damaged ({why}); download it again"
_FORMAT = np.lib.format


@dataclass(frozen=True, slots=True)
class _Header:
    """What a `.npy` says of itself: `shape` (N, H, W) or (N, H, W, 3)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]

    @property
    def picture_bytes(self) -> int:
        """Size of one picture."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def read_labels(path: Path) -> dict[str, Int64] | None:
    """Return the labels of each split of an archive, int64 (N, K), or None if it is not of the MedMNIST form.

    Raises:
        ScanError: It is of that form, and damaged or holds what are no pictures; a sentence without the file's name.
        OSError: It cannot be opened.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ScanError(_DAMAGED.format(why=error)) from error
    with archive, _saying_damage():
        names = set(archive.namelist())
        splits = [split for split in SPLITS if {f"{split}_images.npy", f"{split}_labels.npy"} <= names]
        return {split: _labels_of(archive, split) for split in splits} or None


def read_member(path: Path, member: str) -> bytes:
    """Return one picture, "train/12", as the bytes of a `.npy` file, which `decode_member` turns back.

    Raises:
        ScanError: The archive or the picture cannot be read; a sentence without the file's name.
    """
    split, _, number = member.partition("/")
    try:
        facts = path.stat()
        pictures = _pictures(path, facts.st_size, facts.st_mtime_ns, split)
        picture = pictures.get(int(number))
    except OSError as error:
        raise ScanError(f"cannot be read ({error.strerror}); check the disk and the path") from error
    stream = BytesIO()
    _FORMAT.write_array(stream, picture, allow_pickle=False)
    return stream.getvalue()


def decode_member(data: bytes, max_megapixels: float) -> Picture:
    """Decode what `read_member` returned.

    Raises:
        ScanError: Too small or too large.
    """
    with _saying_damage():
        picture = _FORMAT.read_array(BytesIO(data), allow_pickle=False)
    check_size(picture.shape[1], picture.shape[0], max_megapixels)
    return Picture(pixels=picture.astype(np.float32) / np.float32(255), bits=8, facts={"format": "NPZ"})


@contextmanager
def _saying_damage() -> Iterator[None]:
    """Turn what zipfile, zlib and numpy raise on damaged archives into one sentence."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError, RuntimeError) as error:
        raise ScanError(_DAMAGED.format(why=str(error) or type(error).__name__)) from error


def _header(stream: IO[bytes]) -> _Header:
    version = _FORMAT.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy format {version[0]}.{version[1]}")
    read = _FORMAT.read_array_header_1_0 if version == (1, 0) else _FORMAT.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} and of shape {shape}")
    return _Header(shape, dtype, "F" if fortran else "C")


def _picture_header(archive: zipfile.ZipFile, split: str, stream: IO[bytes]) -> _Header:
    """Read the header of a split's pictures and see that they can be pictures, and that the file is large enough."""
    header = _header(stream)
    shape = header.shape
    if len(shape) == 4 and shape[3] != 3:
        raise ScanError(f"holds volumes ({' x '.join(map(str, shape[1:]))}), not pictures; give it as single slices")
    if len(shape) not in (3, 4) or header.dtype != np.uint8 or header.order != "C":
        raise ScanError(f"holds {header.dtype} arrays of shape {shape}, not 8-bit pictures; export it as MedMNIST does")
    if header.picture_bytes > _LARGEST:
        raise ScanError("holds pictures of more than 1 GiB; make them smaller")
    if archive.getinfo(f"{split}_images.npy").file_size < shape[0] * header.picture_bytes:
        raise ValueError(f"{split}_images ends early")
    return header


def _labels_of(archive: zipfile.ZipFile, split: str) -> Int64:
    with archive.open(f"{split}_images.npy") as stream:
        count = _picture_header(archive, split, stream).shape[0]
    if archive.getinfo(f"{split}_labels.npy").file_size > _LARGEST:
        raise ValueError(f"{split}_labels is larger than 1 GiB")
    with archive.open(f"{split}_labels.npy") as stream:
        header = _header(stream)
        shape, dtype = header.shape, header.dtype
        if len(shape) not in (1, 2) or shape[0] != count or dtype.kind not in "iub":
            raise ValueError(f"{split}_labels has the shape {shape} of {dtype} for {count} pictures")
        labels = np.frombuffer(stream.read(), dtype=dtype).reshape(shape, order=header.order)
    return labels.reshape(count, math.prod(shape[1:])).astype(np.int64)


class _Pictures:
    """The pictures of one split, a few blocks of them kept."""

    def __init__(self, path: Path, split: str) -> None:
        self._lock = threading.Lock()
        self._split = split
        self._blocks: OrderedDict[int, UInt8] = OrderedDict()
        self._broken: tuple[int, str] | None = None
        with _saying_damage():
            self._archive = zipfile.ZipFile(path)
            self._rewind()
        self._per_block = max(1, _BLOCK_BYTES // max(1, self._header.picture_bytes))

    def get(self, index: int) -> UInt8:
        """Return one picture, uint8 (H, W) or (H, W, 3)."""
        if not 0 <= index < self._header.shape[0]:
            raise ScanError(f"holds no picture {self._split}/{index}; list the folder again")
        block, place = divmod(index, self._per_block)
        with self._lock:
            if block not in self._blocks:
                self._fetch(block)
            self._blocks.move_to_end(block)
            return np.asarray(self._blocks[block][place])

    def _rewind(self) -> None:
        self._stream = self._archive.open(f"{self._split}_images.npy")
        self._header = _picture_header(self._archive, self._split, self._stream)
        self._next = 0

    def _fetch(self, block: int) -> None:
        """Decompress up to and with a block; remember where the archive breaks, so that it is tried only once."""
        if self._broken is not None and block >= self._broken[0]:
            raise ScanError(self._broken[1])
        try:
            with _saying_damage():
                if block < self._next:
                    self._stream.close()
                    self._rewind()
                while self._next <= block:
                    self._keep(self._next, self._read(self._next))
                    self._next += 1
        except ScanError as error:
            self._broken = (self._next, str(error))
            raise

    def _read(self, block: int) -> UInt8:
        count = min(self._per_block, self._header.shape[0] - block * self._per_block)
        wanted = count * self._header.picture_bytes
        data = self._stream.read(wanted)
        if len(data) < wanted:
            raise EOFError(f"{self._split}_images ends early")
        return np.frombuffer(data, dtype=np.uint8).reshape(count, *self._header.shape[1:])

    def _keep(self, block: int, pictures: UInt8) -> None:
        self._blocks[block] = pictures
        if len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)


@lru_cache(maxsize=len(SPLITS))
def _pictures(path: Path, size: int, mtime_ns: int, split: str) -> _Pictures:  # noqa: ARG001 (they tell a new file)
    return _Pictures(path, split)
