"""Training of one of anomalib's modules by Lightning's Trainer: quiet, reproducible, and nothing written anywhere."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anomaly.detectors.from_anomalib.build import Built, prepared
from anomaly.records import Float32
from anomaly.runs import Recorder


def train(built: Built, films: Float32, *, steps: int, batch: int, seed: int, device: str, recorder: Recorder) -> None:
    """Train a module as anomalib would, on films alone.

    Args:
        built: The module; afterwards it is trained, and on the processor.
        films: float32 (N, 1 or 3, S, S) in [-1, 1].
        steps: Batches at most; a method that goes through the films once takes all of them all the same.
        batch: Films a batch.
        seed: Of their order.
        device: "cpu" or "cuda".
        recorder: Told of progress, of every number the module logs, and of what anomalib warns of.
    """
    asks: Mapping[str, Any] = built.module.trainer_arguments
    passes = asks.get("max_epochs")
    data = _Data(films, built, batch=batch, seed=seed, once=passes is not None)
    per_pass = len(data.train_dataloader())
    total = per_pass * passes if passes is not None else steps
    trainer = Trainer(
        accelerator=device,
        devices=1,
        plugins=[LightningEnvironment()],  # one process, also where a cluster's scheduler started this one
        max_epochs=math.ceil(total / per_pass),
        gradient_clip_val=asks.get("gradient_clip_val") or None,
        callbacks=[_Listener(recorder, total, losses=passes is None)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(built.module, datamodule=data)
    except SystemExit as stop:  # what Lightning makes of Ctrl-C, after which it has further ones ignored
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from stop
    built.module.trainer = None


class _Films(Dataset[Tensor]):
    """Films one by one, prepared for a module."""

    def __init__(self, films: Float32, built: Built) -> None:
        self._films = films
        self._built = built

    def __len__(self) -> int:
        return len(self._films)

    def __getitem__(self, index: int) -> Tensor:
        return prepared(self._films[index : index + 1], self._built)[0]


class _Data(LightningDataModule):
    """Serves a module its films: shuffled anew each pass, the last incomplete batch left out; or once, all, in order.

    A data module and not a loader, because several modules of anomalib go through `trainer.datamodule` themselves.
    """

    def __init__(self, films: Float32, built: Built, *, batch: int, seed: int, once: bool) -> None:
        super().__init__()
        self._films = _Films(films, built)
        self._batch = batch
        self._once = once
        self._order = torch.Generator().manual_seed(seed)

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(
            self._films,
            batch_size=self._batch,
            shuffle=not self._once,
            drop_last=not self._once and len(self._films) > self._batch,  # batch norm needs more than one film
            collate_fn=_batch_of,
            generator=self._order,
        )


def _batch_of(films: list[Tensor]) -> Any:
    from anomalib.data import ImageBatch

    return ImageBatch(image=torch.stack(films), gt_label=torch.zeros(len(films), dtype=torch.bool))


class _Listener(Callback):
    """Hands what a training says of itself to a recorder, and ends it after so many batches.

    Lightning's own limit counts steps of optimisers, of which some modules take several a batch.
    """

    def __init__(self, recorder: Recorder, total: int, *, losses: bool) -> None:
        self._recorder = recorder
        self._total = total
        self._losses = losses
        self._done = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._done += 1
        returned = outputs if self._losses else None  # a method without an optimiser returns a loss of 0
        for name, value in _logged(trainer.callback_metrics, returned).items():
            self._recorder.scalar(self._done, name, value)
        self._recorder.progress(self._done, self._total, "training")
        if self._done >= self._total:
            trainer.should_stop = True


def _logged(metrics: Mapping[str, Tensor], outputs: object) -> dict[str, float]:
    """Return the numbers of one batch by name: those logged, or those returned where a module logs none."""
    found = {
        name.removesuffix("_step"): float(value)
        for name, value in metrics.items()
        if not name.endswith("_epoch") and f"{name}_step" not in metrics
    }
    if not found and isinstance(outputs, Mapping):
        found = {name: float(value) for name, value in outputs.items() if value.numel() == 1}
    return found
