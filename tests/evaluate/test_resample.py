from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate import metrics
from anomaly.evaluate.metrics import Tally
from anomaly.evaluate.resample import mean_replicates, replicates

NUMBERS = [
    metrics.auroc_of,
    metrics.average_precision_of,
    metrics.sensitivity_at_specificity_of,
    metrics.fpr_at_sensitivity_of,
    metrics.f1_max_of,
]
NAMES = [
    metrics.auroc,
    metrics.average_precision,
    metrics.sensitivity_at_specificity,
    metrics.fpr_at_sensitivity,
    metrics.f1_max,
]


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_a_replicate_is_the_metric_of_the_repeated_films(digits: int) -> None:
    rng = np.random.default_rng(digits)
    labels = np.repeat([0, 1], 20)
    scores = np.round(rng.normal(size=40) + labels, digits)
    groups = np.arange(40) // 2
    drawn: list[np.ndarray] = []

    def films(table: Tally, plain: Tally) -> float:
        drawn.append((plain.normal + plain.abnormal).astype(int))  # the second column names each film by its place
        return 0.0

    values = replicates(
        [*(lambda t, _, f=f: f(t) for f in NUMBERS), films],
        labels,
        np.column_stack([scores, np.arange(40)]),
        groups,
        n=20,
        seed=digits,
    )
    for row, times in zip(values, drawn, strict=True):
        again = np.repeat(np.arange(40), times)
        expected = [metric(labels[again], scores[again]) for metric in NAMES]
        np.testing.assert_allclose(row[:-1], expected, atol=1e-12)


def classes(table: Tally) -> tuple[int, int]:
    return int(table.normal.sum()), int(table.abnormal.sum())


def test_whole_patients_are_drawn_and_classes_keep_their_patients() -> None:
    labels = np.repeat([0, 1], [12, 6])
    groups = np.repeat(["a", "b", "c", "d", "x", "y"], 3)
    seen: set[tuple[int, ...]] = set()

    def watch(table: Tally) -> float:
        films = (table.normal + table.abnormal).astype(int)
        assert (films.reshape(6, 3) == films[::3, None]).all()
        assert classes(table) == (12, 6)
        seen.add(tuple(films))
        return 0.0

    replicates([watch], labels, np.arange(18.0), groups, n=50)
    assert len(seen) > 20


def test_mixed_patients_are_drawn_whole_and_no_class_goes_missing() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1])  # the last two patients have an abnormal film, one a normal one too
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 6, 7])
    sizes: set[tuple[int, int]] = set()

    def watch(table: Tally) -> float:
        sizes.add(classes(table))
        assert table.normal[6] == table.abnormal[7]  # patient 6 comes with both films or not at all
        return metrics.auroc_of(table)

    assert np.isfinite(replicates([watch], labels, np.arange(9.0), groups, n=300)).all()
    assert len({abnormal for _, abnormal in sizes}) > 2
    assert min(min(size) for size in sizes) >= 1


def test_needs_two_patients_a_class() -> None:
    with pytest.raises(DataError, match="two normal and two abnormal patients"):
        replicates([metrics.auroc_of], [0, 0, 1, 1], [1.0, 2, 3, 4], ["a", "b", "c", "c"])
    with pytest.raises(DataError, match="two patients"):
        mean_replicates(np.ones(3), ["a", "a", "a"])
    with pytest.raises(DataError, match="groups"):
        replicates([metrics.auroc_of], [0, 0, 1, 1], [1.0, 2, 3, 4], ["a", "b", "c"])


def test_mean_replicates_centre_on_the_mean() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 200)
    means = mean_replicates(values, np.arange(200), n=1000)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.1)
