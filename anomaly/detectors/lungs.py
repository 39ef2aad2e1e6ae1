"""Where a normal chest holds air, read off the mean normal film: no mask, no labels, no other model.

On the mean of registered normal films the lungs are two dark basins closed in by chest wall, mediastinum and diaphragm,
while the dark around the body runs out over the film's edge. The depth of a basin is what filling it up takes:
morphological reconstruction by erosion from the frame (Vincent, IEEE Trans. Image Process. 2, 1993, section IV).
"""

from __future__ import annotations

import numpy as np

from anomaly.records import Float32

FEWEST = 32
"""Pixels a side: on fewer the walls between lungs and surround do not hold."""
_FULL = 0.1  # of the deepest basin: from there on it is air for certain
_LEAST = 0.05  # of the range of grey: shallower basins are no lungs, and there is no air to be found
_SIDED = 0.2  # of the air, at the least, lies in either half of the film
_SMOOTH, _RIM = 1.5 / 112, 0.03  # shares of the side, before and after: diseases of the lung's edge belong to it


def air_of(mean: Float32) -> Float32:
    """Return where a film like this holds air.

    Films may be cropped as long as the chest wall stays in sight at both sides (on two real sets down to the middle 0.8
    of the side): a lung that reaches the frame is taken for surround; see `doubt_of`.

    Args:
        mean: float32 (K, K) in [0, 1], K >= 32, the mean over normal films after CLAHE.

    Returns:
        float32 (K, K) in [0, 1]; 0 everywhere where no basin is deep enough. Lung behind the heart and below the
        domes of the diaphragm is not seen on the mean film, and not found here.

    Raises:
        ValueError: The film is not square, or too small.
    """
    import cv2
    from skimage.morphology import reconstruction

    side = len(mean)
    if mean.shape != (side, side) or side < FEWEST:
        raise ValueError(f"a mean film of {mean.shape}, not a square of at least {FEWEST} pixels a side")
    film = cv2.GaussianBlur(mean, (0, 0), _SMOOTH * side)
    flooded = np.full_like(film, film.max())
    flooded[[0, -1]], flooded[:, [0, -1]] = film[[0, -1]], film[:, [0, -1]]
    filled = reconstruction(flooded, film, method="erosion")  # type: ignore[no-untyped-call]
    depth = np.asarray(filled - film, dtype=np.float32)
    if depth.max() < _LEAST:
        return np.zeros_like(mean)
    sure = np.minimum(depth / (_FULL * depth.max()), 1.0)
    air: Float32 = np.clip(cv2.GaussianBlur(sure, (0, 0), _RIM * side), 0.0, 1.0).astype(np.float32)
    return air


def doubt_of(air: Float32) -> str | None:
    """Return in words why what `air_of` found cannot be both lungs, or None.

    Args:
        air: float32 (K, K) in [0, 1].
    """
    total = float(air.sum(dtype=np.float64))
    if total == 0.0:
        return "no lungs were found on the mean normal film"
    middle = len(air) // 2
    halves = {"left": air[:, :middle], "right": air[:, middle:]}
    for side, half in halves.items():
        if float(half.sum(dtype=np.float64)) < _SIDED * total:
            return f"no lung was found in the {side} half of the mean normal film, where it may reach the film's edge"
    return None
