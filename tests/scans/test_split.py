from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.scans.split import number_patients, patients_or_permission, split_normals, split_test


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


CLASSES = ["normal"] * 150 + ["pneumonia"] * 60 + ["effusion"] * 14


def random_set(seed: int) -> tuple[list[str], list[str]]:
    """Groups and classes of 224 patients of 1 to 5 images, each with one class, in random order."""
    rng = np.random.default_rng(seed)
    groups = groups_of(list(rng.integers(1, 6, len(CLASSES))))
    order = rng.permutation(len(groups))
    return [groups[i] for i in order], [CLASSES[int(groups[i][1:])] for i in order]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.9])
def test_test_set_of_whole_patients_with_the_share_of_every_class(seed: int, fraction: float) -> None:
    groups, classes = random_set(seed)
    rest, test = split_test(groups, classes, fraction, seed)
    assert rest.dtype == test.dtype == np.int64
    assert sorted([*rest, *test]) == list(range(len(groups)))
    assert np.all(np.diff(rest) > 0)
    assert np.all(np.diff(test) > 0)
    assert {groups[i] for i in rest}.isdisjoint({groups[i] for i in test})
    for name in set(CLASSES):
        drawn, total = sum(classes[i] == name for i in test), classes.count(name)
        assert 0 < drawn < total
        assert abs(drawn - fraction * total) <= 5, name


def test_exact_shares_when_patients_have_one_image() -> None:
    test = split_test(range(224), CLASSES, 0.5, 0)[1]
    assert [sum(CLASSES[i] == name for i in test) for name in ("normal", "pneumonia", "effusion")] == [75, 30, 7]


def test_test_set_is_random_follows_the_seed_and_not_the_order() -> None:
    groups, classes = random_set(0)
    first = {groups[i] for i in split_test(groups, classes, 0.2, 1)[1]}
    assert first == {groups[::-1][i] for i in split_test(groups[::-1], classes[::-1], 0.2, 1)[1]}
    assert first != {groups[i] for i in split_test(groups, classes, 0.2, 2)[1]}
    numbers = sorted(int(group[1:]) for group in first if int(group[1:]) < 150)
    assert 50 < np.mean(numbers) < 100, "not the end of the list"


def test_a_patient_of_several_classes_counts_as_of_the_rarest() -> None:
    groups = [*range(20), 0, 1, 2, 3]
    classes = ["normal"] * 20 + ["pneumonia"] * 4
    for seed in range(40):
        test = split_test(groups, classes, 0.5, seed)[1]
        assert len({groups[i] for i in test} & {0, 1, 2, 3}) == 2
        assert len({groups[i] for i in test} - {0, 1, 2, 3}) == 8


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_both_sides_have_a_patient_of_every_class(fraction: float) -> None:
    test = split_test([1, 2, 2, 3, 4], ["a", "a", "a", None, None], fraction, 0)[1]
    assert 0 < len({0, 1, 2} & set(test)) < 3
    assert len({3, 4} & set(test)) == 1


def test_test_set_of_too_few_patients() -> None:
    with pytest.raises(DataError, match=r"class effusion has one patient.*give more"):
        split_test([1, 2, 3, 3], ["normal", "normal", "effusion", "effusion"], 0.2, 0)
    with pytest.raises(DataError, match="no scans"):
        split_test([], [], 0.2, 0)
    for fraction, classes in ((0.0, ["a", "a"]), (1.0, ["a", "a"]), (0.2, ["a"])):
        with pytest.raises(ValueError, match="fraction"):
            split_test([1, 2], classes, fraction, 0)


def test_numbers_of_patients_follow_names_not_salt_nor_order() -> None:
    names, patients = ["b", "a", "d", "c", "e"], ["x9", "y1", None, "x9", None]
    assert number_patients(patients, names).tolist() == [1, 0, 2, 1, 3]
    resalted = [None if p is None else {"x9": "0", "y1": "1"}[p] for p in patients]
    assert number_patients(resalted, names).tolist() == [1, 0, 2, 1, 3]
    assert number_patients(patients[::-1], names[::-1]).tolist() == [3, 1, 2, 0, 1]
    assert number_patients(["b", None], ["a", "b"]).tolist() == [0, 1], "a name is no patient"


def test_patients_or_permission() -> None:
    assert patients_or_permission(10, 10, False) is None
    assert patients_or_permission(10, 10, True) is None
    with pytest.raises(DataError, match=r"1 of 10 scans carry no patient id.*--allow-image-split"):
        patients_or_permission(9, 10, False)
    note = patients_or_permission(0, 10, True)
    assert note is not None
    assert "10 of 10 scans" in note
    assert "--allow-image-split" in note
