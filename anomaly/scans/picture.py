"""What the readers of files hand to `read_scan`, and the rules that hold for every format."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from anomaly.errors import ScanError
from anomaly.records import Float32

MIN_SIDE = 16
"""The shortest side, in pixels, that can hold a radiograph."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Decoded pixels and the facts that may leave the reader.

    `pixels`: float32 (H, W) or (H, W, 3) RGB, in [0, 1], bone bright; `bits`: depth stored, 8 to 16;
    `patient`: hashed; `spacing_mm`: (row, column).
    """

    pixels: Float32
    bits: int
    facts: dict[str, str]
    warnings: tuple[str, ...] = ()
    patient: str | None = None
    view: str | None = None
    spacing_mm: tuple[float, float] | None = field(default=None)


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Refuse a picture by the size its header gives, before anything is decoded.

    Raises:
        ScanError: A side is under 16 pixels, or there are more pixels than the limit.
    """
    if min(width, height) < MIN_SIDE:
        raise ScanError(
            f"is too small to be a radiograph ({width} x {height} pixels, the least is {MIN_SIDE} x {MIN_SIDE}); "
            "remove it or use the original film"
        )
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise ScanError(
            f"is too large ({width} x {height} = {megapixels:.0f} megapixels, the limit is {max_megapixels:g}); "
            "make it smaller, or fit with a larger --set read.max_megapixels"
        )


def settle_colour(pixels: Float32, channels: int) -> tuple[Float32, tuple[str, ...]]:
    """Turn colour into what was asked for.

    Args:
        pixels: float32 (H, W), or (H, W, 3) RGB, in [0, 1].
        channels: 1 for grey (luminance of a real colour picture), 3 to keep real colour.

    Returns:
        float32 (H, W) if the three channels are equal or `channels` is 1, else (H, W, 3); and warnings.
    """
    if pixels.ndim == 2:
        return pixels, ()
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(red), ()
    if channels == 3:
        return pixels, ()
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # luminance, ITU-R BT.601
    return np.clip(grey, 0.0, 1.0).astype(np.float32), ("colour picture read as grey (luminance)",)
