"""The way between prepared pixels and film pixels."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.config import PrepareConfig
from anomaly.prepare.geometry import (
    crop_geometry,
    mask_to_square,
    on_shape,
    resize_geometry,
    to_film,
    to_film_points,
    to_prepared_points,
)
from anomaly.prepare.prepare import Preparation
from anomaly.records import Geometry, Scan
from anomaly.scans.borders import Box

FILMS = [(300, 400), (512, 512), (420, 97), (17, 31), (2048, 2500)]
SIZES = [16, 64, 512]


def corners(height: float, width: float) -> np.ndarray:
    """Outer corners of an image, as points between pixel centres."""
    return np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5], [width - 0.5, height - 0.5]])


def blob(shape: tuple[int, int], x: float, y: float, sigma: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2).astype(np.float32)


def peak(image: np.ndarray) -> np.ndarray:
    y, x = np.unravel_index(image.argmax(), image.shape)
    return np.array([[x, y]], float)


@pytest.mark.parametrize("film", FILMS)
@pytest.mark.parametrize("size", SIZES)
def test_points_go_there_and_back(film: tuple[int, int], size: int) -> None:
    geometry = resize_geometry(film, size)
    points = np.random.default_rng(0).uniform(-5, size + 5, (50, 2))
    np.testing.assert_allclose(to_prepared_points(to_film_points(points, geometry), geometry), points, atol=1e-9)


def test_points_go_there_and_back_through_a_tilted_affine() -> None:
    matrix = np.array([[3.1, 0.4, 17.0], [-0.3, 2.7, -9.0], [0.0, 0.0, 1.0]])
    geometry = Geometry(matrix, (300, 400), 64)
    points = np.random.default_rng(0).uniform(0, 64, (50, 2))
    film = to_film_points(points, geometry)
    np.testing.assert_allclose(film[0], matrix[:2, :2] @ points[0] + matrix[:2, 2])
    np.testing.assert_allclose(to_prepared_points(film, geometry), points, atol=1e-9)


@pytest.mark.parametrize("film", FILMS)
@pytest.mark.parametrize("size", SIZES)
def test_corners_map_to_corners(film: tuple[int, int], size: int) -> None:
    geometry = resize_geometry(film, size)
    assert (geometry.film_shape, geometry.size) == (film, size)
    np.testing.assert_allclose(to_film_points(corners(size, size), geometry), corners(*film), atol=1e-9)


@pytest.mark.parametrize("film", [(300, 400), (420, 200), (48, 40)])
@pytest.mark.parametrize("clahe", [True, False])
def test_a_blobs_peak_in_the_prepared_square_returns_to_its_place_on_the_film(
    film: tuple[int, int], clahe: bool
) -> None:
    size = 64
    height, width = film
    x, y = 0.3 * width, 0.7 * height
    scan = Scan("blob", blob(film, x, y, 0.1 * width), 16)
    prepared = Preparation(PrepareConfig(clahe=clahe, clahe_size=128), size)(scan)
    found = to_film_points(peak(blob_of(prepared.image)), prepared.geometry)
    assert (np.abs(found - [x, y]) <= np.maximum([width / size, height / size], 1)).all()


def blob_of(image: np.ndarray) -> np.ndarray:
    """Smooth a prepared image so that a plateau left by 8-bit rounding peaks in its middle."""
    import cv2

    return np.asarray(cv2.GaussianBlur(image[0], (0, 0), 2.0))


@pytest.mark.parametrize("film", [(300, 400), (420, 200), (40, 48), (64, 64)])
def test_a_map_peaks_on_the_film_where_its_points_say(film: tuple[int, int]) -> None:
    geometry = resize_geometry(film, 64)
    where = np.array([[20.0, 45.0]])
    heatmap = to_film(blob((64, 64), *where[0], 4.0), geometry)
    assert heatmap.shape == film
    assert heatmap.dtype == np.float32
    assert heatmap.min() >= 0
    scale = np.maximum([film[1] / 64, film[0] / 64], 1)
    assert (np.abs(peak(heatmap) - to_film_points(where, geometry)) <= scale).all()


def test_a_map_at_the_films_own_size_comes_back_unchanged() -> None:
    heatmap = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    np.testing.assert_allclose(to_film(heatmap, resize_geometry((64, 64), 64)), heatmap, atol=1e-6)


def test_a_flat_map_stays_flat_to_the_films_edge() -> None:
    film = to_film(np.full((64, 64), 0.7, np.float32), resize_geometry((300, 401), 64))
    np.testing.assert_allclose(film, 0.7, atol=1e-5)


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        to_film(np.zeros((32, 32), np.float32), resize_geometry((100, 100), 64))


@pytest.mark.parametrize("shape", [(150, 200), (333, 77), (300, 400)])
def test_on_a_stretched_copy_the_geometry_is_that_of_the_copy(shape: tuple[int, int]) -> None:
    whole = resize_geometry((300, 400), 64)
    seen = on_shape(whole, shape)
    assert (seen.film_shape, seen.size) == (shape, 64)
    np.testing.assert_allclose(seen.matrix, resize_geometry(shape, 64).matrix, atol=1e-9)


def test_on_a_stretched_copy_a_tilted_affine_moves_with_the_film() -> None:
    geometry = Geometry(np.array([[3.1, 0.4, 17.0], [-0.3, 2.7, -9.0], [0, 0, 1.0]]), (300, 400), 64)
    points = np.random.default_rng(0).uniform(0, 64, (20, 2))
    on_film = to_film_points(points, geometry)
    on_copy = to_film_points(points, on_shape(geometry, (150, 800)))
    np.testing.assert_allclose(on_copy, (on_film + 0.5) * [2.0, 0.5] - 0.5, atol=1e-9)


def test_a_mask_comes_there_and_back() -> None:
    """Onto the square and back onto the film, for films larger and smaller than it, cropped or not."""
    for shape, size in (((300, 260), 64), ((48, 40), 64), ((97, 211), 33)):
        height, width = shape
        y, x = np.mgrid[:height, :width]
        mask = ((x / width - 0.45) / 0.25) ** 2 + ((y / height - 0.5) / 0.3) ** 2 <= 1
        whole = resize_geometry(shape, size)
        part = crop_geometry(shape, Box(height // 10, height - height // 20, width // 8, width), size)
        for geometry in (whole, part):
            square = mask_to_square(mask, geometry)
            assert square.shape == (size, size)
            assert square.dtype == np.bool_
            back = to_film(square.astype(np.float32), geometry) >= 0.5
            dice = 2 * (back & mask).sum() / (back.sum() + mask.sum())
            assert dice > 1 - 4 / min(size, height), (shape, size, dice)
        area = mask_to_square(mask, whole).mean()
        assert area == pytest.approx(mask.mean(), abs=0.01)


def test_a_mask_of_the_squares_own_size_is_left_as_it_is() -> None:
    mask = np.random.default_rng(0).random((32, 32)) < 0.5
    np.testing.assert_array_equal(mask_to_square(mask, resize_geometry((32, 32), 32)), mask)


def test_a_pixel_is_inside_where_the_mask_covers_half_of_it() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[:2, :1] = True  # half of the first of 4 x 4
    mask[4:6, 4:5] = True
    mask[4, 5] = True  # three of four
    mask[0, 7] = True  # one of four
    square = mask_to_square(mask, resize_geometry((8, 8), 4))
    assert np.argwhere(square).tolist() == [[0, 0], [2, 2]]
    with pytest.raises(ValueError, match="does not fit"):
        mask_to_square(mask[1:], resize_geometry((8, 8), 4))
