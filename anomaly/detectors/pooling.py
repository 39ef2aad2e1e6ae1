"""From a map to a number: what of the pixels inside the film counts."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32

Pooling = Literal["mean", "top", "max"]
"""The mean of all pixels, the mean of the largest of them, the largest."""


def pool(maps: Float32, inside: NDArray[np.bool_], pooling: Pooling, top_share: float) -> Float32:
    """Return one number a map.

    Args:
        maps: float32 (N, S, S).
        inside: bool (N, S, S), which pixels show film, at least one a map.
        pooling: Which of them count.
        top_share: For "top", what share of the film's pixels counts, at least one pixel; in (0, 1].

    Returns:
        float32 (N,).
    """
    values = np.empty(len(maps), np.float32)
    for row, (heat, shown) in enumerate(zip(maps, inside, strict=True)):
        pixels = heat[shown]
        if pooling == "max":
            values[row] = pixels.max()
            continue
        if pooling == "top":
            first = len(pixels) - max(1, round(top_share * len(pixels)))
            pixels = np.partition(pixels, first)[first:]
        values[row] = pixels.mean(dtype=np.float64)
    return values
