"""One-number baselines of a film that look at no anatomy: what any detector has to beat.

On public chest X-ray sets softness, borders or even the size of the file tell the classes apart, because normal
and abnormal films were acquired and stored differently (DeGrave et al., Nature Machine Intelligence 3, 2021).
A detector's AUROC is printed beside these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError
from anomaly.evaluate.metrics import auroc
from anomaly.records import Float64

SHARPNESS_SIDE = 256
_BLACK = 0.02  # about 5 of 255: the collimated, unexposed surround
_BORDER = 0.05  # of the shorter side


def trivial_statistics(pixels: NDArray[np.floating], file_size: int) -> dict[str, float]:
    """Describe a film by numbers that know nothing of chests.

    Args:
        pixels: float (H, W) or (H, W, 3), in [0, 1]; the mean of the channels stands for a colour picture.
        file_size: bytes on disk.

    Returns:
        mean, std; sharpness (variance of the Laplacian on a copy whose longer side was area-resized to 256; a
        smaller picture is taken as it is); black_fraction (pixels <= 0.02); border_brightness (mean of the outer
        5 %); file_size, width, height, aspect (width / height). All finite.

    Raises:
        DataError: pixels of another shape, not finite, or smaller than 3 x 3.
    """
    grey = np.asarray(pixels)
    if grey.ndim == 3 and grey.shape[2] == 3:
        grey = grey.mean(axis=2)
    if grey.ndim != 2 or min(grey.shape) < 3 or not np.isfinite(grey).all():
        raise DataError(f"pixels {np.shape(pixels)} must be a finite (H, W) or (H, W, 3) picture of at least 3 x 3")
    grey = grey.astype(np.float64)
    height, width = grey.shape
    rim = max(1, round(_BORDER * min(height, width)))
    inner = grey[rim:-rim, rim:-rim]
    return {
        "mean": float(grey.mean()),
        "std": float(grey.std()),
        "sharpness": _sharpness(grey),
        "black_fraction": float(np.mean(grey <= _BLACK)),
        "border_brightness": float((grey.sum() - inner.sum()) / (grey.size - inner.size)),
        "file_size": float(file_size),
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
    }


def directed_auroc(labels: ArrayLike, values: ArrayLike) -> tuple[float, str]:
    """AUROC of a number that has no sign of its own: max(a, 1 - a), and which way abnormal films lie.

    The direction ("higher" or "lower") is chosen by these labels, which FLATTERS the baseline: its chance level is
    a little above 0.5 and it never falls below. A detector, whose direction is fixed beforehand, gets no such help.

    Args:
        labels: (N,), 0 or 1.
        values: (N,), finite.

    Raises:
        DataError: as `metrics.check`.
    """
    area = auroc(labels, values)
    return (area, "higher") if area >= 0.5 else (1.0 - area, "lower")


def _sharpness(grey: Float64) -> float:
    from scipy.ndimage import laplace

    scale = SHARPNESS_SIDE / max(grey.shape)
    if scale < 1:
        from skimage.transform import resize_local_mean

        shape = tuple(max(1, round(side * scale)) for side in grey.shape)
        grey = resize_local_mean(grey, shape)  # type: ignore[no-untyped-call]
    return float(np.var(laplace(grey, mode="nearest")))
