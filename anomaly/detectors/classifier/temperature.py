"""What is set on validation films after a training: a temperature, and the score to cut at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from anomaly.records import Float64, Int64

_COLDEST, _HOTTEST = 0.05, 20.0


def fit_temperature(logits: Float64, classes: Int64) -> float:
    """Return the T by which logits are best divided (Guo et al., ICML 2017): the least -log P of validation films.

    Args:
        logits: float64 (N, K).
        classes: int64 (N,).
    """

    def surprise(log_t: float) -> float:
        told = log_softmax(logits / np.exp(log_t), axis=1)
        return -float(told[np.arange(len(classes)), classes].mean())

    found = minimize_scalar(surprise, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def choose_cut(scores: Float64, abnormal: NDArray[np.bool_]) -> float:
    """Return the score above which calling a film abnormal gives the highest balanced accuracy (Youden's J).

    Args:
        scores: float64 (N,), of validation films of both kinds.
        abnormal: bool (N,).
    """
    values = np.unique(scores)
    cuts = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2])
    above = scores[None, :] > cuts[:, None]
    j = above[:, abnormal].mean(axis=1) - above[:, ~abnormal].mean(axis=1)
    best = np.flatnonzero(j == j.max())
    return float(cuts[best[len(best) // 2]])  # the middle of those as good
