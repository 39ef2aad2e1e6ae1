from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.baselines import BASELINES, directed_auroc, one_number_audit, softness, trivial_statistics
from anomaly.evaluate.intervals import bootstrap
from anomaly.evaluate.metrics import auroc_of
from anomaly.scans.phantom import make_phantom

NAMES = [
    *("mean", "std", "sharpness", "softness", "black_fraction", "border_brightness"),
    *("file_size", "width", "height", "aspect"),
]


def test_by_hand() -> None:
    film = np.full((100, 200), 0.5, dtype=np.float32)
    film[20:80, 50:150] = 0.0  # 6000 of 20000, none in the border of 5
    numbers = trivial_statistics(film, 12345)
    assert list(numbers) == NAMES == list(BASELINES)
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


def test_softness_is_the_size_of_a_jpeg_and_not_of_the_file_given() -> None:
    from scipy.ndimage import gaussian_filter

    film = np.random.default_rng(0).random((224, 224)).astype(np.float32)
    sharp = trivial_statistics(film, 1)["softness"]
    assert sharp == trivial_statistics(film, 10**6)["softness"] == softness(film)
    assert trivial_statistics(np.asarray(gaussian_filter(film, 2.0)), 1)["softness"] > 2 * sharp
    assert trivial_statistics(np.kron(film, np.ones((2, 2))), 1)["softness"] == pytest.approx(sharp, rel=1e-3)


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


def plainly(pixels: np.ndarray) -> dict[str, float]:
    """The image statistics as numpy, scipy and scikit-image have them, in double precision."""
    from scipy.ndimage import laplace
    from skimage.transform import resize_local_mean

    grey = pixels.astype(np.float64)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    rim = max(1, round(0.05 * min(grey.shape)))
    inner = np.zeros(grey.shape, dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    scale = 256 / max(grey.shape)
    small = grey if scale >= 1 else resize_local_mean(grey, [max(1, round(side * scale)) for side in grey.shape])
    return {
        "mean": grey.mean(),
        "std": grey.std(),
        "sharpness": laplace(small, mode="nearest").var(),
        "black_fraction": (grey <= 0.02).mean(),
        "border_brightness": grey[~inner].mean(),
    }


@pytest.mark.parametrize("kind", ["phantom", "large", "flat", "colour", "small", "double"])
def test_agrees_with_a_plain_computation(kind: str) -> None:
    rng = np.random.default_rng(0)
    film = {
        "phantom": lambda: make_phantom(0).pixels,
        "large": lambda: np.kron(make_phantom(1).pixels, np.ones((4, 5), dtype=np.float32)),
        "flat": lambda: (0.6 + 0.004 * rng.random((900, 1100))).astype(np.float32),
        "colour": lambda: rng.random((300, 700, 3)).astype(np.float32) ** 3,
        "small": lambda: rng.random((3, 40)).astype(np.float32),
        "double": lambda: rng.random((333, 77)),
    }[kind]()
    found = trivial_statistics(film, 1)
    for name, value in plainly(film).items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-12), name


def test_audit_finds_the_shortcut_its_direction_and_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 2)
    labels = (groups < 25).astype(int)
    table = {"file_size": rng.normal(labels * -1.5), "width": np.full(120, 224.0), "mean": rng.random(120)}
    rows = one_number_audit(labels, table, groups, n_boot=300, seed=4)
    assert [row["name"] for row in rows] == list(table)
    size, width, mean = rows
    area, direction = directed_auroc(labels, table["file_size"])
    assert (size["auroc"], size["direction"]) == (area, direction) == (area, "lower")
    assert (size["normals"], size["abnormals"]) == (70, 50)
    alone = bootstrap(auroc_of, labels, -table["file_size"], groups, n=300, seed=4)
    assert size["ci"] == [alone.low, alone.high]
    assert (width["auroc"], width["ci"]) == (0.5, [0.5, 0.5])
    assert mean["ci"][0] < 0.5 <= mean["auroc"] < mean["ci"][1] < size["ci"][0]


def test_audit_without_an_interval_or_a_class() -> None:
    rows = one_number_audit([0, 0, 1, 1], {"mean": [1, 2, 3, 4]}, ["a", "b", "c", "c"])
    assert rows == [{"name": "mean", "auroc": 1.0, "direction": "higher", "ci": None, "normals": 2, "abnormals": 2}]
    assert one_number_audit([0, 1], {}, [0, 1]) == []
    with pytest.raises(DataError, match="no abnormal"):
        one_number_audit([0, 0], {"mean": [1, 2]}, [0, 1])
    with pytest.raises(DataError, match="finite"):
        one_number_audit([0, 1], {"mean": [1, np.nan]}, [0, 1])
