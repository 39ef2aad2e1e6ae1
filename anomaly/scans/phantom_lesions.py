"""Lesions for phantoms: soft tissue or fluid that takes the place of air in the lungs.

Contrast is fixed by physics and by eye, once: a nodule is a ball of tissue as deep as it is wide, an effusion
fills the depth of lung it displaces, a consolidation adds 10-25 % of the lung-mediastinum difference.
No detector was run to choose any number here.
"""

from __future__ import annotations

import numpy as np

from anomaly.records import Float32
from anomaly.scans.phantom_anatomy import Chest
from anomaly.scans.phantom_body import LEFT, RIGHT, Body, Grid, chest_half_width, dome_height, smooth_noise, soften

LESIONS = ("consolidation", "nodule", "effusion")
SHARES = (0.6, 0.2, 0.2)
MASK_SHARE = 0.25
"""A pixel belongs to the lesion's mask where it adds more than this share of the lesion's peak."""


def build_lesion(kind: str, body: Body, grid: Grid, chest: Chest, full: float, rng: np.random.Generator) -> Float32:
    """Draw one lesion.

    Args:
        kind: One of `LESIONS`.
        body: The patient.
        grid: The canvas, H by W pixels.
        chest: The patient's maps on that canvas.
        full: Soft tissue that would make lung look like mediastinum on this film, mm.
        rng: The lesion's own source of randomness.

    Returns:
        Water-equivalent tissue added along the beam, float32 (H, W), mm, >= 0.
    """
    if kind == "consolidation":
        return _consolidation(body, grid, chest, full, rng)
    if kind == "nodule":
        return _nodule(body, grid, chest, rng)
    return _effusion(body, grid, chest, rng)


def _site(chest: Chest, grid: Grid, rng: np.random.Generator, margin: float) -> tuple[float, float]:
    """A point (x, y) in mm, drawn evenly from the lung at least about `margin` mm inside its outline."""
    inside = soften(chest.lung.astype(np.float32), margin / grid.spacing) > 0.8
    rows, columns = np.nonzero(inside if inside.any() else chest.lung)
    pick = int(rng.integers(rows.size))
    return float(grid.x[0, columns[pick]]), float(grid.y[rows[pick], 0])


def _consolidation(body: Body, grid: Grid, chest: Chest, full: float, rng: np.random.Generator) -> Float32:
    """A cloudy patch, as wide as a segment or a lobe, with ragged soft edges and clearer spots within."""
    x, y = _site(chest, grid, rng, 14)
    rx, ry = rng.uniform(30, 54), rng.uniform(30, 58)
    tilt = rng.uniform(-0.7, 0.7)
    warp = 1 / grid.spacing
    dx = (
        grid.x
        - np.float32(x)
        + 11 * smooth_noise(rng, grid.shape, 26 * warp)
        + 4 * smooth_noise(rng, grid.shape, 10 * warp)
    )
    dy = (
        grid.y
        - np.float32(y)
        + 11 * smooth_noise(rng, grid.shape, 26 * warp)
        + 4 * smooth_noise(rng, grid.shape, 10 * warp)
    )
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    q = np.sqrt(((c * dx + s * dy) / rx) ** 2 + ((c * dy - s * dx) / ry) ** 2)
    cloud = 0.5 - 0.5 * np.tanh((q - 0.85) / 0.26)
    patchy = 1 + 0.22 * smooth_noise(rng, grid.shape, 13 * warp) + 0.16 * smooth_noise(rng, grid.shape, 5 * warp)
    room = np.clip(chest.depth / (1.1 * body.half_depth), 0, 1)
    side = np.clip(np.sign(x) * grid.x / 6, 0, 1)
    shape = soften((cloud * np.clip(patchy, 0.25, 2) * room * side).astype(np.float32), 1.5 * warp)
    mask = (shape > MASK_SHARE * shape.max()) & chest.lung
    level = float(shape[mask].mean()) if mask.any() else 1.0
    return (shape * np.float32(rng.uniform(0.11, 0.24) * full / level)).astype(np.float32)


def _nodule(body: Body, grid: Grid, chest: Chest, rng: np.random.Generator) -> Float32:
    """A slightly uneven ball, 10-30 mm wide, as deep as it is wide, with a fading rim."""
    radius = float(rng.uniform(5, 15))
    x, y = _site(chest, grid, rng, radius)
    dx, dy = grid.x - np.float32(x), grid.y - np.float32(y)
    uneven = 1 + 0.09 * smooth_noise(rng, grid.shape, max(4.0, radius / grid.spacing))
    ball = 2 * np.sqrt(np.maximum(radius**2 - (dx**2 + dy**2) * uneven**2, 0))
    spiked = ball * (1 + 0.08 * smooth_noise(rng, grid.shape, 3 / grid.spacing))
    return soften((0.85 * body.air * spiked).astype(np.float32), (0.6 + 0.07 * radius) / grid.spacing)


def _effusion(body: Body, grid: Grid, chest: Chest, rng: np.random.Generator) -> Float32:
    """Fluid in one costophrenic angle: deepest below and to the side, its upper edge a meniscus up the wall."""
    side = RIGHT if rng.random() < 0.5 else LEFT
    out = side * grid.x
    wall = chest_half_width(body, np.array(0.95 * body.lung_height, np.float32))
    angle = float(dome_height(body, side, np.array(side * wall * 0.96, np.float32)))
    level = angle - rng.uniform(26, 72)
    climb = rng.uniform(26, 48)
    edge = level + 16 - (climb + 16) * np.clip(out / float(wall), 0, 1.1) ** 5
    edge = edge + 2.5 * smooth_noise(rng, grid.shape, 30 / grid.spacing)
    filled = np.clip((grid.y - edge) / 20, 0, 1)
    filled = filled * filled * (3 - 2 * filled)
    fluid = body.air * chest.depth * filled * np.clip((out - 12) / 30, 0, 1)
    return soften((0.92 * fluid).astype(np.float32), 1.2 / grid.spacing)
