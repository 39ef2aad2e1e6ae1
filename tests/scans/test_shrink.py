from __future__ import annotations

import numpy as np
import pytest
from skimage.transform import resize_local_mean

from anomaly.scans.shrink import area_mean


@pytest.mark.parametrize(
    ("shape", "small"),
    [((64, 64), (64, 64)), ((101, 237), (64, 64)), ((300, 90), (256, 77)), ((50, 80, 3), (12, 11)), ((9, 700), (1, 3))],
)
def test_agrees_with_scikit_image(shape: tuple[int, ...], small: tuple[int, int]) -> None:
    film = np.random.default_rng(0).random(shape).astype(np.float32)
    wanted = resize_local_mean(film.astype(np.float64), small, channel_axis=2 if film.ndim == 3 else None)
    found = area_mean(film, *small)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_every_pixel_counts_once_whatever_the_sizes() -> None:
    for side in range(1, 200, 7):
        for small in (1, 3, 64, 97):
            film = np.random.default_rng(side).random((side, 5)).astype(np.float32)
            assert area_mean(film, small, 2).mean() == pytest.approx(film.mean(), rel=1e-5), (side, small)


def test_a_view_is_read_as_it_looks() -> None:
    film = np.random.default_rng(1).random((40, 60)).astype(np.float32)
    np.testing.assert_array_equal(area_mean(film[::-1, ::2], 7, 9), area_mean(film[::-1, ::2].copy(), 7, 9))
