"""Prepared images held in memory, served in a fixed order to `Detector.fit`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anomaly.records import Float32, Int64


class ArraySource:
    """An `ImageSource` over one array.

    Args:
        images: float32 (N, C, S, S) in [-1, 1].
        groups: int64 (N,) patient groups; None when every image is its own patient.

    Raises:
        ValueError: The lengths differ.
    """

    def __init__(self, images: Float32, groups: Int64 | None = None) -> None:
        self._images = images
        self._groups = np.arange(len(images), dtype=np.int64) if groups is None else groups
        if len(self._groups) != len(images):
            raise ValueError(f"{len(images)} images but {len(self._groups)} patient groups")

    @property
    def groups(self) -> Int64:
        """Patient groups, int64 (N,)."""
        return self._groups

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, batch_size: int = 64) -> Iterator[Float32]:
        """Yield float32 (n, C, S, S), n <= batch_size, every image once, in order."""
        for start in range(0, len(self._images), batch_size):
            yield self._images[start : start + batch_size]
