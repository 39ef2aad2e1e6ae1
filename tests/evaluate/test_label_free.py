from __future__ import annotations

import numpy as np
import pytest

from anomaly.calibrate import Calibration
from anomaly.errors import DataError, UsageError
from anomaly.evaluate.label_free import ALPHAS, aucp, normal_p_values
from anomaly.evaluate.metrics import auroc
from anomaly.workflows.results import flags


def test_aucp_counts_pairs() -> None:
    assert aucp([1.0, 2.0, 3.0], [2.0, 4.0]) == pytest.approx((1 + 0.5 + 0 + 3) / 6)
    assert aucp([1.0], [1.0]) == 0.5


def test_aucp_rises_with_auroc_as_the_share_of_abnormal_films_says() -> None:
    rng = np.random.default_rng(0)
    held_out, normal, sick = rng.normal(size=20_000), rng.normal(size=14_000), rng.normal(1.0, size=6_000)
    films = np.concatenate([normal, sick])
    area = auroc(np.repeat([0, 1], [14_000, 6_000]), films)
    assert aucp(held_out, films) == pytest.approx(0.7 / 2 + 0.3 * area, abs=0.01)


@pytest.mark.parametrize(("held_out", "scans"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([[1.0]], [1.0])])
def test_aucp_refuses(held_out: list[float], scans: list[float]) -> None:
    with pytest.raises(DataError):
        aucp(held_out, scans)


def test_each_p_value_is_in_the_bin_it_closes() -> None:
    found = normal_p_values([0.01, 0.1, 0.1 + 1e-6, 3 * 0.1, 0.95, 1.0])
    assert found.counts == (2, 1, 1, 0, 0, 0, 0, 0, 0, 2)
    assert found.n == sum(found.counts)


def test_shares_flagged_are_those_of_scoring() -> None:
    held_out = np.sort(np.random.default_rng(1).normal(size=99))
    calibration = Calibration(held_out, {})
    p_values = [calibration.p_value(score) for score in np.random.default_rng(2).normal(size=400)]
    for told in normal_p_values(p_values).flagged:
        assert told.flagged == sum(flags(p, told.alpha) for p in p_values)
        assert told.share == told.flagged / 400
        assert told.interval.low < told.share < told.interval.high
    assert [told.alpha for told in normal_p_values(p_values).flagged] == list(ALPHAS)


def test_p_values_refused() -> None:
    for wrong in ([], [0.0], [1.1], [np.nan], [[0.5]]):
        with pytest.raises(DataError, match="p-values"):
            normal_p_values(wrong)
    with pytest.raises(UsageError, match="alpha"):
        normal_p_values([0.5], alphas=(0.0,))
