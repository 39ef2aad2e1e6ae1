"""CLAHE at 8 bit, grey and on the lightness of colour."""

from __future__ import annotations

import cv2
import numpy as np

from anomaly.prepare.clahe import equalise


def film(shape: tuple[int, ...] = (128, 128)) -> np.ndarray:
    rows = np.linspace(60, 120, shape[0])[:, None]
    noise = np.random.default_rng(0).normal(0, 6, shape[:2])
    return np.clip(rows + noise, 0, 255).astype(np.uint8)


def test_contrast_rises_and_shape_and_type_stay() -> None:
    out = equalise(film(), clip=2.0, tiles=8)
    assert out.shape == (128, 128)
    assert out.dtype == np.uint8
    assert out.std() > film().std()


def test_the_input_is_left_alone() -> None:
    grey, colour = film(), np.dstack([film()] * 3)
    for image in (grey, colour):
        before = image.copy()
        equalise(image, clip=2.0, tiles=8)
        np.testing.assert_array_equal(image, before)


def test_a_higher_clip_limit_gives_more_contrast() -> None:
    spread = [equalise(film(), clip=clip, tiles=4).std() for clip in (1.0, 2.0, 4.0)]
    assert spread == sorted(spread)
    assert spread[0] < spread[-1]


def test_sides_that_tiles_do_not_divide_work() -> None:
    assert equalise(film((101, 67)), clip=2.0, tiles=8).shape == (101, 67)


def test_colour_is_equalised_in_lightness_and_keeps_its_hue() -> None:
    colour = np.dstack([film(), film() // 2, film() // 3])
    out = equalise(colour, clip=2.0, tiles=8)
    assert out.shape == colour.shape
    assert out.dtype == np.uint8
    before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(int) for image in (colour, out))
    assert after[..., 0].std() > before[..., 0].std()
    assert np.abs(np.median(after[..., 1:] - before[..., 1:], axis=(0, 1))).max() <= 2


def test_grey_as_three_channels_comes_out_as_grey_does() -> None:
    grey = equalise(film(), clip=2.0, tiles=8).astype(int)
    three = equalise(np.dstack([film()] * 3), clip=2.0, tiles=8).astype(int)
    assert np.abs(three - grey[..., None]).mean() < 3
