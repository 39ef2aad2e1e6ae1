"""The exact way between prepared pixels and film pixels, for points and for maps."""

from __future__ import annotations

import numpy as np

from anomaly.records import Float32, Float64, Geometry


def resize_geometry(film_shape: tuple[int, int], size: int) -> Geometry:
    """Return the geometry of stretching a whole film (H, W) onto a size x size square.

    Pixel areas are kept aligned at the outer corners, as area resizing does: film = (prepared + 0.5) * W / S - 0.5.
    """
    height, width = film_shape
    sx, sy = width / size, height / size
    matrix = np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5], [0.0, 0.0, 1.0]])
    return Geometry(matrix, (int(height), int(width)), int(size))


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
        float32 (H, W), >= 0, cubic-interpolated; the film's edge repeats the map's edge.

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
    return np.maximum(film, 0.0).astype(np.float32)


def _transform(points: Float64, matrix: Float64) -> Float64:
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    return np.asarray((homogeneous @ matrix.T)[:, :2], dtype=np.float64)
