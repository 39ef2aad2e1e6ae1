from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.holm import holm


def test_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1; the last may not fall below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.02, 0.02]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.9, 0.5]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).shape == (0,)


def rejected(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Return the findings of the step-down procedure itself: the i-th smallest against alpha / (M - i + 1)."""
    found = np.zeros(len(p_values), bool)
    for step, place in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[place] > alpha / (len(p_values) - step):
            break
        found[place] = True
    return found


def test_findings_are_those_of_the_procedure_at_every_alpha() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 12):
        p_values = rng.uniform(size=size) ** 3
        adjusted = holm(p_values)
        for alpha in rng.uniform(size=50):
            assert np.array_equal(adjusted <= alpha, rejected(p_values, alpha))
        assert np.all(adjusted >= p_values)
        assert np.all(adjusted <= np.minimum(size * p_values, 1.0) + 1e-15)  # never weaker than Bonferroni
        shuffled = rng.permutation(size)
        assert np.array_equal(holm(p_values[shuffled]), adjusted[shuffled])


@pytest.mark.parametrize("wrong", [[0.1, np.nan], [-0.1], [1.1], [[0.1]], 0.1])
def test_refuses(wrong: object) -> None:
    with pytest.raises(DataError, match="p-values"):
        holm(wrong)
