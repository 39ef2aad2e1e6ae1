"""Several looks at one registered film: its middle, cut a little tighter or wider, equalised more or less locally.

How well the atlas tells films apart depends on the crop and on the tiles of CLAHE, and differently on children and
adults; so it takes every one of a grid of settings and averages what comes out, rather than the one that did best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.prepare.clahe import equalise
from anomaly.prepare.resize import resize
from anomaly.records import Float32, UInt8


@dataclass(frozen=True, slots=True)
class Look:
    """One setting: the middle `crop` of the side, CLAHE in `tiles` x `tiles` regions clipped at `clip`, `side` px."""

    crop: float
    tiles: int
    clip: float
    side: int

    def see(self, films: UInt8) -> Float32:
        """Return films as this look shows them: uint8 (N, S, S) of `grey` -> float32 (N, side, side) in [0, 1]."""
        cut = margin(self.crop, films.shape[-1])
        seen = np.empty((len(films), self.side, self.side), np.float32)
        for film, out in zip(films, seen, strict=True):
            middle = np.ascontiguousarray(film[cut : len(film) - cut, cut : len(film) - cut])
            equalised = equalise(middle, clip=self.clip, tiles=self.tiles).astype(np.float32)
            out[:] = resize(equalised, self.side) / np.float32(255.0)
        return seen

    def exposure(self, films: UInt8) -> Float32:
        """Return how bright and how contrasty the middle of each film is, before it is equalised.

        Args:
            films: uint8 (N, S, S), of `grey`.

        Returns:
            Mean and standard deviation of its pixels, float32 (N, 2), in [0, 1].
        """
        cut = margin(self.crop, films.shape[-1])
        told = np.empty((len(films), 2), np.float32)
        for film, row in zip(films, told, strict=True):
            middle = film[cut : len(film) - cut, cut : len(film) - cut].astype(np.float32) / np.float32(255.0)
            row[:] = middle.mean(), middle.std()
        return told

    def film(self, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the pixels it shows are mostly film: bool (N, S, S) -> bool (N, side, side)."""
        if inside.all():
            return np.ones((len(inside), self.side, self.side), np.bool_)
        cut = margin(self.crop, inside.shape[-1])
        middle = inside[:, cut : inside.shape[1] - cut, cut : inside.shape[2] - cut].astype(np.float32)
        return np.stack([resize(film, self.side) >= 0.5 for film in middle])


AIR = Look(crop=1.0, tiles=8, clip=2.0, side=112)
"""How the mean film is taken that shows where chests hold air: whole, and large enough for the walls between lungs and
surround to hold."""


def grey(images: Float32) -> UInt8:
    """Return films as CLAHE takes them, colour as the mean of its channels: (N, C, S, S) in [-1, 1] -> (N, S, S)."""
    one = images[:, 0] if images.shape[1] == 1 else images.mean(axis=1)
    return np.asarray(np.rint((one + np.float32(1.0)) * np.float32(127.5)), dtype=np.uint8)


def margin(crop: float, size: int) -> int:
    """Return how many pixels of a square of this size a crop cuts off at each edge."""
    return round(size * (1.0 - crop) / 2.0)


def put_back(heat: Float32, crop: float, size: int) -> Float32:
    """Put a map of a crop, float32 (side, side), back in its place on the square: (size, size), 0 around it.

    It fades out over the last sixteenth of each side, so that its edge is not taken for that of a finding.
    """
    import cv2

    cut = margin(crop, size)
    steps = np.arange(len(heat))
    fade = np.minimum(16.0 * np.minimum(steps, steps[::-1]) / len(heat), 1.0).astype(np.float32)
    heat = heat * fade * fade[:, None]
    square = np.zeros((size, size), np.float32)
    middle = (size - 2 * cut, size - 2 * cut)
    square[cut : size - cut, cut : size - cut] = cv2.resize(heat, middle, interpolation=cv2.INTER_LINEAR)
    return square
