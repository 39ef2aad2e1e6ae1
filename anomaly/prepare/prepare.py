"""One fixed order from film to square, frozen in the model and applied by `score` unasked.

read (full depth) -> crop borders -> inpaint markers -> area-resize at full depth to `clahe_size` -> round to 8 bit
-> crop to the lungs -> register -> crop to the middle -> CLAHE -> resize to S -> black out what is not lung ->
[-1, 1]; each stage optional. Without CLAHE films are registered or cropped at 16 bit and twice S, so that the warp
neither aliases nor rounds what a deep film holds. Crops are taken by that same warp, so that a film is interpolated
once. Lungs are found by a function that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.config import PrepareConfig
from anomaly.errors import UsageError
from anomaly.prepare.clahe import equalise
from anomaly.prepare.geometry import crop_geometry
from anomaly.prepare.markers import inpaint_markers
from anomaly.prepare.register import NOT_REGISTERED, Template, align, pixels_to_unit, small_copy, warp
from anomaly.prepare.resize import resize
from anomaly.records import Float32, Float64, Geometry, Prepared, Scan, UInt8
from anomaly.scans.borders import MOST, Box, find_borders, whole

_ROUNDING = 1e-9  # of the film's side: what arithmetic may push a film's own pixels out
_FEWEST = 0.02  # share of a film that lungs take at least
_MARGIN = 0.05  # of the film's side, kept about the lungs
NO_LUNGS = "no lungs found"
"""What the warning of a film begins with that was used whole for want of lungs."""

LungFinder = Callable[[NDArray[Any]], NDArray[np.bool_]]
"""Finds the lungs of a film as `Shrunk.pixels` holds it: (K, K) or (K, K, 3) -> bool (K, K)."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A film after the stages that need it at full size: what the cache keeps, for detectors of any size.

    `pixels`: (K, K) or (K, K, 3): uint8 with K = `clahe_size` where CLAHE follows; else uint16 with K = 2 S where
    registration does; else float32 in [0, 1] with K = S. `box` is the part of the film kept, `film_shape` the (H, W) of
    the whole.
    """

    pixels: UInt8 | NDArray[np.uint16] | Float32
    box: Box
    film_shape: tuple[int, int]
    warnings: tuple[str, ...]

    def to_entry(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and plain JSON that `from_entry` turns back."""
        box = [self.box.top, self.box.bottom, self.box.left, self.box.right]
        return {"pixels": self.pixels}, {"box": box, "shape": list(self.film_shape), "warnings": list(self.warnings)}

    @classmethod
    def from_entry(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Shrunk:
        """Build from what `to_entry` returned."""
        height, width = meta["shape"]
        return cls(np.asarray(arrays["pixels"]), Box(*meta["box"]), (height, width), tuple(meta["warnings"]))


class Preparation:
    """Turns scans into what a detector sees.

    Args:
        config: The stages and their settings.
        size: Side S of the prepared square.
        template: The mean normal chest that films are registered to; None until it has been fitted, or for ever
            where nothing is registered.
        find_lungs: Needed where films are masked by their lungs or cropped to them.
    """

    def __init__(
        self,
        config: PrepareConfig,
        size: int,
        template: Template | None = None,
        find_lungs: LungFinder | None = None,
    ) -> None:
        self.config = config
        self.size = size
        self.template = template
        self.find_lungs = find_lungs

    @property
    def needs_lungs(self) -> bool:
        """Whether lungs are looked for."""
        return self.config.lungs != "none"

    @property
    def finishes_anywhere(self) -> bool:
        """Whether the settings alone are enough to prepare a film to the end."""
        return not (self.registers or self.needs_lungs)

    @property
    def registers(self) -> bool:
        """Whether films are registered."""
        return self.config.registration != "none"

    @property
    def fitted(self) -> bool:
        """Whether nothing is missing that must be learnt from normals first."""
        return self.template is not None or not self.registers

    def with_template(self, template: Template) -> Preparation:
        """Return the same preparation with the template that films are to be registered to."""
        return Preparation(self.config, self.size, template, self.find_lungs)

    def with_lungs(self, find_lungs: LungFinder) -> Preparation:
        """Return the same preparation with what finds the lungs."""
        return Preparation(self.config, self.size, self.template, find_lungs)

    def __call__(self, scan: Scan) -> Prepared:
        """Prepare one scan.

        Returns:
            `Prepared` with image float32 (C, S, S) in [-1, 1] and the exact way back to the film.

        Raises:
            UsageError: Films are to be registered, and there is no template yet.
        """
        return self.finish(self.shrink(scan))

    @property
    def shrinks_by(self) -> dict[str, Any]:
        """Return the settings that `shrink` goes by, plain JSON; preparations that share them share its result."""
        config = self.config
        side, depth = self._kept
        return {"crop": config.crop, "markers": config.markers, "side": side, "depth": depth}

    @property
    def _kept(self) -> tuple[int, str]:
        """Side and dtype of what `shrink` leaves."""
        if self.config.clahe:
            return self.config.clahe_size, "uint8"
        return (self.size, "float32") if self.finishes_anywhere else (2 * self.size, "uint16")

    def shrink(self, scan: Scan) -> Shrunk:
        """Do the stages that need the film at full size and depth."""
        config = self.config
        pixels, box, warnings = scan.pixels, whole(scan.pixels), scan.warnings
        if config.crop == "auto":
            found = find_borders(pixels)
            if found is None:
                warnings = (*warnings, f"borders not cropped: they would take over {100 * MOST:.0f} % of a side")
            else:
                box = found
                pixels = box.cut(pixels)
        if config.markers == "inpaint":
            pixels = inpaint_markers(pixels)
        film_shape = scan.pixels.shape[0], scan.pixels.shape[1]
        side, depth = self._kept
        small = resize(pixels, side)
        if depth != "float32":
            top = np.iinfo(depth).max
            small = np.clip(np.rint(small * np.float32(top)), 0, top).astype(depth)
        return Shrunk(small, box, film_shape, warnings)

    def finish(self, shrunk: Shrunk) -> Prepared:
        """Do the rest.

        Raises:
            UsageError: Films are to be registered, and there is no template yet; or nothing finds their lungs.
        """
        config = self.config
        pixels, warnings = shrunk.pixels, shrunk.warnings
        geometry, inside = crop_geometry(shrunk.film_shape, shrunk.box, self.size), None
        matrix = _middle(config.central_crop)
        lungs = self._lungs(pixels)
        if self.needs_lungs and lungs is None:
            warnings = (*warnings, f"{NO_LUNGS}: the whole film is used; its score and map are less sure")
        elif lungs is not None and config.lungs == "crop":
            matrix = _around(lungs) @ matrix
        if self.registers:
            if self.template is None:
                raise UsageError("prepare.register needs the template that `anomaly fit` makes of the normals first.")
            aligned = align(small_copy(pixels), self.template)
            if aligned.refused is None:
                matrix = aligned.matrix @ matrix
            else:
                warnings = (*warnings, f"{NOT_REGISTERED}: {aligned.refused}; its score and map are less sure")
        if not np.array_equal(matrix, np.eye(3)):
            pixels = warp(pixels, matrix)
            geometry, inside = _warped(geometry, matrix)
            lungs = None if lungs is None else warp(lungs.astype(np.float32), matrix) >= 0.5
        if config.clahe:
            eight_bit = np.asarray(pixels, dtype=np.uint8)
            pixels = equalise(eight_bit, clip=config.clahe_clip, tiles=config.clahe_tiles)
        top = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype.name).max
        square = resize(np.asarray(pixels, dtype=np.float32) / np.float32(top), self.size)
        square = np.clip(square, 0.0, 1.0)
        grey = square.ndim == 2
        channels = np.repeat(square[None], config.channels, axis=0) if grey else square.transpose(2, 0, 1)
        image = np.ascontiguousarray(channels * 2.0 - 1.0, dtype=np.float32)
        if lungs is not None and config.lungs == "mask":
            image, inside = _blacked_out(image, lungs, inside)
        return Prepared(image, geometry, warnings, inside)

    def _lungs(self, pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return where the lungs lie, bool (K, K); None where they are not asked for, or next to nothing of them."""
        if not self.needs_lungs:
            return None
        if self.find_lungs is None:
            raise UsageError(
                "prepare.lungs needs a fitted U-Net: `anomaly fit … --lungs RUN` of `anomaly segment fit`."
            )
        found = self.find_lungs(pixels)
        return found if found.mean() >= _FEWEST else None


def _around(lungs: NDArray[np.bool_]) -> Float64:
    """Return the map, float64 (3, 3), from a unit square onto the box about the lungs, with a margin."""
    side = len(lungs)
    (top, bottom), (left, right) = (
        (int(places[0]) / side, (int(places[-1]) + 1) / side)
        for places in (np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0))
    )
    left, top = max(left - _MARGIN, 0.0), max(top - _MARGIN, 0.0)
    right, bottom = min(right + _MARGIN, 1.0), min(bottom + _MARGIN, 1.0)
    return np.array([[right - left, 0.0, left], [0.0, bottom - top, top], [0.0, 0.0, 1.0]])


def _blacked_out(
    image: Float32, lungs: NDArray[np.bool_], inside: NDArray[np.bool_] | None
) -> tuple[Float32, NDArray[np.bool_] | None]:
    """Return the image with all but the lungs black, and what is left of the film; both as they are without lungs."""
    kept = resize(lungs.astype(np.float32), image.shape[1]) >= 0.5
    seen = kept if inside is None else kept & inside
    if not seen.any():
        return image, inside
    return np.where(kept, image, np.float32(-1.0)), seen


def _middle(share: float) -> Float64:
    """Return the map, float64 (3, 3), from a unit square onto the middle of another, so large a share of its side."""
    edge = (1.0 - share) / 2.0
    return np.array([[share, 0.0, edge], [0.0, share, edge], [0.0, 0.0, 1.0]])


def _warped(geometry: Geometry, matrix: Float64) -> tuple[Geometry, NDArray[np.bool_] | None]:
    """Return the way back from a warped square, and which of its pixels show film (None for all).

    Args:
        geometry: Of the square before it was warped.
        matrix: float64 (3, 3), from the warped unit square to the former.
    """
    size = geometry.size
    to_unit = pixels_to_unit(size)
    way = geometry.matrix @ np.linalg.inv(to_unit) @ matrix @ to_unit
    place = np.arange(size)
    x, y = ((matrix @ to_unit)[row, :, None, None] for row in (0, 1))
    inside = np.ones((size, size), np.bool_)
    for across, down, shift in (x, y):
        at = across * place + down * place[:, None] + shift
        inside &= (at >= -_ROUNDING) & (at <= 1 + _ROUNDING)
    return Geometry(way, geometry.film_shape, size), None if inside.all() else inside


def pack_prepared(prepared: Prepared) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return arrays and plain JSON that `unpack_prepared` turns back."""
    geometry = prepared.geometry
    meta = {"shape": list(geometry.film_shape), "size": geometry.size, "warnings": list(prepared.warnings)}
    arrays: dict[str, NDArray[Any]] = {"image": prepared.image, "matrix": geometry.matrix}
    if prepared.inside is not None:
        arrays["inside"] = prepared.inside
    return arrays, meta


def unpack_prepared(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Prepared:
    """Build from what `pack_prepared` returned."""
    height, width = meta["shape"]
    geometry = Geometry(np.asarray(arrays["matrix"]), (height, width), meta["size"])
    return Prepared(np.asarray(arrays["image"]), geometry, tuple(meta["warnings"]), arrays.get("inside"))
