from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.baselines import directed_auroc, trivial_statistics

NAMES = ["mean", "std", "sharpness", "black_fraction", "border_brightness", "file_size", "width", "height", "aspect"]


def test_by_hand() -> None:
    film = np.full((100, 200), 0.5, dtype=np.float32)
    film[20:80, 50:150] = 0.0  # 6000 of 20000, none in the border of 5
    numbers = trivial_statistics(film, 12345)
    assert list(numbers) == NAMES
    assert numbers["mean"] == pytest.approx(0.35)
    assert numbers["std"] == pytest.approx(np.sqrt(0.3 * 0.7) * 0.5)
    assert numbers["black_fraction"] == pytest.approx(0.3)
    assert numbers["border_brightness"] == pytest.approx(0.5)
    assert (numbers["file_size"], numbers["width"], numbers["height"], numbers["aspect"]) == (12345, 200, 100, 2)
    assert all(type(value) is float for value in numbers.values())


def test_sharpness_sees_blur_and_not_the_size_of_the_film() -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    film = rng.random((256, 200)).astype(np.float32)
    sharp = trivial_statistics(film, 1)["sharpness"]
    assert trivial_statistics(np.asarray(gaussian_filter(film, 1.5)), 1)["sharpness"] < 0.05 * sharp
    # Every pixel four times over is the same film at twice the size: area resizing gives it back exactly.
    assert trivial_statistics(np.kron(film, np.ones((2, 2))), 1)["sharpness"] == pytest.approx(sharp, rel=1e-5)
    assert trivial_statistics(np.full((700, 50), 0.7), 1)["sharpness"] == pytest.approx(0.0, abs=1e-12)


def test_border_and_tiny_and_colour_pictures() -> None:
    framed = np.zeros((40, 40))
    framed[:2], framed[-2:], framed[:, :2], framed[:, -2:] = 1, 1, 1, 1
    assert trivial_statistics(framed, 1)["border_brightness"] == 1.0
    assert trivial_statistics(np.ones((3, 3)), 1)["border_brightness"] == 1.0
    assert trivial_statistics(np.ones((8, 9, 3)) * [0.0, 0.3, 0.6], 1)["mean"] == pytest.approx(0.3)


def test_input_is_left_alone() -> None:
    film = np.random.default_rng(1).random((300, 310)).astype(np.float32)
    before = film.copy()
    trivial_statistics(film, 1)
    np.testing.assert_array_equal(film, before)


@pytest.mark.parametrize("bad", [np.ones(9), np.ones((2, 9)), np.full((9, 9), np.nan), np.ones((9, 9, 4))])
def test_refuses(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="pixels"):
        trivial_statistics(bad, 1)


def test_direction_is_chosen_by_the_data() -> None:
    assert directed_auroc([0, 0, 1, 1], [1, 2, 3, 4]) == (1.0, "higher")
    assert directed_auroc([0, 0, 1, 1], [4, 3, 2, 1]) == (1.0, "lower")
    assert directed_auroc([0, 1], [1, 1]) == (0.5, "higher")
