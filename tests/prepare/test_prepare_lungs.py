"""Films masked by their lungs, or cropped to them, by a function that is handed in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly.config import PrepareConfig, parse_recipe
from anomaly.errors import UsageError
from anomaly.prepare.geometry import to_film_points
from anomaly.prepare.prepare import NO_LUNGS, Preparation
from anomaly.records import Scan
from anomaly.scans.phantom import make_phantom

SIZE = 64


def film() -> Scan:
    return Scan("film", make_phantom(0).pixels, 16)


def box_of_lungs(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Find "lungs" in one and the same part of every film."""
    side = len(pixels)
    found = np.zeros((side, side), np.bool_)
    found[side // 4 : side // 2, side // 8 : 3 * side // 4] = True
    return found


def nothing(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(pixels.shape[:2], np.bool_)


def prepare(find: Any, **settings: Any) -> Any:
    return Preparation(PrepareConfig(**settings), SIZE, find_lungs=find)(film())


def test_a_mask_blacks_out_the_rest_and_says_what_is_left() -> None:
    whole, masked = prepare(None), prepare(box_of_lungs, lungs="mask")
    assert masked.inside is not None
    wanted = np.zeros((SIZE, SIZE), np.bool_)
    wanted[16:32, 8:48] = True
    np.testing.assert_array_equal(masked.inside, wanted)
    assert (masked.image[0][~wanted] == -1).all()
    np.testing.assert_array_equal(masked.image[0][wanted], whole.image[0][wanted])
    np.testing.assert_array_equal(masked.geometry.matrix, whole.geometry.matrix)


@pytest.mark.parametrize("clahe", [True, False])
def test_a_crop_shows_the_lungs_with_a_margin_and_leads_back_to_the_film(clahe: bool) -> None:
    cropped = prepare(box_of_lungs, lungs="crop", clahe=clahe)
    assert cropped.inside is None
    height, width = film().pixels.shape
    corners = to_film_points(np.array([[-0.5, -0.5], [SIZE - 0.5, SIZE - 0.5]]), cropped.geometry)
    np.testing.assert_allclose((corners[0] + 0.5) / (width, height), [0.125 - 0.05, 0.25 - 0.05], atol=0.005)
    np.testing.assert_allclose((corners[1] + 0.5) / (width, height), [0.75 + 0.05, 0.5 + 0.05], atol=0.005)


def test_a_mask_goes_along_with_the_central_crop() -> None:
    masked = prepare(box_of_lungs, lungs="mask", central_crop=0.8)
    assert masked.inside is not None
    rows, columns = (np.flatnonzero(masked.inside.any(axis=axis)) for axis in (1, 0))
    assert abs(rows[0] - (0.25 - 0.1) / 0.8 * SIZE) <= 1
    assert abs(columns[-1] + 1 - (0.75 - 0.1) / 0.8 * SIZE) <= 1


@pytest.mark.parametrize("lungs", ["mask", "crop"])
def test_a_film_without_lungs_is_used_whole_with_a_warning(lungs: str) -> None:
    whole, same = prepare(None), prepare(nothing, lungs=lungs)
    np.testing.assert_array_equal(same.image, whole.image)
    assert [warning for warning in same.warnings if warning.startswith(NO_LUNGS)]


def test_lungs_want_what_finds_them() -> None:
    with pytest.raises(UsageError, match="--lungs RUN"):
        prepare(None, lungs="mask")


def test_a_crop_to_the_lungs_and_registration_exclude_each_other() -> None:
    with pytest.raises(UsageError, match=r"'prepare': lungs=crop .* set one of them to none\.$"):
        parse_recipe("method: pixel-stats\nprepare: {lungs: crop, register: affine}", "mine")


def test_settings_alone_prepare_a_film_only_without_lungs_and_template() -> None:
    assert Preparation(PrepareConfig(), SIZE).finishes_anywhere
    assert not Preparation(PrepareConfig(lungs="mask"), SIZE).finishes_anywhere
    assert not Preparation(PrepareConfig(register="affine"), SIZE).finishes_anywhere
