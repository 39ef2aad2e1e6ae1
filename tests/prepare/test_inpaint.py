"""Markers are painted over; every other pixel of the film keeps its level."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.config import PrepareConfig
from anomaly.prepare.markers import inpaint_markers
from anomaly.prepare.prepare import Preparation
from anomaly.records import Scan
from anomaly.scans.markers import find_markers


def film(shape: tuple[int, ...]) -> np.ndarray:
    """A 16-bit slope with noise finer than 8 bits, and an L in the corner."""
    height, width = shape[:2]
    levels = np.linspace(9000, 30000, width)[None] + np.random.default_rng(0).integers(-60, 60, (height, width))
    pixels = (np.rint(levels) / 65535).astype(np.float32)
    y, x, stroke = height // 12, width // 16, max(2, width // 80)
    pixels[y : y + 5 * stroke, x : x + stroke] = 1
    pixels[y + 4 * stroke : y + 5 * stroke, x : x + 3 * stroke] = 1
    return np.dstack([pixels, pixels * 0.9, pixels * 0.8]) if len(shape) == 3 else pixels


@pytest.mark.parametrize("shape", [(200, 240), (1100, 1300), (300, 300, 3)])
def test_the_mark_goes_and_the_rest_keeps_its_sixteen_bits(shape: tuple[int, ...]) -> None:
    pixels = film(shape)
    before, mask = pixels.copy(), find_markers(pixels)
    painted = inpaint_markers(pixels)
    np.testing.assert_array_equal(pixels, before)
    assert painted.dtype == np.float32
    assert 0 < mask.mean() < 0.03
    np.testing.assert_array_equal(painted[~mask], pixels[~mask])
    assert pixels[mask].max() == 1
    truth = np.linspace(9000, 30000, shape[1]) / 65535
    found = painted if painted.ndim == 2 else painted[..., 0]
    assert np.abs(found - truth)[mask].max() < 0.03


def test_a_film_without_marks_comes_back_as_it_is() -> None:
    pixels = np.tile(np.linspace(0, 1, 300, dtype=np.float32), (280, 1))
    assert inpaint_markers(pixels) is pixels


def test_preparation_inpaints_only_when_asked() -> None:
    scan = Scan("a", film((256, 256)), 16)
    kept, painted = (
        Preparation(PrepareConfig(markers=markers, clahe=False), 64)(scan).image[0] for markers in ("keep", "inpaint")
    )
    assert kept[5:10, 3:9].max() > 0
    assert painted[5:10, 3:9].max() < -0.5
    np.testing.assert_array_equal(kept[:, 20:], painted[:, 20:])
