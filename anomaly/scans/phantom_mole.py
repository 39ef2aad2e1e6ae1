"""Moles for phantoms of skin: how much of each pigment lies where, on a canvas of their own.

A naevus is round, evenly brown and smooth at its border. A melanoma is what the ABCD rule looks for (Stolz et al.,
Eur J Dermatol 4, 1994): larger, asymmetric, of irregular border, and of several colours: light and dark brown, black,
blue-grey where pigment lies deep, red, and white where it has gone. Sizes and shares were chosen by eye, once; no
detector was run to choose any number here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from anomaly.records import Float32
from anomaly.scans.phantom_body import Real, ramp, smooth_noise, soften

SIDE = 320
"""Side of the canvas in its own pixels, of which a picture of 255 rows has one each."""
_SHAPE = (SIDE, SIDE)


@dataclass(frozen=True, slots=True)
class Mole:
    """One lesion on its canvas, every map float32 (SIDE, SIDE).

    `shape`: in [0, 1], above 0.5 inside the border. `brown`: melanin near the surface, `red`: blood, both >= 0 and in
    optical depth at the reference colour. `deep` and `scar`: shares in [0, 1] of blue-grey and of white.
    """

    shape: Float32
    brown: Float32
    red: Float32
    deep: Float32
    scar: Float32


def draw_naevus(rng: np.random.Generator) -> Mole:
    """Draw a benign mole: a slightly uneven ellipse of one brown, 70 to 120 canvas pixels across."""
    radius, aspect = rng.uniform(37, 58), rng.uniform(0.82, 1.0)
    x, y = _axes(rng.uniform(0, np.pi))
    angle = np.arctan2(y, x)  # the border's waves go round with it
    uneven = 1 + sum(rng.normal(0, 0.016) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 4, 5))
    q = np.hypot(x / radius, y / (aspect * radius)) / uneven
    shape = _inside((1 - q) * radius, rng.uniform(2.0, 4.5))
    depth = rng.uniform(0.5, 1.05)
    darker = rng.uniform(0.0, 0.4) * np.maximum(1 - q * q, 0)  # towards the middle
    mottled = 0.06 * smooth_noise(rng, _SHAPE, 16) + 0.05 * smooth_noise(rng, _SHAPE, 5)
    brown = depth * shape * (0.8 + darker + mottled + rng.uniform(0.15, 0.45) * _network(rng))
    none = np.zeros(_SHAPE, np.float32)
    return Mole(shape, _positive(brown), _positive(rng.uniform(0.0, 0.12) * shape), none, none)


def draw_melanoma(rng: np.random.Generator) -> Mole:
    """Draw a melanoma: lobes of several colours inside a notched border, 110 to 190 canvas pixels across."""
    radius = rng.uniform(58, 80)
    edge = _ragged(radius, rng)
    fading = np.clip(2.6 + 2.2 * smooth_noise(rng, _SHAPE, 70), 0.9, 7)  # cut off here, running out there
    shape = _inside(edge, fading)
    mottled = 1 + 0.22 * smooth_noise(rng, _SHAPE, 22) + 0.12 * smooth_noise(rng, _SHAPE, 7)
    brown = rng.uniform(0.55, 0.9) * mottled + rng.uniform(0.2, 0.5) * _network(rng)
    for _ in range(int(rng.integers(2, 4))):
        brown = brown + rng.uniform(0.8, 1.9) * _patch(radius, rng.uniform(0.35, 0.65), rng)
    brown = brown + 1.1 * _globules(edge, rng)
    red = rng.uniform(0.05, 0.15) * shape
    deep, scar = (np.zeros(_SHAPE, np.float32) for _ in range(2))
    for colour in rng.permutation(3)[: int(rng.integers(2, 4))].tolist():  # two or three beside the browns
        patch = _patch(radius, rng.uniform(0.32, 0.5), rng) * shape
        if colour == 0:
            deep = rng.uniform(0.55, 0.8) * patch
        elif colour == 1:
            red = red + rng.uniform(0.4, 0.7) * patch
            brown = brown * (1 - 0.6 * patch)
        else:
            scar = rng.uniform(0.25, 0.5) * patch
            brown = brown * (1 - 0.6 * patch)
    return Mole(shape, _positive(brown * shape), _positive(red), _positive(deep), _positive(scar))


def _axes(turn: float = 0.0, x: float = 0.0, y: float = 0.0) -> tuple[Float32, Float32]:
    """Coordinates of the canvas's pixels about (x, y) from its centre, turned by `turn`, float32 (SIDE, SIDE) each."""
    line = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    dx, dy = np.broadcast_to(line - np.float32(x), _SHAPE), np.broadcast_to(line[:, None] - np.float32(y), _SHAPE)
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return np.asarray(c * dx + s * dy, np.float32), np.asarray(c * dy - s * dx, np.float32)


def _ragged(radius: float, rng: np.random.Generator) -> Float32:
    """About how far each pixel lies inside an outline of several lobes, warped at three scales; negative outside."""
    bend_x, bend_y = (
        sum(
            share * radius * smooth_noise(rng, _SHAPE, scale * radius)
            for share, scale in ((0.17, 0.7), (0.075, 0.22), (0.03, 0.09))
        )
        for _ in range(2)
    )
    away = rng.uniform(0, 2 * np.pi)  # the lobes crowd on one side: no axis of symmetry
    edge = np.full(_SHAPE, -np.inf, np.float32)
    for lobe in range(int(rng.integers(3, 6))):
        size = radius * (rng.uniform(0.72, 0.85) if lobe == 0 else rng.uniform(0.36, 0.6))
        far = 0.0 if lobe == 0 else radius * rng.uniform(0.45, 0.8)
        at = away + rng.normal(0, 1.0)
        x, y = _axes(rng.uniform(0, np.pi), far * math.cos(at), far * math.sin(at))
        q = np.hypot((x + bend_x) / size, (y + bend_y) / (size * rng.uniform(0.65, 1.0)))
        edge = np.maximum(edge, (1 - q) * size)
    return edge


def _inside(edge: Real, fading: Real | float) -> Float32:
    """Turn distance inside the border into `shape`: 0.5 on the border, fading over so many pixels to either side."""
    return np.asarray(0.5 + 0.5 * np.tanh(edge / fading), np.float32)


def _patch(radius: float, share: float, rng: np.random.Generator) -> Float32:
    """A cloud somewhere in the lesion, `share` of its radius wide, in [0, 1]."""
    import cv2

    at, far = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.1, 0.6)
    x, y = (axis[::2, ::2] for axis in _axes(rng.uniform(0, np.pi), far * math.cos(at), far * math.sin(at)))
    size = share * radius
    q = np.hypot(x / size, y / (size * rng.uniform(0.6, 1.0)))  # so soft that every second pixel is enough
    q = q + 0.26 * smooth_noise(rng, q.shape, 0.3 * size) + 0.11 * smooth_noise(rng, q.shape, 0.1 * size)
    cloud = np.asarray(1 - ramp((q - 0.5) / 0.9), np.float32)
    return np.asarray(cv2.resize(cloud, _SHAPE, interpolation=cv2.INTER_LINEAR), np.float32)


def _network(rng: np.random.Generator) -> Float32:
    """The lines of a pigment network, a net with meshes of a few pixels, in [0, 1]."""
    net = np.minimum(np.abs(smooth_noise(rng, _SHAPE, 6.5)), np.abs(smooth_noise(rng, _SHAPE, 6.5)))
    return np.asarray(np.exp(-((net / 0.2) ** 2)), np.float32)


def _globules(edge: Float32, rng: np.random.Generator) -> Float32:
    """Small dark dots of unequal size, mostly along the border, in [0, 1]."""
    spots = np.zeros(_SHAPE, np.float32)
    rows, columns = np.nonzero((edge > 3) & (edge < 20))
    for pick in rng.integers(rows.size, size=int(rng.integers(4, 20))).tolist():
        size, row, column = rng.uniform(1.0, 2.4), int(rows[pick]), int(columns[pick])
        near = slice(max(row - 6, 0), row + 7), slice(max(column - 6, 0), column + 7)
        y, x = np.mgrid[near]
        dot = rng.uniform(0.3, 1.0) * (1 - ramp((np.hypot(x - column, y - row) / size - 0.5) / 1.0))
        spots[near] = np.maximum(spots[near], dot)
    return soften(spots, 0.7)


def _positive(values: Real) -> Float32:
    return np.asarray(np.maximum(values, 0), np.float32)
