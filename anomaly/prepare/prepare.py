"""One fixed order from film to square, frozen in the model and applied by `score` unasked.

read (full depth) -> crop borders -> inpaint markers -> [register -> crop: later stages]
-> area-resize at full depth to `clahe_size` -> round to 8 bit -> CLAHE -> resize to S -> [-1, 1]; each stage optional.
"""

from __future__ import annotations

import numpy as np

from anomaly.config import PrepareConfig
from anomaly.prepare.clahe import equalise
from anomaly.prepare.geometry import crop_geometry
from anomaly.prepare.markers import inpaint_markers
from anomaly.records import Float32, Prepared, Scan
from anomaly.scans.borders import MOST, find_borders, whole


class Preparation:
    """Turns scans into what a detector sees.

    Args:
        config: The stages and their settings.
        size: Side S of the prepared square.
    """

    def __init__(self, config: PrepareConfig, size: int) -> None:
        self.config = config
        self.size = size

    def __call__(self, scan: Scan) -> Prepared:
        """Prepare one scan.

        Returns:
            `Prepared` with image float32 (C, S, S) in [-1, 1] and the exact way back to the film.
        """
        config = self.config
        pixels, box, warnings = scan.pixels, whole(scan.pixels), scan.warnings
        if config.crop == "auto":
            found = find_borders(pixels)
            if found is None:
                warnings = (*warnings, f"borders not cropped: they would take over {100 * MOST:.0f} % of a side")
            else:
                box = found
                pixels = box.cut(pixels)
        if config.markers == "inpaint":
            pixels = inpaint_markers(pixels)
        if config.clahe:
            small = resize(pixels, config.clahe_size)
            eight_bit = np.clip(np.rint(small * 255.0), 0, 255).astype(np.uint8)
            pixels = equalise(eight_bit, clip=config.clahe_clip, tiles=config.clahe_tiles).astype(np.float32) / 255.0
        square = np.clip(resize(pixels, self.size), 0.0, 1.0)
        grey = square.ndim == 2
        channels = np.repeat(square[None], config.channels, axis=0) if grey else square.transpose(2, 0, 1)
        image = np.ascontiguousarray(channels * 2.0 - 1.0, dtype=np.float32)
        geometry = crop_geometry((scan.pixels.shape[0], scan.pixels.shape[1]), box, self.size)
        return Prepared(image, geometry, warnings)


def resize(pixels: Float32, size: int) -> Float32:
    """Stretch an image (H, W) or (H, W, 3) onto size x size: area average where it shrinks, linear where it grows."""
    import cv2

    shrinks = pixels.shape[0] > size or pixels.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=method), dtype=np.float32)
