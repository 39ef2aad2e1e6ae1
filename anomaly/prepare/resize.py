"""Stretching a picture onto a square."""

from __future__ import annotations

import numpy as np

from anomaly.records import Float32
from anomaly.scans.shrink import area_mean


def resize(pixels: Float32, size: int) -> Float32:
    """Stretch an image (H, W) or (H, W, 3) onto size x size: area average where it shrinks, linear where it grows."""
    import cv2

    if min(pixels.shape[:2]) >= 2 * size:  # the same averages, several times as fast
        return area_mean(pixels, size, size)
    shrinks = pixels.shape[0] > size or pixels.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=method), dtype=np.float32)
