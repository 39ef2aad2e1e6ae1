from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.intervals import bootstrap, paired_difference
from anomaly.evaluate.metrics import auroc, auroc_of
from anomaly.evaluate.strata import stratified_auroc
from anomaly.workflows.compare.table import BASELINE, NORMAL_ONLY, Scores, tabulate

RNG = np.random.default_rng(7)
LABELS = np.repeat([0, 1], [60, 40])
PATIENTS = [f"p{i // 2}" for i in range(100)]
GOOD = RNG.normal(size=(100, 3)) + 1.5 * LABELS[:, None]
POOR = RNG.normal(size=100) + 0.2 * LABELS
TRIVIAL = {
    "softness": RNG.normal(size=100) - 0.8 * LABELS,
    "width": np.full(100, 224.0),
    "mean": RNG.normal(size=100),
}


def test_one_seed_is_what_evaluate_would_say() -> None:
    scores = [Scores("good", NORMAL_ONLY, GOOD[:, :1]), Scores("poor", NORMAL_ONLY, POOR[:, None])]
    table = tabulate(LABELS, PATIENTS, scores, TRIVIAL, n_boot=300)
    good, poor = table.rows[:2]
    interval = bootstrap(auroc_of, LABELS, GOOD[:, 0], PATIENTS, n=300)
    assert good.figures["auroc"].value == auroc(LABELS, GOOD[:, 0])
    assert (good.figures["auroc"].low, good.figures["auroc"].high) == (interval.low, interval.high)
    assert good.figures["auroc"].sd is None
    assert good.seeds == poor.seeds == 1
    within = stratified_auroc(LABELS, GOOD[:, 0], TRIVIAL["softness"], PATIENTS, n_boot=300)
    assert good.figures["auroc_within_softness"].value == within.auroc
    assert table.softness_leftover == within.leftover
    pair = next(pair for pair in table.pairs if (pair.one, pair.other) == ("good", "poor"))
    apart = paired_difference(LABELS, GOOD[:, 0], POOR, PATIENTS, n=300)
    assert pair.difference == pytest.approx(apart.difference)
    assert (pair.low, pair.high) == pytest.approx((apart.interval.low, apart.interval.high))
    assert pair.p_patients == pytest.approx(apart.p_value)


def test_seeds_are_averaged_and_their_spread_stands_beside() -> None:
    table = tabulate(LABELS, PATIENTS, [Scores("good", NORMAL_ONLY, GOOD)], TRIVIAL, n_boot=200)
    each = [auroc(LABELS, column) for column in GOOD.T]
    found = table.rows[0].figures["auroc"]
    assert found.value == pytest.approx(np.mean(each))
    assert found.sd == pytest.approx(np.std(each, ddof=1))
    assert found.low is not None
    assert found.low < found.value < (found.high or 0.0)


def test_baselines_are_turned_by_the_labels_sorted_and_the_best_is_in_every_pair() -> None:
    scores = [Scores("good", NORMAL_ONLY, GOOD), Scores("poor", NORMAL_ONLY, POOR[:, None])]
    table = tabulate(LABELS, PATIENTS, scores, TRIVIAL)
    baselines = [row for row in table.rows if row.kind == BASELINE]
    assert [row.name for row in baselines] == ["softness", "mean"]  # width is the same for all
    assert baselines[0].direction == "lower"
    assert baselines[0].figures["auroc"].value > 0.6
    named = [(pair.one, pair.other) for pair in table.pairs]
    best = "best trivial number: softness"
    assert named == [("good", "poor"), ("good", best), ("poor", best)]
    for pair in table.pairs:
        assert pair.p_delong is not None
        assert pair.p_delong_holm is not None
        assert pair.p_patients <= pair.p_patients_holm <= 1.0
        assert pair.p_delong <= pair.p_delong_holm <= 1.0
    assert table.least_p <= table.pairs[0].p_patients_holm < 0.05


def test_no_difference_is_surer_than_as_many_resamples_can_tell() -> None:
    scores = [
        Scores("best", NORMAL_ONLY, GOOD[:, :1] + 5 * LABELS[:, None]),
        Scores("worst", NORMAL_ONLY, -GOOD[:, :1]),
    ]
    few, more = (tabulate(LABELS, PATIENTS, scores, {}, n_boot=n) for n in (99, 999))
    assert few.pairs[0].p_patients_holm == few.least_p
    assert few.least_p > more.least_p == more.pairs[0].p_patients_holm > 0


def test_a_method_beside_itself_differs_by_nothing() -> None:
    twice = [Scores("one", NORMAL_ONLY, GOOD), Scores("again", NORMAL_ONLY, GOOD)]
    pair = tabulate(LABELS, PATIENTS, twice, {}, n_boot=100).pairs[0]
    assert (pair.difference, pair.low, pair.high) == (0.0, 0.0, 0.0)
    assert (pair.p_patients_holm, pair.p_delong_holm) == (1.0, 1.0)


def test_ties_everywhere_are_half() -> None:
    table = tabulate(LABELS, PATIENTS, [Scores("flat", NORMAL_ONLY, np.ones((100, 1)))], TRIVIAL, n_boot=100)
    found = table.rows[0].figures["auroc"]
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_refuses_too_few_patients() -> None:
    one = ["a"] * 60 + ["b"] * 40
    with pytest.raises(DataError, match="two normal and two abnormal patients"):
        tabulate(LABELS, one, [Scores("good", NORMAL_ONLY, GOOD)], {}, n_boot=10)
