"""How much AUROC stays once a shortcut is taken away: among films alike in a nuisance, or with its trend removed.

On Kermany the size of the JPEG alone tells the classes apart with AUROC 0.83: abnormal films are softer. A score that
reads softness is caught in two ways. Within strata: only pairs of a normal and an abnormal film of about the same
nuisance are compared, and all such pairs count alike; this is the stratified Wilcoxon statistic (van Elteren, Bulletin
of the International Statistical Institute 37, 1960) with the strata weighed by their pairs, as the plain AUROC weighs
them. Residualised: the line that normals' scores follow over log(nuisance) is subtracted from every score.

Strata are as wide as they are few: within five of them the softness of Kermany's dev films alone still has AUROC 0.65.
So `leftover` stands beside the result, what the nuisance itself still tells there.

Both also take away what the disease itself does to the nuisance (an opacity has less detail than lung, so it makes a
smaller file), and strata leave some of the shortcut in: neither is a bound. They stand beside the plain AUROC, not in
its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import Interval, PairedDifference, bootstrap, compared, proportion
from anomaly.evaluate.metrics import Tally, auroc, auroc_of, check, tally
from anomaly.evaluate.resample import fewest_patients, group_numbers, replicates
from anomaly.records import ABNORMAL, NORMAL, Float64, Int64


@dataclass(frozen=True, slots=True)
class Stratum:
    """Films whose nuisance lies in [low, high]; `auroc` is None where one class is missing."""

    low: float
    high: float
    normal: int
    abnormal: int
    auroc: float | None


@dataclass(frozen=True, slots=True)
class StratifiedAuroc:
    """AUROC over the pairs of one stratum each, its 95 % interval, and the strata; the `dropped` ones hold no pair.

    `leftover` is the same AUROC of the nuisance, read in one direction in all strata, the better of the two: 0.5 once
    they are narrow enough to silence it.
    """

    auroc: float
    interval: Interval
    leftover: float
    strata: tuple[Stratum, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class ResidualisedAuroc:
    """AUROC of score - (intercept + slope * log(nuisance)), and its 95 % interval."""

    auroc: float
    interval: Interval
    slope: float
    intercept: float


def stratified_auroc(
    labels: ArrayLike,
    scores: ArrayLike,
    nuisance: ArrayLike,
    groups: ArrayLike,
    *,
    strata: int = 5,
    n_boot: int = 2000,
    seed: int = 0,
) -> StratifiedAuroc:
    """P(abnormal score > normal score) + P(equal) / 2 for a pair of films from one stratum of the nuisance.

    Strata are cut once, on all films given, so that each holds about as many; equal values stay together. The interval
    resamples patients within these strata.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,) or (N, K), finite, higher is more abnormal; of several columns, such as seeds, the mean AUROC.
        nuisance: (N,), finite, such as `softness` or the size of the file.
        groups: (N,), patient of each film.
        strata: how many, >= 1; heavy ties may leave fewer.
        n_boot: bootstrap replicates; one without a pair in any stratum is left out.
        seed: of the resamples.

    Raises:
        DataError: as `replicates`; or no stratum holds both classes, or more than a tenth of the replicates lose
            all pairs.
        UsageError: `strata` or `n_boot` below 1.
    """
    given = np.asarray(scores)
    columns = given[:, None] if given.ndim == 1 else given
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise DataError(f"scores {given.shape} must be (N,) or (N, K)")
    each = [_in_strata(labels, column, nuisance, strata) for column in columns.T]
    truth, _, where = each[0]
    ordered = np.column_stack([_ordered(where, values) for _, values, _ in each])
    shortcut = np.asarray(nuisance, dtype=np.float64)
    values = [values for _, values, _ in each]
    counts = tuple(_stratum(truth, values, shortcut, where == k) for k in np.unique(where))
    alone = _stratified_of(truth, _ordered(where, shortcut))
    drawn = replicates([_mean_stratified], truth, ordered, groups, n=n_boot, seed=seed)[:, 0]
    return StratifiedAuroc(
        float(np.mean([_stratified_of(truth, column) for column in ordered.T])),
        proportion(_with_pairs(drawn), _fewest(truth, groups)),
        max(alone, 1.0 - alone),
        counts,
        sum(stratum.auroc is None for stratum in counts),
    )


def stratified_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    nuisance: ArrayLike,
    groups: ArrayLike,
    *,
    strata: int = 5,
    n_boot: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two scores of the same films within the same strata: `stratified_auroc` of a minus that of b.

    Args:
        labels: (N,), 0 or 1.
        scores_a: (N,), finite.
        scores_b: (N,), finite.
        nuisance: (N,), finite.
        groups: (N,), patient of each film.
        strata: how many, >= 1.
        n_boot: bootstrap replicates.
        seed: of the resamples.

    Raises:
        DataError: as `stratified_auroc`.
        UsageError: `strata` or `n_boot` below 1.
    """
    truth, first, where = _in_strata(labels, scores_a, nuisance, strata)
    second = _in_strata(labels, scores_b, nuisance, strata)[1]
    columns = np.column_stack([_ordered(where, first), _ordered(where, second)])
    drawn = replicates([_stratified_difference], truth, columns, groups, n=n_boot, seed=seed)[:, 0]
    difference = _stratified_of(truth, columns[:, 0]) - _stratified_of(truth, columns[:, 1])
    return compared(difference, _with_pairs(drawn), _fewest(truth, groups))


def residualised_auroc(
    labels: ArrayLike,
    scores: ArrayLike,
    nuisance: ArrayLike,
    groups: ArrayLike,
    *,
    normal_scores: ArrayLike,
    normal_nuisance: ArrayLike,
    n_boot: int = 2000,
    seed: int = 0,
) -> ResidualisedAuroc:
    """AUROC of the scores less the trend that held-out normals' scores follow over log(nuisance).

    The line is fitted by least squares on normals that are not among the films (the model's calibration normals) and
    then fixed, so no label of the films has a say in it; the interval does not hold its uncertainty.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), finite.
        nuisance: (N,), finite, > 0.
        groups: (N,), patient of each film.
        normal_scores: (M,), finite, M >= 3.
        normal_nuisance: (M,), finite, > 0, not all equal.
        n_boot: bootstrap replicates.
        seed: of the resamples.

    Raises:
        DataError: as `replicates`, or the normals or a nuisance are not as above.
        UsageError: `n_boot` below 1.
    """
    truth, values = check(labels, scores)
    at = np.log(_numbers(nuisance, values.shape, "nuisance", above_zero=True))
    known = np.asarray(normal_scores)
    trained = _numbers(known, known.shape, "normal_scores")
    over = np.log(_numbers(normal_nuisance, trained.shape, "normal_nuisance", above_zero=True))
    if trained.ndim != 1 or len(trained) < 3 or np.ptp(over) == 0:
        raise DataError("the trend needs at least three held-out normals whose nuisance is not all the same")
    spread = over - over.mean()
    slope = float(spread @ trained / (spread @ spread))
    intercept = float(trained.mean() - slope * over.mean())
    left = values - (intercept + slope * at)
    return ResidualisedAuroc(
        auroc(truth, left), bootstrap(auroc_of, truth, left, groups, n=n_boot, seed=seed), slope, intercept
    )


def equal_strata(nuisance: Float64, strata: int) -> Int64:
    """Cut films into strata of about equal size, equal values together: float64 (N,) -> int64 (N,) in 0..strata-1."""
    _, index, films = np.unique(nuisance, return_inverse=True, return_counts=True)
    middle = np.cumsum(films) - 0.5 * films  # of each value's run of ranks
    return np.asarray(np.floor(strata * middle / len(nuisance)), dtype=np.int64)[index]


def _in_strata(labels: ArrayLike, scores: ArrayLike, nuisance: ArrayLike, strata: int) -> tuple[Int64, Float64, Int64]:
    if strata < 1:
        raise UsageError(f"strata must be at least 1, not {strata}")
    truth, values = check(labels, scores)
    where = equal_strata(_numbers(nuisance, values.shape, "nuisance"), strata)
    if not set(where[truth == NORMAL]) & set(where[truth == ABNORMAL]):
        raise DataError("not computable: no stratum of the nuisance holds both classes; use fewer strata")
    return truth, values, where


def _ordered(where: Int64, scores: Float64) -> Float64:
    """One column whose whole part is the stratum and whose order within it is the scores': float64 (N,).

    So a `Tally` of it tells strata apart, and the bootstrap of plain AUROCs serves this one as it is.
    """
    _, rank = np.unique(scores, return_inverse=True)
    return where + rank / (len(scores) + 1.0)


def _stratified(counts: Tally) -> float:
    """Pairs won over pairs, each within its stratum; NaN without any pair."""
    starts = np.unique(np.searchsorted(counts.scores, np.arange(np.floor(counts.scores[-1]) + 1)))
    normal, abnormal = (np.add.reduceat(films, starts) for films in (counts.normal, counts.abnormal))
    below = np.cumsum(counts.normal)
    below -= 0.5 * counts.normal
    won = counts.abnormal @ below - (np.cumsum(normal) - normal) @ abnormal  # less those of lower strata
    pairs = normal @ abnormal
    return float(won / pairs) if pairs else float("nan")


def _mean_stratified(*columns: Tally) -> float:
    return sum(_stratified(column) for column in columns) / len(columns)


def _stratified_difference(first: Tally, second: Tally) -> float:
    return _stratified(first) - _stratified(second)


def _stratified_of(truth: Int64, column: Float64) -> float:
    return _stratified(tally(truth, column))


def _with_pairs(drawn: Float64) -> Float64:
    """Return the replicates in which some stratum held both classes."""
    kept = drawn[np.isfinite(drawn)]
    if len(kept) < 0.9 * len(drawn):
        raise DataError("not computable: most strata hold too few films of one class to be resampled; use fewer strata")
    return kept


def _stratum(truth: Int64, columns: Sequence[Float64], nuisance: Float64, films: NDArray[np.bool_]) -> Stratum:
    abnormal = int(truth[films].sum())
    normal = int(films.sum()) - abnormal
    area = float(np.mean([auroc(truth[films], scores[films]) for scores in columns])) if normal and abnormal else None
    return Stratum(float(nuisance[films].min()), float(nuisance[films].max()), normal, abnormal, area)


def _numbers(values: ArrayLike, shape: tuple[int, ...], name: str, *, above_zero: bool = False) -> Float64:
    numbers = np.asarray(values)
    if numbers.shape != shape or numbers.dtype.kind not in "biuf" or not np.isfinite(numbers).all():
        raise DataError(f"{name} {numbers.shape} {numbers.dtype} must be one finite number a film {shape}")
    if above_zero and np.any(numbers <= 0):
        raise DataError(f"{name} must be above 0: its logarithm is taken")
    return numbers.astype(np.float64)


def _fewest(truth: Int64, groups: ArrayLike) -> int:
    return fewest_patients(truth, group_numbers(groups, len(truth)))
