"""The bones of a phantom: hollow tubes sampled on their surface and summed along the beam.

Summed so, their edges come out brighter by themselves, and so do ribs where they turn round the chest wall.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from anomaly.records import Float32, Float64
from anomaly.scans.phantom_body import (
    LEFT,
    RIGHT,
    Body,
    Grid,
    chest_half_width,
    disc,
    ramp,
    smooth_noise,
    soften,
    splat,
)

AROUND = 24
"""Samples round a bone's cross-section."""


def build_bones(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """Ribs, spine and shoulder girdle along the beam, mm of cortical bone, float32 (H, W)."""
    bone = _ribs(body, grid, rng) + _spine(body, grid, rng) + _shoulder_bones(body, grid, rng)
    bone *= 1 + 0.10 * smooth_noise(rng, grid.shape, 1.8 / grid.spacing)  # the mesh of spongy bone
    return bone * np.float32(body.bone)


def _tubes(
    grid: Grid,
    path: Float32,
    tall: Float32,
    half_height: Float32,
    half_depth: Float32,
    ends: Float32,
    cortex: float,
    marrow: float,
) -> Float32:
    """Bone along the beam of R hollow tubes, mm of cortical bone, float32 (H, W).

    Args:
        grid: Where to sample.
        path: Centre lines, float32 (R, U, 3), mm.
        tall: Unit vectors of the cross-section's first axis, float32 (R, U, 3).
        half_height: Semi-axis along `tall`, float32 (R, U), mm.
        half_depth: Semi-axis across it, float32 (R, U), mm.
        ends: Share of the bone left along the way, float32 (U,), for ends that fade into cartilage.
        cortex: Thickness of the shell, mm.
        marrow: Density of the filling, as a share of the shell's.
    """
    along = np.gradient(path, axis=1).astype(np.float32)
    step = np.linalg.norm(along, axis=2)
    across = np.cross(along, tall)
    across /= np.maximum(np.linalg.norm(across, axis=2, keepdims=True), 1e-6)
    # Each cross-section is turned by the golden ratio of a step: rows of samples would show as stripes.
    turn = (np.arange(path.shape[1]) * 0.618034) % 1.0
    angle = ((np.arange(AROUND) + turn[:, None]) * (2 * np.pi / AROUND)).astype(np.float32)
    c, s = np.cos(angle), np.sin(angle)
    a, b = half_height[..., None], half_depth[..., None]
    x = path[..., 0, None] + a * c * tall[..., 0, None] + b * s * across[..., 0, None]
    y = path[..., 1, None] + a * c * tall[..., 1, None] + b * s * across[..., 1, None]
    arc = np.sqrt((a * s) ** 2 + (b * c) ** 2) * np.float32(2 * np.pi / AROUND)
    filling = marrow * a * b * s**2 * np.float32(2 * np.pi / AROUND)
    mass = (cortex * arc + filling) * step[..., None] * ends[:, None]
    return splat(grid, x.astype(np.float32), y.astype(np.float32), mass.astype(np.float32))


def _ribs(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """Eleven pairs of ribs: each leaves the spine, runs round the chest wall and falls towards the front."""
    u = np.linspace(0, 1, 300, dtype=np.float32)
    paths, talls, heights, depths = [], [], [], []
    pitch = body.lung_height / 10.1
    for number in range(11):
        share = number / 10
        start = pitch * (number * (0.91 + 0.08 * share)) - (4 if number else 1)
        for side in (RIGHT, LEFT):
            fall = body.rib_slope * (42 + 56 * share**0.7) + rng.normal(0, 2.5)
            end = (0.80 if number < 7 else 0.80 - 0.11 * (number - 6)) + rng.normal(0, 0.015)
            phi = np.pi * (0.035 + (end - 0.035) * u)
            lateral = np.array(start + 0.5 * fall, np.float32)
            reach = float(chest_half_width(body, lateral)) + (-1.5 if number else 2.0)
            deep = body.half_depth * (0.62 + 0.42 * min(1.0, share * 2.2))
            x = side * reach * np.sin(phi) ** 0.92
            z = -deep * np.cos(phi)
            rise = -5.0 * np.sin(np.pi * np.clip(phi / np.pi / 0.36, 0, 1)) * (0.4 + share)
            y = start + rng.normal(0, 1.2) + fall * (1 - np.cos(phi)) / 2 + rise
            y = y + (10 + 8 * share) * np.clip(phi / np.pi - 0.55, 0, 1) ** 1.5
            path = np.stack([x + body.yaw * z, y, z], axis=1)
            along = np.gradient(path, axis=0)
            along /= np.linalg.norm(along, axis=1, keepdims=True)
            up = np.array([0, 1.0, 0]) - along * along[:, 1:2]
            paths.append(path)
            talls.append(up / np.linalg.norm(up, axis=1, keepdims=True))
            taper = 0.66 + 0.36 * np.sin(np.pi * np.clip(u * 0.92 + 0.04, 0, 1)) + 0.22 * np.clip(u - 0.75, 0, 1)
            size = body.rib_size * min(1.0, 0.78 + 0.11 * number)
            heights.append((6.2 if number else 4.4) * size * taper)
            depths.append(2.7 * size * taper)
    fade = _tubes(
        grid,
        np.stack(paths).astype(np.float32),
        np.stack(talls).astype(np.float32),
        np.stack(heights).astype(np.float32),
        np.stack(depths).astype(np.float32),
        ends=(0.15 + 0.85 * ramp(u / 0.13)) * (0.05 + 0.95 * ramp((1 - u) / 0.07)),
        cortex=1.65,
        marrow=0.32,
    )
    return soften(fade, 0.55 / grid.spacing)


def _spine(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """Vertebral bodies between brighter end plates, with pedicles, spinous and transverse processes."""
    pitch = body.lung_height / 10.1
    levels = np.cumsum(np.concatenate([[-4 - 6.2 * pitch * 0.82], pitch * np.linspace(0.78, 1.22, 20)]))
    y = grid.y[:, 0]
    near = np.flatnonzero(np.abs(grid.x[0]) < 60)
    columns = slice(int(near[0]), int(near[-1]) + 1)
    level = np.interp(y, levels, np.arange(levels.size)).astype(np.float32)[:, None]
    t = (level + 0.5) % 1.0
    size = np.interp(y, [-80, 0, 250, 330], [0.78, 0.9, 1.2, 1.3]).astype(np.float32)[:, None]
    lean = np.float32(rng.normal(0, 2.2)) * np.sin(y[:, None] / 130 + np.float32(rng.uniform(0, 6)))
    x = grid.x[:, columns] - lean + np.float32(70 * body.yaw)
    d = x / size

    def bump(at: float, width: float) -> Float32:
        return np.asarray(np.exp(-(((t - at) / width) ** 2)), np.float32)

    waist = 15.5 + 2.2 * np.abs(2 * t - 1) ** 3
    solid = np.clip((0.46 - np.abs(t - 0.5)) / 0.05, 0, 1)
    profile = disc((d / waist) ** 2)
    bodies = profile * (3.0 * solid + 3.8 * (bump(0.08, 0.045) + bump(0.92, 0.045)) + 1.3)
    rim = 2.2 * np.exp(-(((np.abs(d) - waist + 1) / 1.5) ** 2)) * solid
    ring = np.sqrt(((np.abs(d) - 11.5) / 3.6) ** 2 + ((t - 0.34) / 0.19) ** 2)
    pedicles = 3.2 * np.exp(-(((ring - 1) / 0.28) ** 2))
    spinous = 4.5 * np.exp(-((d / 2.8) ** 2)) * bump(0.72, 0.17)
    wings = 2.4 * np.exp(-(((np.abs(d) - 22) / 8.5) ** 2)) * bump(0.30, 0.15)
    bone = np.zeros(grid.shape, np.float32)
    bone[:, columns] = 0.8 * (bodies + rim + pedicles + spinous + wings)
    return soften(bone, 0.7 / grid.spacing)


def _curve(points: list[tuple[float, float]], count: int = 320) -> Float64:
    """Bezier curve through the first and last of `points`, float64 (count, 2)."""
    p = np.asarray(points, np.float64)[:, None, :]
    t = np.linspace(0, 1, count)[:, None]
    levels = list(p)
    while len(levels) > 1:
        levels = [(1 - t) * a + t * b for a, b in pairwise(levels)]
    return np.asarray(levels[0], np.float64)


def _shoulder_bones(body: Body, grid: Grid, rng: np.random.Generator) -> Float32:
    """Clavicles, scapulae and the heads of the humeri."""
    import cv2

    total = np.zeros(grid.shape, np.float32)
    plate = np.zeros(grid.shape, np.uint8)
    w, top = body.half_width, body.shoulders
    paths, radii = [], []
    for side in (RIGHT, LEFT):
        out = float(rng.normal(0, 4)) + 0.5 * body.arms
        lift = float(rng.normal(0, 3)) + top + 16
        turn = 110 * body.yaw
        inner = 0.175 * body.lung_height + 0.3 * (lift - 16)

        def line(points: list[tuple[float, float]], side: float = side, turn: float = turn) -> Float64:
            return _curve([(side * x + turn * max(0.0, 1 - x / 60), y) for x, y in points])

        ends = [(15.0, inner + 8), (0.30 * w, inner - 6), (0.56 * w, inner + 12), (0.86 * w, inner - 58 + lift)]
        paths.append(line([*ends, (1.27 * w, inner - 38 + lift)]))
        radii.append(6.0 * (1 + 0.35 * np.exp(-np.linspace(0, 14, 320)) + 0.15 * np.linspace(-1, 1, 320) ** 2))
        medial = [
            (0.84 * w + out, lift + 6),
            (0.74 * w + out, lift + 45),
            (0.82 * w + out, lift + 124),
            (0.92 * w + out, lift + 128),
        ]
        paths.append(line(medial))
        radii.append(np.full(320, 1.2))
        blade = [
            (0.92 * w + out, lift + 128),
            (1.00 * w + out, lift + 120),
            (1.13 * w + out, lift + 60),
            (1.26 * w + out, lift + 32),
        ]
        paths.append(line(blade))
        radii.append(np.linspace(1.5, 4.2, 320))
        paths.append(line([(0.82 * w + out, lift + 26), (1.05 * w + out, lift), (1.42 * w + out, lift - 16)]))
        radii.append(6 * np.sin(np.linspace(0.3, 2.9, 320)) + 1)
        shaft = side * grid.x - (1.40 * w + out) - 0.10 * (grid.y - lift)
        bore = 11.5 + 13 * np.exp(-((np.clip(grid.y - lift - 18, 0, None) / 26) ** 2))
        head = disc((np.clip(lift + 18 - grid.y, 0, None) / 25) ** 2)
        outer = np.maximum(bore * head, 0.1)
        hollow = np.maximum(outer - 3.2 + 2.0 * np.exp(-np.clip(grid.y - lift - 10, 0, None) / 40), 0.05)
        total += outer * disc((shaft / outer) ** 2) - 0.82 * hollow * disc((shaft / hollow) ** 2)
        corner = np.concatenate(
            [line(medial), line(blade), line([(1.24 * w + out, lift + 34), (0.80 * w + out, lift + 6)])]
        )
        pixel = (corner - [float(grid.x[0, 0]), float(grid.y[0, 0])]) / grid.spacing
        cv2.fillPoly(plate, [np.rint(pixel * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    flat = np.stack(paths)
    path = np.concatenate([flat, np.zeros((*flat.shape[:2], 1))], axis=2).astype(np.float32)
    along = np.gradient(path, axis=1)
    tall = np.stack([-along[..., 1], along[..., 0], along[..., 2]], axis=2)
    tall /= np.linalg.norm(tall, axis=2, keepdims=True)
    radius = np.stack(radii).astype(np.float32)
    total += _tubes(
        grid,
        path,
        tall.astype(np.float32),
        radius,
        np.minimum(radius, 9),
        np.ones(320, np.float32),
        cortex=1.9,
        marrow=0.25,
    )
    return soften(total + plate.astype(np.float32) * np.float32(2.4 / 255), 0.8 / grid.spacing)
