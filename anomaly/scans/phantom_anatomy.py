"""A phantom's chest as maps of what the beam passes through.

Organs are solids whose depth along the beam is known in closed form, so a heart border, a dome or a breast
fades the way a curved edge does; the lung's vessels are trees of branching tubes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Float64
from anomaly.scans.phantom_body import (
    LEFT,
    RIGHT,
    Body,
    Grid,
    boxy,
    chest_half_width,
    disc,
    dome_height,
    oval,
    ramp,
    smooth_noise,
    soften,
    splat,
)
from anomaly.scans.phantom_bones import build_bones


@dataclass(frozen=True, slots=True)
class Chest:
    """What the beam passes through, each map float32 (H, W) in mm.

    `soft`: water-equivalent soft tissue; `bone`: cortical bone on top of it; `depth`: lung along the beam,
    above and behind the diaphragm. `lung`: bool (H, W), lung as a reader outlines it, heart and domes excluded.
    """

    soft: Float32
    bone: Float32
    depth: Float32
    lung: NDArray[np.bool_]


def build_chest(body: Body, grid: Grid, rng: np.random.Generator) -> Chest:
    """Sum one patient along the beam.

    Args:
        body: The patient's measures.
        grid: Where to sample, H by W pixels.
        rng: Source of what differs beyond the measures: vessels, texture, gas.

    Returns:
        Maps of shape (H, W).
    """
    trunk = _trunk(body, grid, rng)
    cavity, heart, lung = _lungs(body, grid)
    depth = np.maximum(cavity - heart, 0)
    mottle = smooth_noise(rng, grid.shape, 5.5 / grid.spacing) + smooth_noise(rng, grid.shape, 2.0 / grid.spacing)
    broad = smooth_noise(rng, grid.shape, 45 / grid.spacing)
    air = body.air * depth * (1 + 0.03 * broad) + 0.015 * mottle * depth
    blood = _vessels(body, grid, rng) * np.clip(depth / 45, 0, 1) * (1 - 0.5 * np.clip(heart / 40, 0, 1))
    muscle = smooth_noise(rng, grid.shape, 22 / grid.spacing) + 0.6 * smooth_noise(rng, grid.shape, 7 / grid.spacing)
    soft = trunk - air + 1.7 * blood - _airway(body, grid) + (0.012 * muscle) * trunk
    soft -= _bowel_gas(body, grid, rng) * (1 - lung)
    return Chest(np.maximum(soft, 0).astype(np.float32), build_bones(body, grid, rng), depth, lung > 0.5)


def _trunk(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """Thickness of the whole body, as if solid: trunk, shoulders, neck, arms and breasts."""
    x, y = np.abs(grid.x), grid.y
    top = body.shoulders
    deep = np.clip((y + 60 - top) / (0.7 * body.lung_height + 60), 0, 1)
    half_depth = 58 + (body.half_depth + body.fat - 58) * np.sin(deep * np.pi / 2)
    wide = body.half_width + body.wall + 0.35 * body.fat - 12 * np.clip(1 - (y - 20) / 90, 0, 1) ** 2
    wide = wide + 5 * np.clip((y - body.lung_height) / 90, 0, 1.5) - 75 * np.clip((20 - y) / 80, 0, 1) ** 1.3
    trunk = 2 * half_depth * np.sqrt(disc(boxy(x / wide, 0.75)))
    trunk = trunk * (1 + 0.13 * ramp((y - 0.85 * body.lung_height) / (0.4 * body.lung_height)))
    trunk = trunk * ramp((y + 85 - top) / 90)

    slope = -70 + top + 0.26 * (x - 55) + 0.0022 * np.clip(x - 55, 0, None) ** 2 - 1.1 * np.clip(62 - x, 0, None)
    below = np.clip(y - slope, 0, 68)
    shoulder = 2 * np.sqrt(below * (136 - below)) * ramp((165 - y) / 130)
    reach = body.half_width + body.wall + 70 + body.arms
    shoulder = shoulder * disc(boxy(np.clip(x - 90, 0, None) / (reach - 90)))
    neck = 2 * 55 * disc((grid.x / (55 + 0.6 * np.clip(y + 75, 0, None))) ** 2) * ramp((70 - y) / 140)
    whole = np.sqrt(np.sqrt(boxy(trunk) + boxy(shoulder) + boxy(neck)))

    centre = body.half_width + body.wall + 36 + 0.7 * body.arms + (0.16 + 0.003 * body.arms) * (y - 40)
    arm = 2 * 43 * disc(((x - centre) / 43) ** 2) * np.clip((y - 5) / 50, 0, 1)
    whole = np.maximum(whole, arm)
    chest_y = body.breast_y * body.lung_height
    if body.breast > 0:
        spread = 0.40 * body.half_width + 12
        for side in (RIGHT, LEFT):
            cx = side * (0.64 * body.half_width + rng.normal(0, 3))
            cy = chest_y + rng.normal(0, 4)
            lower = oval(grid, cx, cy, spread, 0.92 * spread, 0.2 * side)
            whole = whole + body.breast * lower * np.clip((y - cy) / spread * 0.75 + 0.55, 0.06, 1)
    else:
        for side in (RIGHT, LEFT):  # the lower edge of the pectoral muscle
            whole = whole + 13 * oval(grid, side * 0.66 * body.half_width, 0.28 * body.lung_height, 66, 70, -0.5 * side)
    return np.asarray(whole, np.float32)


def _lungs(body: Body, grid: Grid) -> tuple[Float32, Float32, Float32]:
    """Lung depth before the heart takes its place, depth of the heart, and the outline in [0, 1]."""
    x, y, height = grid.x, grid.y, body.lung_height
    wide = np.maximum(chest_half_width(body, y), 1)
    u = np.clip((y + 2) / (0.8 * height), 0, 1)
    half_depth = body.half_depth * (1 - (1 - u) ** 2.3) ** 0.55
    cavity = 2 * half_depth * np.sqrt(disc(boxy(x / wide, 0.8)))

    shift = np.float32(14 * body.yaw)  # the front turns away from the back
    flank = 6.5 + 24 * np.exp(-np.clip(y - 4, 0, None) / 15)
    depth = np.zeros(grid.shape, np.float32)
    chest = np.zeros(grid.shape, np.float32)
    outline = np.zeros(grid.shape, np.float32)
    pixel = np.float32(grid.spacing)
    for side in (RIGHT, LEFT):
        out = side * x
        inside = np.clip((out - flank - side * shift * 2) / 22, 0, 1)
        below = y - dome_height(body, side, x)
        edge = np.clip(0.5 - below / (1.6 * pixel), 0, 1)
        # Behind the dome a wedge of lung reaches down; it thins as the diaphragm comes to the back wall.
        behind = 0.42 * (1 - np.sqrt(np.clip(below / 62, 0, 1))) * np.clip((1.02 - out / wide) / 0.06, 0, 1)
        behind = behind * np.clip((out - 14) / 60, 0, 1)
        part = disc((1 - inside) ** 2) * (inside > 0)
        depth = depth + cavity * part * (edge + (1 - edge) * behind * (below > 0))
        outline = np.maximum(outline, edge * (inside > 0.3))
        chest = np.where(side * x >= 0, np.clip(1 - below / 7, 0, 1), chest)

    rows = y[:, 0] / height
    k, r = body.heart * (1 + body.heart_left), body.heart * (1 - 1.5 * body.heart_left)
    arch = 20 + 0.75 * body.knob
    left = [(0.0, 17.0), (0.2, 20.0), (0.26, arch), (0.34, arch), (0.41, 24.0), (0.5, 31 * k), (0.6, 44 * k)]
    left += [(0.72, 62 * k), (0.84, 76 * k), (0.95, 82 * k), (1.08, 78 * k)]
    reach = {
        RIGHT: _border(
            rows,
            [(0, 20), (0.15, 23), (0.4, 24), (0.5, 26), (0.62, 33 * r), (0.75, 40 * r), (0.88, 41 * r), (1.05, 33)],
        ),
        LEFT: _border(rows, left),
    }
    thick = _border(rows, [(0, 62), (0.2, 84), (0.5, 98), (0.7, 128), (1.0, 138)])
    solid = np.zeros(grid.shape, np.float32)
    for side in (RIGHT, LEFT):
        out = np.clip(side * (x - 2 - shift), 0, None)
        part = thick * disc(boxy(out / reach[side])) * (side * (x - 2 - shift) >= 0)
        solid = np.maximum(solid, part)
    aorta = 16 * np.exp(-(((x - 14 - 6 * np.sin(y / height * 3)) / 11) ** 2)) * np.clip((y / height - 0.3) * 12, 0, 1)
    outline = outline * (cavity > 0.35 * half_depth) * (solid < 30)
    solid = (solid + aorta) * chest
    return depth, solid.astype(np.float32), outline.astype(np.float32)


def _border(rows: Float32, points: list[tuple[float, float]]) -> Float32:
    """A smooth line through `points` (row, reach), float32 (H, 1), for `rows` (H,)."""
    at, reach = (np.asarray(v, np.float64) for v in zip(*points, strict=True))
    fine = np.linspace(-0.6, 1.8, 481)
    kernel = np.exp(-((np.arange(-20, 21) / 7.0) ** 2) / 2)
    padded = np.pad(np.interp(fine, at, reach), 20, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    return np.interp(rows, fine, smooth).astype(np.float32)[:, None]


def _airway(body: Body, grid: Grid) -> Float32:
    """Air in the trachea and main bronchi, mm of soft tissue missing."""
    x, y, height = grid.x, grid.y, body.lung_height
    carina = np.float32(0.36 * height)
    bend = np.where(y < carina, -3.0 * np.clip(y / carina, 0, 1), 0.0) + 60 * body.yaw
    tube = 11 * disc(((x - bend) / 8.2) ** 2) * np.clip((carina - y) / 8, 0, 1)
    air = np.asarray(tube, np.float32)
    for side, fall, reach in ((RIGHT, 1.25, 30.0), (LEFT, 0.85, 42.0)):
        along = side * x
        line = carina - 6 + fall * np.clip(along, 0, None)
        stem = 9.5 * disc(((y - line) / 8.0) ** 2) * np.clip((reach - along) / 16, 0, 1)
        air = np.maximum(air, stem * np.clip(along / 4 + 0.5, 0, 1))
    return air.astype(np.float32)


def _bowel_gas(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """The stomach's bubble below the left dome and some gas in the bowel, mm of soft tissue missing."""
    under = body.lung_height + body.left_dome
    rx, ry = rng.uniform(16, 34), rng.uniform(8, 19)
    x, y = rng.uniform(46, 72), under + ry + rng.uniform(7, 14)
    gas = rng.uniform(14, 46) * oval(grid, x, y, rx, ry, rng.normal(0, 0.15))
    for _ in range(int(rng.integers(1, 7))):
        size = rng.uniform(6, 15)
        bubble = oval(grid, rng.uniform(-20, 105), under + rng.uniform(38, 110), size * 1.4, size, rng.uniform(-1, 1))
        gas = np.maximum(gas, rng.uniform(8, 26) * bubble)
    warped = gas * (1 + 0.25 * smooth_noise(rng, grid.shape, 14 / grid.spacing))
    return soften(np.maximum(warped, 0).astype(np.float32), 1.2 / grid.spacing)


def _vessels(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """Pulmonary vessels: trees that leave the hila, branch, curve and taper outwards; mm of blood."""
    height = body.lung_height
    calibres = (0.45, 0.8, 1.4, 2.3, 3.6)
    points: list[list[Float64]] = [[] for _ in calibres]
    for side in (RIGHT, LEFT):
        hilum = np.array([side * (36 if side == RIGHT else 38), (0.445 if side == RIGHT else 0.415) * height])
        fan = np.linspace(-1.4, 1.45, 13) + rng.normal(0, 0.09, 13)
        start = hilum + rng.normal(0, 1, (13, 2)) * [4.0, 9.0] + np.stack([np.zeros(13), 16 * np.sin(fan)], axis=1)
        angle, radius = fan, rng.uniform(2.1, 3.9, 13) * (1 + 0.15 * np.sin(fan))
        for generation in range(7):
            count = angle.size
            length = 27 * 0.83**generation * rng.uniform(0.55, 1.35, count) * (1 + 0.3 * np.abs(np.sin(angle)))
            bend = rng.normal(0, 0.42, (count, 1)) + np.cumsum(rng.normal(0, 0.09, (count, 18)), axis=1)
            heading = angle[:, None] + np.linspace(0, 1, 18) * bend
            stride = length[:, None] / 18
            x = start[:, :1] + np.cumsum(side * np.cos(heading) * stride, axis=1)
            y = start[:, 1:] + np.cumsum(np.sin(heading) * stride, axis=1)
            bore = radius[:, None] * np.linspace(1, 0.85, 18)
            mass = np.pi * bore**2 * stride
            bins = np.clip(np.searchsorted(calibres, bore / 1.25), 0, len(calibres) - 1)
            for k in range(len(calibres)):
                chosen = bins == k
                points[k].append(np.stack([x[chosen], y[chosen], mass[chosen]]))
            start = np.repeat(np.stack([x[:, -1], y[:, -1]], axis=1), 2, axis=0)
            fork = np.stack([rng.uniform(-0.8, -0.1, count), rng.uniform(0.1, 0.8, count)], axis=1)
            angle = (heading[:, -1:] + fork).ravel()
            radius = (bore[:, -1:] * rng.uniform(0.66, 0.88, (count, 2))).ravel()
    total = np.zeros(grid.shape, np.float32)
    for calibre, found in zip(calibres, points, strict=True):
        x, y, mass = np.concatenate(found, axis=1).astype(np.float32)
        total += soften(splat(grid, x, y, mass), 0.55 * calibre / grid.spacing)
    for side, share in ((RIGHT, 0.45), (LEFT, 0.42)):
        far = ((grid.x - side * 34) / 9) ** 2 + ((grid.y - share * height) / 17) ** 2
        total += 8 * np.exp(-far).astype(np.float32)
    return total
