"""Where does a method look? The share of a map's heat inside the lungs, beside that of a map that is even.

A map may be hot on the letter R, on a collar bone or on the film's rim, and the score right all the same: right for
the wrong reason (DeGrave et al., Nature Machine Intelligence 3, 2021). The share is the inside-total relevance ratio
of Kohlbrenner et al., "Towards Best Practice in Explaining Neural Network Decisions with LRP", IJCNN 2020. Lungs cover
much of a film, so a share means something only beside the lungs' own share of what was looked at: an even map, which
looks nowhere, has just that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError
from anomaly.evaluate.intervals import Interval, mean_interval
from anomaly.evaluate.resample import group_numbers
from anomaly.records import ABNORMAL, NORMAL

GROUPS: tuple[tuple[str, int | None], ...] = (
    ("labelled normal", NORMAL),
    ("labelled abnormal", ABNORMAL),
    ("label unknown", None),
)
"""Groups of films by label, in the order they are told in."""

_ROUNDING = 1e-9  # an even map is not below itself by what adding up in another order leaves


@dataclass(frozen=True, slots=True)
class HeatShares:
    """The shares of one group of films: `n` maps with heat, `no_heat` without any, which count in nothing else.

    `median`, `low_quartile`, `high_quartile` and `mean` are of the shares, in [0, 1]; `interval` is the mean's, whole
    patients resampled, None where there is one patient. `lung_area` is the mean share of an even map on the same
    films, and `below` the share of films whose map has a smaller share than that, film by film.
    """

    name: str
    n: int
    no_heat: int
    median: float
    low_quartile: float
    high_quartile: float
    mean: float
    interval: Interval | None
    lung_area: float
    below: float


def heat_share(heatmap: NDArray[np.floating], mask: NDArray[Any]) -> float | None:
    """Return the share of a map's positive heat that lies inside a mask, in [0, 1]; None for a map without any.

    Args:
        heatmap: float (H, W), finite; what is negative counts as no heat. Summed in float64.
        mask: bool or 0/1 (H, W), at least one pixel set, such as the lungs.

    Raises:
        DataError: Shapes differ, values are not finite or not 0/1, or the mask is empty.
    """
    inside, heat = np.asarray(mask), np.asarray(heatmap, dtype=np.float64)
    if heat.ndim != 2 or heat.shape != inside.shape or not np.isfinite(heat).all():
        raise DataError(f"map {heat.shape} must be finite and on the mask's grid {inside.shape}")
    if not np.isin(inside, (0, 1)).all() or not inside.any():
        raise DataError(f"mask {inside.shape} must hold 0 and 1, and not 0 alone")
    heat = np.maximum(heat, 0.0)
    total = float(heat.sum())
    return min(1.0, float(heat[inside.astype(np.bool_)].sum()) / total) if total > 0 else None


def summarise(
    shares: Sequence[float | None],
    lung_areas: Sequence[float],
    labels: Sequence[int | None],
    patients: Sequence[str],
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[HeatShares]:
    """Return what the shares of N films come to: of all films first, then of each label where there are several.

    Args:
        shares: N of `heat_share`.
        lung_areas: N of the same mask and an even map, in [0, 1].
        labels: N of 0, 1 or None.
        patients: N keys; films with an equal key belong to one patient.
        n_boot: Replicates.
        seed: Of the resamples.

    Returns:
        Groups in which at least one map has heat.

    Raises:
        DataError: Lengths differ, or no map has any heat.
        UsageError: `n_boot` below 1.
    """
    if not len(shares) == len(lung_areas) == len(labels) == len(patients):
        raise DataError(f"{len(shares)} shares, {len(lung_areas)} lung areas, labels and patients: give one a film")
    warm = np.array([share is not None for share in shares], dtype=np.bool_)
    if not warm.any():
        raise DataError(f"not computable: none of the {len(shares)} maps has any heat")
    values = np.array([np.nan if share is None else share for share in shares])
    areas, keys = np.asarray(lung_areas, dtype=np.float64), np.asarray(patients)
    members = {name: np.array([own == label for own in labels]) for name, label in GROUPS}
    parts = [(name, part) for name, part in members.items() if (part & warm).any()]
    groups = [("all", np.ones_like(warm)), *(parts if len(parts) > 1 else ())]
    found = []
    for name, part in groups:
        kept = part & warm
        own, area = values[kept], areas[kept]
        low, median, high = (float(value) for value in np.quantile(own, (0.25, 0.5, 0.75)))
        found.append(
            HeatShares(
                name,
                n=len(own),
                no_heat=int(np.count_nonzero(part & ~warm)),
                median=median,
                low_quartile=low,
                high_quartile=high,
                mean=float(own.mean()),
                interval=_interval(own, keys[kept], n_boot, seed),
                lung_area=float(area.mean()),
                below=float(np.mean(own < area - _ROUNDING)),
            )
        )
    return found


def _interval(values: NDArray[np.float64], patients: ArrayLike, n: int, seed: int) -> Interval | None:
    """Return the interval of the mean, or None where all films are of one patient."""
    if len(np.unique(group_numbers(patients, len(values)))) < 2:
        return None
    return mean_interval(values, patients, n=n, seed=seed)
