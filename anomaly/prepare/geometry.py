"""The exact way between prepared pixels and film pixels, for points and for maps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Float64, Geometry
from anomaly.scans.borders import Box

_ROUNDING = 1e-6  # prepared pixels: what arithmetic may push the film's outermost centres out


def resize_geometry(film_shape: tuple[int, int], size: int) -> Geometry:
    """Return the geometry of stretching a whole film (H, W) onto a size x size square.

    Pixel areas are kept aligned at the outer corners, as area resizing does: film = (prepared + 0.5) * W / S - 0.5.
    """
    height, width = film_shape
    sx, sy = width / size, height / size
    matrix = np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5], [0.0, 0.0, 1.0]])
    return Geometry(matrix, (int(height), int(width)), int(size))


def crop_geometry(film_shape: tuple[int, int], box: Box, size: int) -> Geometry:
    """Return the geometry of stretching a part of a film (H, W) onto a size x size square."""
    matrix = resize_geometry((box.bottom - box.top, box.right - box.left), size).matrix
    matrix[:2, 2] += (box.left, box.top)
    return Geometry(matrix, (int(film_shape[0]), int(film_shape[1])), int(size))


def to_film_points(points: Float64, geometry: Geometry) -> Float64:
    """Map prepared (x, y) points, float64 (N, 2), to film coordinates, float64 (N, 2)."""
    return _transform(points, geometry.matrix)


def to_prepared_points(points: Float64, geometry: Geometry) -> Float64:
    """Map film (x, y) points, float64 (N, 2), to prepared coordinates, float64 (N, 2)."""
    return _transform(points, np.asarray(np.linalg.inv(geometry.matrix), dtype=np.float64))


def on_shape(geometry: Geometry, shape: tuple[int, int]) -> Geometry:
    """Return the geometry as seen from a copy of the film stretched to another `shape` (H, W)."""
    back = resize_geometry(geometry.film_shape, 1).matrix  # unit square -> film
    unit = resize_geometry(shape, 1).matrix  # unit square -> copy
    return Geometry(unit @ np.linalg.inv(back) @ geometry.matrix, shape, geometry.size)


def to_film(heatmap: Float32, geometry: Geometry) -> Float32:
    """Bring a map back onto the film.

    Args:
        heatmap: float32 (S, S), >= 0, on the prepared square.
        geometry: The way back, of that scan.

    Returns:
        float32 (H, W), >= 0, cubic-interpolated; the film's edge repeats the map's edge. 0 where the film lies
        outside the square: what was cropped away was not looked at.

    Raises:
        ValueError: The map is not of the geometry's size.
    """
    import cv2

    if heatmap.shape != (geometry.size, geometry.size):
        raise ValueError(f"a map of shape {heatmap.shape} does not fit a geometry of size {geometry.size}")
    height, width = geometry.film_shape
    film = cv2.warpAffine(
        np.ascontiguousarray(heatmap, dtype=np.float32),
        np.linalg.inv(geometry.matrix)[:2],
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    heat = np.maximum(film, 0.0).astype(np.float32)
    if not _covers(geometry):
        heat[~_seen(geometry)] = 0.0
    return heat


def mask_to_square(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Bring a mask drawn on a film onto the prepared square.

    Args:
        mask: bool (H, W), on the film.
        geometry: Of the film as it was prepared.

    Returns:
        bool (S, S): a pixel of the square is inside where the mask covers half of it, or more. What of the square lies
        beyond the film goes by the film's border, as the picture does.

    Raises:
        ValueError: The mask is not of the film's size.
    """
    import cv2

    if mask.shape != geometry.film_shape:
        raise ValueError(f"a mask of shape {mask.shape} does not fit a film of {geometry.film_shape}")
    fine = max(1, math.ceil(float(np.linalg.norm(geometry.matrix[:2, :2], 2)) - _ROUNDING))
    side = geometry.size * fine  # so fine a grid that no film pixel is passed over
    step = np.array([[1.0, 0.0, 0.5 - 0.5 * fine], [0.0, 1.0, 0.5 - 0.5 * fine], [0.0, 0.0, fine]]) / fine
    drawn = cv2.warpAffine(
        mask.astype(np.float32),
        (geometry.matrix @ step)[:2],
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    covered = drawn.reshape(geometry.size, fine, geometry.size, fine).mean(axis=(1, 3), dtype=np.float64)
    return np.asarray(covered >= 0.5 - _ROUNDING, dtype=np.bool_)


def _covers(geometry: Geometry) -> bool:
    """Return whether the whole film lies on the square; it does where its corners do, the way being affine."""
    height, width = geometry.film_shape
    corners = np.array([[x, y] for x in (0.0, width - 1.0) for y in (0.0, height - 1.0)])
    low, high = _span(geometry)
    places = to_prepared_points(corners, geometry)
    return bool(np.all((places >= low) & (places <= high)))


def _seen(geometry: Geometry) -> NDArray[np.bool_]:
    """Return which film pixels have their centre on the square: bool (H, W)."""
    height, width = geometry.film_shape
    across, down = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None]
    low, high = _span(geometry)
    seen = np.ones(geometry.film_shape, dtype=np.bool_)
    for row in np.linalg.inv(geometry.matrix)[:2]:
        place = row[0] * across + row[1] * down + row[2]
        seen &= (place >= low) & (place <= high)
    return seen


def _span(geometry: Geometry) -> tuple[float, float]:
    """Return where the square begins and ends, in prepared coordinates."""
    return -0.5 - _ROUNDING, geometry.size - 0.5 + _ROUNDING


def _transform(points: Float64, matrix: Float64) -> Float64:
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    return np.asarray((homogeneous @ matrix.T)[:, :2], dtype=np.float64)
