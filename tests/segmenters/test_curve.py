"""Counts over thresholds against counting one by one, and which threshold is best."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.segmenters.curve import THRESHOLDS, IouCurve, count, cut, mean_curve


def test_counts_are_those_of_every_threshold_by_itself() -> None:
    rng = np.random.default_rng(0)
    chances = rng.choice(np.concatenate([THRESHOLDS, rng.random(50, np.float32)]), (40, 30)).astype(np.float32)
    truth = rng.random((40, 30)) < 0.3
    counted = count(chances, truth)
    for place, threshold in enumerate(THRESHOLDS):
        called = cut(chances, float(threshold))
        both, either = (called & truth).sum(), (called | truth).sum()
        assert counted.called[place] == called.sum()
        assert counted.hits[place] == both
        assert counted.iou[place] == pytest.approx(both / either)
        assert counted.dice[place] == pytest.approx(2 * both / (called.sum() + truth.sum()))


def test_a_chance_that_is_the_threshold_reaches_it() -> None:
    for threshold in THRESHOLDS:
        assert cut(np.array([threshold]), float(threshold)).all()
        assert cut(np.array([threshold]), round(float(threshold), 2)).all()


def test_nothing_in_either_is_agreement_and_other_shapes_are_refused() -> None:
    assert (count(np.zeros((3, 3), np.float32), np.zeros((3, 3), np.bool_)).iou == 1).all()
    with pytest.raises(ValueError, match="do not fit"):
        count(np.zeros((3, 3), np.float32), np.zeros((3, 4), np.bool_))


def test_films_count_the_same_and_the_middle_of_the_best_is_taken() -> None:
    sure, half = np.full((2, 2), 0.9, np.float32), np.full((2, 2), 0.5, np.float32)
    whole = np.ones((2, 2), np.bool_)
    curve = mean_curve([count(sure, whole), count(half, whole)])
    assert curve.thresholds[0] == 0.05
    assert curve.thresholds[-1] == 0.95
    np.testing.assert_allclose(curve.iou, np.where(THRESHOLDS <= 0.5, 1.0, np.where(THRESHOLDS <= 0.9, 0.5, 0.0)))
    assert curve.best == 0.3  # of 0.05 to 0.5
    assert curve.highest == 1.0
    assert IouCurve(np.array([0.1, 0.2, 0.3]), np.array([0.2, 0.9, 0.4])).best == 0.2
