"""Does the map point at the lesion? The pointing game, beside the two answers that need no map at all.

Pointing game: Zhang et al., "Top-Down Neural Attention by Excitation Backprop", IJCV 126 (2018), section 4.2: a hit
when the map's maximum lies in the annotated region (they allow 15 px around it: `tolerance`). Lesions have favourite
places and cover much of a lung, so a hit rate means something only beside that of the mean lesion location of the
other patients, and beside the share of the lung that lesions cover (what a random point in the lung would hit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import Interval, mean_interval, wilson
from anomaly.evaluate.resample import group_numbers
from anomaly.records import Float32


@dataclass(frozen=True, slots=True)
class HitRate:
    """One row of the localisation table: mean hit over `n` films with lesion masks, in [0, 1], and its interval."""

    name: str
    n: int
    rate: float
    interval: Interval


def pointing_game(heatmap: NDArray[np.floating], mask: NDArray[Any], tolerance: float = 0.0) -> float:
    """1 if the map's peak lies in the mask, else 0; the share of the tied maxima that do when there are several.

    A flat map thus scores the share of the picture the mask covers, as a blind guess would, and not whatever
    the first pixel happens to be.

    Args:
        heatmap: float (H, W), finite.
        mask: bool or 0/1 (H, W), at least one pixel set.
        tolerance: a peak this many pixels (Euclidean) from the mask still counts.

    Raises:
        DataError: shapes differ, values are not finite or not 0/1, or the mask is empty.
        UsageError: a negative tolerance.
    """
    if tolerance < 0:
        raise UsageError(f"tolerance must be >= 0 pixels, not {tolerance}")
    lesion = _binary(mask, "lesion mask")
    if heatmap.shape != lesion.shape or not np.isfinite(heatmap).all():
        raise DataError(f"map {heatmap.shape} must be finite and on the mask's grid {lesion.shape}")
    if tolerance > 0:
        from scipy.ndimage import distance_transform_edt

        lesion = np.asarray(distance_transform_edt(~lesion)) <= tolerance
    return float(lesion[heatmap == heatmap.max()].mean())


def mean_location_prior(masks: Sequence[NDArray[Any]], groups: ArrayLike | None = None) -> Float32:
    """For each film the mean mask of the other patients' films: where lesions usually are, without looking.

    Args:
        masks: N of bool or 0/1 (S, S), on one common grid, each with a pixel set.
        groups: (N,), patient of each film; without it each film is a patient.

    Returns:
        float32 (N, S, S) in [0, 1].

    Raises:
        DataError: shapes differ, a mask is empty, or all films are of one patient.
    """
    stack = _stack(masks, "lesion mask")
    patients = group_numbers(np.arange(len(stack)) if groups is None else groups, len(stack))
    n_patients = int(patients.max()) + 1
    if n_patients < 2:
        raise DataError("not computable: a location prior needs masks of at least two patients")
    # Whole numbers until the division, so that places hit equally often stay exactly tied.
    own = np.zeros((n_patients, *stack.shape[1:]), dtype=np.int32)
    np.add.at(own, patients, stack)
    films = np.bincount(patients)
    others = np.subtract(own.sum(axis=0), own, dtype=np.float32)
    others /= (films.sum() - films).astype(np.float32)[:, None, None]
    prior: Float32 = others[patients]
    return prior


def mask_share(mask: NDArray[Any], region: NDArray[Any]) -> float:
    """Share of the region that the mask covers, in [0, 1]: what a random point of the region would hit.

    Args:
        mask: bool or 0/1 (H, W).
        region: bool or 0/1 (H, W), at least one pixel set, such as the lungs.

    Raises:
        DataError: shapes differ, values are not 0/1, or the region is empty.
    """
    where = _binary(region, "region")
    lesion = np.asarray(mask)
    if lesion.shape != where.shape or not np.isin(lesion, (0, 1)).all():
        raise DataError(f"mask {lesion.shape} must hold 0 and 1 on the region's grid {where.shape}")
    return float(lesion[where].mean())


def hit_rates(
    maps: Sequence[NDArray[np.floating]],
    masks: Sequence[NDArray[Any]],
    regions: Sequence[NDArray[Any]],
    *,
    groups: ArrayLike | None = None,
    tolerance: float = 0.0,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[HitRate]:
    """Three rows: the map's pointing game, the leave-one-patient-out location prior's, and the chance level.

    The first two carry Wilson's interval where every film is of another patient and the patient bootstrap where
    some patient has several; the chance level, a mean of shares, always the bootstrap.

    Args:
        maps: N of float (S, S), finite, higher is more abnormal.
        masks: N of bool or 0/1 (S, S), lesions, none empty; brought to this grid by the caller (area-resize, >= 0.5).
        regions: N of bool or 0/1 (S, S), where a lesion could be (lungs), none empty.
        groups: (N,), patient of each film; without it each film is a patient.
        tolerance: as `pointing_game`, for both pointing games.
        n_boot: replicates.
        seed: of the resamples.

    Raises:
        DataError: lengths or grids differ, something is empty or not finite, or fewer than two patients.
        UsageError: a negative tolerance.
    """
    if not len(maps) == len(masks) == len(regions):
        raise DataError(f"{len(maps)} maps, {len(masks)} masks and {len(regions)} regions: give one of each a film")
    patients = group_numbers(np.arange(len(masks)) if groups is None else groups, len(masks))
    priors = mean_location_prior(masks, patients)
    shared = len(np.unique(patients)) < len(patients)
    rows = []
    for name, pictures in (("map", maps), ("mean lesion location of the others", priors)):
        hits = np.array([pointing_game(p, m, tolerance) for p, m in zip(pictures, masks, strict=True)])
        exact = None if shared else wilson(float(hits.sum()), len(hits))
        rows.append((name, hits, exact))
    shares = np.array([mask_share(m, r) for m, r in zip(masks, regions, strict=True)])
    rows.append(("random point in the region (share the lesion covers)", shares, None))
    return [
        HitRate(name, len(hits), float(hits.mean()), exact or mean_interval(hits, patients, n=n_boot, seed=seed))
        for name, hits, exact in rows
    ]


def _binary(mask: NDArray[Any], name: str) -> NDArray[np.bool_]:
    """Return bool (H, W) with a pixel set."""
    values = np.asarray(mask)
    if values.ndim != 2 or not np.isin(values, (0, 1)).all():
        raise DataError(f"{name} {values.shape} {values.dtype} must be (H, W) of 0 and 1")
    if not values.any():
        raise DataError(f"{name} is empty; leave out films without one")
    return values.astype(np.bool_)


def _stack(masks: Sequence[NDArray[Any]], name: str) -> NDArray[np.bool_]:
    """Return bool (N, S, S), N >= 1, each with a pixel set."""
    planes = [_binary(mask, f"{name} {i}") for i, mask in enumerate(masks)]
    shapes = {plane.shape for plane in planes}
    if len(shapes) != 1:
        raise DataError(f"masks must share one grid, not {sorted(shapes) or 'none at all'}")
    return np.stack(planes)
