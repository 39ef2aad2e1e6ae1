from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.attention import heat_share, summarise


def lungs() -> np.ndarray:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, :3] = True  # 6 of 24 pixels
    return mask


def test_the_share_is_of_the_heat_and_not_of_the_pixels() -> None:
    heat = np.zeros((4, 6), dtype=np.float32)
    heat[1, 1], heat[2, 2], heat[0, 5] = 1.0, 2.0, 9.0
    assert heat_share(heat, lungs()) == 0.25
    assert heat_share(heat, lungs().astype(np.uint8)) == 0.25
    assert heat_share(1000 * heat, lungs()) == 0.25


def test_an_even_map_has_the_share_of_the_area() -> None:
    for level in (1.0, 0.1, 1e-30):
        assert heat_share(np.full((4, 6), level, np.float32), lungs()) == pytest.approx(6 / 24, abs=1e-12)


def test_all_and_nothing() -> None:
    assert heat_share(lungs().astype(np.float32), lungs()) == 1.0
    assert heat_share((~lungs()).astype(np.float32), lungs()) == 0.0
    assert heat_share(np.zeros((4, 6), np.float32), lungs()) is None
    assert heat_share(-np.ones((4, 6), np.float32), lungs()) is None, "what is negative is no heat"
    assert heat_share(lungs() - 7.0 * ~lungs(), lungs()) == 1.0


def test_large_heat_is_summed_without_overflow_and_small_heat_is_not_lost() -> None:
    heat = np.full((2000, 2000), 60000.0, np.float16)
    heat[0] = 1.0
    mask = np.zeros(heat.shape, bool)
    mask[0] = True
    assert heat_share(heat, mask) == pytest.approx(2000 / (2000 + 1999 * 2000 * 60000.0), rel=0.01)


@pytest.mark.parametrize(
    ("heat", "mask", "said"),
    [
        (np.ones((4, 5)), lungs(), "grid"),
        (np.full((4, 6), np.nan), lungs(), "finite"),
        (np.full((4, 6), np.inf), lungs(), "finite"),
        (np.ones((4, 6)), 255 * lungs(), "0 and 1"),
        (np.ones((4, 6)), np.zeros((4, 6)), "0 alone"),
    ],
)
def test_refuses(heat: np.ndarray, mask: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        heat_share(heat, mask)


def test_summary_by_hand() -> None:
    shares = [0.1, 0.2, 0.4, 0.5, None]
    areas = [0.3, 0.2, 0.3, 0.4, 0.9]
    rows = summarise(shares, areas, [0, 0, 1, 1, 1], list("abcde"), n_boot=50)
    assert [row.name for row in rows] == ["all", "labelled normal", "labelled abnormal"]
    everything, normal, abnormal = rows
    assert (everything.n, everything.no_heat) == (4, 1)
    assert everything.median == pytest.approx(0.3)
    assert everything.low_quartile == pytest.approx(0.175)
    assert everything.high_quartile == pytest.approx(0.425)
    assert everything.mean == pytest.approx(0.3)
    assert everything.lung_area == pytest.approx(0.3), "the film without heat counts in nothing"
    assert everything.below == 0.25, "equal to an even map is not below it"
    assert everything.interval is not None
    assert everything.interval.low < 0.3 < everything.interval.high
    assert (normal.n, normal.no_heat, normal.below) == (2, 0, 0.5)
    assert (abnormal.n, abnormal.no_heat, abnormal.below) == (2, 1, 0.0)


def test_one_label_is_told_once_and_one_patient_has_no_interval() -> None:
    (row,) = summarise([0.1, 0.3], [0.2, 0.2], [None, None], ["a", "a"], n_boot=50)
    assert row.name == "all"
    assert row.interval is None


def test_patients_are_resampled_whole() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat(rng.random(10), 20)
    shares, areas = [float(value) for value in level], [0.5] * 200
    alone = summarise(shares, areas, [0] * 200, [str(i) for i in range(200)], n_boot=400)[0].interval
    grouped = summarise(shares, areas, [0] * 200, [str(i // 20) for i in range(200)], n_boot=400)[0].interval
    assert alone is not None
    assert grouped is not None
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)


def test_nothing_to_sum_up() -> None:
    with pytest.raises(DataError, match="none of the 2 maps has any heat"):
        summarise([None, None], [0.2, 0.2], [0, 1], ["a", "b"])
    with pytest.raises(DataError, match="one a film"):
        summarise([0.1], [0.2, 0.2], [0], ["a"])
