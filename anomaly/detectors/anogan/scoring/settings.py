"""What the score terms can be told, all in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["positive", "absolute", "signed", "squared_positive"]
"""What of a residual in sigma counts: brighter than the twin, either way, brighter less darker, brighter squared."""


@dataclass(frozen=True, slots=True)
class TermSettings:
    """Settings of all terms; each takes those it needs.

    `residual_sigma`: Gaussian blur of the residual, a share of the width; 0 for none. `components`: of the normals'
    own residuals, projected out by `residual_pca`; at least 1. `window`: Gaussian width of local contrast and of SSIM,
    a share of the width. `floor`: added to each spread, in units of the mean spread. `exposure_limit`: films are
    compared with normal films exposed like them, up to so many standard deviations; 0: with all alike.
    """

    residual_sigma: float
    components: int
    direction: Direction
    window: float
    floor: float
    exposure_limit: float
