from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import wilson
from anomaly.evaluate.localise import hit_rates, mask_share, mean_location_prior, pointing_game

SIDE = 16


def square(row: int, column: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[row : row + side, column : column + side] = True
    return mask


def peak(row: int, column: int) -> np.ndarray:
    heatmap = np.zeros((SIDE, SIDE), dtype=np.float32)
    heatmap[row, column] = 1.0
    return heatmap


def test_pointing_game_asks_where_the_peak_is() -> None:
    assert pointing_game(peak(5, 6), square(4, 4)) == 1.0
    assert pointing_game(peak(5, 8), square(4, 4)) == 0.0


def test_ties_are_shared_so_a_flat_map_scores_the_area() -> None:
    assert pointing_game(peak(5, 5) + peak(0, 0), square(4, 4)) == 0.5
    assert (
        pointing_game(np.zeros((SIDE, SIDE)), square(0, 0)) == 16 / 256
    )  # the first pixel lies in it, and does not count


def test_tolerance_is_a_radius_in_pixels() -> None:
    mask = square(4, 4)  # rows and columns 4..7
    assert pointing_game(peak(5, 9), mask, tolerance=2) == 1.0
    assert pointing_game(peak(5, 10), mask, tolerance=2) == 0.0
    assert pointing_game(peak(9, 9), mask, tolerance=2) == 0.0  # 2 * sqrt 2 away: a disc, not a box
    with pytest.raises(UsageError):
        pointing_game(peak(5, 5), mask, tolerance=-1)


def test_prior_leaves_the_film_out() -> None:
    masks = [square(0, 0), square(0, 0), square(8, 8)]
    prior = mean_location_prior(masks)
    assert prior.shape == (3, SIDE, SIDE)
    assert prior.dtype == np.float32
    for i in range(3):
        np.testing.assert_allclose(prior[i], np.mean([m for j, m in enumerate(masks) if j != i], axis=0))


def test_prior_leaves_the_whole_patient_out() -> None:
    prior = mean_location_prior([square(0, 0), square(0, 0), square(8, 8)], groups=["a", "a", "b"])
    np.testing.assert_array_equal(prior[0], square(8, 8))
    np.testing.assert_array_equal(prior[1], square(8, 8))
    np.testing.assert_array_equal(prior[2], square(0, 0))
    with pytest.raises(DataError, match="two patients"):
        mean_location_prior([square(0, 0), square(1, 1)], groups=["a", "a"])


def test_mask_share_is_of_the_region() -> None:
    assert mask_share(square(0, 0), square(0, 0, 8)) == 0.25
    assert mask_share(square(12, 12), square(0, 0, 8)) == 0.0


def test_table_has_the_map_the_prior_and_chance() -> None:
    rng = np.random.default_rng(0)
    places = [(0, 0)] * 30 + [(8, 8)] * 10
    masks = [square(*place) for place in places]
    maps = [peak(*place) if i % 4 else peak(15, 0) for i, place in enumerate(places)]
    regions = [np.ones((SIDE, SIDE), dtype=np.uint8)] * 40
    of_map, of_prior, chance = hit_rates(maps, masks, regions, n_boot=200)
    assert (of_map.n, of_map.rate) == (40, 0.75)
    assert of_map.interval == wilson(30, 40)
    assert of_prior.rate == 0.75  # it always points at the commoner place
    assert chance.rate == 16 / 256
    assert chance.interval.n_boot == 200

    doubled = [*range(40), *range(40)]
    clustered = hit_rates(
        [maps[i] for i in doubled],
        [masks[i] for i in doubled],
        [regions[i] for i in doubled],
        groups=doubled,
        n_boot=500,
    )[0]
    assert clustered.n == 80
    assert clustered.interval.n_boot == 500
    assert clustered.interval.high - clustered.interval.low > 0.22  # of 40 patients, not of 80 films
    noise = [rng.random((SIDE, SIDE)) for _ in masks]
    assert hit_rates(noise, masks, regions, n_boot=50)[0].rate < 0.3


def test_refuses() -> None:
    empty = np.zeros((SIDE, SIDE), dtype=bool)
    with pytest.raises(DataError, match="empty"):
        pointing_game(peak(0, 0), empty)
    with pytest.raises(DataError, match="grid"):
        pointing_game(peak(0, 0)[:8], square(0, 0))
    with pytest.raises(DataError, match="finite"):
        pointing_game(peak(0, 0) * np.nan, square(0, 0))
    with pytest.raises(DataError, match="0 and 1"):
        pointing_game(peak(0, 0), square(0, 0) * 255)
    with pytest.raises(DataError, match="mask 1 is empty"):
        mean_location_prior([square(0, 0), empty])
    with pytest.raises(DataError, match="one grid"):
        mean_location_prior([square(0, 0), square(0, 0)[:8]])
    with pytest.raises(DataError, match="none at all"):
        mean_location_prior([])
    with pytest.raises(DataError, match="region"):
        mask_share(square(0, 0), empty)
    with pytest.raises(DataError, match="one of each"):
        hit_rates([peak(0, 0)], [square(0, 0)], [])
