"""Letters and lead markers painted over with what surrounds them (Telea, Journal of Graphics Tools 9, 2004).

They tell hospitals and films apart, not patients, and a detector can learn them.
"""

from __future__ import annotations

import math

import numpy as np

from anomaly.records import Float32
from anomaly.scans.markers import enlarged, markers_of, small_copy

_RADIUS = 3  # pixels of the small copy that each painted pixel is drawn from


def inpaint_markers(pixels: Float32) -> Float32:
    """Paint over a film's markers.

    The paint is mixed in a copy of at most 256 px, as marks are found there and their surroundings are smooth.

    Args:
        pixels: float32 (H, W) or (H, W, 3), in [0, 1], bone bright.

    Returns:
        float32 of the same shape, in [0, 1]; equal to `pixels` outside `find_markers(pixels)`.
    """
    import cv2

    small = small_copy(pixels)
    hidden = markers_of(small)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(hidden, connectivity=8)
    if count == 1:  # nothing but background
        return pixels
    height, width = pixels.shape[:2]
    mask = enlarged(hidden, (height, width))
    levels = np.rint(small * 65535).astype(np.uint16)  # OpenCV's Telea rounds floats to whole numbers
    planes = [levels] if levels.ndim == 2 else list(np.ascontiguousarray(np.moveaxis(levels, 2, 0)))
    painted = [cv2.inpaint(plane, hidden, _RADIUS, cv2.INPAINT_TELEA) for plane in planes]
    paint = np.stack(painted, axis=2) if small.ndim == 3 else painted[0]
    out = pixels.copy()
    down, across = hidden.shape[0] / height, hidden.shape[1] / width
    for x, y, w, h, _ in boxes[1:]:
        rows = slice(max(0, int(y / down) - 1), min(height, math.ceil((y + h) / down) + 1))
        columns = slice(max(0, int(x / across) - 1), min(width, math.ceil((x + w) / across) + 1))
        shift = [(start + 0.5) * scale - 0.5 for start, scale in ((columns.start, across), (rows.start, down))]
        patch = cv2.warpAffine(
            paint,
            np.array([[across, 0, shift[0]], [0, down, shift[1]]]),
            (columns.stop - columns.start, rows.stop - rows.start),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = mask[rows, columns]
        out[rows, columns][inside] = patch[inside].astype(np.float32) / 65535
    return out
