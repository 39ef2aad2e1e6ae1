"""One fixed order from film to square, frozen in the model and applied by `score` unasked.

read (full depth) -> crop borders -> inpaint markers -> [register -> crop: later stages]
-> area-resize at full depth to `clahe_size` -> round to 8 bit -> CLAHE -> resize to S -> [-1, 1]; each stage optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.config import PrepareConfig
from anomaly.prepare.clahe import equalise
from anomaly.prepare.geometry import crop_geometry
from anomaly.prepare.markers import inpaint_markers
from anomaly.records import Float32, Geometry, Prepared, Scan, UInt8
from anomaly.scans.borders import MOST, Box, find_borders, whole
from anomaly.scans.shrink import area_mean


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A film after the stages that need it at full size: what the cache keeps, for detectors of any size.

    `pixels`: uint8 (K, K) or (K, K, 3) with K = `clahe_size` where CLAHE follows, else float32 (S, S) or (S, S, 3) in
    [0, 1]. `box` is the part of the film kept, `film_shape` the (H, W) of the whole.
    """

    pixels: UInt8 | Float32
    box: Box
    film_shape: tuple[int, int]
    warnings: tuple[str, ...]

    def to_entry(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and plain JSON that `from_entry` turns back."""
        box = [self.box.top, self.box.bottom, self.box.left, self.box.right]
        return {"pixels": self.pixels}, {"box": box, "shape": list(self.film_shape), "warnings": list(self.warnings)}

    @classmethod
    def from_entry(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Shrunk:
        """Build from what `to_entry` returned."""
        height, width = meta["shape"]
        return cls(np.asarray(arrays["pixels"]), Box(*meta["box"]), (height, width), tuple(meta["warnings"]))


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
        return self.finish(self.shrink(scan))

    @property
    def shrinks_by(self) -> dict[str, Any]:
        """Return the settings that `shrink` goes by, plain JSON; preparations that share them share its result."""
        config = self.config
        side = config.clahe_size if config.clahe else self.size
        return {"crop": config.crop, "markers": config.markers, "clahe": config.clahe, "side": side}

    def shrink(self, scan: Scan) -> Shrunk:
        """Do the stages that need the film at full size and depth."""
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
        film_shape = scan.pixels.shape[0], scan.pixels.shape[1]
        if not config.clahe:
            return Shrunk(resize(pixels, self.size), box, film_shape, warnings)
        small = resize(pixels, config.clahe_size)
        eight_bit = np.clip(np.rint(small * 255.0), 0, 255).astype(np.uint8)
        return Shrunk(eight_bit, box, film_shape, warnings)

    def finish(self, shrunk: Shrunk) -> Prepared:
        """Do the rest."""
        config = self.config
        if shrunk.pixels.dtype == np.uint8:
            eight_bit = np.asarray(shrunk.pixels, dtype=np.uint8)
            equalised = equalise(eight_bit, clip=config.clahe_clip, tiles=config.clahe_tiles)
            square = resize(equalised.astype(np.float32) / 255.0, self.size)
        else:
            square = np.asarray(shrunk.pixels, dtype=np.float32)
        square = np.clip(square, 0.0, 1.0)
        grey = square.ndim == 2
        channels = np.repeat(square[None], config.channels, axis=0) if grey else square.transpose(2, 0, 1)
        image = np.ascontiguousarray(channels * 2.0 - 1.0, dtype=np.float32)
        return Prepared(image, crop_geometry(shrunk.film_shape, shrunk.box, self.size), shrunk.warnings)


def pack_prepared(prepared: Prepared) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and plain JSON that `unpack_prepared` turns back."""
    geometry = prepared.geometry
    meta = {"shape": list(geometry.film_shape), "size": geometry.size, "warnings": list(prepared.warnings)}
    return {"image": prepared.image, "matrix": geometry.matrix}, meta


def unpack_prepared(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Prepared:
    """Build from what `pack_prepared` returned."""
    height, width = meta["shape"]
    geometry = Geometry(np.asarray(arrays["matrix"]), (height, width), meta["size"])
    return Prepared(np.asarray(arrays["image"]), geometry, tuple(meta["warnings"]))


def resize(pixels: Float32, size: int) -> Float32:
    """Stretch an image (H, W) or (H, W, 3) onto size x size: area average where it shrinks, linear where it grows."""
    import cv2

    if min(pixels.shape[:2]) >= 2 * size:  # the same averages, several times as fast
        return area_mean(pixels, size, size)
    shrinks = pixels.shape[0] > size or pixels.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=method), dtype=np.float32)
