from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.curves import CURVE_METRICS, curve_replicates
from anomaly.evaluate.resample import replicates


@pytest.mark.parametrize("digits", [-1, 0, 1, 8])
@pytest.mark.parametrize("films", [1, 3])
def test_they_are_the_metrics_of_each_replicate(digits: int, films: int) -> None:
    rng = np.random.default_rng(digits + 5)
    for n, shift in ((12, 3.0), (41, 1.0), (300, -0.5)):
        labels = (np.arange(n) % 3 == 0).astype(int)
        columns = np.round(rng.normal(size=(n, 2)) + shift * labels[:, None], digits)
        groups = np.arange(n) // films  # of three films one is abnormal: patients have both classes
        found = curve_replicates(labels, columns, groups, n=60, seed=n)
        for k in (0, 1):
            told = replicates(CURVE_METRICS, labels, columns[:, k], groups, n=60, seed=n)
            np.testing.assert_allclose(found[:, k], told, atol=1e-12)
            assert np.array_equal(found[:, k, [0, 2, 3]], told[:, [0, 2, 3]])  # of whole numbers: to the bit


def test_one_column_and_perfect_separation() -> None:
    found = curve_replicates(np.repeat([0, 1], 20), np.arange(40.0), np.arange(40), n=30)
    assert found.shape == (30, 1, 4)
    assert np.array_equal(found, np.tile([1.0, 1.0, 1.0, 0.0], (30, 1, 1)))


def test_refuses() -> None:
    with pytest.raises(DataError, match="two normal and two abnormal patients"):
        curve_replicates([0, 0, 1, 1], [1.0, 2, 3, 4], ["a", "b", "c", "c"])
    with pytest.raises(DataError, match="no abnormal"):
        curve_replicates([0, 0], [1.0, 2], [0, 1])
    with pytest.raises(DataError, match="scores"):
        curve_replicates([0, 0, 1, 1], np.zeros((4, 0)), np.arange(4))
    with pytest.raises(UsageError, match="replicate"):
        curve_replicates([0, 0, 1, 1], [1.0, 2, 3, 4], np.arange(4), n=0)
