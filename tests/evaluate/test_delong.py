from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.delong import NO_SPREAD, contrast, delong
from anomaly.evaluate.metrics import auroc

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1], [37, 23])
S = RNG.normal(size=(60, 4)) + Y[:, None] * [0.0, 0.5, 1.0, 2.0]
TIED = np.round(S)  # a handful of distinct values, heavily tied


def brute(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return areas and covariance from every pair of films: the definition, O(m n)."""
    sick, well = scores[labels == 1], scores[labels == 0]
    won = (sick[:, None, :] > well[None, :, :]) + 0.5 * (sick[:, None, :] == well[None, :, :])
    by_sick, by_well = won.mean(axis=1), won.mean(axis=0)
    spread = np.cov(by_sick.T) / len(sick) + np.cov(by_well.T) / len(well)
    return won.mean(axis=(0, 1)), spread


@pytest.mark.parametrize("scores", [S, TIED, np.column_stack([S[:, 0], TIED[:, 1:]])])
def test_it_is_the_definition(scores: np.ndarray) -> None:
    order = RNG.permutation(60)
    found = delong(Y[order], scores[order])
    areas, covariance = brute(Y, scores)
    np.testing.assert_allclose(found.areas, areas, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)
    assert found.areas.dtype == found.covariance.dtype == np.float64


@pytest.mark.parametrize("scores", [S, TIED])
def test_areas_are_those_of_scikit_learn(scores: np.ndarray) -> None:
    from sklearn.metrics import roc_auc_score

    found = delong(Y, scores)
    assert found.areas == pytest.approx([roc_auc_score(Y, column) for column in scores.T], abs=1e-12)
    assert delong(Y, scores[:, 2]).areas == pytest.approx([auroc(Y, scores[:, 2])], abs=1e-12)


@pytest.mark.parametrize("weights", [[1, -1, 0, 0], [0.5, 0.5, -0.5, -0.5], [0, 0, 0, 1]])
def test_a_contrast_is_what_the_covariance_says(weights: list[float]) -> None:
    from scipy.stats import norm

    areas, covariance = brute(Y, TIED)
    by = np.array(weights, float)
    found = contrast(delong(Y, TIED), weights)
    error = np.sqrt(by @ covariance @ by)
    assert found.difference == pytest.approx(by @ areas, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    assert found.z == pytest.approx(by @ areas / error)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(by @ areas / error)))
    assert found.interval is not None
    assert found.interval.high - found.interval.low == pytest.approx(2 * norm.ppf(0.975) * error)
    assert (found.interval.level, found.interval.n_boot, found.note) == (0.95, 0, None)
    wide = contrast(delong(Y, TIED), weights, level=0.99).interval
    assert wide is not None
    assert wide.low < found.interval.low
    assert contrast(delong(Y, TIED), -by).difference == -found.difference


def test_paired_scores_are_compared_more_sharply_than_unrelated_ones() -> None:
    near = np.column_stack([S[:, 2], S[:, 2] + 0.1 * RNG.normal(size=60), S[:, 1]])
    found = delong(Y, near)
    assert contrast(found, [1, -1, 0]).standard_error < 0.3 * contrast(found, [1, 0, -1]).standard_error


def test_equal_scores_differ_by_nothing() -> None:
    same = np.column_stack([S[:, 2], 3 * S[:, 2] + 1, S[:, 2], np.exp(S[:, 2])])
    found = delong(Y, same)
    for weights in ([1, -1, 0, 0], [1 / 3, 1 / 3, 1 / 3, -1], [0.7, 0.1, 0.2, -1.0]):
        none = contrast(found, weights)
        assert (none.difference, none.standard_error, none.z, none.p_value) == (0.0, 0.0, 0.0, 1.0)
        assert none.interval is not None
        assert (none.interval.low, none.interval.high) == (0.0, 0.0)


def test_perfect_separation_has_no_variance_and_says_so() -> None:
    clear, wrong, flat = Y + 0.1 * np.arange(60) / 60, -Y, np.zeros(60)
    found = delong(Y, np.column_stack([clear, 2.0 * Y, wrong, flat]))
    assert found.areas.tolist() == [1.0, 1.0, 0.0, 0.5]
    assert not found.covariance.any()
    assert contrast(found, [1, -1, 0, 0]).p_value == 1.0
    for weights in ([1, 0, -1, 0], [1, 0, 0, -1], [1, 0, 0, 0]):
        told = contrast(found, weights)
        assert told.difference in (1.0, 0.5)
        assert told.z is told.interval is told.p_value is None
        assert told.note == NO_SPREAD
    both = contrast(delong(Y, np.column_stack([clear, S[:, 2]])), [1, -1])
    assert both.p_value is not None


def test_a_difference_of_one_pair_is_not_lost_in_rounding() -> None:
    labels = np.arange(40_000) % 2
    scores = RNG.normal(size=40_000) + labels
    order = np.argsort(scores)
    at = int(np.flatnonzero(np.diff(labels[order]))[100])
    other = scores.copy()
    other[order[at]], other[order[at + 1]] = scores[order[at + 1]], scores[order[at]]
    found = contrast(delong(labels, np.column_stack([scores, other])), [1, -1])
    assert abs(found.difference) == pytest.approx(1 / 20_000**2, rel=1e-3)
    assert abs(found.z or 0.0) == pytest.approx(1 / np.sqrt(2), rel=1e-3)  # one film of each class: 1 / sqrt(1 + 1)


def test_many_films_are_quick() -> None:
    import time

    labels = np.arange(100_000) % 2
    scores = RNG.normal(size=(100_000, 10)) + labels[:, None]
    start = time.perf_counter()
    delong(labels, scores)
    assert time.perf_counter() - start < 10  # 0.4 s alone


def test_refuses() -> None:
    for label, said in ((0, "no abnormal labels"), (1, "no normal labels")):
        with pytest.raises(DataError, match=said):
            delong(np.full(60, label), S)
    with pytest.raises(DataError, match="two normal and two abnormal films"):
        delong([0, 0, 1], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="finite"):
        delong([0, 0, 1, 1], [1.0, 2.0, np.nan, 3.0])
    for scores in (np.zeros((60, 0)), np.zeros((60, 2, 2)), np.zeros((59, 2))):
        with pytest.raises(DataError, match="scores"):
            delong(Y, scores)
    found = delong(Y, S)
    for weights in ([1, -1], [0, 0, 0, 0], [1, -1, 0, np.nan], [[1, -1, 0, 0]]):
        with pytest.raises(DataError, match="weights"):
            contrast(found, weights)
    with pytest.raises(UsageError, match="level"):
        contrast(found, [1, -1, 0, 0], level=95)
