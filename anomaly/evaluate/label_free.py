"""What can be said without labels of abnormal films: AUCp, and whether the p-values of fresh normals are even.

AUCp is the AUROC of held-out training normals (0) against unlabelled films (1). Where a share q of those is abnormal
and their normals are like the training normals, AUCp = (1 - q) / 2 + q * AUROC: it rises with the AUROC, so it ranks
methods and checkpoints on one set without a label. It also rises where the films come from another source than the
normals, which no label-free number can tell from disease: the p-values of fresh normals can.

The p-values of normals like the held-out ones are even on (0, 1]: at most a share alpha of them is flagged at alpha.
More low ones than that say that a film is called unusual for something that normals of this source have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import Interval, wilson
from anomaly.evaluate.metrics import auroc
from anomaly.records import ABNORMAL, NORMAL

ALPHAS = (0.01, 0.05, 0.1, 0.2)
BINS = 10
_ROUNDING = 1e-12  # absorbs the last bit of k / (n + 1), as in `workflows.results.flags`


@dataclass(frozen=True, slots=True)
class FlaggedShare:
    """Normals flagged at `alpha` (p <= alpha): `flagged` of n, as a share, with Wilson's 95 % interval."""

    alpha: float
    flagged: int
    share: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class NormalPValues:
    """P-values of `n` fresh normals: `counts` in `BINS` equal bins of (0, 1], lowest first, and the shares flagged."""

    n: int
    counts: tuple[int, ...]
    flagged: tuple[FlaggedShare, ...]


def aucp(held_out: ArrayLike, scans: ArrayLike) -> float:
    """AUROC of held-out training normals, taken as 0, against unlabelled films, taken as 1; ties at one half.

    Args:
        held_out: (n,), finite scores of normals that were not trained on, as a calibration keeps them.
        scans: (N,), finite scores of the films, of the same method and as exact: rounded ones break ties.

    Raises:
        DataError: no film on one side, a wrong shape, or scores that are not finite.
    """
    normals, films = np.asarray(held_out), np.asarray(scans)
    if normals.ndim != 1 or films.ndim != 1:
        raise DataError(f"scores {normals.shape} and {films.shape} must be (n,) and (N,)")
    if not len(normals) or not len(films):
        raise DataError("not computable: AUCp needs held-out normals and scored films")
    sides = np.repeat([NORMAL, ABNORMAL], [len(normals), len(films)])
    return auroc(sides, np.concatenate([normals, films]))


def normal_p_values(p_values: ArrayLike, *, alphas: Sequence[float] = ALPHAS) -> NormalPValues:
    """Count the p-values of fresh normals in equal bins, and those flagged at each alpha.

    Films are taken as independent: with several of a patient Wilson's interval is too short.

    Args:
        p_values: (n,), in (0, 1], of films labelled normal that the method was not fitted on.
        alphas: in (0, 1].

    Raises:
        DataError: no films, or a value outside (0, 1].
        UsageError: an alpha out of range.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not len(given) or not np.all((given > 0.0) & (given <= 1.0)):
        raise DataError(f"p-values {given.shape} must be (n,), n >= 1, and lie in (0, 1]")
    if not all(0.0 < alpha <= 1.0 for alpha in alphas):
        raise UsageError(f"every alpha must lie in (0, 1], not {tuple(alphas)}")
    at = np.maximum(np.ceil(given * BINS - _ROUNDING * BINS).astype(np.int64) - 1, 0)
    counts = tuple(int(films) for films in np.bincount(at, minlength=BINS))
    shares = []
    for alpha in alphas:
        flagged = int(np.count_nonzero(given <= alpha + _ROUNDING))
        shares.append(FlaggedShare(float(alpha), flagged, flagged / len(given), wilson(flagged, len(given))))
    return NormalPValues(len(given), counts, tuple(shares))
