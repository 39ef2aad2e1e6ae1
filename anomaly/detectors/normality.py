"""What is normal of a number at each pixel, and how far a film lies from it.

What is normal at a place depends on how a film was exposed, and equalising does not take all of that away. So each
pixel's normal value is a line over the film's exposure (two numbers, its brightness and its contrast), fitted to
normals, and its spread is what normals differ by around that line: a film is compared with normal films exposed like
it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Int64

LEAST = 1e-4
"""Of the range of grey: a spread below what 8 bits can tell."""
ROWS = 4
"""How many numbers are known of a pixel: its value at mean exposure, two slopes, its spread."""


def blur(films: Float32, share: float) -> Float32:
    """Blur each film (N, side, side) by a Gaussian of this share of the side; 0 leaves it as it is."""
    import cv2

    if share == 0:
        return films
    sigma = share * films.shape[-1]
    return np.stack([cv2.GaussianBlur(film, (0, 0), sigma) for film in films])


def local_contrast(films: Float32, share: float, shown: NDArray[np.bool_] | None = None) -> Float32:
    """Return the standard deviation of each film in a Gaussian window around each pixel: (N, side, side).

    Where `shown`, bool (N, side, side), says that not all of it is film, the window takes only what is: the border
    repeated outside has no contrast of its own.
    """
    mean, square = blur(films, share), blur(films * films, share)
    masked = [] if shown is None else np.flatnonzero(~shown.all(axis=(1, 2))).tolist()
    for n in masked:  # film by film, so that a film's answer is the same among any others
        film, weight = films[n : n + 1], shown[n : n + 1].astype(np.float32)  # type: ignore[index]
        total: Float32 = np.maximum(blur(weight, share), np.float32(1e-3))
        mean[n], square[n] = (blur(part * weight, share)[0] / total[0] for part in (film, film * film))
    return np.sqrt(np.maximum(square - mean * mean, np.float32(0.0)))


def known_exposure(exposure: Float32) -> Float32:
    """Return mean and standard deviation of the exposure of normal films: float32 (N, 2) -> float32 (2, 2)."""
    return np.stack([exposure.mean(axis=0), np.maximum(exposure.std(axis=0), LEAST)])


def standard(exposure: Float32, known: Float32, limit: float) -> Float32:
    """Return exposure, (N, 2), in standard deviations of that of normal films, float32 (N, 2) within the limit."""
    return np.asarray(np.clip((exposure - known[0]) / known[1], -limit, limit), dtype=np.float32)


def fit_normal(values: Float32, at: Float32, floor: float) -> Float32:
    """Return what each pixel is on normal films: (N, side, side) at exposures (N, 2) -> float32 (4, P).

    `floor` is added to each spread, in units of its mean, so that no pixel counts without bound.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    design = np.column_stack([np.ones(len(at)), at])
    lines = np.linalg.pinv(design) @ flat
    deviation = (flat - design @ lines).std(axis=0)
    spread = np.maximum(deviation + floor * deviation.mean(), LEAST)
    return np.concatenate([lines, spread[None]]).astype(np.float32)


def deviations(values: Float32, at: Float32, known: Float32) -> Float32:
    """Return (N, side, side) at exposures (N, 2) in standard deviations of what `fit_normal` returned, (4, P)."""
    usual = known[0] + at[:, :1] * known[1] + at[:, 1:] * known[2]
    z = (values.reshape(len(values), -1) - usual) / known[3]
    return np.asarray(z.reshape(values.shape), dtype=np.float32)


def patient_folds(groups: Int64, count: int, seed: int) -> Int64:
    """Deal whole patients into `count` folds at random: int64 (N,) groups -> int64 (N,) in 0..count-1."""
    patients, which = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(patients)) % count
    return np.asarray(dealt[which], dtype=np.int64)
