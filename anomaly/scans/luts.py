"""The two look-up steps of DICOM as arithmetic: windows and tables (PS3.3 C.11.1 and C.11.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float64


def window(values: Float64, center: float, width: float, function: str) -> Float64:
    """Window values to [0, 1], the whole output range.

    Args:
        values: float64, any shape, after the modality step.
        center: Window center.
        width: Window width; at least 1 for LINEAR, positive for the others.
        function: LINEAR_EXACT, SIGMOID, or anything else for LINEAR, the default.
    """
    if function == "SIGMOID":  # C.11.2.1.3.1
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0))))
    if function != "LINEAR_EXACT":  # C.11.2.1.2.1
        center, width = center - 0.5, width - 1.0
    if width == 0.0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def look_up(values: NDArray[Any], table: Float64, first: int) -> Float64:
    """Replace each value by its entry; `first` is the value of entry 0; values beyond the ends take the end's entry."""
    return table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)]
