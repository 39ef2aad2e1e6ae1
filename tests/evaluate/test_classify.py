"""Metrics of several classes, against numbers by hand and scikit-learn, and what cannot be computed."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn import metrics as sk

from anomaly.errors import DataError
from anomaly.evaluate.classify import (
    BINS,
    ClassTable,
    UnknownClassError,
    class_numbers,
    evaluate_classes,
    expected_calibration_error,
    reliability,
    roc,
)
from anomaly.evaluate.intervals import wilson
from anomaly.records import Float64, Int64

THREE = ("normal", "bacterial", "viral")


def drawn(n: int, k: int, sharpness: float = 1.0, seed: int = 0) -> tuple[Int64, Float64]:
    """Return labels drawn from probabilities, and these sharpened: 1.0 is perfectly calibrated, more overconfident."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(k, 0.7), n)
    labels = (rng.random(n)[:, None] > chances.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    sharp = np.maximum(chances, 1e-12) ** sharpness
    return labels, sharp / sharp.sum(axis=1, keepdims=True)


def by_hand(cut: float | None = None) -> ClassTable:
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    chances = [
        [0.8, 0.1, 0.1],
        [0.6, 0.2, 0.2],
        [0.4, 0.35, 0.25],
        [0.1, 0.7, 0.2],
        [0.3, 0.6, 0.1],
        [0.2, 0.3, 0.5],
        [0.1, 0.2, 0.7],
        [0.7, 0.1, 0.2],
    ]
    return evaluate_classes(labels, chances, THREE, [0, 0, 1, 2, 3, 4, 5, 6], cut=cut, n_boot=50)


def test_by_hand() -> None:
    table = by_hand()
    assert table.confusion == ((3, 1, 0), (0, 1, 1), (1, 0, 1))
    assert (table.n, table.n_patients) == (8, 7)
    assert table.accuracy == 5 / 8
    assert table.accuracy_interval == wilson(5, 8)
    assert table.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    assert table.macro_f1 == pytest.approx((6 / 8 + 2 / 4 + 2 / 4) / 3)
    normal, bacterial, _ = table.per_class
    assert (normal.support, normal.predicted, normal.precision, normal.recall, normal.f1) == (4, 4, 0.75, 0.75, 0.75)
    assert normal.auroc == (4 + 3 + 3 + 0.5) / 16  # pairs of its films with others that it wins, a tie at one half
    assert (bacterial.support, bacterial.predicted, bacterial.precision) == (2, 2, 0.5)
    assert (table.majority.name, table.majority.accuracy, table.majority.two_way) == ("normal", 0.5, 0.5)
    assert table.majority.balanced_accuracy == pytest.approx(1 / 3)
    assert table.majority.macro_f1 == pytest.approx(2 / 3 / 3)


def test_normal_against_the_rest_at_one_half_and_at_the_cut() -> None:
    half, cut = by_hand(cut=0.25).two_way
    assert (half.threshold, cut.threshold) == (0.5, 0.25)
    assert (half.true_positives, half.false_negatives, half.true_negatives, half.false_positives) == (3, 1, 2, 2)
    assert (cut.true_positives, cut.false_negatives, cut.true_negatives, cut.false_positives) == (4, 0, 1, 3)
    assert (half.sensitivity, half.specificity, half.balanced_accuracy, half.accuracy) == (0.75, 0.5, 0.625, 0.625)
    assert half.sensitivity_interval == wilson(3, 4)
    assert half.specificity_interval == wilson(2, 4)
    assert half.accuracy_interval == wilson(5, 8)
    assert len(by_hand().two_way) == 1


def test_a_score_at_the_cut_is_normal_however_small() -> None:
    tiny = 1e-9
    (_, row) = evaluate_classes(
        [0, 1], [[1 - tiny, tiny], [1 - 2 * tiny, 2 * tiny]], ("a", "b"), [0, 1], cut=tiny
    ).two_way
    assert (row.true_negatives, row.true_positives) == (1, 1)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_agrees_with_scikit_learn(k: int) -> None:
    labels, chances = drawn(300, k, seed=k)
    table = evaluate_classes(labels, chances, [f"c{n}" for n in range(k)], np.arange(300), n_boot=20)
    predicted = chances.argmax(axis=1)
    assert table.accuracy == pytest.approx(sk.accuracy_score(labels, predicted))
    assert table.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert table.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    np.testing.assert_array_equal(table.confusion, sk.confusion_matrix(labels, predicted))
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose([row.precision for row in table.per_class], precision)
    np.testing.assert_allclose([row.recall for row in table.per_class], recall)
    np.testing.assert_allclose([row.f1 for row in table.per_class], f1)
    assert [row.support for row in table.per_class] == support.tolist()
    areas = [sk.roc_auc_score(labels == place, chances[:, place]) for place in range(k)]
    np.testing.assert_allclose([row.auroc for row in table.per_class], areas)
    assert table.macro_auroc == pytest.approx(np.mean(areas))


def test_the_curve_is_scikit_learns() -> None:
    labels, chances = drawn(200, 2)
    scores = chances[:, 1].round(1)  # with ties
    false, true, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc(labels, scores), (false, true))


def test_intervals_hold_the_value_and_widen_with_fewer_patients() -> None:
    labels, chances = drawn(400, 3)
    films = evaluate_classes(labels, chances, THREE, np.arange(400), n_boot=200)
    clusters = 3 * (np.arange(400) // 8) + labels
    patients = evaluate_classes(labels, chances, THREE, clusters, n_boot=200)
    for value, alone, together in (
        (films.balanced_accuracy, films.balanced_accuracy_interval, patients.balanced_accuracy_interval),
        (films.macro_f1, films.macro_f1_interval, patients.macro_f1_interval),
        (
            films.two_way[0].balanced_accuracy,
            films.two_way[0].balanced_accuracy_interval,
            patients.two_way[0].balanced_accuracy_interval,
        ),
    ):
        assert alone is not None
        assert together is not None
        assert value is not None
        assert alone.low < value < alone.high
        assert together.low < value < together.high
    assert films == evaluate_classes(labels, chances, THREE, np.arange(400), n_boot=200)
    assert not films.notes
    assert "Wilson" in " ".join(patients.notes)


def test_one_patient_of_a_class_gives_no_interval() -> None:
    labels, chances = drawn(60, 3)
    table = evaluate_classes(labels, chances, THREE, np.where(labels == 2, -1, np.arange(60)), n_boot=20)
    assert table.balanced_accuracy_interval is table.macro_f1_interval is None
    assert table.two_way[0].balanced_accuracy_interval is None
    assert table.two_way[0].sensitivity_interval is not None
    assert "no interval" in " ".join(table.notes)


def test_an_absent_class_leaves_the_averages() -> None:
    labels, chances = drawn(200, 4)
    chances = chances[labels < 3]
    labels = labels[labels < 3]
    table = evaluate_classes(labels, chances, (*THREE, "hernia"), np.arange(len(labels)), n_boot=20)
    absent = table.per_class[3]
    assert (absent.support, absent.recall, absent.f1, absent.auroc) == (0, None, None, None)
    assert absent.predicted > 0
    assert absent.precision == 0.0
    predicted = chances.argmax(axis=1)
    assert table.balanced_accuracy == pytest.approx(
        sk.recall_score(labels, predicted, labels=[0, 1, 2], average="macro")
    )
    assert table.macro_f1 == pytest.approx(sk.f1_score(labels, predicted, labels=[0, 1, 2], average="macro"))
    assert table.balanced_accuracy_interval is not None
    assert "hernia" in " ".join(table.notes)


def test_no_normals_still_give_what_they_can() -> None:
    labels, chances = drawn(200, 3)
    table = evaluate_classes(labels[labels > 0], chances[labels > 0], THREE, np.arange(np.sum(labels > 0)), n_boot=20)
    assert table.balanced_accuracy_interval is not None
    assert table.two_way[0].specificity is table.two_way[0].balanced_accuracy is None
    assert table.two_way[0].balanced_accuracy_interval is None
    assert table.two_way[0].sensitivity is not None
    assert table.per_class[1].auroc is not None


def test_one_class_alone() -> None:
    _, chances = drawn(20, 3)
    table = evaluate_classes(np.zeros(20, np.int64), chances, THREE, np.arange(20), n_boot=20)
    assert table.macro_auroc is None
    assert table.balanced_accuracy == table.accuracy
    assert table.majority.accuracy == 1.0
    assert table.balanced_accuracy_interval is None
    assert table.two_way[0].sensitivity is None
    assert "one class" in " ".join(table.notes)
    json.dumps(asdict(table), allow_nan=False)


def test_a_class_never_predicted_has_no_precision() -> None:
    table = evaluate_classes([0, 1], [[0.9, 0.1], [0.8, 0.2]], ("a", "b"), ["x", "y"])
    assert (table.per_class[1].precision, table.per_class[1].recall, table.per_class[1].f1) == (None, 0.0, 0.0)


def test_bins_and_ece_by_hand() -> None:
    bins = reliability([0.0, 0.2, 0.21, 0.95, 1.0], [False, True, False, True, False], bins=5)
    assert [b.count for b in bins] == [2, 1, 0, 0, 2]  # 0.2 is the end of the first
    assert bins[2].accuracy is bins[2].confidence is None
    assert (bins[4].confidence, bins[4].accuracy) == (pytest.approx(0.975), 0.5)
    expected = (2 * abs(0.5 - 0.1) + abs(0 - 0.21) + 2 * abs(0.5 - 0.975)) / 5
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_ece_is_near_zero_where_probabilities_are_right_and_not_where_they_boast() -> None:
    groups = np.arange(20_000)
    right = evaluate_classes(*drawn(20_000, 3), THREE, groups, n_boot=2)
    boasting = evaluate_classes(*drawn(20_000, 3, sharpness=3.0), THREE, groups, n_boot=2)
    assert right.ece < 0.015
    assert boasting.ece > 0.1
    assert right.accuracy == boasting.accuracy
    assert len(right.bins) == BINS
    assert sum(b.count for b in right.bins) == 20_000
    for b in right.bins:
        assert b.accuracy is None or b.count < 500 or b.accuracy == pytest.approx(b.confidence, abs=0.08)


def test_class_numbers_mind_case_only_where_they_must() -> None:
    assert class_numbers(["VIRAL", "normal"], THREE).tolist() == [2, 0]
    assert class_numbers(["a", "A"], ("A", "a")).tolist() == [1, 0]
    assert class_numbers([], THREE).shape == (0,)
    with pytest.raises(UnknownClassError, match=r"fungal.*normal, bacterial, viral"):
        class_numbers(["viral", "fungal"], THREE)


@pytest.mark.parametrize(
    ("labels", "chances", "classes", "said"),
    [
        ([], np.zeros((0, 2)), ("a", "b"), "no film"),
        ([0, 2], [[0.5, 0.5]] * 2, ("a", "b"), r"labels 2 .* 0 \(a\), 1 \(b\)"),
        ([0, -1], [[0.5, 0.5]] * 2, ("a", "b"), "labels -1"),
        ([0.0, 1.0], [[0.5, 0.5]] * 2, ("a", "b"), "whole numbers"),
        ([0, 1], [[0.5, 0.5]], ("a", "b"), r"\(2, 2\)"),
        ([0, 1], [[0.5, 0.6]] * 2, ("a", "b"), "sum to 1"),
        ([0, 1], [[1.5, -0.5]] * 2, ("a", "b"), r"\[0, 1\]"),
        ([0, 1], [[np.nan, 1.0]] * 2, ("a", "b"), r"\[0, 1\]"),
        ([0, 1], [[0.5, 0.5]] * 2, ("a", "a"), "different names"),
        ([0, 0], [[1.0]] * 2, ("a",), "two or more"),
    ],
)
def test_refuses(labels: list[int], chances: list[list[float]], classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        evaluate_classes(labels, chances, classes, np.arange(len(labels)))
