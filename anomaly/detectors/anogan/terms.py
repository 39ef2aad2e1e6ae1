"""What turns a scan and its normal twin into score terms and a map: one function, replaceable as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32


@dataclass(frozen=True, slots=True)
class Match:
    """Scans beside their twins, as the search leaves them.

    `scan`, `twin`: float32 (N, C, S, S) in [-1, 1]; `scan_features`, `twin_features`: float32 (N, F, h, w), the
    discriminator's intermediate representation of each. `inside`: bool (N, S, S), which pixels show film.
    """

    scan: Float32
    twin: Float32
    scan_features: Float32
    twin_features: Float32
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scored:
    """`scores` float32 (N,), `terms` name -> float32 (N,), `heatmaps` float32 (N, S, S) >= 0."""

    scores: Float32
    terms: dict[str, Float32]
    heatmaps: Float32


ScoringRule = Callable[[Match], Scored]


def schlegl_2017(match: Match, *, weight: float, residual_sigma: float) -> Scored:
    """Score as Schlegl et al. 2017, eq. 7: A(x) = (1 - lambda) R(x) + lambda D(x).

    R is the mean absolute difference per pixel, D the mean absolute difference per discriminator feature; means, not
    the paper's sums, so that the score does not grow with the image. The signed difference is blurred before its
    absolute value is taken, because the generator's pixel noise and slightly shifted ribs cancel under the blur and a
    diffuse opacity does not; the map is what R averages, over the film. Outside the film nothing differs.

    Args:
        match: Scans and twins.
        weight: lambda, 0.1 in the paper.
        residual_sigma: Gaussian blur of the difference, as a fraction of the width; 0 is the paper's.
    """
    from scipy.ndimage import gaussian_filter

    difference = np.where(match.inside[:, None], match.scan - match.twin, np.float32(0.0))
    sigma = residual_sigma * difference.shape[-1]
    if sigma > 0:
        difference = gaussian_filter(difference, sigma=(0, 0, sigma, sigma), mode="nearest")
    heatmaps = np.abs(difference).mean(axis=1)
    pixels = match.inside.sum(axis=(1, 2)).astype(np.float32)
    residual = np.where(match.inside, heatmaps, np.float32(0.0)).sum(axis=(1, 2)) / pixels
    discrimination = np.abs(match.scan_features - match.twin_features).mean(axis=(1, 2, 3))
    scores = (1.0 - weight) * residual + weight * discrimination
    terms = {"residual": residual, "discrimination": discrimination}
    return Scored(scores.astype(np.float32), {k: v.astype(np.float32) for k, v in terms.items()}, heatmaps)
