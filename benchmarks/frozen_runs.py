"""What the benchmarks of padim, patchcore and feature-gaussian share: the weights they use, and prepared films."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import WORK, shared_data

from anomaly.config import load_recipe
from anomaly.prepare.prepare import Preparation
from anomaly.records import Float32, ScanFile
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans
from anomaly.weights import FOLDER_VARIABLE, weights_path
from anomaly.workflows.weights import import_weights

WEIGHTS = {"resnet18": "resnet18_imagenet_conv1-layer3", "mobilenet_v2": "mobilenet_v2_imagenet"}


def imported_weights() -> None:
    """Use a weights folder of the benchmarks' own, filled from the shared one by `anomaly weights import`."""
    os.environ[FOLDER_VARIABLE] = str(WORK / "weights")
    for arch, name in WEIGHTS.items():
        if not weights_path(arch).is_file():
            import_weights(shared_data().parent / "weights" / f"{name}.safetensors", arch=arch)


def prepared(folder: Path, *, limit: int | None = None, changes: Sequence[str] = ()) -> tuple[Float32, list[ScanFile]]:
    """Return films of a folder as the recipe padim prepares them, with changes: float32 (N, 1, S, S).

    With a limit, so many of them, evenly spaced.
    """
    files = [file for file in list_scans(folder).files if file.set_aside is None]
    if limit is not None:
        files = [files[place] for place in np.linspace(0, len(files) - 1, limit).astype(int)]
    settings = load_recipe("padim", overrides=changes)
    preparation = Preparation(settings.prepare, settings.size)
    return np.stack([preparation(read_scan(file)).image for file in files]), files
