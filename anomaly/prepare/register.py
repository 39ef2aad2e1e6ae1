"""Registration: every film brought onto the mean normal chest by an affine map, found on a small copy of the film.

Evangelidis, Psarakis: Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization, IEEE TPAMI 2008.
The correlation it maximises knows nothing of brightness and contrast. Maps here lead from the template's unit square
to the film's: (0, 0) is the outer corner of the top-left pixel, (1, 1) that of the bottom-right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError
from anomaly.prepare.clahe import equalise
from anomaly.prepare.resize import resize
from anomaly.records import Float32, Float64, Int64

SIDE = 64
"""Side of the copy that films are aligned by; CLAHE at 256 and then down to 64 aligned no better, at four times the
cost: the spread of real normals fell to 0.68 of what it was either way."""

NOT_REGISTERED = "not registered"
"""What the warning of a film that was refused begins with."""

_CLIP, _TILES, _BLUR = 2.0, 8, 1.0  # the copy's own, whatever the preparation is told; the blur in its pixels
_FILTER = 5  # ECC's own blur, on top
_STEPS, _GAIN = 40, 1e-4  # ECC ends after so many steps, or when one adds less to the correlation
_ROUNDS = 3  # the third moves the template by less than 0.001 of the range
_SAMPLE = 2000
_FEWEST = 0.5  # share of the normals that must find their own mean
_AREA, _TURN, _STRETCH, _SHIFT = (0.35, 2.0), 20.0, 2.0, 0.3  # no film of two real dev sets goes beyond
_DISEASE = 0.25  # what illness, tubes and rotation may cost of the correlation that normals reach
_LEAST = (0.3, 0.6)

_STRANGE = "it does not look like the chests the model was fitted on"
_TOO_FAR = "it would have to be turned, stretched or moved too far"
_TURNED = "it seems to be turned or upside down"


@dataclass(frozen=True, slots=True)
class Template:
    """The mean normal chest: `image` float32 (64, 64), in [0, 1]; `least`, the correlation that a chest reaches."""

    image: Float32
    least: float

    def to_entry(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and plain JSON that `from_entry` turns back."""
        return {"template": self.image}, {"least": self.least}

    @classmethod
    def from_entry(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Template:
        """Build from what `to_entry` returned.

        Raises:
            KeyError: Something is missing.
            ValueError: The image is no float32 (64, 64).
        """
        image = np.asarray(arrays["template"])
        if image.dtype != np.float32 or image.shape != (SIDE, SIDE):
            raise ValueError(f"a template of {image.dtype} {image.shape}, not float32 ({SIDE}, {SIDE})")
        return cls(image, float(meta["least"]))


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where a film lies: `matrix` float64 (3, 3), affine, from the template's unit square to the film's.

    `refused` is the reason why the film was not aligned; `matrix` is then the identity. `correlation` is what was
    reached, in [-1, 1], 0 where the search did not end.
    """

    matrix: Float64
    correlation: float
    refused: str | None = None


def small_copy(pixels: NDArray[Any]) -> Float32:
    """Return the copy of a film that it is aligned by, its contrast evened out.

    Args:
        pixels: (K, K) or (K, K, 3) RGB, uint8 or uint16 over their whole range, or float32 in [0, 1].

    Returns:
        float32 (64, 64), in [0, 1].
    """
    import cv2

    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    top = 1 if grey.dtype == np.float32 else np.iinfo(grey.dtype).max
    small = resize(np.asarray(grey, dtype=np.float32), SIDE) / np.float32(top)
    eight_bit = np.clip(np.rint(small * 255.0), 0, 255).astype(np.uint8)
    even = equalise(eight_bit, clip=_CLIP, tiles=_TILES).astype(np.float32) / np.float32(255.0)
    return np.asarray(cv2.GaussianBlur(even, (0, 0), _BLUR, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)


def template_sample(count: int) -> Int64:
    """Return which of `count` normals a template is made of: int64 (n,), all or 2,000 evenly spaced ones."""
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).round().astype(np.int64))


def fit_template(copies: Float32, on_round: Callable[[int, int], None] | None = None) -> Template:
    """Build the mean chest of normals: their mean, to which all are aligned and averaged again, three times.

    Each round the frame is moved so that the films' maps average to the identity; without that the mean, blurred as it
    is, shrinks by 1 to 2 % a round.

    Args:
        copies: float32 (N, 64, 64), from `small_copy`.
        on_round: Told how many rounds are done, of how many.

    Raises:
        DataError: Most of them cannot be aligned to their mean.
    """
    image = np.asarray(copies.mean(axis=0, dtype=np.float64), dtype=np.float32)
    for done in range(1, _ROUNDS + 1):
        aligned = ((copy, *_search(copy, image)) for copy in copies)
        found = [(copy, matrix) for copy, matrix, reached in aligned if matrix is not None and reached >= _LEAST[0]]
        if len(found) < _FEWEST * len(copies):
            raise DataError(
                f"Only {len(found)} of {len(copies)} normals can be brought onto their mean film, so they cannot be "
                "registered: use --set prepare.register=none, or --set prepare.crop=auto if they have wide borders."
            )
        recentred = np.linalg.inv(np.mean([matrix for _, matrix in found], axis=0))
        total = np.zeros((SIDE, SIDE))
        for copy, matrix in found:
            total += warp(copy, matrix @ recentred)
        image = (total / len(found)).astype(np.float32)
        if on_round is not None:
            on_round(done, _ROUNDS)
    usual = [reached for matrix, reached in (_search(copy, image) for copy in copies) if matrix is not None]
    return Template(image, float(np.clip(np.quantile(usual, 0.05) - _DISEASE, *_LEAST)))


def align(copy: Float32, template: Template) -> Alignment:
    """Find where a film's copy, float32 (64, 64), lies with respect to the template; the answer is that film's own."""
    matrix, correlation = _search(copy, template.image)
    refused = None
    if matrix is None:
        refused = _STRANGE if correlation < template.least else _TOO_FAR
    elif correlation < template.least:
        refused = _STRANGE
    elif _turned(copy, template.image, correlation):
        refused = _TURNED
    return Alignment(np.eye(3) if refused or matrix is None else matrix, correlation, refused)


def warp(pixels: NDArray[Any], matrix: Float64) -> NDArray[Any]:
    """Show a square picture in the template's frame.

    Args:
        pixels: (K, K) or (K, K, 3), uint8, uint16 or float32.
        matrix: float64 (3, 3), from the template's unit square to the picture's.

    Returns:
        The same shape and dtype, linear-interpolated; beyond its border the picture repeats it.
    """
    import cv2

    side = pixels.shape[0]
    to_unit = pixels_to_unit(side)
    return cv2.warpAffine(
        pixels,
        (np.linalg.inv(to_unit) @ matrix @ to_unit)[:2],
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def pixels_to_unit(side: int) -> Float64:
    """Return the map, float64 (3, 3), from pixel centres of a square of this side to its unit square."""
    return np.array([[1 / side, 0.0, 0.5 / side], [0.0, 1 / side, 0.5 / side], [0.0, 0.0, 1.0]])


def _search(copy: Float32, image: Float32) -> tuple[Float64 | None, float]:
    """Return the plausible map that correlates best, None without one, and the correlation reached, 0 without one."""
    import cv2

    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _GAIN)
    start, everywhere = np.eye(2, 3, dtype=np.float32), np.ones_like(copy, dtype=np.uint8)
    try:
        reached, found = cv2.findTransformECC(image, copy, start, cv2.MOTION_AFFINE, criteria, everywhere, _FILTER)
    except cv2.error:  # a constant film, a negative one, or no overlap left
        return None, 0.0
    to_unit = pixels_to_unit(SIDE)
    matrix = to_unit @ np.vstack([found, [0.0, 0.0, 1.0]]) @ np.linalg.inv(to_unit)
    return (np.asarray(matrix, dtype=np.float64), float(reached)) if _plausible(matrix) else (None, float(reached))


def _plausible(matrix: Float64) -> bool:
    """Return whether patients and beams differ by as much as a map says."""
    if not np.isfinite(matrix).all():
        return False
    linear = matrix[:2, :2]
    area = float(np.linalg.det(linear))
    long, short = np.linalg.svd(linear, compute_uv=False)
    turn = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    shift = np.abs((matrix @ (0.5, 0.5, 1.0))[:2] - 0.5).max()
    return bool(_AREA[0] <= area <= _AREA[1] and long <= _STRETCH * short and abs(turn) <= _TURN and shift <= _SHIFT)


def _turned(copy: Float32, image: Float32, reached: float) -> bool:
    """Return whether a film that was aligned, with the correlation `reached`, would be aligned better when turned.

    Searched only where the film as it is looks more like a turned template than like the upright one: under one film
    in a hundred. Left for right is not asked: a mirrored chest is aligned as well as any.
    """
    turned = [np.rot90(image, quarters) for quarters in (1, 2, 3)]
    ways = [np.ascontiguousarray(way) for way in (*turned, image[::-1], image.T, turned[1].T)]
    film = _standard(copy)
    likeness = [float(np.sum(film * _standard(way))) for way in (image, *ways)]
    best = int(np.argmax(likeness))
    return best > 0 and max(likeness[best], _search(copy, ways[best - 1])[1]) > reached


def _standard(image: Float32) -> Float64:
    """Return a picture with mean 0 and norm 1; a constant one as all 0."""
    centred = image.astype(np.float64) - image.mean(dtype=np.float64)
    norm = float(np.sqrt(np.sum(centred**2)))
    return np.asarray(centred / norm if norm > 0 else centred, dtype=np.float64)
