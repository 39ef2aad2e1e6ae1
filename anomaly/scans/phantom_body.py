"""One imaginary patient as numbers drawn at random, and the small tools that turn numbers into maps.

Lengths are millimetres. x grows to the right of the film (the patient's left), y downwards from the lung
apices, z from back to front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32

Real = NDArray[np.floating[Any]]

RIGHT, LEFT = -1.0, 1.0
"""The patient's sides, as the sign of x on the film."""


@dataclass(frozen=True, slots=True)
class Body:
    """One patient's measures in mm (angles in radians), all drawn by `draw_body`."""

    lung_height: float  # apex to the top of the right dome: how deep the patient breathed in
    half_width: float  # inner chest wall, at its widest
    half_depth: float  # inner chest, back to front
    bell: float  # how fast the chest widens below the apex
    wall: float  # ribs, muscle and fat outside the lungs
    fat: float  # further soft tissue in front and behind
    left_dome: float  # how much lower the left dome stands
    dome_drop: float  # lateral fall of the domes into the costophrenic angles
    heart: float  # scale of the heart
    heart_left: float  # how much of the heart lies to the left, against the mean
    knob: float  # radius of the aortic arch
    rib_slope: float  # fall of a rib from its back to its front end, as a share of the mean
    rib_size: float
    bone: float  # mineral density, as a share of the mean
    breast: float  # thickness of breast tissue, 0 for none
    breast_y: float
    arms: float  # how far the arms are held from the trunk
    shoulders: float  # height of the shoulders relative to the apices
    yaw: float  # rotation about the long axis
    air: float  # share of the lung that is air


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels of the anatomy's canvas: `x` float32 (1, W) and `y` float32 (H, 1) are pixel centres in mm."""

    x: Float32
    y: Float32
    spacing: float

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.y.shape[0], self.x.shape[1]


def draw_body(rng: np.random.Generator) -> Body:
    """Draw one adult patient; spreads are moderate so that about a thousand films show what is normal."""

    def around(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2.2, 2.2))

    build = around(0.0, 1.0)  # a big patient is big in every direction
    woman = rng.random() < 0.5
    return Body(
        lung_height=around(216 + 6 * build - 8 * woman, 12),
        half_width=around(133 + 4 * build - 6 * woman, 5),
        half_depth=around(84 + 4 * build, 5),
        bell=around(2.75, 0.22),
        wall=around(20 + 4 * build, 3),
        fat=float(np.clip(around(22 + 7 * build, 5), 8, 60)),
        left_dome=around(11, 5),
        dome_drop=around(34, 6),
        heart=around(1.0, 0.075),
        heart_left=around(0.0, 0.045),
        knob=around(16.5, 2),
        rib_slope=around(1.0, 0.12),
        rib_size=around(1.0, 0.08),
        bone=around(1.0, 0.12),
        breast=around(40, 10) if woman else 0.0,
        breast_y=around(0.75, 0.05),
        arms=around(0.0, 12.0),
        shoulders=around(0.0, 8.0),
        yaw=around(0.0, 0.035),
        air=around(0.74, 0.025),
    )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Float32:
    """Random field, float32 `shape`, mean about 0 and deviation 0.5 to 1, with features `scale` pixels wide."""
    import cv2

    rows, columns = (max(4, int(np.ceil(n / scale)) + 3) for n in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def soften(image: Float32, sigma: float) -> Float32:
    """Gaussian blur of float32 (H, W) by `sigma` pixels, on a coarser copy where that makes no difference."""
    import cv2

    step = int(sigma / 3)
    if step < 2:
        blurred = cv2.GaussianBlur(image, (0, 0), max(sigma, 0.15), borderType=cv2.BORDER_REPLICATE)
        return np.asarray(blurred, np.float32)
    h, w = image.shape
    small = cv2.resize(image, (max(1, w // step), max(1, h // step)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / step, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)


def chest_half_width(body: Body, y: Float32) -> Float32:
    """Inner half-width of the chest at heights `y` (any shape, mm): 0 above the apices, bell-shaped below."""
    u = np.clip((y + 2) / (0.78 * body.lung_height), 0, 1)
    width = body.half_width * (1 - (1 - u) ** body.bell) ** 0.53
    flare = 1 + 0.03 * np.clip((y - 0.75 * body.lung_height) / body.lung_height, 0, 1)
    return np.asarray(width * flare, np.float32)


def dome_height(body: Body, side: float, x: Float32) -> Float32:
    """Height y of the diaphragm's silhouette at `x` (mm, any shape) on one side."""
    out = side * x
    centre = 0.47 * body.half_width
    lateral = np.clip((out - centre) / (body.half_width - centre), 0, 1.2)
    medial = np.clip((centre - out) / centre, 0, 1.5)
    top = body.lung_height + (body.left_dome if side == LEFT else 0.0)
    return np.asarray(top + body.dome_drop * lateral**2.1 + (12 if side == RIGHT else 7) * medial**2, np.float32)


def disc(q: Real) -> Float32:
    """Depth of a unit ball's slice: sqrt(1 - q) where q < 1, else 0."""
    return np.asarray(np.sqrt(np.maximum(1 - q, 0)), np.float32)


def boxy(u: Real, share: float = 1.0) -> Float32:
    """`share` of u^4 and the rest of u^2, any shape: the flatter side of a superellipse (** 4 itself is slow)."""
    square = u * u
    return np.asarray(square * (share * square + (1 - share)), np.float32)


def ramp(u: Real) -> Float32:
    """Smooth step from 0 at u = 0 to 1 at u = 1, any shape."""
    v = np.clip(u, 0, 1)
    return np.asarray(v * v * (3 - 2 * v), np.float32)


def oval(grid: Grid, x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Float32:
    """Depth profile in [0, 1], float32 (H, W), of an ellipsoid with semi-axes rx, ry turned by `tilt`."""
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    dx, dy = grid.x - np.float32(x), grid.y - np.float32(y)
    return disc(((c * dx + s * dy) / rx) ** 2 + ((c * dy - s * dx) / ry) ** 2)


def splat(grid: Grid, x: Float32, y: Float32, mass: Float32) -> Float32:
    """Sum point masses (mm^3, any shape) at x, y (mm) into depth per pixel (mm), float32 (H, W), bilinearly."""
    h, w = grid.shape
    column = (np.ravel(x) - grid.x[0, 0]) / np.float32(grid.spacing)
    row = (np.ravel(y) - grid.y[0, 0]) / np.float32(grid.spacing)
    keep = (column >= 0) & (column < w - 1) & (row >= 0) & (row < h - 1)
    column, row, weight = column[keep], row[keep], np.ravel(mass)[keep]
    left, up = column.astype(np.int64), row.astype(np.int64)
    fx, fy = (column - left).astype(np.float32), (row - up).astype(np.float32)
    corner = up * w + left
    at = np.concatenate([corner, corner + 1, corner + w, corner + w + 1])
    share = np.concatenate([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    total = np.bincount(at, weights=np.tile(weight, 4) * share, minlength=h * w)
    return (total.reshape(h, w) / grid.spacing**2).astype(np.float32)
