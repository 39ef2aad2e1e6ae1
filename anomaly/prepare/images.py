"""What every method that learns from prepared images takes for one, and a source that serves nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError
from anomaly.records import Float32, ImageSource, Int64


def check_images(images: NDArray[Any], size: int, channels: int | None = None) -> None:
    """Refuse anything but finite float32 (N, C, S, S) in [-1, 1].

    Raises:
        DataError: Saying what was found and what is needed.
    """
    wanted = f"float32 (N, {channels or 'C'}, {size}, {size}) in [-1, 1]"
    if images.dtype != np.float32:
        raise DataError(f"Images must be {wanted}; these are {images.dtype}.")
    if (
        images.ndim != 4
        or images.shape[2:] != (size, size)
        or images.shape[1] not in ((channels,) if channels else (1, 3))
    ):
        raise DataError(f"Images must be {wanted}; these have shape {images.shape}.")
    if images.size and not np.isfinite(images).all():
        raise DataError(f"Images must be {wanted}; these hold NaN or infinity.")
    if images.size and (images.min() < -1.0 or images.max() > 1.0):
        raise DataError(f"Images must be {wanted}; these range over [{images.min():g}, {images.max():g}].")


class CheckedSource:
    """An image source whose every batch is checked as it is served."""

    def __init__(self, source: ImageSource, size: int) -> None:
        self._source = source
        self._size = size

    @property
    def groups(self) -> Int64:
        """Patient groups, int64 (N,)."""
        return self._source.groups

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, batch_size: int = 64) -> Iterator[Float32]:
        """Yield float32 (n, C, S, S) in [-1, 1], n <= batch_size.

        Raises:
            DataError: As `check_images`.
        """
        for batch in self._source.batches(batch_size):
            check_images(batch, self._size)
            yield batch
