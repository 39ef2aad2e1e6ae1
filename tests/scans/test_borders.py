"""Collimation and frames are cut to the pixel; a film without them is left whole."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from anomaly.scans.borders import Box, find_borders, whole
from anomaly.scans.phantom import make_phantom

RNG = np.random.default_rng(0)


@cache
def inner_chest() -> np.ndarray:
    pixels = make_phantom(0).pixels
    h, w = pixels.shape
    return pixels[h // 4 : -h // 8, w // 5 : -w // 5]


def field(height: int, width: int) -> np.ndarray:
    """The inner part of a chest: tissue to all four edges."""
    inner = cv2.resize(inner_chest(), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(0.25 + 0.6 * inner, np.float32)


def framed(shape: tuple[int, int], frame: tuple[int, int, int, int], level: float, noise: float) -> np.ndarray:
    top, bottom, left, right = frame
    height, width = shape
    film = np.clip(level + noise * RNG.standard_normal(shape), 0, 1).astype(np.float32)
    film[top : height - bottom, left : width - right] = field(height - top - bottom, width - left - right)
    return film


@pytest.mark.parametrize("shape", [(300, 260), (1203, 1501)])
@pytest.mark.parametrize(("level", "noise"), [(0.0, 0.0), (0.03, 0.015), (1.0, 0.0), (0.98, 0.015), (0.05, 0.0)])
@pytest.mark.parametrize("frame", [(20, 31, 17, 5), (0, 60, 0, 0), (0, 0, 1, 3), (70, 0, 80, 0)])
def test_a_border_is_cut_to_the_pixel(
    shape: tuple[int, int], level: float, noise: float, frame: tuple[int, int, int, int]
) -> None:
    top, bottom, left, right = frame
    found = find_borders(framed(shape, frame, level, noise))
    assert found == Box(top, shape[0] - bottom, left, shape[1] - right)


def test_a_white_frame_around_a_black_surround_is_peeled_with_it() -> None:
    film = np.pad(framed((280, 280), (20, 20, 20, 20), 0.0, 0.01), 12, constant_values=np.float32(1))
    assert find_borders(film) == Box(32, 272, 32, 272)


def test_a_letter_in_the_surround_does_not_stop_the_cut() -> None:
    film = framed((300, 300), (60, 0, 0, 0), 0.0, 0.0)
    film[20:40, 10:25] = 1
    assert find_borders(film) == Box(60, 300, 0, 300)


@pytest.mark.parametrize("degrees", [-1.5, 1.0])
def test_tilted_collimation_loses_all_but_its_wedges(degrees: float) -> None:
    film = framed((400, 400), (60, 60, 60, 60), 0.0, 0.0)
    turn = cv2.getRotationMatrix2D((199.5, 199.5), degrees, 1)
    box = find_borders(np.asarray(cv2.warpAffine(film, turn, (400, 400)), np.float32))
    assert box is not None
    assert np.abs(np.array([box.top, 400 - box.bottom, box.left, 400 - box.right]) - 60).max() <= 8


@pytest.mark.parametrize("index", range(3))
def test_a_clean_film_is_left_whole(index: int) -> None:
    pixels = make_phantom(index).pixels
    assert find_borders(pixels) == whole(pixels)


def test_air_beside_a_patient_is_no_border() -> None:
    columns = np.linspace(-1.4, 1.4, 300)
    body = np.clip(1.2 - columns**2, 0, 0.7)[None] * np.linspace(0.6, 1, 260)[:, None]
    film = cv2.GaussianBlur(body.astype(np.float32), (0, 0), 4)
    assert find_borders(film) == whole(film)


@pytest.mark.parametrize("frame", [(0, 130, 0, 0), (0, 0, 125, 10)])
def test_more_than_two_fifths_of_a_side_is_not_cut(frame: tuple[int, int, int, int]) -> None:
    assert find_borders(framed((300, 300), frame, 0.0, 0.0)) is None


def test_nothing_but_border_is_not_cut() -> None:
    assert find_borders(np.zeros((64, 64), np.float32)) is None


def test_colour_films_have_borders_too() -> None:
    film = np.dstack([framed((200, 200), (10, 20, 0, 0), 0.0, 0.0)] * 3)
    assert find_borders(film) == Box(10, 180, 0, 200)
    assert Box(10, 180, 0, 200).cut(film).shape == (170, 200, 3)
