from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.scans.split import split_normals


def groups_of(counts: list[int]) -> list[str]:
    return [f"p{patient}" for patient, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_whole_patients_and_every_image_once(seed: int) -> None:
    groups = groups_of(list(np.random.default_rng(seed).integers(1, 6, 60)))
    train, held = split_normals(groups, 0.2, seed)
    assert train.dtype == held.dtype == np.int64
    assert sorted([*train, *held]) == list(range(len(groups)))
    assert {groups[i] for i in train}.isdisjoint({groups[i] for i in held})
    assert np.all(np.diff(held) > 0)
    assert 0.2 * len(groups) - 5 <= len(held) <= np.ceil(0.2 * len(groups))


def test_exact_share_when_patients_have_one_image() -> None:
    train, held = split_normals(list(range(100)), 0.2, 0)
    assert (len(train), len(held)) == (80, 20)


def test_the_draw_is_random_and_follows_the_seed() -> None:
    groups = list(range(200))
    first = split_normals(groups, 0.2, 1)[1]
    assert np.array_equal(first, split_normals(groups, 0.2, 1)[1])
    assert not np.array_equal(first, split_normals(groups, 0.2, 2)[1])
    assert first.min() < 50
    assert 60 < first.mean() < 140, "not the end of the list"


def test_order_of_images_does_not_matter() -> None:
    groups = groups_of([1, 2, 3, 1, 2, 3, 1, 1, 4, 2] * 4)
    shuffled = list(np.random.default_rng(0).permutation(groups))
    held = {groups[i] for i in split_normals(groups, 0.3, 7)[1]}
    assert held == {str(shuffled[i]) for i in split_normals(shuffled, 0.3, 7)[1]}


def test_minimum_is_held_whatever_the_fraction() -> None:
    assert len(split_normals(list(range(40)), 0.01, 0)[1]) == 8
    assert len(split_normals(list(range(40)), 0.0, 0, minimum=3)[1]) == 3


def test_one_patient_with_most_images_is_not_held_out() -> None:
    groups = groups_of([500] + [1] * 100)
    for seed in range(10):
        train, held = split_normals(groups, 0.1, seed)
        assert len(held) <= 61
        assert len(train) >= 500


def test_numpy_and_mixed_groups() -> None:
    assert len(split_normals(np.arange(50), 0.2, 0)[1]) == 10
    assert len(split_normals([*range(20), *map(str, range(20))], 0.25, 0)[1]) == 10


@pytest.mark.parametrize("groups", [[], [1], [1] * 50, list(range(8)), groups_of([4, 4])])
def test_too_few_images_or_patients(groups: list[int]) -> None:
    with pytest.raises(DataError, match=r"too few.*give more"):
        split_normals(groups, 0.2, 0)


@pytest.mark.parametrize(("fraction", "minimum"), [(1.0, 8), (-0.1, 8), (float("nan"), 8), (0.2, -1)])
def test_senseless_wishes(fraction: float, minimum: int) -> None:
    with pytest.raises(ValueError, match="fraction"):
        split_normals(list(range(50)), fraction, 0, minimum)
