"""P-values of several comparisons, adjusted so that the chance of any false finding stays at alpha.

Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6 (1979): valid
whatever the dependence between the comparisons, and never weaker than Bonferroni.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from anomaly.errors import DataError
from anomaly.records import Float64


def holm(p_values: ArrayLike) -> Float64:
    """Adjust p-values by Holm's step-down: a comparison is a finding at alpha when its adjusted p-value <= alpha.

    Args:
        p_values: (M,), in [0, 1], one a comparison; those that could not be computed are left out by the caller.

    Returns:
        float64 (M,), in [0, 1], in the order given, none smaller than what it was.

    Raises:
        DataError: a wrong shape, or a value outside [0, 1].
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not np.all((given >= 0.0) & (given <= 1.0)):
        raise DataError(f"p-values {given.shape} must be (M,) and lie in [0, 1]; leave out what is not computable")
    order = np.argsort(given, kind="stable")
    left = np.arange(len(given), 0, -1)  # comparisons not yet decided
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.maximum.accumulate(left * given[order]), 1.0)
    return adjusted
