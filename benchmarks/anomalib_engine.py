"""anomalib's own PaDiM and PatchCore behind its own Engine, with our backbone and our statistics put into them.

Shared by the benchmarks that stand beside anomalib; nothing of it is part of the tool.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from anomaly.detectors.padim import Padim
from anomaly.detectors.patchcore import Patchcore
from anomaly.records import Float32

LAYERS = {"padim": ["layer1", "layer2", "layer3"], "patchcore": ["layer2", "layer3"]}


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep what anomalib and Lightning say of themselves off the screen."""
    for name in ("lightning.pytorch", "lightning.fabric", "anomalib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def engine(callbacks: Sequence[Any] = ()) -> Any:
    """Return an Engine that writes into a temporary folder, and nothing it need not."""
    from anomalib.engine import Engine

    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return Engine(
        callbacks=list(callbacks),
        accelerator="cpu",
        devices=1,
        logger=False,
        default_root_dir=tempfile.mkdtemp(),
        **quiet,
    )


def module(method: str, size: int, **settings: Any) -> Any:
    """Return anomalib's Lightning module on resnet18: raw scores, no pictures, no metrics, its own preprocessing."""
    from anomalib.models.image.padim import Padim as TheirPadim
    from anomalib.models.image.patchcore import Patchcore as TheirPatchcore

    cls = {"padim": TheirPadim, "patchcore": TheirPatchcore}[method]
    off = {"post_processor": False, "evaluator": False, "visualizer": False}
    pre = cls.configure_pre_processor((size, size))
    if method == "patchcore":
        from torchvision.transforms.v2 import CenterCrop

        pre.transform.transforms = [part for part in pre.transform.transforms if not isinstance(part, CenterCrop)]
    return cls(backbone="resnet18", layers=LAYERS[method], pre_trained=False, pre_processor=pre, **off, **settings)


def take_backbone(theirs: Any, ours: Padim | Patchcore) -> None:
    """Put the backbone of a fitted detector of ours into a module of theirs."""
    state = {k.removeprefix("backbone/"): v for k, v in ours._state().items() if k.startswith("backbone/")}
    network: nn.Module = theirs.model.feature_extractor.feature_extractor
    tensors = {k: torch.tensor(v) for k, v in state.items() if k not in ("input", "sha256")}
    found = network.load_state_dict(tensors, strict=False)
    lacking = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if lacking:
        raise SystemExit(f"anomalib's backbone lacks {lacking[0]}")


def take_statistics(theirs: Any, ours: Padim | Patchcore) -> None:
    """Put what a fitted detector of ours has learnt into a module of theirs: it then scores without a fit."""
    take_backbone(theirs, ours)
    if isinstance(ours, Padim):
        theirs.model.idx = torch.from_numpy(ours._channels)
        theirs.model.gaussian.mean = ours._mean.T.contiguous()
        whiten = ours._whiten.float()
        theirs.model.gaussian.inv_covariance = whiten.transpose(1, 2) @ whiten
    else:
        theirs.model.memory_bank = ours._bank.bank
    theirs._is_fitted = torch.tensor([True])
    theirs.eval()


class Tensors(Dataset[Any]):
    """Our prepared films, float32 (N, 1, S, S) in [-1, 1], as anomalib's items: three channels in [0, 1]."""

    def __init__(self, films: Float32) -> None:
        self._films = films

    def __len__(self) -> int:
        return len(self._films)

    def __getitem__(self, place: int) -> Any:
        from anomalib.data import ImageItem

        picture = (torch.tensor(np.asarray(self._films[place])) + 1) / 2
        return ImageItem(image=picture.repeat(3, 1, 1), image_path=str(place))


def loader(films: Float32 | Path, size: int, batch: int, workers: int = 0) -> DataLoader[Any]:
    """Serve films from memory, or the pictures of a folder by anomalib's own reader, in order."""
    from anomalib.data import ImageBatch, PredictDataset

    data: Any = PredictDataset(films, image_size=(size, size)) if isinstance(films, Path) else Tensors(films)
    return DataLoader(data, batch_size=batch, num_workers=workers, collate_fn=ImageBatch.collate)


def predicted(theirs: Any, data: DataLoader[Any]) -> tuple[Float32, Float32]:
    """Return raw scores (N,) and maps (N, S, S) of Engine.predict."""
    batches = engine().predict(model=theirs, dataloaders=data)
    scores = torch.cat([batch.pred_score.reshape(-1) for batch in batches]).numpy()
    maps = torch.cat([batch.anomaly_map for batch in batches])
    return scores, maps.reshape(len(scores), *maps.shape[-2:]).numpy()


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))
