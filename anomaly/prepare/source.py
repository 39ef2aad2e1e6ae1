"""Prepared images, in memory or spooled to disk, served in a fixed order to `Detector.fit`."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import OutputError
from anomaly.prepare.prepare import Shrunk
from anomaly.records import Float32, Int64, UInt8


class ArraySource:
    """An `ImageSource` over one array, or over some of its images without a copy of them.

    Args:
        images: float32 (N, C, S, S) in [-1, 1].
        groups: int64 (n,) patient groups of the images served; None when every image is its own patient.
        index: int64 (n,) which images to serve, in this order; None for all N.

    Raises:
        ValueError: The lengths differ.
    """

    def __init__(self, images: Float32, groups: Int64 | None = None, index: Int64 | None = None) -> None:
        self._images = images
        self._index = index
        self._groups = np.arange(len(self), dtype=np.int64) if groups is None else groups
        if len(self._groups) != len(self):
            raise ValueError(f"{len(self)} images but {len(self._groups)} patient groups")

    @property
    def groups(self) -> Int64:
        """Patient groups, int64 (n,)."""
        return self._groups

    def __len__(self) -> int:
        return len(self._images) if self._index is None else len(self._index)

    def batches(self, batch_size: int = 64) -> Iterator[Float32]:
        """Yield float32 (n, C, S, S), n <= batch_size, every image once, in order."""
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield self._images[part if self._index is None else self._index[part]]


class ImageSpool:
    """Prepared images written to one file as they come and mapped from there, so that none need stay in memory.

    The file lies in `folder` from `with` on and is gone afterwards, whatever happened; what a killed process leaves
    is swept up with the folder's other half-written files. Arrays served from it must not outlive it. Which pixels
    show film stays in memory, a bit each.

    Args:
        folder: Where there is room; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._scratch = _Scratch(folder)
        self._shape: tuple[int, ...] = ()
        self._masks: list[UInt8 | None] = []

    def __enter__(self) -> Self:
        self._scratch.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    def __len__(self) -> int:
        return len(self._masks)

    def append(self, image: Float32, inside: NDArray[np.bool_] | None = None) -> int:
        """Write an image, float32 (C, S, S), the same shape each time; return its place.

        `inside` bool (S, S) tells which pixels show film, None that all do.

        Raises:
            OutputError: The disk is full.
            ValueError: Another shape or dtype than before, or a mask that is not of the image's size.
        """
        if image.dtype != np.float32 or (len(self) and image.shape != self._shape):
            raise ValueError(
                f"a {image.dtype} image of {image.shape} does not fit float32 {self._shape or '(C, S, S)'}"
            )
        if inside is not None and (inside.dtype != np.bool_ or inside.shape != image.shape[1:]):
            raise ValueError(f"a {inside.dtype} mask of {inside.shape} does not fit bool {image.shape[1:]}")
        self._scratch.write(image)
        self._shape = image.shape
        self._masks.append(None if inside is None else np.packbits(inside))
        return len(self) - 1

    def source(self, index: Sequence[int], groups: Int64 | None = None) -> ArraySource:
        """Serve the images at these places, in this order; `groups` int64 (n,) as in `ArraySource`."""
        return ArraySource(self.all(), groups, np.asarray(index, dtype=np.int64))

    def all(self) -> Float32:
        """Serve every image, float32 (N, C, S, S), read from the disk as it is looked at."""
        written = self._scratch.map()
        if not len(self):
            return np.zeros((0, 1, 1, 1), np.float32)
        return written.view(np.float32).reshape(len(self), *self._shape)

    def take(self, index: Sequence[int]) -> Float32:
        """Return the images at these places in memory, float32 (n, C, S, S)."""
        return np.asarray(self.all()[np.asarray(index, dtype=np.int64)], dtype=np.float32)

    def inside(self, index: Sequence[int]) -> NDArray[np.bool_]:
        """Return which pixels of the images at these places show film, bool (n, S, S)."""
        size = self._shape[1:]
        films = np.ones((len(index), *size), np.bool_)
        for film, place in zip(films, index, strict=True):
            packed = self._masks[place]
            if packed is not None:
                film[:] = np.unpackbits(packed, count=film.size).reshape(size)
        return films


class FilmSpool:
    """Films that wait for a template to be registered to, kept as `ImageSpool` keeps images.

    Args:
        folder: Where there is room; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._scratch = _Scratch(folder)
        self._films: list[tuple[int, tuple[int, ...], Shrunk]] = []

    def __enter__(self) -> Self:
        self._scratch.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    def __len__(self) -> int:
        return len(self._films)

    def append(self, film: Shrunk) -> int:
        """Write a film; return its place.

        Raises:
            OutputError: The disk is full.
        """
        start = self._scratch.write(film.pixels)
        self._films.append((start, film.pixels.shape, replace(film, pixels=np.empty(0, film.pixels.dtype))))
        return len(self) - 1

    def __getitem__(self, place: int) -> Shrunk:
        """Return the film at a place, in memory."""
        start, shape, film = self._films[place]
        length = math.prod(shape) * film.pixels.itemsize
        written = self._scratch.map()[start : start + length]
        return replace(film, pixels=np.array(written).view(film.pixels.dtype).reshape(shape))


class _Scratch:
    """The file of a spool: arrays go in at the end, and all of it is mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = 0
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 (`close` closes it)
                prefix=".part-", suffix=".raw", dir=self._folder
            )
        except OSError as error:
            raise _cannot(self._folder, error) from error

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: what was not yet written is not wanted any more
                self._file.close()
            self._file = None

    def write(self, array: NDArray[Any]) -> int:
        """Write an array's bytes; return where they begin."""
        file, start = self._opened(), self._size
        try:
            file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            raise _cannot(self._folder, error) from error
        self._size += array.nbytes
        return start

    def map(self) -> UInt8:
        """Return all that was written, uint8 (bytes,), read from the disk as it is looked at."""
        file = self._opened()
        try:
            file.flush()
        except OSError as error:
            raise _cannot(self._folder, error) from error
        if not self._size:
            return np.zeros(0, np.uint8)
        return np.asarray(np.memmap(file.name, np.uint8, "r", shape=(self._size,)))

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("a spool is open only inside its `with`")
        return self._file


def _cannot(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"Cannot keep prepared images in {folder}: {error.strerror}. Free some space.")
