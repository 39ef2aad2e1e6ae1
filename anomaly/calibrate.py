"""From raw scores to p-values: what share of held-out normals score at least as high.

p = (1 + #{held-out >= s}) / (n + 1), the conformal p-value (Vovk et al. 2005; Bates et al. 2023): on fresh normals
from the same source, P(p <= alpha) <= alpha. Held-out normals are never trained on and never come from a test set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.errors import DataError, ModelError
from anomaly.records import Float32, Float64
from anomaly.runs import Arrays, read_tensors, write_tensors

CALIBRATION = "calibration.safetensors"
PIXEL_QUANTILES = (0.5, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What held-out normals look like to a method.

    Their scores, float64 (n,) ascending; the quantiles of their maps' pixels (level -> value); and their features,
    float32 (n, F) in the order of the scores, None where the method has none.
    """

    scores: Float64
    pixel_quantiles: dict[str, float]
    features: Float32 | None = None

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
        write_tensors(folder / CALIBRATION, arrays, {"pixel_quantiles": self.pixel_quantiles})


def calibrate(scores: Float32, heatmaps: Float32, features: Float32 | None = None) -> Calibration:
    """Build a calibration from held-out normals.

    Args:
        scores: float32 (n,), finite.
        heatmaps: float32, >= 0, what their maps say of every pixel of film that they speak of, in any shape.
        features: float32 (n, F), where the method has them.

    Raises:
        DataError: No held-out normal, or scores that are not finite.
    """
    if len(scores) == 0 or not np.isfinite(scores).all():
        raise DataError("Calibration needs at least one held-out normal with a finite score.")
    values = np.quantile(heatmaps, PIXEL_QUANTILES)
    quantiles = {str(level): float(value) for level, value in zip(PIXEL_QUANTILES, values, strict=True)}
    order = np.argsort(scores, kind="stable")
    return Calibration(scores[order].astype(np.float64), quantiles, None if features is None else features[order])


def load_calibration(folder: Path) -> Calibration:
    """Read calibration.safetensors.

    Raises:
        ModelError: The file is missing or damaged.
    """
    try:
        arrays, meta = read_tensors(folder / CALIBRATION)
        quantiles = {k: float(v) for k, v in meta["pixel_quantiles"].items()}
        return Calibration(arrays["scores"], quantiles, arrays.get("features"))
    except (DataError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{error} Fit or calibrate the model again, or copy its folder again.") from error
