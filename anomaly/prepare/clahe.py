"""Contrast-limited adaptive histogram equalisation (Pizer et al. 1987; Zuiderveld 1994), through OpenCV.

It runs at 8 bit: OpenCV's 16-bit CLAHE uses 65,536 bins, its clip limit stops acting, and the same film at 8 and
16 bit comes out different.
"""

from __future__ import annotations

import numpy as np

from anomaly.records import UInt8


def equalise(image: UInt8, *, clip: float, tiles: int) -> UInt8:
    """Equalise a grey image, or the lightness of a colour one.

    Args:
        image: uint8 (H, W), or (H, W, 3) RGB.
        clip: Clip limit, as a multiple of the mean bin.
        tiles: The image is cut into tiles x tiles regions.

    Returns:
        uint8, of the same shape.
    """
    import cv2

    clahe = cv2.createCLAHE(clipLimit=clip, tileGridSize=(tiles, tiles))
    if image.ndim == 2:
        return np.asarray(clahe.apply(image), dtype=np.uint8)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)
