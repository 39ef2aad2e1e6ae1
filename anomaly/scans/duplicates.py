"""Which films are the same film: exact copies by their pixels, near copies by a hash that only nominates."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from anomaly.records import Float32, UInt8

THUMB_SIDE = 64


def pixel_digest(pixels: Float32) -> str:
    """Return a hash of a decoded picture, float32 (H, W[, 3]) in [0, 1]: the same for every lossless format."""
    levels = np.rint(pixels * np.float32(65535)).astype(np.uint16)
    digest = sha256(repr(levels.shape).encode())
    digest.update(np.ascontiguousarray(levels).data)
    return digest.hexdigest()


def thumbnail(pixels: Float32) -> UInt8:
    """Return a film stretched onto uint8 (64, 64), grey, for `near_copies`."""
    import cv2

    small = np.asarray(cv2.resize(pixels, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA))
    grey = small.mean(axis=2) if small.ndim == 3 else small
    return np.asarray(np.clip(np.rint(grey * 255.0), 0, 255), dtype=np.uint8)
