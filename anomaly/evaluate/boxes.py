"""Do the map's regions lie on the lesions' boxes? Average precision, beside boxes drawn without a map.

A box predicted is a connected region of heat above one threshold for all films, with the region's peak as confidence.
Within a film predictions are matched greedily, the most confident first, each to the free box it overlaps most
(Everingham et al., IJCV 88, 2010; pycocotools); precision is made monotone and integrated over all recalls. Films
without a lesion take part: every region on them is a false alarm.

Regions of a map are blobs and the boxes of opacities are loose, so weakly supervised localisation on chest films is
read at low overlaps, 0.1 to 0.7 (Li et al., "Thoracic Disease Identification and Localization with Limited
Supervision", CVPR 2018); detectors trained on boxes at 0.4 to 0.75 (the RSNA challenge). Here 0.1, 0.3 and 0.5, and
0.3 is the one to quote.

Boxes are (x, y, w, h) as RSNA and COCO give them: (x, y) is the upper left CORNER, and the picture's own upper left
corner is (0, 0), so the pixel of row r and column c covers [c, c + 1) x [r, r + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.intervals import Interval, percentile
from anomaly.evaluate.localise import mean_location_prior
from anomaly.evaluate.resample import fewest_patients, film_replicates, group_numbers
from anomaly.records import Float32, Float64, Int64

OVERLAPS = (0.1, 0.3, 0.5)
"""Intersection over union from which a predicted box counts as a hit."""

Found = tuple[Float64, Float64]
"""What is predicted on one film: boxes float64 (n, 4) and confidences float64 (n,)."""

_HALF = 0.5  # of the prior's peak: where lesions lie more than half as often as at their favourite place
_SMOOTH = (
    0.04  # of the longer side: the mean of few masks is speckled, and each speckle's box is an alarm on every film
)


@dataclass(frozen=True, slots=True)
class BoxPrecision:
    """One row of the box table: average precision at one overlap, over `films` films with `boxes` true boxes in all."""

    name: str
    overlap: float
    films: int
    boxes: int
    average_precision: float
    interval: Interval


def box_mask(boxes: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose centre lies in a box.

    Args:
        boxes: float (n, 4), x, y, w, h in pixels of the picture; n may be 0.
        shape: (H, W) of the picture.

    Returns:
        bool (H, W).

    Raises:
        DataError: another shape, values that are not finite, or a width or height not above 0.
    """
    mask = np.zeros(shape, dtype=np.bool_)
    across, down = np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5
    for x, y, w, h in _boxes(boxes):
        mask |= ((down >= y) & (down < y + h))[:, None] & ((across >= x) & (across < x + w))
    return mask


def boxes_of_map(heatmap: NDArray[np.floating], threshold: float) -> Found:
    """Return the boxes around a map's regions hotter than a threshold, the hottest first.

    Args:
        heatmap: float (H, W), finite, on the grid the boxes are wanted on: bring it to the film first.
        threshold: the same for every film, such as a pixel quantile of held-out normals' maps; never of this map.

    Returns:
        boxes float64 (n, 4) and their confidences float64 (n,), each region's peak; regions touching at a corner are
        one.

    Raises:
        DataError: a map of another shape, or not finite.
    """
    from scipy.ndimage import find_objects, label, maximum

    if heatmap.ndim != 2 or not np.isfinite(heatmap).all():
        raise DataError(f"map {heatmap.shape} must be (H, W) and finite")
    regions, count = label(heatmap > threshold, structure=np.ones((3, 3)))
    spans = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in find_objects(regions)]
    peaks = np.asarray(maximum(heatmap, regions, np.arange(1, count + 1)), dtype=np.float64)
    order = np.argsort(-peaks, kind="stable")
    return np.array(spans, dtype=np.float64).reshape(-1, 4)[order], peaks[order]


def overlap(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> Float64:
    """Intersection over union of every box (n, 4) with every other (m, 4): float64 (n, m) in [0, 1].

    Raises:
        DataError: as `box_mask`.
    """
    first, second = _boxes(boxes)[:, None], _boxes(others)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    return np.asarray(shared / (np.prod(first[..., 2:], axis=2) + np.prod(second[..., 2:], axis=2) - shared))


def box_average_precision(predictions: Sequence[Found], truths: Sequence[NDArray[np.floating]], iou: float) -> float:
    """Average precision of predicted boxes over all films together, all-point interpolated.

    Predictions of equal confidence enter together, so the order of films does not matter.

    Args:
        predictions: N of (boxes (n, 4), confidences (n,)), one a film, films without a lesion included.
        truths: N of float (m, 4), the true boxes; m is 0 on films without a lesion.
        iou: intersection over union from which a prediction is a hit, in (0, 1].

    Returns:
        In [0, 1]; 0 where nothing is predicted.

    Raises:
        DataError: lengths or shapes differ, something is not finite, or there is no true box.
        UsageError: `iou` out of range.
    """
    table = _match(predictions, truths, iou)
    return table.precision(np.ones(len(truths)))


def box_table(
    predictions: Sequence[Found],
    truths: Sequence[NDArray[np.floating]],
    scores: ArrayLike,
    shape: tuple[int, int],
    groups: ArrayLike,
    *,
    overlaps: Sequence[float] = OVERLAPS,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[BoxPrecision]:
    """Four answers at each overlap: the map's boxes, where lesions usually are (twice), and boxes at random places.

    Average precision also rewards knowing which films have a lesion at all. So the usual place stands once with one
    confidence for all, which takes no detector, and once ranked by the detector's film scores, as the random places
    are. The map ranks by its own peaks and draws as many boxes as it finds, so the last two differ from it in more than
    the place. Intervals hold the prior as it is.

    Args:
        predictions: N of (boxes, confidences), one a film.
        truths: N of float (m, 4), the true boxes.
        scores: (N,), finite: the detector's, of each film.
        shape: (H, W), of every film: the prior needs one common grid.
        groups: (N,), patient of each film.
        overlaps: each in (0, 1].
        n_boot: replicates, of whole patients; those with and without boxes are drawn apart.
        seed: of the resamples and of the random places.

    Raises:
        DataError: as `box_average_precision`, or fewer than two patients with or without boxes.
        UsageError: an overlap or `n_boot` out of range.
    """
    confidence = np.asarray(scores, dtype=np.float64)
    if confidence.shape != (len(truths),) or not np.isfinite(confidence).all():
        raise DataError(f"scores {confidence.shape} must be one finite number a film ({len(truths)})")
    prior = prior_boxes(truths, shape, groups)
    places = random_boxes(truths, shape, groups, seed=seed)
    given: list[tuple[str, Sequence[Found]]] = [
        ("map", predictions),
        ("mean lesion location of the others", _at(prior, np.zeros(len(truths)))),
        ("the same, ranked by score", _at(prior, confidence)),
        ("random places, ranked by score", _at(places, confidence)),
    ]
    patients = group_numbers(groups, len(truths))
    sick = np.array([len(boxes) > 0 for boxes in truths], dtype=np.int64)
    fewest = fewest_patients(sick, patients)
    tables = [(name, iou, _match(found, truths, iou)) for iou in overlaps for name, found in given]
    drawn = film_replicates([table.precision for _, _, table in tables], sick, patients, n=n_boot, seed=seed)
    once = np.ones(len(truths))
    return [
        BoxPrecision(name, iou, len(truths), int(table.true.sum()), table.precision(once), percentile(values, fewest))
        for (name, iou, table), values in zip(tables, drawn.T, strict=True)
    ]


def prior_boxes(truths: Sequence[NDArray[np.floating]], shape: tuple[int, int], groups: ArrayLike) -> list[Float64]:
    """Say for each film where other patients' lesions lie: boxes of the places more than half as common as the peak.

    The mean of their masks is smoothed a little before.

    Args:
        truths: N of float (m, 4), the true boxes; films without any have no part in the prior, and get it whole.
        shape: (H, W), of every film.
        groups: (N,), patient of each film.

    Returns:
        N of float64 (n, 4).

    Raises:
        DataError: boxes of fewer than two patients, or shapes.
    """
    patients = group_numbers(groups, len(truths))
    masks = [box_mask(boxes, shape) for boxes in truths]
    sick = [i for i, mask in enumerate(masks) if mask.any()]
    own = dict(zip(sick, mean_location_prior([masks[i] for i in sick], patients[sick]), strict=True))
    # A patient with films of both kinds is left out of the prior of all of them.
    of_patient = {int(patients[i]): prior for i, prior in own.items()}
    everyone = np.asarray(np.mean([masks[i] for i in sick], axis=0), dtype=np.float32)
    return [_above_half(of_patient.get(int(patient), everyone)) for patient in patients]


def random_boxes(
    truths: Sequence[NDArray[np.floating]], shape: tuple[int, int], groups: ArrayLike, *, seed: int = 0
) -> list[Float64]:
    """Give each film the boxes of a random film of another patient, each moved to a random place inside the picture.

    Args:
        truths: N of float (m, 4), the true boxes.
        shape: (H, W), of every film.
        groups: (N,), patient of each film.
        seed: of the choice and the places.

    Returns:
        N of float64 (n, 4).

    Raises:
        DataError: boxes of fewer than two patients, or shapes.
    """
    rng = np.random.default_rng(seed)
    patients = group_numbers(groups, len(truths))
    sick = np.array([len(boxes) > 0 for boxes in truths])
    if len(np.unique(patients[sick])) < 2:
        raise DataError("not computable: random boxes need those of at least two patients")
    moved = []
    for patient in patients:
        boxes = _boxes(truths[rng.choice(np.flatnonzero(sick & (patients != patient)))]).copy()
        room = np.maximum(np.array(shape[::-1]) - boxes[:, 2:], 0.0)
        boxes[:, :2] = rng.random((len(boxes), 2)) * room
        moved.append(boxes)
    return moved


@dataclass(frozen=True, slots=True)
class _Matched:
    """Every prediction, the most confident first.

    `hit` bool (M,) and `film` int64 (M,), of each; `last` int64 (T,), where each run of equal confidences ends; `true`
    int64 (N,), how many true boxes each film has.
    """

    hit: NDArray[np.bool_]
    film: Int64
    last: Int64
    true: Int64

    def precision(self, counts: Float64) -> float:
        """Average precision where each film is there `counts` times: float64 (N,)."""
        films = counts[self.film]
        hits = np.cumsum(films * self.hit)[self.last]
        drawn = np.cumsum(films)[self.last]
        precision = hits / np.maximum(drawn, 1.0)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.diff(hits, prepend=0.0) @ envelope / (counts @ self.true))


def _match(predictions: Sequence[Found], truths: Sequence[NDArray[np.floating]], iou: float) -> _Matched:
    if not 0.0 < iou <= 1.0:
        raise UsageError(f"the overlap of a hit must lie in (0, 1], not {iou}")
    if len(predictions) != len(truths):
        raise DataError(f"{len(predictions)} predictions and {len(truths)} truths: give one of each a film")
    true = np.array([len(_boxes(boxes)) for boxes in truths], dtype=np.int64)
    if not true.sum():
        raise DataError("not computable: no film has a true box")
    hits, films, confidences = [], [], []
    for film, ((boxes, confidence), truth) in enumerate(zip(predictions, truths, strict=True)):
        if np.shape(confidence) != (len(boxes),) or not np.isfinite(confidence).all():
            raise DataError(f"film {film}: {np.shape(confidence)} confidences must be one finite number a box")
        order = np.argsort(-confidence, kind="stable")
        hits.append(_greedy(overlap(boxes, truth)[order], iou))
        films.append(np.full(len(order), film))
        confidences.append(confidence[order])
    everything = np.concatenate(confidences)
    order = np.argsort(-everything, kind="stable")
    last = np.flatnonzero(np.diff(everything[order], append=np.nan))
    return _Matched(np.concatenate(hits)[order], np.concatenate(films)[order].astype(np.int64), last, true)


def _greedy(overlaps: Float64, iou: float) -> NDArray[np.bool_]:
    """Match predictions in order, each to the free true box it overlaps most: float64 (n, m) -> bool (n,)."""
    free = overlaps.copy()
    hit = np.zeros(len(free), dtype=np.bool_)
    for i in range(len(free) if free.shape[1] else 0):
        best = int(free[i].argmax())
        if free[i, best] >= iou:
            hit[i] = True
            free[:, best] = -1.0
    return hit


def _at(places: Sequence[Float64], confidence: Float64) -> list[Found]:
    """Give all boxes of a film one confidence: N of (n, 4) and (N,)."""
    return [(boxes, np.full(len(boxes), sure)) for boxes, sure in zip(places, confidence, strict=True)]


def _above_half(prior: Float32) -> Float64:
    import cv2

    smooth = np.asarray(cv2.GaussianBlur(prior, (0, 0), _SMOOTH * max(prior.shape)), dtype=np.float32)
    return boxes_of_map(smooth, float(_HALF * smooth.max()))[0]


def _boxes(boxes: NDArray[np.floating]) -> Float64:
    """Return float64 (n, 4) with positive sides."""
    values = np.asarray(boxes, dtype=np.float64)
    if values.size == 0:
        return np.zeros((0, 4))
    if values.ndim != 2 or values.shape[1] != 4 or not np.isfinite(values).all() or np.any(values[:, 2:] <= 0):
        raise DataError(f"boxes {values.shape} must be (n, 4): x, y, w, h, finite, with w and h above 0")
    return values
