"""Overlap of masks by hand, means with intervals, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.overlap import Overlap, lead, overlap, summarise, to_markdown


def mask(*rows: str) -> np.ndarray:
    return np.array([[cell == "x" for cell in row] for row in rows])


def test_overlap_by_hand() -> None:
    found, truth = mask("xx..", "x..."), mask("xx..", ".xx.")
    assert overlap(found, truth) == Overlap(dice=4 / 7, iou=2 / 5, sensitivity=2 / 4, precision=2 / 3)
    assert overlap(truth, truth) == Overlap(1, 1, 1, 1)
    assert overlap(~truth, truth) == Overlap(0, 0, 0, 0)
    assert overlap(np.zeros_like(truth), truth) == Overlap(0, 0, 0, None)


def test_dice_and_iou_are_one_another_film_by_film() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        told = overlap(rng.random((9, 9)) < share, rng.random((9, 9)) < 0.5)
        assert told.dice == pytest.approx(2 * told.iou / (1 + told.iou))


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        (np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_)),
        (np.ones((2, 3), np.bool_), np.ones((2, 2), np.bool_)),
        (np.ones((2, 2), np.uint8), np.ones((2, 2), np.bool_)),
        (np.ones((2, 2), np.bool_), np.ones((2, 2), np.float32)),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(found: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(DataError):
        overlap(found, truth)


def test_means_are_over_films_and_intervals_over_patients() -> None:
    films = [Overlap(0.8, 2 / 3, 0.9, 0.7), Overlap(0.6, 3 / 7, 0.5, 0.75), Overlap(0.0, 0.0, 0.0, None)]
    rows = {row.name: row for row in summarise(films, ["a", "a", "b"], n_boot=200)}
    assert list(rows) == ["dice", "iou", "sensitivity", "precision"]
    assert rows["dice"].mean == pytest.approx(1.4 / 3)
    assert (rows["dice"].n, rows["dice"].median, rows["dice"].lowest) == (3, 0.6, 0.0)
    interval = rows["dice"].interval
    assert interval is not None
    assert interval.low == pytest.approx(0.0)
    assert interval.high == pytest.approx(0.7), "the first two go together"
    assert (rows["precision"].n, rows["precision"].interval) == (2, None), "both of one patient"
    assert rows["precision"].mean == pytest.approx(0.725)


def test_films_where_nothing_at_all_was_found_have_no_precision() -> None:
    assert [row.name for row in summarise([Overlap(0, 0, 0, None)], ["a"])] == ["dice", "iou", "sensitivity"]


def test_a_lead_is_of_the_same_films() -> None:
    row = lead([0.9, 0.8, 0.7], [0.5, 0.8, 0.9], ["a", "b", "c"], n_boot=200)
    assert row.mean == pytest.approx(0.2 / 3)
    assert row.interval is not None
    assert row.interval.low < 0 < row.interval.high


def test_no_film_and_other_lengths_are_refused() -> None:
    for films, patients in (([], []), ([Overlap(1, 1, 1, 1)], ["a", "b"])):
        with pytest.raises(DataError, match="at least one"):
            summarise(films, patients)
    with pytest.raises(UsageError):
        summarise([Overlap(1, 1, 1, 1)] * 2, ["a", "b"], n_boot=0)


def test_the_table_names_masks_measures_and_intervals() -> None:
    rows = summarise([Overlap(0.8, 2 / 3, 0.9, 0.7), Overlap(0.6, 3 / 7, 0.5, 0.75)], ["a", "b"], n_boot=50)
    table = to_markdown({"ours": rows, "guess": rows[:1]}).splitlines()
    assert len(table) == 2 + 5
    assert table[2].startswith("| ours | dice | 2 | 0.700 [0.6")
    assert table[-1].startswith("| guess | dice")
    assert {line.count("|") for line in table} == {8}
