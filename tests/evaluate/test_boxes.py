from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.boxes import (
    box_average_precision,
    box_mask,
    box_table,
    boxes_of_map,
    overlap,
    prior_boxes,
    random_boxes,
)

NONE = np.zeros((0, 4))
A, B, C = [0.0, 0, 10, 10], [20.0, 0, 10, 10], [0.0, 20, 10, 10]


def found(*boxes: tuple[float, list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([box for _, box in boxes]).reshape(-1, 4), np.array([confidence for confidence, _ in boxes])


def test_a_mask_holds_the_pixels_whose_centre_is_inside() -> None:
    mask = box_mask(np.array([[1.0, 2.0, 3.0, 1.0], [5.6, 0.0, 9.0, 1.0]]), (4, 8))
    assert np.argwhere(mask).tolist() == [[0, 6], [0, 7], [2, 1], [2, 2], [2, 3]]
    assert not box_mask(NONE, (4, 8)).any()


def test_regions_of_a_map_become_boxes_the_hottest_first() -> None:
    heat = np.zeros((12, 10), np.float32)
    heat[1:3, 2:6] = 2.0
    heat[8, 3] = heat[9, 4] = 5.0  # touching at a corner
    heat[5, 9] = 1.0  # not above the threshold
    boxes, confidences = boxes_of_map(heat, 1.0)
    assert boxes.tolist() == [[3, 8, 2, 2], [2, 1, 4, 2]]
    assert confidences.tolist() == [5.0, 2.0]
    assert np.array_equal(box_mask(boxes[1:], heat.shape), heat == 2.0)
    empty, none = boxes_of_map(heat, 9.0)
    assert (empty.shape, none.shape) == ((0, 4), (0,))


def test_overlap_is_of_the_union() -> None:
    assert overlap(np.array([A, B]), np.array([A, [5.0, 5, 10, 10], [10.0, 0, 10, 10]])) == pytest.approx(
        np.array([[1, 25 / 175, 0], [0, 0, 0]])
    )


@pytest.mark.parametrize(
    ("predictions", "truths", "expected"),
    [
        ([found((9, A), (8, B))], [[A, B]], 1.0),
        ([found((9, A))], [[A, B]], 0.5),
        ([found((9, A), (8, A))], [[A]], 1.0),  # a second box on a lesion already found: alarm after full recall
        ([found((9, C), (8, A))], [[A]], 0.5),
        ([found(), found((1, A))], [[A], []], 0.0),
        ([found((1, A)), found((2, A))], [[A], []], 0.5),  # a normal film's region outranks it
        ([found((2, A)), found((2, A))], [[A], []], 0.5),  # a tie: together, whatever the order of films
        ([found((2, A)), found((2, A))], [[], [A]], 0.5),
        # hit, alarm, hit of three lesions: 1/3 at precision 1, 1/3 at 2/3
        ([found((9, A), (8, C)), found((7, B))], [[A, B], [B]], (1 + 2 / 3) / 3),
        # alarm, hit, hit: the envelope lifts the first step to 2/3
        ([found((9, C), (8, A), (7, B))], [[A, B]], 2 / 3),
    ],
)
def test_average_precision_by_hand(
    predictions: list[tuple[np.ndarray, np.ndarray]], truths: list[list[list[float]]], expected: float
) -> None:
    boxes = [np.array(film).reshape(-1, 4) for film in truths]
    assert box_average_precision(predictions, boxes, 0.5) == pytest.approx(expected)


def test_the_more_confident_box_takes_the_lesion_it_overlaps_most() -> None:
    near = [2.0, 0.0, 10.0, 10.0]  # overlaps A by 80 of 120
    between = [8.0, 0.0, 16.0, 10.0]
    assert box_average_precision([found((2, near), (1, A))], [np.array([A])], 0.6) == 1.0
    assert box_average_precision([found((2, near), (1, A))], [np.array([A])], 0.7) == 0.5
    truth = [np.array([A, B])]  # `between` overlaps A by 20 / 240 and B by 40 / 220: it takes B, `near` takes A
    assert box_average_precision([found((2, between), (1, near))], truth, 0.05) == 1.0


def test_the_prior_knows_only_the_other_patients() -> None:
    truths = [np.array([A]), np.array([A]), np.array([B]), NONE, NONE]
    prior = prior_boxes(truths, (32, 32), ["a", "a", "b", "b", "c"])
    assert [boxes.shape for boxes in prior] == [(1, 4)] * 5
    for boxes, truth in zip(prior, (B, B, A, A, A), strict=True):
        assert overlap(boxes, np.array([truth])) > 0.6  # not all: its corners are smoothed away


def test_random_boxes_have_the_sizes_of_others_and_stay_inside() -> None:
    truths = [np.array([[0.0, 0.0, 3.0, 4.0]]), np.array([[0.0, 0.0, 20.0, 1.0]]), NONE]
    moved = random_boxes(truths * 20, (24, 20), [0, 1, 2] * 20)
    assert {tuple(boxes[0, 2:]) for boxes in moved[0::3]} == {(20.0, 1.0)}
    assert {tuple(boxes[0, 2:]) for boxes in moved[2::3]} == {(20.0, 1.0), (3.0, 4.0)}
    every = np.concatenate(moved)
    assert (every[:, :2] >= 0).all()
    assert (every[:, :2] + every[:, 2:] <= (20, 24)).all()
    assert len(set(every[:, 1])) > 40


def test_table_of_map_prior_and_chance() -> None:
    rng = np.random.default_rng(0)
    truths = [np.array([[*rng.uniform(0, 40, 2), 16.0, 16.0]]) if i < 30 else NONE for i in range(60)]
    scores = [1.0] * 30 + [0.0] * 30
    shift = np.array([1.0, 0, 0, 0])
    exact = [(boxes + shift, np.ones(len(boxes))) for boxes in truths]
    rows = box_table(exact, truths, scores, (64, 64), np.arange(60), overlaps=[0.1, 0.5], n_boot=100)
    assert [(row.overlap, row.films, row.boxes) for row in rows] == [(0.1, 60, 30)] * 4 + [(0.5, 60, 30)] * 4
    assert rows[0].average_precision == rows[4].average_precision == 1.0
    assert rows[1].average_precision < rows[2].average_precision  # the same boxes: on half the films they are alarms
    assert rows[3].average_precision < 0.5
    assert rows[7].average_precision < 0.1
    for row in rows:
        assert row.interval.low <= row.average_precision <= row.interval.high
    assert rows[3].interval.high - rows[3].interval.low > 0.05


def test_twice_every_patient_changes_nothing_but_certainty() -> None:
    truths = [np.array([A]), np.array([A, B]), NONE, NONE] * 4
    maps = [found((i, A), (16 - i, C)) for i in range(16)]
    groups = np.arange(16)
    once = box_table(maps, truths, np.arange(16), (32, 32), groups, overlaps=[0.3], n_boot=200)[0]
    clustered = box_table(
        maps * 2, truths * 2, np.tile(np.arange(16), 2), (32, 32), np.tile(groups, 2), overlaps=[0.3], n_boot=200
    )[0]
    assert once.average_precision == pytest.approx(clustered.average_precision)
    assert once.interval.low == pytest.approx(clustered.interval.low)
    assert once.interval.high == pytest.approx(clustered.interval.high)


def test_refuses() -> None:
    one = [np.array([A])]
    for boxes in ([[0.0, 0, 0, 4]], [[0.0, 0, 4]], [[np.nan, 0, 4, 4]]):
        with pytest.raises(DataError, match="boxes"):
            box_mask(np.array(boxes), (8, 8))
    with pytest.raises(DataError, match="map"):
        boxes_of_map(np.full((4, 4), np.nan), 0.5)
    with pytest.raises(UsageError, match="overlap"):
        box_average_precision([found()], one, 0.0)
    with pytest.raises(DataError, match="no film has"):
        box_average_precision([found()], [NONE], 0.5)
    with pytest.raises(DataError, match="one of each"):
        box_average_precision([], one, 0.5)
    with pytest.raises(DataError, match="confidences"):
        box_average_precision([(np.array([A]), np.zeros(2))], one, 0.5)
    with pytest.raises(DataError, match="two patients"):
        prior_boxes([np.array([A]), NONE], (32, 32), [0, 1])
    with pytest.raises(DataError, match="two patients"):
        random_boxes([np.array([A]), NONE], (32, 32), [0, 1])
