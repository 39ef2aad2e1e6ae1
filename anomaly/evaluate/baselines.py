"""One-number baselines of a film that look at no anatomy: what any detector has to beat.

On public chest X-ray sets softness, borders or even the size of the file tell the classes apart, because normal
and abnormal films were acquired and stored differently (DeGrave et al., Nature Machine Intelligence 3, 2021).
A detector's AUROC is printed beside these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError
from anomaly.evaluate.intervals import proportion
from anomaly.evaluate.metrics import auroc, auroc_of, check
from anomaly.evaluate.resample import Statistic, fewest_patients, group_numbers, replicates
from anomaly.records import Float32
from anomaly.scans.shrink import area_mean

BASELINES = (
    *("mean", "std", "sharpness", "softness", "black_fraction", "border_brightness"),
    *("file_size", "width", "height", "aspect"),
)
"""Names of the statistics, in the order `trivial_statistics` gives them."""

SHARPNESS_SIDE = 256
SOFTNESS_SIDE = 224
JPEG_QUALITY = 90
_BLACK = 0.02  # about 5 of 255: the collimated, unexposed surround
_BORDER = 0.05  # of the shorter side


def trivial_statistics(pixels: NDArray[np.floating], file_size: int) -> dict[str, float]:
    """Describe a film by numbers that know nothing of chests.

    Args:
        pixels: float (H, W) or (H, W, 3), in [0, 1]; the mean of the channels stands for a colour picture.
        file_size: bytes on disk.

    Returns:
        mean, std; sharpness (variance of the Laplacian on a copy whose longer side was area-resized to 256; a
        smaller picture is taken as it is); softness (pixels per byte of the JPEG of a 224 x 224 copy, see
        `softness`); black_fraction (pixels <= 0.02); border_brightness (mean of the outer 5 %);
        file_size, width, height, aspect (width / height). All finite.

    Raises:
        DataError: pixels of another shape, not finite, or smaller than 3 x 3.
    """
    import cv2

    grey = _grey(pixels)
    mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    if not np.isfinite(mean + std):  # of one pixel that is not finite neither is
        raise DataError(f"pixels {np.shape(pixels)} must be finite")
    height, width = grey.shape
    rim = max(1, round(_BORDER * min(height, width)))
    border = (grey[:rim], grey[-rim:], grey[rim:-rim, :rim], grey[rim:-rim, -rim:])
    total = sum(float(part.sum(dtype=np.float64)) for part in border)
    values = {
        "mean": mean,
        "std": std,
        "sharpness": _sharpness(grey),
        "softness": softness(np.clip(area_mean(grey, SOFTNESS_SIDE, SOFTNESS_SIDE), 0.0, 1.0)),
        "black_fraction": float(np.count_nonzero(grey <= _BLACK) / grey.size),
        "border_brightness": total / sum(part.size for part in border),
        "file_size": float(file_size),
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
    }
    return {name: values[name] for name in BASELINES}


def softness(pixels: NDArray[np.floating]) -> float:
    """Return the pixels that a byte of the film's JPEG at quality 90 holds: the softer the film, the more.

    Args:
        pixels: float (S, S) in [0, 1]. Values compare only between pictures of one S: take the prepared film.

    Raises:
        DataError: another shape, or values outside [0, 1].
    """
    import cv2

    grey = np.asarray(pixels)
    if grey.ndim != 2 or grey.size == 0 or not (grey.min() >= 0.0 and grey.max() <= 1.0):  # false for NaN too
        raise DataError(f"pixels {grey.shape} must be (S, S) in [0, 1]; a prepared image is (image[0] + 1) / 2")
    done, data = cv2.imencode(".jpg", np.rint(grey * 255.0).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise DataError(f"pixels {grey.shape} are more than a JPEG can hold")
    return grey.size / len(data)


def directed_auroc(labels: ArrayLike, values: ArrayLike) -> tuple[float, str]:
    """AUROC of a number that has no sign of its own: max(a, 1 - a), and which way abnormal films lie.

    The direction ("higher" or "lower") is chosen by these labels, which FLATTERS the baseline: its chance level is
    a little above 0.5 and it never falls below. A detector, whose direction is fixed beforehand, gets no such help.

    Args:
        labels: (N,), 0 or 1.
        values: (N,), finite.

    Raises:
        DataError: as `metrics.check`.
    """
    area = auroc(labels, values)
    return (area, "higher") if area >= 0.5 else (1.0 - area, "lower")


def one_number_audit(
    labels: ArrayLike,
    table: Mapping[str, ArrayLike],
    groups: ArrayLike,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Say how well single numbers tell two sets of films apart: what a detector could use instead of anatomy.

    Args:
        labels: (N,), 0 or 1: normal and abnormal, or train normals and test normals.
        table: name -> (N,), finite, of either direction.
        groups: (N,), patient of each film, numbers or strings.
        n_boot: bootstrap replicates, shared by all names.
        seed: of the resamples.

    Returns:
        One entry a name, in the order given, ready for JSON: `name`; `auroc`; `direction`, which way the films
        labelled 1 lie, chosen by the data (see `directed_auroc`); `ci`, the 95 % interval [low, high], clustered by
        patient, or None where a label has a single patient; `normals` and `abnormals`, the films of either label.

    Raises:
        DataError: a label is missing, shapes differ, or values are not finite.
    """
    columns, found = [], []
    truth: NDArray[Any] = np.asarray(labels)
    for name, values in table.items():
        truth, column = check(labels, values)
        area, direction = directed_auroc(truth, column)
        columns.append(column if direction == "higher" else -column)
        found.append({"name": name, "auroc": area, "ci": None, "direction": direction})
        found[-1] |= {"normals": int(np.sum(truth == 0)), "abnormals": int(np.sum(truth == 1))}
    fewest = fewest_patients(truth, group_numbers(groups, len(truth))) if columns else 0
    if fewest > 1:
        areas: list[Statistic] = [lambda *films, i=i: auroc_of(films[i]) for i in range(len(columns))]
        drawn = replicates(areas, truth, np.column_stack(columns), groups, n=n_boot, seed=seed)
        for entry, values in zip(found, drawn.T, strict=True):
            interval = proportion(values, fewest)
            entry["ci"] = [interval.low, interval.high]
    return found


def _grey(pixels: NDArray[np.floating]) -> Float32:
    """Return float32 (H, W) of at least 3 x 3; colour as the mean of its channels."""
    import cv2

    picture = np.ascontiguousarray(pixels, dtype=np.float32)
    colour = picture.ndim == 3 and picture.shape[2] == 3
    if not (colour or picture.ndim == 2) or min(picture.shape[:2]) < 3:
        raise DataError(f"pixels {np.shape(pixels)} must be a (H, W) or (H, W, 3) picture of at least 3 x 3")
    return np.asarray(cv2.transform(picture, np.full((1, 3), 1 / 3)), dtype=np.float32) if colour else picture


def _sharpness(grey: Float32) -> float:
    import cv2

    height, width = grey.shape
    scale = SHARPNESS_SIDE / max(grey.shape)
    if scale < 1:
        grey = area_mean(grey, max(1, round(height * scale)), max(1, round(width * scale)))
    edges = cv2.Laplacian(grey, cv2.CV_32F, ksize=1, borderType=cv2.BORDER_REPLICATE)
    return float(np.var(edges, dtype=np.float64))
