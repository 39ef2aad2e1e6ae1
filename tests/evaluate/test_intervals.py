from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import (
    bootstrap,
    clopper_pearson,
    mean_interval,
    paired_difference,
    percentile,
    wilson,
)
from anomaly.evaluate.metrics import auroc, auroc_of, average_precision_of


def films(seed: int, n: int = 400, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return labels, rng.normal(size=n) + shift * labels


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    # Normal scores shifted by d have AUROC Phi(d / sqrt 2); patients have two films with one shared half.
    truth = 0.7602499389065233  # Phi(1 / sqrt 2)
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(1000 + seed)
        patients = np.repeat(np.arange(60), 2)
        labels = (patients < 25).astype(int)
        scores = labels + rng.normal(size=60)[patients] * np.sqrt(0.5) + rng.normal(size=120) * np.sqrt(0.5)
        interval = bootstrap(auroc_of, labels, scores, patients, n=300, seed=seed)
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_clustered_interval_is_wider_when_films_of_a_patient_agree() -> None:
    labels, scores = films(0, n=100)
    patients = np.repeat(np.arange(100), 5)
    clustered = bootstrap(auroc_of, labels[patients], scores[patients], patients, n=500)
    naive = bootstrap(auroc_of, labels[patients], scores[patients], np.arange(500), n=500)
    plain = bootstrap(auroc_of, labels, scores, np.arange(100), n=500)
    assert clustered.high - clustered.low > 1.7 * (naive.high - naive.low)
    assert clustered.high - clustered.low == pytest.approx(plain.high - plain.low, rel=1e-9)


def test_same_seed_same_interval() -> None:
    labels, scores = films(1)
    groups = np.arange(400)
    first = bootstrap(average_precision_of, labels, scores, groups, n=200, seed=3)
    assert first == bootstrap(average_precision_of, labels, scores, groups, n=200, seed=3)
    assert first != bootstrap(average_precision_of, labels, scores, groups, n=200, seed=4)
    assert (first.level, first.n_boot) == (0.95, 200)


def test_names_and_order_of_patients_do_not_matter_only_who_shares_one() -> None:
    labels, scores = films(2)
    names = np.array([f"p{i:04d}" for i in range(400)])
    assert bootstrap(auroc_of, labels, scores, names, n=100) == bootstrap(
        auroc_of, labels, scores, np.arange(400) + 7, n=100
    )


def test_perfect_separation_is_not_certainty() -> None:
    labels = np.repeat([0, 1], [40, 8])
    interval = bootstrap(auroc_of, labels, np.arange(48.0), np.arange(48), n=100)
    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.025 ** (1 / 8))
    assert bootstrap(auroc_of, labels, -np.arange(48.0), np.arange(48), n=100).high < 0.5


def test_large_sets_are_quick() -> None:
    import time

    labels, scores = films(3, n=10_000)
    start = time.perf_counter()
    bootstrap(auroc_of, labels, scores, np.arange(10_000))
    assert time.perf_counter() - start < 20  # 0.3 s alone on a machine of two cores


def test_paired_difference_sees_a_difference_that_is_there() -> None:
    labels, good = films(4)
    noise = np.random.default_rng(5).normal(size=400)
    worse = good + 1.5 * noise
    groups = np.arange(400)
    result = paired_difference(labels, good, worse, groups, n=400)
    assert result.difference == pytest.approx(auroc(labels, good) - auroc(labels, worse), abs=1e-12)
    assert result.interval.low > 0
    assert 2 / 401 <= result.p_value < 0.01
    back = paired_difference(labels, worse, good, groups, n=400)
    assert back.interval.high == pytest.approx(-result.interval.low)
    # Pairing: far narrower than two intervals side by side where the scores agree.
    close = paired_difference(labels, good, good + 0.1 * noise, groups, n=400).interval
    alone = bootstrap(auroc_of, labels, good, groups, n=400)
    assert close.high - close.low < 0.5 * (alone.high - alone.low)


def test_paired_difference_of_equal_scores_is_nothing() -> None:
    labels, scores = films(6)
    result = paired_difference(labels, scores, 2 * scores + 1, np.arange(400), n=100)
    assert (result.difference, result.interval.low, result.interval.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_p_values_are_uniform_enough_when_nothing_differs() -> None:
    labels = np.arange(120) % 2
    rng = np.random.default_rng(7)
    small = 0
    for seed in range(100):
        both = rng.normal(size=(120, 2)) + labels[:, None]
        small += paired_difference(labels, both[:, 0], both[:, 1], np.arange(120), n=200, seed=seed).p_value < 0.1
    assert 2 <= small <= 20


def test_wilson_and_clopper_pearson_agree_with_scipy() -> None:
    from scipy.stats import binomtest

    for k, n in [(0, 5), (3, 10), (19, 20), (50, 50), (1, 1000)]:
        for level in (0.9, 0.95):
            for ours, name in ((wilson, "wilson"), (clopper_pearson, "exact")):
                theirs = binomtest(k, n).proportion_ci(level, method=name)
                interval = ours(k, n, level)
                assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
                assert interval.n_boot == 0
    assert wilson(2.5, 10).low > wilson(2, 10).low


def test_mean_interval() -> None:
    values = np.random.default_rng(8).random(300)
    interval = mean_interval(values, np.arange(300))
    assert interval.low < values.mean() < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(300), rel=0.1)


def test_refuses() -> None:
    labels, scores = films(9, n=20)
    groups = np.arange(20)
    with pytest.raises(UsageError, match="replicate"):
        bootstrap(auroc_of, labels, scores, groups, n=0)
    with pytest.raises(UsageError, match="level"):
        bootstrap(auroc_of, labels, scores, groups, n=10, level=95)
    with pytest.raises(DataError, match="no films"):
        wilson(0, 0)
    with pytest.raises(DataError, match="not a proportion"):
        wilson(3, 2)
    with pytest.raises(DataError, match="both be"):
        paired_difference(labels, scores, scores[:-1], groups)
    with pytest.raises(DataError, match="finite"):
        mean_interval([1.0, np.nan], [0, 1])


def test_p_value_and_interval_agree() -> None:
    labels = np.arange(24) % 2
    for seed in range(40):
        both = np.random.default_rng(seed).normal(size=(24, 2)) + labels[:, None] * [1.8, 0.2]
        result = paired_difference(labels, both[:, 0], both[:, 1], np.arange(24), n=199, seed=seed)
        if not 0.02 < result.p_value < 0.08:  # at the edge one replicate decides
            assert (result.p_value < 0.05) == (not result.interval.low <= 0 <= result.interval.high)


def test_few_patients_widen_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    widths = [percentile(values, m).high - percentile(values, m).low for m in (3, 10, 30, 10_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * 1.96, rel=0.05)
