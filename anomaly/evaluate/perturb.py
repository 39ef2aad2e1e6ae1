"""Films without their shortcuts, for benchmarks: sharpness drawn by lot, borders and markers gone, lungs alone.

A detector is scored on the changed films as it is: what AUROC is lost was read off what is gone. Each function takes
and returns a film, float32 (H, W) in [0, 1], and leaves its argument alone. They come before the preparation, but for
`mask_outside`, which takes a prepared (registered) film and its mask: a film of bare lungs cannot be registered.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError
from anomaly.prepare.markers import inpaint_markers
from anomaly.records import Float32
from anomaly.scans.borders import Box, find_borders, whole

MOST_BLUR = 1.5
"""Greatest sigma of the blur, in pixels of a film whose longer side is 224."""

QUALITIES = (30, 90)
"""Range of the JPEG quality, both ends included."""

_SIDE = 224
_RIM = 0.05  # of the shorter side: where frames, text and collimation lie
_FALL = 3.0  # of the weight with distance: far pixels fade, so the fill is smooth and joins the edge


def film_rng(scan_id: str, seed: int = 0) -> np.random.Generator:
    """Return a film's own random numbers, so that its change does not depend on the other films or their order."""
    digest = hashlib.sha256(f"{seed}:{scan_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def randomise_sharpness(pixels: Float32, rng: np.random.Generator) -> Float32:
    """Blur a film or store it as JPEG, by equal chance and to a random degree.

    Sharpness and the size of the file then tell films apart by lot as well as by class: what they tell by class is
    weakened, not gone. The blur is scaled to the film, the JPEG is not: on films much larger than 224 it does little.

    Args:
        pixels: float32 (H, W) in [0, 1].
        rng: of `film_rng`.

    Raises:
        DataError: another shape, or values outside [0, 1].
    """
    import cv2

    film = _film(pixels)
    if rng.random() < 0.5:
        sigma = rng.uniform(0.0, MOST_BLUR) * max(film.shape) / _SIDE
        soft = cv2.GaussianBlur(film, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) if sigma > 0 else film.copy()
        return np.clip(soft, 0.0, 1.0).astype(np.float32)
    quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
    levels = np.rint(film * 255.0).astype(np.uint8)
    done, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"pixels {film.shape} are more than a JPEG can hold")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), dtype=np.float32) / np.float32(255.0)


def mask_borders_and_markers(pixels: Float32) -> Float32:
    """Paint over markers, and carry the film outwards over its borders and over the outer 5 % of every side.

    Args:
        pixels: float32 (H, W) in [0, 1].

    Returns:
        float32 (H, W): what lay outside repeats the nearest line that is kept.

    Raises:
        DataError: another shape, or values outside [0, 1].
    """
    import cv2

    film = inpaint_markers(_film(pixels))
    height, width = film.shape
    field = find_borders(film) or whole(film)
    rim = max(1, round(_RIM * min(height, width)))
    kept = Box(
        max(field.top, rim), min(field.bottom, height - rim), max(field.left, rim), min(field.right, width - rim)
    )
    sides = (kept.top, height - kept.bottom, kept.left, width - kept.right)
    return np.asarray(cv2.copyMakeBorder(kept.cut(film), *sides, cv2.BORDER_REPLICATE), dtype=np.float32)


def mask_outside(pixels: Float32, mask: NDArray[Any]) -> Float32:
    """Replace everything outside a mask by what the pixels inside would be if they went on.

    Each pixel outside becomes the mean of those inside, weighed by distance to the power of -3 (Shepard, ACM National
    Conference 1968): close to the edge of the mask it equals the nearest pixels, far away their mean. So the mask
    leaves no step, which a flat fill would, and a detector would see the outline of the lungs in it.

    Args:
        pixels: float32 (H, W) in [0, 1].
        mask: bool or 0/1 (H, W), at least one pixel set: what to keep, such as the lungs.

    Returns:
        float32 (H, W), equal to `pixels` inside.

    Raises:
        DataError: shapes differ, values are not as above, or the mask is empty.
    """
    from scipy.signal import fftconvolve

    film, inside = _film(pixels), np.asarray(mask)
    if inside.shape != film.shape or not np.isin(inside, (0, 1)).all() or not inside.any():
        raise DataError(f"mask {inside.shape} must hold 0 and 1 on the film's grid {film.shape}, and not 0 alone")
    inside = inside.astype(np.bool_)
    down, across = (np.arange(1 - side, side, dtype=np.float64) for side in film.shape)
    distance = np.hypot(down[:, None], across)
    distance[film.shape[0] - 1, film.shape[1] - 1] = 1.0  # of a pixel to itself; never asked of one outside
    weights = distance**-_FALL
    total = fftconvolve(inside.astype(np.float64), weights, mode="same")
    filled = fftconvolve(np.where(inside, film, 0.0).astype(np.float64), weights, mode="same") / total
    low, high = film[inside].min(), film[inside].max()
    return np.where(inside, film, np.clip(filled, low, high)).astype(np.float32)


def _film(pixels: Float32) -> Float32:
    film = np.asarray(pixels)
    if film.ndim != 2 or film.dtype != np.float32 or min(film.shape) < 8:
        raise DataError(f"pixels {film.shape} {film.dtype} must be float32 (H, W) of at least 8 x 8")
    if not (film.min() >= 0.0 and film.max() <= 1.0):  # false for NaN too
        raise DataError("pixels must lie in [0, 1]")
    return film
