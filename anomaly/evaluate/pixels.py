"""Is a map hot on the lesions' pixels? Average precision, best Dice and per-region overlap, all films' pixels together.

AUPRO: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021): the share of a lesion's region that is
hotter than a threshold, averaged over regions, so that a small one counts as much as a large one; against the share
of pixels outside lesions that are as hot; the area below up to a false positive rate of 0.3, divided by that.
A region is what touches, corners included. All films take part, normal ones with an empty mask.

Every figure is exact over all distinct thresholds, from one sort: lowering a threshold to where no lesion's pixel is
gained adds false positives alone. So precision and Dice need looking at only where a lesion's pixel lies; and a curve
of linear pieces has the area that each of its pixels brings from where it is gained to the limit.

anomalib 2.7's `AUPRO` is the same figure: regions that touch at corners, all distinct thresholds, a linear piece cut at
the limit. What differs: it keeps sums in float32 (1e-7) and takes what is equal in float32 as tied; on a GPU a region
grows by at most 1000 pixels, so that a longer one may fall apart; without any lesion it says 0, where this refuses.

Lesions have favourite places: each figure stands beside that of the other patients' mean mask, and of a flat map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import Interval, proportion
from anomaly.evaluate.localise import mean_location_prior
from anomaly.evaluate.resample import fewest_patients, film_replicates, group_numbers
from anomaly.records import Float32, Float64, Int64

AVERAGE_PRECISION, BEST_DICE, AUPRO = "pixel average precision", "best Dice (oracle)", "AUPRO"
FIGURES = (AVERAGE_PRECISION, BEST_DICE, AUPRO)
MAP, USUAL, FLAT = "map", "mean lesion location of the others", "flat map"
LIMIT = 0.3
"""Of the false positive rate, up to which AUPRO looks."""

_LEVELS = 512  # thresholds of the bootstrap: as many taken evenly from the lesions' pixels, and from the others
_MOST_REPLICATES = 500


@dataclass(frozen=True, slots=True)
class PixelRow:
    """One figure of one map over `films` films, in [0, 1]; `interval` None for a flat map, or with too few patients."""

    figure: str
    name: str
    films: int
    value: float
    interval: Interval | None


def pixel_average_precision(heats: Sequence[NDArray[np.floating]], masks: Sequence[NDArray[Any]]) -> float:
    """Average precision of pixels, all films together; that of a flat map is the share of pixels in lesions.

    Args:
        heats: N of float (H, W), finite, higher is more abnormal.
        masks: N of bool or 0/1 (H, W), the lesions; empty for normal films.

    Returns:
        In [0, 1], without interpolation, as `metrics.average_precision`.

    Raises:
        DataError: Lengths or shapes differ, something is not finite or not 0/1, no lesion at all, or nothing outside.
    """
    return _average_precision(_Sorted.of(heats, _regions(masks)).curve())


def best_dice(heats: Sequence[NDArray[np.floating]], masks: Sequence[NDArray[Any]]) -> float:
    """Dice of all films' pixels taken together at the best threshold: an ORACLE, as the answers pick the threshold.

    Never a result of its own; a deployable threshold comes from held-out normals.

    Args:
        heats: As `pixel_average_precision`.
        masks: As there.

    Raises:
        DataError: As there.
    """
    return _best_dice(_Sorted.of(heats, _regions(masks)).curve())


def aupro(heats: Sequence[NDArray[np.floating]], masks: Sequence[NDArray[Any]], limit: float = LIMIT) -> float:
    """Area under the per-region overlap curve up to a false positive rate, divided by it; a flat map has limit / 2.

    Args:
        heats: As `pixel_average_precision`.
        masks: As there; a region is what touches, corners included.
        limit: In (0, 1].

    Returns:
        In [0, 1].

    Raises:
        DataError: As there.
        UsageError: A limit out of range.
    """
    return _aupro(_Sorted.of(heats, _regions(masks)).curve(), _valid(limit))


def location_priors(masks: Sequence[NDArray[Any]], groups: ArrayLike) -> list[Float32]:
    """Say for each film, as a map, where other patients' lesions lie: the mean of their masks.

    Args:
        masks: N of bool or 0/1 (S, S), on one common grid; films without a lesion have no part in the mean, and get
            it whole.
        groups: (N,), patient of each film.

    Returns:
        N of float32 (S, S) in [0, 1]; those of one patient may be one array.

    Raises:
        DataError: Lesions of fewer than two patients, or shapes.
    """
    patients = group_numbers(groups, len(masks))
    sick = [i for i, mask in enumerate(masks) if np.any(mask)]
    own = mean_location_prior([masks[i] for i in sick], patients[sick])
    # A patient with films of both kinds is left out of the prior of all of them.
    of_patient = {int(patients[i]): prior for i, prior in zip(sick, own, strict=True)}
    everyone = np.asarray(np.mean([masks[i] for i in sick], axis=0), dtype=np.float32)
    return [of_patient.get(int(patient), everyone) for patient in patients]


def pixel_table(
    heats: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[Any]],
    groups: ArrayLike,
    *,
    limit: float = LIMIT,
    n_boot: int = _MOST_REPLICATES,
    seed: int = 0,
) -> list[PixelRow]:
    """Each of the three figures of the map, of where lesions usually are, and of a flat map.

    A replicate is a sum over films of counts in bins of heat, 512 taken evenly from the lesions' pixels and as many
    from the others, on which a figure is off by about 0.001; replicates are moved by that. Pixels within a bin are
    tied. Dice takes its best threshold anew in each; the prior is held as it is. Patients with and without lesions
    are drawn apart; with fewer than two of either there is no interval.

    Args:
        heats: N of float (S, S), finite.
        masks: N of bool or 0/1 (S, S), on one grid, lesions of at least two patients.
        groups: (N,), patient of each film.
        limit: Of AUPRO, in (0, 1].
        n_boot: Replicates, at most 500: pixels are many.
        seed: Of the resamples.

    Raises:
        DataError: As `pixel_average_precision` and `location_priors`.
        UsageError: `limit` or `n_boot` out of range.
    """
    truth, patients = _regions(masks), group_numbers(groups, len(masks))
    given = {MAP: _Sorted.of(heats, truth), USUAL: _Sorted.of(location_priors(truth.masks, patients), truth)}
    curves = {name: pixels.curve() for name, pixels in given.items()}
    statistics: tuple[_Statistic, ...] = (_average_precision, _best_dice, partial(_aupro, limit=_valid(limit)))
    values = [(figure, name) for name in curves for figure in range(len(FIGURES))]
    exact = np.array([statistics[figure](curves[name]) for figure, name in values])
    sick = (truth.regions > 0).astype(np.int64)
    intervals: list[Interval | None] = [None] * len(values)
    if (fewest := fewest_patients(sick, patients)) > 1:
        films = range(len(masks))  # the statistic asked for: how often a film is there
        drawn = film_replicates(
            [itemgetter(film) for film in films], sick, patients, n=min(n_boot, _MOST_REPLICATES), seed=seed
        )
        counts = np.concatenate([np.ones((1, len(masks))), drawn])
        binned = {name: list(_Bins.of(pixels, truth).curves(counts)) for name, pixels in given.items()}
        found = np.array([[statistics[figure](curve) for curve in binned[name]] for figure, name in values])
        moved = np.clip(found[:, 1:] + (exact - found[:, 0])[:, None], 0.0, 1.0)
        intervals = [proportion(replicates, fewest) for replicates in moved]
    told = {at: (float(value), interval) for at, value, interval in zip(values, exact, intervals, strict=True)}
    told |= {(figure, FLAT): (value, None) for figure, value in enumerate(_flat(curves[MAP], limit))}
    return [
        PixelRow(name, source, len(masks), *told[figure, source])
        for figure, name in enumerate(FIGURES)
        for source in (MAP, USUAL, FLAT)
    ]


@dataclass(frozen=True, slots=True)
class _Regions:
    """The lesions of N films: `masks` bool (H, W), `regions` int64 (N,), how many there are on each.

    `shares` of each film float64 (n,): of its mask's pixels, in their order, one over the size of the pixel's region.
    """

    masks: list[NDArray[np.bool_]]
    shares: list[Float64]
    regions: Int64


@dataclass(frozen=True, slots=True)
class _Curve:
    """What falling thresholds gain, float64 (K,) each.

    At a threshold: `gained` pixels of lesions, and `overlap`, what they add to the mean share of a region; `hits`
    pixels of lesions at least as hot; of the `outside` pixels outside, `hotter` are hotter and `alarms` at least as
    hot.
    """

    gained: Float64
    overlap: Float64
    hits: Float64
    hotter: Float64
    alarms: Float64
    outside: float


_Statistic = Callable[[_Curve], float]


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Pixels of N maps: `hot` (P,) of lesions and `cold` (M,) of the others, ascending; `overlap` float64 (P,).

    `overlap` is what a pixel adds to the mean share of a region.
    """

    heats: Sequence[NDArray[np.floating]]
    hot: NDArray[np.floating]
    overlap: Float64
    cold: NDArray[np.floating]

    @classmethod
    def of(cls, heats: Sequence[NDArray[np.floating]], truth: _Regions) -> _Sorted:
        if len(heats) != len(truth.masks):
            raise DataError(f"{len(heats)} maps and {len(truth.masks)} masks: give one of each a film")
        pairs = list(zip(heats, truth.masks, strict=True))
        for film, (heat, mask) in enumerate(pairs):
            if heat.shape != mask.shape or not np.isfinite(heat).all():
                raise DataError(f"map {film} {heat.shape} must be finite and on its mask's grid {mask.shape}")
        hot, cold = (np.concatenate([heat[mask == side] for heat, mask in pairs]) for side in (True, False))
        if not len(cold):
            raise DataError("not computable: the lesions cover all films, and nothing is left to be told from them")
        order = np.argsort(hot, kind="stable")
        cold.sort()
        return cls(heats, hot[order], np.concatenate(truth.shares)[order] / truth.regions.sum(), cold)

    def curve(self) -> _Curve:
        """Return the exact curve, a point a pixel of a lesion: at its own heat, those tied with it included."""
        hits = len(self.hot) - np.searchsorted(self.hot, self.hot, side="left")
        hotter = len(self.cold) - np.searchsorted(self.cold, self.hot, side="right")
        alarms = len(self.cold) - np.searchsorted(self.cold, self.hot, side="left")
        counts = [places.astype(np.float64) for places in (hits, hotter, alarms)]
        return _Curve(np.ones(len(self.hot)), self.overlap, counts[0], counts[1], counts[2], float(len(self.cold)))


@dataclass(frozen=True, slots=True)
class _Bins:
    """Pixels of N films in K bins of heat, the hottest first, float32 (N, K) each: so a replicate is a sum.

    `lesions` and `outside` count them, `overlap` sums the shares of lesions' pixels; `regions` float64 (N,).
    """

    lesions: Float32
    outside: Float32
    overlap: Float32
    regions: Float64

    @classmethod
    def of(cls, pixels: _Sorted, truth: _Regions) -> _Bins:
        levels = np.unique([_evenly(pixels.hot), _evenly(pixels.cold)])
        shape = (len(truth.masks), len(levels))
        lesions, outside, overlap = (np.zeros(shape, np.float32) for _ in range(3))
        for film, (heat, mask, shares) in enumerate(zip(pixels.heats, truth.masks, truth.shares, strict=True)):
            bins = len(levels) - np.searchsorted(levels, heat, side="right")
            inside = bins[mask]
            lesions[film] = np.bincount(inside, minlength=len(levels))
            overlap[film] = np.bincount(inside, shares, minlength=len(levels))
            outside[film] = np.bincount(bins[~mask], minlength=len(levels))
        return cls(lesions, outside, overlap, truth.regions.astype(np.float64))

    def curves(self, counts: Float64) -> Iterator[_Curve]:
        """Yield the curve of each replicate, float64 (n, N): how often each film is there."""
        films = counts.astype(np.float32)
        tables = [films @ table for table in (self.lesions, self.overlap, self.outside)]
        for gained, overlap, outside, regions in zip(*tables, counts @ self.regions, strict=True):
            alarms = np.cumsum(outside, dtype=np.float64)
            hits = np.cumsum(gained, dtype=np.float64)
            share = overlap.astype(np.float64) / regions
            yield _Curve(gained.astype(np.float64), share, hits, alarms - outside, alarms, float(alarms[-1]))


def _evenly(ascending: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return at most so many of the values, the first and the last among them."""
    return ascending[np.linspace(0, len(ascending) - 1, _LEVELS).astype(np.int64)]


def _regions(masks: Sequence[NDArray[Any]]) -> _Regions:
    """Number the regions of N masks, bool or 0/1 (H, W)."""
    from skimage.measure import label

    planes, shares, regions = [], [], []
    for film, mask in enumerate(masks):
        plane = np.asarray(mask)
        if plane.ndim != 2 or not (plane.dtype == np.bool_ or np.isin(plane, (0, 1)).all()):
            raise DataError(f"mask {film} {plane.shape} {plane.dtype} must be (H, W) of 0 and 1")
        plane = plane.astype(np.bool_)
        numbers = label(plane, connectivity=2)[plane]  # type: ignore[no-untyped-call]
        sizes = np.bincount(numbers, minlength=1)
        planes.append(plane)
        shares.append(1.0 / sizes[numbers])
        regions.append(np.count_nonzero(sizes))
    if not sum(regions):
        raise DataError("not computable: no film has a lesion")
    return _Regions(planes, shares, np.array(regions, dtype=np.int64))


def _average_precision(curve: _Curve) -> float:
    # A replicate may have drawn nothing yet at its hottest; those steps have no recall to weigh.
    precision = curve.hits / np.maximum(curve.hits + curve.alarms, 1.0)
    return float(curve.gained @ precision / curve.gained.sum())


def _best_dice(curve: _Curve) -> float:
    return float(np.max(2.0 * curve.hits / (curve.gained.sum() + curve.hits + curve.alarms)))


def _aupro(curve: _Curve, limit: float) -> float:
    # What is gained where the false positive rate goes from `low` to `high` counts, evenly, from there to the limit.
    low, high = curve.hotter / curve.outside, curve.alarms / curve.outside
    beyond = np.maximum(limit - low, 0.0)
    width = np.maximum(high - low, np.finfo(np.float64).tiny)
    kept = np.where(high <= limit, limit - 0.5 * (low + high), 0.5 * beyond * np.minimum(beyond / width, 1.0))
    return float(curve.overlap @ kept / limit)


def _flat(curve: _Curve, limit: float) -> tuple[float, float, float]:
    """Return the three figures of a map that is the same everywhere."""
    lesions = float(curve.gained.sum())
    return lesions / (lesions + curve.outside), 2.0 * lesions / (2.0 * lesions + curve.outside), limit / 2.0


def _valid(limit: float) -> float:
    if not 0.0 < limit <= 1.0:
        raise UsageError(f"the limit of the false positive rate must lie in (0, 1], not {limit}")
    return limit
