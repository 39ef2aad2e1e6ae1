from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.baselines import softness
from anomaly.evaluate.perturb import film_rng, mask_borders_and_markers, mask_outside, randomise_sharpness
from anomaly.scans.borders import find_borders
from anomaly.scans.markers import find_markers
from anomaly.scans.phantom import make_phantom

Perturbation = Callable[[np.ndarray], np.ndarray]


def film(side: int = 128, seed: int = 0) -> np.ndarray:
    pixels = make_phantom(seed, seed=3).pixels
    return cv2.resize(pixels, (side, side + 8), interpolation=cv2.INTER_AREA).astype(np.float32).clip(0, 1)


def disc(shape: tuple[int, int]) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < (0.3 * shape[1]) ** 2


@pytest.mark.parametrize(
    "change",
    [
        lambda film: randomise_sharpness(film, film_rng("a")),
        lambda film: randomise_sharpness(film, film_rng("b")),
        mask_borders_and_markers,
        lambda film: mask_outside(film, disc(film.shape)),
    ],
)
def test_a_film_comes_out_and_the_film_given_is_left_alone(change: Perturbation) -> None:
    given = film()
    before = given.copy()
    out = change(given)
    assert (out.shape, out.dtype) == (given.shape, np.float32)
    assert out.min() >= 0
    assert out.max() <= 1
    assert not np.array_equal(out, given)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(change(given), out)
    for bad in (given.astype(np.float64), given[None], given * 2, given * np.nan):
        with pytest.raises(DataError, match="pixels"):
            change(bad)


def test_the_lot_is_the_films_own() -> None:
    draws = {scan_id: film_rng(scan_id).random() for scan_id in ("a", "b", "c")}
    assert draws == {scan_id: film_rng(scan_id).random() for scan_id in ("c", "a", "b")}
    assert len(set(draws.values())) == 3
    assert film_rng("a", seed=1).random() != draws["a"]


def test_sharpness_is_drawn_by_lot_and_on_every_size_alike() -> None:
    sharp = film(224)
    softer = [softness(randomise_sharpness(sharp, film_rng(str(i)))) / softness(sharp) for i in range(60)]
    assert max(softer) > 1.33
    assert min(softer) < 1.05
    # A blur is of the film, not of its pixels: a film twice as large and changed looks the same.
    blurred = next(i for i in range(20) if film_rng(str(i)).random() < 0.5)
    large = cv2.resize(sharp, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    small = cv2.resize(randomise_sharpness(large, film_rng(str(blurred))), sharp.shape[::-1], interpolation=3)
    assert np.abs(small - randomise_sharpness(sharp, film_rng(str(blurred)))).mean() < 0.002


def test_markers_and_borders_are_gone_and_the_middle_is_not() -> None:
    levels = np.rint(film(224) * 255).astype(np.uint8)
    levels[:, :14] = 0
    levels[12:56, 176:214] = 8
    cv2.putText(levels, "L", (185, 44), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 255, 2)
    marked = levels.astype(np.float32) / 255
    clean = mask_borders_and_markers(marked)
    assert find_markers(marked).any()
    assert not find_markers(clean).any()
    assert find_borders(clean) is not None
    middle = (slice(60, 180), slice(60, 160))
    np.testing.assert_array_equal(clean[middle], marked[middle])
    rim = round(0.05 * 224)
    assert (clean[:rim] == clean[rim]).all()
    assert (clean[:, :14] == clean[:, 14:15]).all()


def test_outside_the_mask_nothing_is_left_and_no_edge_is_made() -> None:
    pixels = film()
    lung = disc(pixels.shape)
    out = mask_outside(pixels, lung)
    np.testing.assert_array_equal(out[lung], pixels[lung])
    other = np.where(lung, pixels, np.random.default_rng(0).random(pixels.shape)).astype(np.float32)
    np.testing.assert_array_equal(mask_outside(other, lung), out)

    def steps(picture: np.ndarray) -> float:
        """Mean jump between neighbours of which one is in the mask and the other is not."""
        return float(np.abs(np.diff(picture, axis=1))[np.diff(lung, axis=1) != 0].mean())

    within = np.abs(np.diff(pixels, axis=1))[lung[:, 1:] & lung[:, :-1]].mean()
    flat = np.where(lung, pixels, pixels[lung].mean())
    assert steps(out) < 1.5 * within
    assert steps(out) < 0.3 * steps(flat)
    assert abs(out[0, 0] - pixels[lung].mean()) < 0.05


def test_masks_are_checked() -> None:
    pixels = film()
    for mask in (np.zeros(pixels.shape, bool), disc(pixels.shape)[:9], disc(pixels.shape) * 255):
        with pytest.raises(DataError, match="mask"):
            mask_outside(pixels, mask)


@pytest.mark.real
def test_real_films_are_taken(shared_data: Path) -> None:
    for path in sorted((shared_data / "data/kermany/dev/NORMAL").iterdir())[:5]:
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        clean = mask_borders_and_markers(pixels)
        assert clean.shape == pixels.shape
        assert np.abs(clean - pixels)[40:-40, 40:-40].mean() < 0.01
