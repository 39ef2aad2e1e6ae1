"""Where a normal chest holds air, read off the mean normal film: no mask, no labels, no other model.

On the mean of registered normal films the lungs are two dark basins closed in by chest wall, mediastinum and diaphragm,
while the dark around the body runs out over the film's edge. The depth of a basin is what filling it up takes:
morphological reconstruction by erosion from the frame (Vincent, IEEE Trans. Image Process. 2, 1993, section IV).
"""

from __future__ import annotations

import numpy as np

from anomaly.detectors.atlas.looks import Look
from anomaly.records import Float32

LOOK = Look(crop=1.0, tiles=8, clip=2.0, side=112)
"""How the mean film is taken: whole, and large enough for the walls between lungs and surround to hold."""

_FULL = 0.1  # of the deepest basin: from there on it is air for certain
_LEAST = 0.05  # of the range of grey: shallower basins are no lungs, and there is no air to be found
_SMOOTH, _RIM = 1.5, 0.03  # pixels before, and a share of the side after: diseases of the lung's edge belong to it


def air_of(mean: Float32) -> Float32:
    """Return where a film like this holds air.

    Args:
        mean: float32 (112, 112) in [0, 1], the mean over normal films as `LOOK` sees them.

    Returns:
        float32 (112, 112) in [0, 1]; 0 everywhere where no basin is deep enough. Lung behind the heart and below the
        domes of the diaphragm is not seen on the mean film, and not found here.
    """
    import cv2
    from skimage.morphology import reconstruction

    film = cv2.GaussianBlur(mean, (0, 0), _SMOOTH)
    flooded = np.full_like(film, film.max())
    flooded[[0, -1]], flooded[:, [0, -1]] = film[[0, -1]], film[:, [0, -1]]
    filled = reconstruction(flooded, film, method="erosion")  # type: ignore[no-untyped-call]
    depth = np.asarray(filled - film, dtype=np.float32)
    if depth.max() < _LEAST:
        return np.zeros_like(mean)
    sure = np.minimum(depth / (_FULL * depth.max()), 1.0)
    air: Float32 = np.clip(cv2.GaussianBlur(sure, (0, 0), _RIM * LOOK.side), 0.0, 1.0).astype(np.float32)
    return air
