"""R and L letters, text and lead markers: small, bright, sharp marks near the edge of a film.

Candidates are what a white top-hat leaves, at several thresholds, because a letter that touches a shoulder at one
threshold stands alone at the next. A candidate is a mark if the film is dark nearly all around it and it rises within a
pixel: bone is as bright, but blurred, and goes on somewhere. Thresholds were settled by eye on films of 224 to 256 px,
so every film is looked at in a copy of that size, whatever its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, UInt8
from anomaly.scans.shrink import area_mean

WORK_SIDE = 256

_TOP_HAT = 0.09  # of the longer side; wider than the strokes of letters and the plates text is punched from
_LEVELS = (0.12, 0.18, 0.27, 0.4)
_LENGTH = (0.018, 0.2)  # of the longer side: from a single letter to a line of text
_WIDEST = 0.12  # of the longer side, the shorter way: a plate with two lines
_SIDES, _TOP, _BOTTOM = 0.22, 0.14, 0.07  # where marks lie; lungs and devices lie further in
_SLIMMEST = 6.0  # length over width: longer are wires and the edges of arms
_SLIM = 2.6
_FAINTEST, _FAINT = 0.18, 0.3
_SHARP = 0.4  # rise in one pixel over the whole contrast: 0.43 to 0.9 at letters, 0.25 to 0.38 where ribs cross
_DARK_AROUND, _DARK_BESIDE = 0.9, 0.72  # share of the ring that is background: a letter, a plate beside another
_CLEAR, _CLEARER = 2.2, 4.5  # contrast over the ring's own spread; more is asked of what is faint or slim
_ALONE, _ALONE_SHARP = 8.0, 0.3  # on an even background a blurred letter is one too
_WHITE, _WHITE_CONTRAST = 0.97, 0.35
_NEAR, _FAR = 3, 9  # the ring lies outside the one dilation and inside the other; pixels
_MARGIN = 5  # dilation of the mask: two pixels of blur around a letter


def small_copy(pixels: Float32) -> Float32:
    """Return a film, float32 (H, W[, 3]), area-averaged until its longer side is at most `WORK_SIDE`."""
    height, width = pixels.shape[:2]
    scale = WORK_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    return area_mean(pixels, max(1, round(height * scale)), max(1, round(width * scale)))


def find_markers(pixels: Float32) -> NDArray[np.bool_]:
    """Find burnt-in marks near the edge of a film.

    Args:
        pixels: float32 (H, W) or (H, W, 3), in [0, 1], bone bright.

    Returns:
        bool (H, W): the marks, their holes, and a margin of about a hundredth of the longer side.
    """
    return enlarged(markers_of(small_copy(pixels)), (pixels.shape[0], pixels.shape[1]))


def markers_of(small: Float32) -> UInt8:
    """Find marks in a `small_copy`, float32 (h, w) or (h, w, 3): uint8 (h, w), 1 where there is one."""
    import cv2

    small = small if small.ndim == 2 else np.asarray(small.mean(axis=2), dtype=np.float32)
    reach = max(1, round(_TOP_HAT * max(small.shape)) // 2)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach + 1, 2 * reach + 1))
    levels = np.rint(small * 255).astype(np.uint8)  # eight times as fast as floats, and fine enough to find by
    padded = cv2.copyMakeBorder(levels, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    raised = cv2.morphologyEx(padded, cv2.MORPH_TOPHAT, kernel)[reach:-reach, reach:-reach]
    found = np.zeros(small.shape, dtype=np.uint8)
    for level in _LEVELS:
        joined = cv2.morphologyEx((raised > level * 255).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        _, labels, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8, ltype=cv2.CV_16U)
        for index in _candidates(np.asarray(boxes, dtype=np.int32), small.shape):
            x, y, w, h = (int(value) for value in boxes[index, :4])
            cut = (slice(max(0, y - _FAR), y + h + _FAR), slice(max(0, x - _FAR), x + w + _FAR))
            mark = (labels[cut] == index).astype(np.uint8)
            if raised[cut][mark > 0].max() < _FAINTEST * 255:
                continue
            if not found[cut][mark > 0].all() and _is_mark(small[cut], mark):
                found[cut] |= mark
    outlines, _ = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(found, outlines, -1, color=1, thickness=cv2.FILLED)
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_MARGIN, _MARGIN))
    return np.asarray(cv2.dilate(found, margin), dtype=np.uint8)


def enlarged(mask: UInt8, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Bring a mask of `markers_of` onto a film (H, W): bool (H, W)."""
    import cv2

    return np.asarray(cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST) > 0)


def _candidates(boxes: NDArray[np.int32], shape: tuple[int, ...]) -> list[int]:
    """Return which boxes (x, y, w, h, area) are of a mark's size and lie where marks lie; box 0 is the rest."""
    height, width = shape
    side = max(height, width)
    x, y, w, h = boxes[:, :4].T
    longer, shorter = np.maximum(w, h), np.minimum(w, h)
    right_size = (longer >= _LENGTH[0] * side) & (longer <= _LENGTH[1] * side) & (shorter <= _WIDEST * side)
    edges = (x == 0).astype(int) + (y == 0) + (x + w == width) + (y + h == height)  # two: a frame's or wedge's corner
    across, down = (x + w / 2) / width, (y + h / 2) / height
    outside = (np.minimum(across, 1 - across) < _SIDES) | (down < _TOP) | (down > 1 - _BOTTOM)
    return [int(index) for index in np.flatnonzero(right_size & (edges < 2) & outside) if index > 0]


def _is_mark(film: Float32, mark: UInt8) -> bool:
    """Judge one candidate by how it stands out, in a cut-out of the film around it."""
    import cv2

    near, far = (cv2.dilate(mark, np.ones((size, size), np.uint8)) > 0 for size in (_NEAR, _FAR))
    ring = np.sort(film[far & ~near])
    if ring.size < 8:
        return False
    top, background = _at(np.sort(film[mark > 0]), 0.9), _at(ring, 0.5)
    contrast = top - background
    dark = float(np.searchsorted(ring, background + 0.45 * contrast)) / ring.size
    if contrast < _FAINTEST or dark <= _DARK_BESIDE:
        return False
    spread = float(ring[: int(0.9 * ring.size)].std()) + 0.02  # a level or two of noise is no background
    alone = contrast > _ALONE * spread and dark > _DARK_AROUND
    across, down = (cv2.Sobel(film, cv2.CV_32F, dx, 1 - dx, ksize=1, scale=0.5) for dx in (1, 0))
    rise = _at(np.sort(np.hypot(across, down)[near]), 0.75)
    if rise < (_ALONE_SHARP if alone else _SHARP) * contrast:
        return False
    sides = cv2.minAreaRect(np.argwhere(mark).astype(np.float32))[1]
    slimness = (max(sides) + 1) / (min(sides) + 1)
    if slimness > _SLIMMEST:
        return False
    clear = _CLEARER if slimness > _SLIM or contrast < _FAINT else _CLEAR
    if dark > _DARK_AROUND and contrast > clear * spread:
        return True
    return top > _WHITE and contrast > _WHITE_CONTRAST


def _at(ascending: Float32, share: float) -> float:
    """Return a quantile of sorted values, without numpy's fifty microseconds."""
    return float(ascending[round(share * (len(ascending) - 1))])
