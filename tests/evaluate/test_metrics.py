from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate import metrics

Y = np.array([0, 0, 0, 0, 1, 1, 1])
S = np.array([0.1, 0.2, 0.2, 0.5, 0.2, 0.6, 0.7])


def films(seed: int, n: int = 300, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int64)
    scores = rng.normal(size=n) + labels
    return labels, np.round(scores, 1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_sklearn(seed: int, ties: bool) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    labels, scores = films(seed, ties=ties)
    assert abs(metrics.auroc(labels, scores) - roc_auc_score(labels, scores)) < 1e-12
    assert abs(metrics.average_precision(labels, scores) - average_precision_score(labels, scores)) < 1e-12
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert abs(metrics.f1_max(labels, scores) - f1.max()) < 1e-12


def test_auroc_is_the_share_of_pairs_won() -> None:
    labels, scores = films(9, n=60, ties=True)
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    assert metrics.auroc(labels, scores) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-12)


def test_auroc_knows_direction_and_chance() -> None:
    assert metrics.auroc([0, 0, 1, 1], [1, 2, 3, 4]) == 1.0
    assert metrics.auroc([0, 0, 1, 1], [4, 3, 2, 1]) == 0.0
    assert metrics.auroc([0, 0, 1, 1], [5, 5, 5, 5]) == 0.5


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 0.95, 0.99, 1.0])
def test_operating_point_is_the_smallest_threshold_that_keeps_the_specificity(specificity: float, ties: bool) -> None:
    labels, scores = films(3, ties=ties)
    normal, abnormal = scores[labels == 0], scores[labels == 1]
    wanted = min(t for t in scores if np.mean(normal <= t) >= specificity)
    point = metrics.operating_point(labels, scores, specificity)
    assert point.threshold == wanted
    assert point.specificity == np.mean(normal <= wanted) >= specificity
    assert point.sensitivity == pytest.approx(np.mean(abnormal > wanted))
    assert metrics.sensitivity_at_specificity(labels, scores, specificity) == point.sensitivity


def test_operating_point_by_hand() -> None:
    assert metrics.operating_point(Y, S, 0.75) == metrics.OperatingPoint(0.2, 0.75, 2 / 3)  # the tied abnormal: missed
    assert metrics.operating_point(Y, S, 0.76) == metrics.OperatingPoint(0.5, 1.0, 2 / 3)


def test_a_share_that_rounds_up_does_not_ask_for_one_more_normal() -> None:
    assert 0.55 * 100 > 55  # in floating point
    labels = np.repeat([0, 1], 100)
    assert metrics.operating_point(labels, np.arange(200.0), 0.55).threshold == 54.0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sensitivity", [0.5, 0.9, 0.95, 1.0])
def test_fpr_is_the_least_that_reaches_the_sensitivity(sensitivity: float, ties: bool) -> None:
    labels, scores = films(4, ties=ties)
    normal, abnormal = scores[labels == 0], scores[labels == 1]
    reached = [np.mean(normal >= t) for t in scores if np.mean(abnormal >= t) >= sensitivity]
    assert metrics.fpr_at_sensitivity(labels, scores, sensitivity) == pytest.approx(min(reached))


def test_prevalence() -> None:
    assert metrics.prevalence(Y) == pytest.approx(3 / 7)
    assert metrics.prevalence([0, 0]) == 0.0


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([0, 0], [0.1, 0.2], "^not computable: no abnormal labels$"),
        ([1, 1], [0.1, 0.2], "^not computable: no normal labels$"),
        ([0, 1, 1], [0.1, 0.2], "must both be"),
        ([[0, 1]], [[0.1, 0.2]], "must both be"),
        ([0, 2], [0.1, 0.2], "must be 0"),
        ([0, -1], [0.1, 0.2], "unknown"),
        ([0, None], [0.1, 0.2], "unknown"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1], [0.1, np.inf], "not finite"),
        ([0, 1], ["a", "b"], "numbers"),
    ],
)
def test_refuses(labels: list[int], scores: list[float], says: str) -> None:
    for metric in (metrics.auroc, metrics.average_precision, metrics.sensitivity_at_specificity, metrics.f1_max):
        with pytest.raises(DataError, match=says):
            metric(labels, scores)


def test_refuses_shares_out_of_range() -> None:
    with pytest.raises(UsageError):
        metrics.sensitivity_at_specificity(Y, S, 0.0)
    with pytest.raises(UsageError):
        metrics.fpr_at_sensitivity(Y, S, 1.5)
    with pytest.raises(DataError):
        metrics.prevalence([])
