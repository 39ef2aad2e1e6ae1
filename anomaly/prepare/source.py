"""Prepared images, in memory or spooled to disk, served in a fixed order to `Detector.fit`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from anomaly.errors import OutputError
from anomaly.records import Float32, Int64


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
    is swept up with the folder's other half-written files. Arrays served from it must not outlive it.

    Args:
        folder: Where there is room; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shape: tuple[int, ...] = ()
        self._count = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(prefix=".part-", suffix=".f32", dir=self._folder)
        except OSError as error:
            raise _cannot(self._folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: what was not yet written is not wanted any more
                self._file.close()
            self._file = None

    def __len__(self) -> int:
        return self._count

    def append(self, image: Float32) -> int:
        """Write an image, float32 (C, S, S), the same shape each time; return its place.

        Raises:
            OutputError: The disk is full.
            ValueError: Another shape or dtype than before.
        """
        if image.dtype != np.float32 or (self._count and image.shape != self._shape):
            raise ValueError(
                f"a {image.dtype} image of {image.shape} does not fit float32 {self._shape or '(C, S, S)'}"
            )
        file = self._opened()
        try:
            file.write(np.ascontiguousarray(image).data)
        except OSError as error:
            raise _cannot(self._folder, error) from error
        self._shape = image.shape
        self._count += 1
        return self._count - 1

    def source(self, index: Sequence[int], groups: Int64 | None = None) -> ArraySource:
        """Serve the images at these places, in this order; `groups` int64 (n,) as in `ArraySource`."""
        return ArraySource(self._images(), groups, np.asarray(index, dtype=np.int64))

    def all(self) -> Float32:
        """Serve every image, float32 (N, C, S, S), read from the disk as it is looked at."""
        return self._images()

    def take(self, index: Sequence[int]) -> Float32:
        """Return the images at these places in memory, float32 (n, C, S, S)."""
        return np.asarray(self._images()[np.asarray(index, dtype=np.int64)], dtype=np.float32)

    def _images(self) -> Float32:
        file = self._opened()
        try:
            file.flush()
        except OSError as error:
            raise _cannot(self._folder, error) from error
        if not self._count:
            return np.zeros((0, 1, 1, 1), np.float32)
        return np.asarray(np.memmap(file.name, np.float32, "r", shape=(self._count, *self._shape)))

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("an ImageSpool is open only inside its `with`")
        return self._file


def _cannot(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"Cannot keep prepared images in {folder}: {error.strerror}. Free some space.")
