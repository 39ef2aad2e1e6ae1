"""Films cropped of borders, or to their middle: what the detector sees, and the exact way back to the whole film."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from anomaly.config import PrepareConfig
from anomaly.prepare.geometry import (
    crop_geometry,
    on_shape,
    resize_geometry,
    to_film,
    to_film_points,
    to_prepared_points,
)
from anomaly.prepare.prepare import Preparation, resize
from anomaly.records import Scan
from anomaly.scans.borders import Box, whole
from anomaly.scans.phantom import make_phantom

SHAPE, BOX = (300, 420), Box(40, 280, 60, 410)


@cache
def film(level: float = 0.0) -> np.ndarray:
    """A chest to the edges of BOX, a border of one level around it."""
    pixels = np.full(SHAPE, level, np.float32)
    chest = make_phantom(1).pixels[120:380, 90:-90]
    inner = cv2.resize(chest, (BOX.right - BOX.left, BOX.bottom - BOX.top), interpolation=cv2.INTER_AREA)
    BOX.cut(pixels)[...] = 0.25 + 0.6 * inner
    return pixels


def inside(shape: tuple[int, int] = SHAPE, box: Box = BOX) -> np.ndarray:
    seen = np.zeros(shape, bool)
    box.cut(seen)[...] = True
    return seen


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_auto_crops_what_the_detector_sees(level: float) -> None:
    prepared = Preparation(PrepareConfig(crop="auto", clahe=False), 64)(Scan("a", film(level), 16))
    alone = Preparation(PrepareConfig(clahe=False), 64)(Scan("a", np.ascontiguousarray(BOX.cut(film())), 16))
    np.testing.assert_array_equal(prepared.image, alone.image)
    assert prepared.geometry.film_shape == SHAPE
    corners = np.array([[-0.5, -0.5], [63.5, 63.5]])
    expected = [[BOX.left - 0.5, BOX.top - 0.5], [BOX.right - 0.5, BOX.bottom - 0.5]]
    np.testing.assert_allclose(to_film_points(corners, prepared.geometry), expected, atol=1e-9)


@pytest.mark.parametrize("at", [(75, 50), (390, 270), (200, 160)])
def test_heat_planted_at_a_film_pixel_comes_back_to_it(at: tuple[int, int]) -> None:
    geometry = crop_geometry(SHAPE, BOX, 64)
    (x, y), rows, columns = to_prepared_points(np.array([at], float), geometry)[0], *np.mgrid[:64, :64]
    heat = np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 4).astype(np.float32)
    back = to_film(heat, geometry)
    found = np.unravel_index(back.argmax(), back.shape)[::-1]
    assert np.abs(np.array(found) - at).max() <= 1


def test_heat_is_zero_where_nothing_was_looked_at_and_nowhere_else() -> None:
    heat = to_film(np.full((64, 64), 0.7, np.float32), crop_geometry(SHAPE, BOX, 64))
    np.testing.assert_array_equal(heat > 0, inside())
    np.testing.assert_allclose(heat[inside()], 0.7, atol=1e-5)


def test_a_small_copy_of_a_cropped_film_shows_the_heat_in_the_same_place() -> None:
    geometry = on_shape(crop_geometry(SHAPE, BOX, 64), (150, 210))
    heat = to_film(np.ones((64, 64), np.float32), geometry)
    np.testing.assert_array_equal(heat > 0, inside((150, 210), Box(20, 140, 30, 205)))


@pytest.mark.parametrize("shape", [(300, 420), (37, 91), (2048, 2500)])
@pytest.mark.parametrize("size", [16, 64, 100])
def test_an_uncropped_film_is_warm_to_its_last_pixel_bit_for_bit(shape: tuple[int, int], size: int) -> None:
    geometry = crop_geometry(shape, Box(0, shape[0], 0, shape[1]), size)
    np.testing.assert_array_equal(geometry.matrix, resize_geometry(shape, size).matrix)
    heat = np.random.default_rng(0).random((size, size)).astype(np.float32) + 0.5
    plain = cv2.warpAffine(
        heat,
        np.linalg.inv(geometry.matrix)[:2],
        shape[::-1],
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    np.testing.assert_array_equal(to_film(heat, geometry), np.maximum(plain, 0))


def test_left_off_nothing_changes_bit_for_bit() -> None:
    pixels = film()
    off = Preparation(PrepareConfig(clahe=False), 64)(Scan("a", pixels, 16))
    np.testing.assert_array_equal(off.image[0], np.clip(resize(pixels, 64), 0, 1) * 2 - 1)
    np.testing.assert_array_equal(off.geometry.matrix, resize_geometry(SHAPE, 64).matrix)


def test_a_clean_film_is_the_same_with_and_without() -> None:
    scan = Scan("a", make_phantom(0).pixels, 16)
    on, off = (Preparation(PrepareConfig(crop=crop), 64)(scan) for crop in ("auto", "none"))
    np.testing.assert_array_equal(on.image, off.image)
    np.testing.assert_array_equal(on.geometry.matrix, off.geometry.matrix)


def test_too_large_a_border_is_kept_with_a_warning() -> None:
    pixels = np.zeros((300, 300), np.float32)
    pixels[:150] = film()[60:210, 80:380]
    prepared = Preparation(PrepareConfig(crop="auto"), 64)(Scan("a", pixels, 16, warnings=("odd",)))
    assert prepared.warnings == ("odd", "borders not cropped: they would take over 40 % of a side")
    np.testing.assert_array_equal(prepared.geometry.matrix, crop_geometry((300, 300), whole(pixels), 64).matrix)


def test_borders_go_before_markers_are_looked_for() -> None:
    """In the whole film the letter lies too far in; in the field it lies at its edge."""
    pixels = np.zeros((400, 400), np.float32)
    pixels[140:, 130:270] = np.linspace(0.3, 0.5, 140, dtype=np.float32)
    pixels[180:192, 138:141] = pixels[189:192, 138:146] = 1
    config = PrepareConfig(crop="auto", markers="inpaint", clahe=False)
    assert Preparation(config, 64)(Scan("a", pixels, 16)).image.max() < 0.2


# ---- the middle --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.8, 0.35])
@pytest.mark.parametrize("shape", [(300, 420), (640, 500)])
def test_the_middle_shows_what_its_geometry_says(shape: tuple[int, int], share: float) -> None:
    """On films that grow brighter across, or down, brightness is place: every pixel says where it is from."""
    height, width = shape
    for axis, side in ((0, width), (1, height)):
        ramp = np.linspace(0.5 / side, 1 - 0.5 / side, side, dtype=np.float32)
        pixels = np.ascontiguousarray(np.broadcast_to(ramp if axis == 0 else ramp[:, None], shape))
        prepared = Preparation(PrepareConfig(central_crop=share, clahe=False), 64)(Scan("a", pixels, 16))
        rows, columns = np.mgrid[:64, :64].reshape(2, -1).astype(float)
        places = to_film_points(np.column_stack([columns, rows]), prepared.geometry)[:, axis]
        seen = (prepared.image[0].ravel() + 1) / 2 * side - 0.5
        assert np.abs(seen - places).max() < side / 64 / 20
        assert prepared.inside is None
    edge = (1 - share) / 2
    corners = to_film_points(np.array([[-0.5, -0.5], [63.5, 63.5]]), prepared.geometry)
    expected = [[edge * width - 0.5, edge * height - 0.5], [(1 - edge) * width - 0.5, (1 - edge) * height - 0.5]]
    np.testing.assert_allclose(corners, expected, atol=1e-9)


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_around_the_middle_there_is_no_heat_and_nothing_has_a_say(crop: str) -> None:
    config = PrepareConfig(crop=crop, central_crop=0.5)
    prepared = Preparation(config, 64)(Scan("a", film(), 16))
    box = BOX if crop == "auto" else whole(film())
    height, width = box.bottom - box.top, box.right - box.left
    down, across = height // 4, width // 4
    middle = Box(box.top + down, box.bottom - down, box.left + across, box.right - across)
    heat = to_film(np.ones((64, 64), np.float32), prepared.geometry)
    np.testing.assert_array_equal(heat > 0, inside(box=middle))
    changed = film().copy()
    rim = inside(box=box) & ~inside(box=Box(middle.top - 8, middle.bottom + 8, middle.left - 8, middle.right + 8))
    changed[rim] = 1 - changed[rim]
    again = Preparation(config, 64)(Scan("a", changed, 16))
    np.testing.assert_array_equal(again.geometry.matrix, prepared.geometry.matrix)
    np.testing.assert_array_equal(again.image, prepared.image)


def test_the_middle_is_taken_of_the_same_half_way_film() -> None:
    for clahe in (True, False):
        whole_film, middle = (
            Preparation(PrepareConfig(central_crop=share, clahe=clahe), 64).shrinks_by for share in (1.0, 0.8)
        )
        assert whole_film == middle
