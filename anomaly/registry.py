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
    "retinanet": "anomaly.detectors.retinanet.detector:RetinaNetDetector",
}

SUPERVISED = frozenset({"classifier", "retinanet"})
"""Methods that learn from labels."""

SEGMENTERS: dict[str, str] = {"unet": "anomaly.segmenters.unet:UNet"}
"""Methods that draw masks; not detectors: they give no score."""


def detector_class(method: str) -> Any:
    """Import and return the detector class of a method.

    Raises:
        UsageError: No method of that name, or one that draws masks.
    """
    if method in SEGMENTERS:
        raise UsageError(f"{method} draws masks and gives no score: train it with `anomaly segment fit -d {method}`.")
    if method not in METHODS:
        raise UsageError(f"No method is called {method!r}{did_you_mean(method, METHODS)}")
    return _imported(METHODS[method])


def segmenter_class(method: str) -> Any:
    """Import and return the class of a method that draws masks.

    Raises:
        UsageError: No such method.
    """
    if method in METHODS:
        raise UsageError(f"{method} scores films and draws no masks: train it with `anomaly fit -d {method}`.")
    if method not in SEGMENTERS:
        raise UsageError(f"No method that draws masks is called {method!r}{did_you_mean(method, SEGMENTERS)}")
    return _imported(SEGMENTERS[method])


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
