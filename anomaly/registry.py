"""Method name -> "module:Class". Strings only, so that listing methods imports none of them."""

from __future__ import annotations

import importlib
from typing import Any

from anomaly.config import did_you_mean
from anomaly.errors import UsageError

METHODS: dict[str, str] = {
    "anogan": "anomaly.detectors.anogan.detector:AnoGan",
    "anomalib": "anomaly.detectors.from_anomalib.detector:FromAnomalib",
    "atlas": "anomaly.detectors.atlas.detector:Atlas",
    "classifier": "anomaly.detectors.classifier.detector:ClassifierDetector",
    "feature-gaussian": "anomaly.detectors.feature_gaussian:FeatureGaussian",
    "padim": "anomaly.detectors.padim:Padim",
    "patchcore": "anomaly.detectors.patchcore:Patchcore",
    "pixel-stats": "anomaly.detectors.pixel_stats:PixelStats",
}

SUPERVISED = frozenset({"classifier"})
"""Methods that learn from labels."""


def detector_class(method: str) -> Any:
    """Import and return the detector class of a method.

    Raises:
        UsageError: No method of that name.
    """
    if method not in METHODS:
        raise UsageError(f"No method is called {method!r}{did_you_mean(method, METHODS)}")
    module, _, name = METHODS[method].partition(":")
    return getattr(importlib.import_module(module), name)
