"""Training of a RetinaNet: focal loss and box regression, warm-up, early stopping on validation loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from anomaly.detectors.retinanet.augment import Batch, augmented
from anomaly.detectors.retinanet.settings import RetinaNetConfig
from anomaly.nets.epochs import EpochTraining, Verdict
from anomaly.nets.retinanet import BoxNet
from anomaly.records import Float32, Int64

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_LOSSES = ("classification", "bbox_regression")


@dataclass(frozen=True, slots=True)
class Boxed:
    """Films float32 (N, C, S, S) in [-1, 1], and of each its boxes, float32 (n, 4), and their kind, int64 (N,).

    A film without boxes has (0, 4), and its kind does not matter.
    """

    films: Float32
    boxes: Sequence[Float32]
    kinds: Int64

    def __len__(self) -> int:
        return len(self.films)


class Training(EpochTraining[BoxNet, Boxed]):
    """A network and its optimiser; the epoch with the lowest validation loss is kept."""

    def __init__(
        self, net: BoxNet, config: RetinaNetConfig, films: tuple[Boxed, Boxed], *, seed: int, fabric: Fabric
    ) -> None:
        super().__init__(net, _optimiser(net, config), config, films, seed=seed, fabric=fabric)
        self.config = config
        self.clip = config.clip

    def begin_step(self, step: int, steps: int) -> None:
        """Let the rate rise over the first `warmup` steps and fall every `step_epochs`."""
        config = self.config
        fallen = config.step_gamma ** (self.epoch // config.step_epochs)
        risen = min(1.0, (self.epoch * steps + step + 1) / config.warmup) if config.warmup else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * fallen * risen

    def loss(self, part: Int64) -> Tensor:
        """Return focal loss + box regression of the training films at these places, augmented."""
        batch = self._placed(augmented(_taken(self.train, part), self.config))
        return sum(self._losses(batch).values(), start=torch.zeros(()))

    def validate(self) -> Verdict:
        """Return val_loss and its two parts."""
        films = self.held_out
        sums = dict.fromkeys(_LOSSES, 0.0)
        with torch.inference_mode():
            for part in np.array_split(np.arange(len(films)), -(-len(films) // self.config.batch)):
                losses = self._losses(self._placed(_taken(films, part)))
                for name in _LOSSES:
                    sums[name] += float(losses[name]) * len(part)
        parts = {name: total / len(films) for name, total in sums.items()}
        loss = sum(parts.values())
        return Verdict(loss, {"val_loss": loss, **{f"val_{name}": value for name, value in parts.items()}})

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        outputs = {name: values.float() for name, values in self.wrapped(batch.films).items()}
        return self.net.losses(outputs, batch.boxes, batch.kinds)

    def _placed(self, batch: Batch) -> Batch:
        move = self.fabric.to_device
        return Batch(move(batch.films), [move(box) for box in batch.boxes], [move(kind) for kind in batch.kinds])


def _taken(films: Boxed, part: Int64) -> Batch:
    boxes = [torch.tensor(films.boxes[i]) for i in part]
    kinds = [torch.full((len(films.boxes[i]),), int(films.kinds[i])) for i in part]
    return Batch(torch.tensor(films.films[part]), boxes, kinds)


def _optimiser(net: BoxNet, config: RetinaNetConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=config.momentum, weight_decay=decay)
