"""Are our PaDiM and PatchCore anomalib's? The same films, backbone and tensors through both, fp32.

    python benchmarks/anomalib_parity.py

Fits ours on 200 Kermany train normals, and anomalib's by its own Engine on the same tensors: PaDiM with the same
channels and statistics of its own; PatchCore with our bank, since either draws its own. Then 50 dev films (half normal,
half pneumonia) go through `Detector.score`, max-pooled, and through `Engine.predict` with its post-processor off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from anomalib_engine import engine, hushed, loader, module, predicted, take_backbone, take_statistics
from common import parser, shared_data, write_result
from frozen_runs import imported_weights, prepared

from anomaly.detectors.padim import Padim, PadimConfig
from anomaly.detectors.patchcore import Patchcore, PatchcoreConfig
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32

SIZE = 224
METHODS = {"padim": (Padim, PadimConfig), "patchcore": (Patchcore, PatchcoreConfig)}


def apart(ours: Float32, theirs: Float32) -> dict[str, float]:
    """Return the largest difference relative to the value, and to the largest value of each map."""
    difference = np.abs(ours - theirs)
    return {"relative": float((difference / np.abs(theirs)).max()), "absolute": float(difference.max())}


def compared(method: str, train: Float32, films: Float32) -> dict[str, Any]:
    cls, settings = METHODS[method]
    ours = cls(settings(pooling="max", precision="fp32"), size=SIZE, device="cpu")
    ours.fit(ArraySource(train))
    theirs = module(method, SIZE, **({"n_features": settings().features} if method == "padim" else {}))
    if method == "padim":
        take_backbone(theirs, ours)
        theirs.model.idx = torch.from_numpy(ours._channels)
        engine().fit(model=theirs, train_dataloaders=loader(train, SIZE, 32))
    else:
        take_statistics(theirs, ours)
    scores, maps = predicted(theirs, loader(films, SIZE, 32))
    found = ours.score(films)
    assert found.heatmaps is not None
    return {"score": apart(found.scores, scores), "map": apart(found.heatmaps, maps)}


def main() -> None:
    parser(__doc__).parse_args()
    data = shared_data()
    imported_weights()
    train, _ = prepared(data / "kermany/train/NORMAL", limit=200)
    dev = [prepared(data / f"kermany/dev/{name}", limit=25)[0] for name in ("NORMAL", "PNEUMONIA")]
    films = np.concatenate(dev)
    with hushed():
        figures = {method: compared(method, train, films) for method in METHODS}
    for method, found in figures.items():
        print(method, found)
    write_result("anomalib_parity", {"trained": len(train), "films": len(films), "size": SIZE, **figures})


if __name__ == "__main__":
    main()
