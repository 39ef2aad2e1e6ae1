"""Mean average precision of boxes as COCO counts it, by torchmetrics with faster-coco-eval.

Lin et al., "Microsoft COCO", ECCV 2014: at overlaps (intersection over union) of 0.5, 0.55, …, 0.95, the mean of the
interpolated precision at 101 recalls, over all films together.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly.errors import DataError

_MOST = 100  # boxes a film that COCO counts


@dataclass(frozen=True, slots=True)
class MeanPrecision:
    """Average precision, in [0, 1]: at an overlap of 0.5, and the mean over 0.5 to 0.95 in steps of 0.05."""

    at_half: float
    mean: float


def mean_average_precision(
    predictions: Sequence[NDArray[np.floating]], truths: Sequence[NDArray[np.floating]]
) -> MeanPrecision:
    """Return the mean average precision of boxes of one kind over films; films without true boxes take part.

    Args:
        predictions: N of float (n, 5): x1, y1, x2, y2, confidence; of each film the 100 most confident count.
        truths: N of float (m, 4): x1, y1, x2, y2.

    Raises:
        DataError: Lengths differ, or no film has a true box.
    """
    if len(predictions) != len(truths):
        raise DataError(f"{len(predictions)} predictions and {len(truths)} truths: give one of each a film.")
    if not sum(map(len, truths)):
        raise DataError("not computable: no film has a true box")
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox", backend="faster_coco_eval")
    found = []
    for boxes in predictions:
        best = np.asarray(boxes, np.float32).reshape(-1, 5)
        best = best[np.argsort(-best[:, 4], kind="stable")][:_MOST]
        found.append({"boxes": torch.tensor(best[:, :4]), "scores": torch.tensor(best[:, 4]), "labels": _ones(best)})
    true = [np.asarray(boxes, np.float32).reshape(-1, 4) for boxes in truths]
    with _quietly():
        metric.update(found, [{"boxes": torch.tensor(boxes), "labels": _ones(boxes)} for boxes in true])
        values = metric.compute()
    return MeanPrecision(float(values["map_50"]), float(values["map"]))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back the tables that the evaluation logs, and warnings of films with many boxes."""
    logger = logging.getLogger("faster_coco_eval")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _ones(boxes: NDArray[np.float32]) -> torch.Tensor:
    return torch.ones(len(boxes), dtype=torch.int64)
