"""Terms that compare structure in a window: SSIM (Wang et al., Image Quality Assessment, IEEE TIP 2004).

The window is wide, a share of the film's width instead of the paper's 1.5 pixels: a diffuse opacity changes what a
window of several rib spaces holds, and a rib a pixel out of place hardly does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.term import Term
from anomaly.records import Float32

_C1 = (0.01 * 2.0) ** 2  # constants of the paper, for grey values that range over 2
_C2 = (0.03 * 2.0) ** 2
_TRUNCATE = 3.5  # in sigma: the window of scikit-image


@dataclass(frozen=True, slots=True)
class Ssim(Term):
    """1 - SSIM, Wang et al. eq. 13, of scan and twin."""

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) in [0, 2]."""
        return _dissimilarity(match, self.settings.window, luminance=True)


@dataclass(frozen=True, slots=True)
class ContrastStructure(Term):
    """1 - the contrast-structure factor of SSIM, (2 cov + C2) / (var_x + var_y + C2): SSIM blind to brightness."""

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) in [0, 2]."""
        return _dissimilarity(match, self.settings.window, luminance=False)


def _dissimilarity(match: Match, window: float, *, luminance: bool) -> Float32:
    """Return 1 - SSIM, or 1 - its contrast-structure factor, of channel means; windows take only what is film."""
    maps = np.empty(match.inside.shape, np.float32)
    pairs = zip(match.scan.mean(axis=1), match.twin.mean(axis=1), match.inside, strict=True)
    for row, (x, y, shown) in enumerate(pairs):
        mean = _window_mean(shown, window)
        mean_x, mean_y = mean(x), mean(y)
        variances = mean(x * x) - mean_x * mean_x + mean(y * y) - mean_y * mean_y
        likeness = (2.0 * (mean(x * y) - mean_x * mean_y) + _C2) / (variances + _C2)
        if luminance:
            grey_x, grey_y = mean_x + 1.0, mean_y + 1.0  # the factor is made for grey values from 0 up
            likeness *= (2.0 * grey_x * grey_y + _C1) / (grey_x * grey_x + grey_y * grey_y + _C1)
        maps[row] = 1.0 - likeness
    return match.masked(np.maximum(maps, np.float32(0.0)))  # rounding takes a perfect likeness a little above 1


def _window_mean(shown: NDArray[np.bool_], window: float) -> Callable[[Float32], Float32]:
    """Return what takes the mean of a picture (S, S) over the film in a Gaussian window around each pixel."""
    import cv2

    sigma = window * shown.shape[-1]
    side = 2 * int(_TRUNCATE * sigma + 0.5) + 1

    def spread(picture: Float32) -> Float32:
        blurred = cv2.GaussianBlur(picture, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, dtype=np.float32)

    if shown.all():
        return spread
    weight = shown.astype(np.float32)
    total: Float32 = np.maximum(spread(weight), np.float32(1e-3))
    return lambda picture: spread(picture * weight) / total
