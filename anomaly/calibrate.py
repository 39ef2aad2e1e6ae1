"""From raw scores to p-values: what share of held-out normals score at least as high.

p = (1 + #{held-out >= s}) / (n + 1), the conformal p-value (Vovk et al. 2005; Bates et al. 2023): on fresh normals
from the same source, P(p <= alpha) <= alpha. Held-out normals are never trained on and never come from a test set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.errors import DataError, ModelError
from anomaly.records import Float32, Float64, UInt8
from anomaly.runs import Arrays, read_tensors, write_tensors

CALIBRATION = "calibration.safetensors"
PIXEL_QUANTILES = (0.5, 0.95, 0.99, 0.999, 1.0)
_KEY = 8
"""Bytes of a hash that tell films apart: that two of a million share them has a chance of 3 in 100 million."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What held-out normals look like to a method.

    Their scores, float64 (n,) ascending; the quantiles of their maps' pixels (level -> value); their features,
    float32 (n, F) in the order of the scores, None where the method has none; and which films they are, uint8 (n, 8)
    as `film_keys` gives them in that order, None in a model of an older version.
    """

    scores: Float64
    pixel_quantiles: dict[str, float]
    features: Float32 | None = None
    scans: UInt8 | None = None

    @property
    def smallest_alpha(self) -> float:
        """The least p-value this many held-out normals can give; no smaller alpha can flag anything."""
        return 1.0 / (len(self.scores) + 1)

    def p_value(self, score: float) -> float:
        """Return the conformal p-value of one raw score, in [1 / (n + 1), 1]."""
        at_least = len(self.scores) - int(np.searchsorted(self.scores, score, side="left"))
        return (1 + at_least) / (len(self.scores) + 1)

    def threshold(self, alpha: float) -> float:
        """Return the score above which a scan is flagged at `alpha`: flagged (p <= alpha) exactly when score > it.

        Infinity when alpha < `smallest_alpha`.
        """
        allowed = int(np.floor(alpha * (len(self.scores) + 1) + 1e-9)) - 1
        if allowed < 0:
            return float("inf")
        return float(self.scores[len(self.scores) - 1 - allowed]) if allowed < len(self.scores) else float("-inf")

    def save(self, folder: Path) -> None:
        """Write calibration.safetensors."""
        arrays: Arrays = {"scores": self.scores}
        if self.features is not None:
            arrays["features"] = self.features
        if self.scans is not None:
            arrays["scans"] = self.scans
        write_tensors(folder / CALIBRATION, arrays, {"pixel_quantiles": self.pixel_quantiles})


def film_keys(content_sha256: Iterable[str]) -> UInt8:
    """Return what tells films apart, the first 8 bytes of the sha256 (hex) of each one's file: uint8 (n, 8)."""
    hashes = [bytes.fromhex(digest)[:_KEY] for digest in content_sha256]
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), _KEY)


def calibrate(
    scores: Float32, heatmaps: Float32, features: Float32 | None = None, *, scans: UInt8 | None = None
) -> Calibration:
    """Build a calibration from held-out normals.

    Args:
        scores: float32 (n,), finite.
        heatmaps: float32, >= 0, what their maps say of every pixel of film that they speak of, in any shape.
        features: float32 (n, F), where the method has them.
        scans: uint8 (n, 8), which films they are, from `film_keys`.

    Raises:
        DataError: No held-out normal, or scores that are not finite.
    """
    if len(scores) == 0 or not np.isfinite(scores).all():
        raise DataError("Calibration needs at least one held-out normal with a finite score.")
    values = np.quantile(heatmaps, PIXEL_QUANTILES)
    quantiles = {str(level): float(value) for level, value in zip(PIXEL_QUANTILES, values, strict=True)}
    order = np.argsort(scores, kind="stable")
    return Calibration(
        scores[order].astype(np.float64),
        quantiles,
        None if features is None else features[order],
        None if scans is None else scans[order],
    )


def load_calibration(folder: Path) -> Calibration:
    """Read calibration.safetensors.

    Raises:
        ModelError: The file is missing or damaged.
    """
    try:
        arrays, meta = read_tensors(folder / CALIBRATION)
        quantiles = {k: float(v) for k, v in meta["pixel_quantiles"].items()}
        scores, scans = arrays["scores"], arrays.get("scans")
        if scans is not None and scans.shape != (len(scores), _KEY):
            raise ValueError(f"{folder / CALIBRATION} names other films than it holds scores of.")
        return Calibration(scores, quantiles, arrays.get("features"), scans)
    except (DataError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{error} Fit or calibrate the model again, or copy its folder again.") from error
