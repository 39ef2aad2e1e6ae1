"""Training of a RetinaNet: early stopping on validation loss, resumable after any epoch.

Every random draw is a function of (seed, epoch), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from anomaly.detectors.retinanet.augment import Batch, augmented
from anomaly.detectors.retinanet.settings import RetinaNetConfig
from anomaly.errors import UsageError
from anomaly.nets.device import seeded
from anomaly.nets.retinanet import BoxNet
from anomaly.records import Float32, Int64
from anomaly.runs import Arrays, Recorder, under

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


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the lowest validation loss so far, and the network's state after it."""

    epoch: int
    loss: float
    state: dict[str, Tensor]


class Training:
    """A network and its optimiser, advanced epoch by epoch by `run`."""

    def __init__(self, net: BoxNet, config: RetinaNetConfig, *, seed: int, fabric: Fabric) -> None:
        self.config = config
        self.seed = seed
        self.fabric = fabric
        self.net = net
        self.wrapped, self.optimiser = fabric.setup(net, _optimiser(net, config))
        self.epoch = 0
        self.best = Best(0, math.inf, {})

    def run(self, train: Boxed, held_out: Boxed, recorder: Recorder) -> None:
        """Train until the validation loss has not fallen for `patience` epochs; leave the best epoch's weights.

        Args:
            train: What to learn from.
            held_out: Other patients' films, which stop the training and choose the epoch.
            recorder: Gets train_loss, val_loss with its two parts, and learning_rate of every epoch, checkpoints,
                progress.

        Raises:
            UsageError: The training died: its loss is no number.
        """
        before = recorder.restore()
        if before is not None:
            self._restore(*before)
        while self.epoch < self.config.epochs and self.epoch - self.best.epoch < self.config.patience:
            loss = self._pass(train, recorder)
            self.epoch += 1
            self._judge(loss, held_out, recorder)
            recorder.checkpoint(self._state(), {"step": self.epoch, "best": self.best.epoch, "loss": self.best.loss})
        self.net.load_state_dict(self.best.state)
        self.net.eval()

    def _pass(self, train: Boxed, recorder: Recorder) -> float:
        """Go through the films once; return the mean loss."""
        config = self.config
        self.net.train()
        total = 0.0
        done = 0
        parts = max(1, len(train) // config.batch)  # no batch of a single film
        with seeded(_seed_of(self.seed, self.epoch)):
            order = torch.randperm(len(train)).numpy()
            for step, part in enumerate(np.array_split(order, parts)):
                batch = self._placed(augmented(_taken(train, part), config))
                self._set_rate(self.epoch * parts + step)
                self.optimiser.zero_grad(set_to_none=True)
                loss = sum(self._losses(batch).values(), start=torch.zeros(()))
                self.fabric.backward(loss)
                clip_grad_norm_(self.net.parameters(), config.clip)
                self.optimiser.step()
                total += float(loss.detach()) * len(part)
                done += len(part)
                recorder.progress(self.epoch * len(train) + done, config.epochs * len(train), "training")
        return total / len(train)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        outputs = {name: values.float() for name, values in self.wrapped(batch.films).items()}
        return self.net.losses(outputs, batch.boxes, batch.kinds)

    def _placed(self, batch: Batch) -> Batch:
        move = self.fabric.to_device
        return Batch(move(batch.films), [move(box) for box in batch.boxes], [move(kind) for kind in batch.kinds])

    def _set_rate(self, step: int) -> None:
        config = self.config
        fallen = config.step_gamma ** (self.epoch // config.step_epochs)
        risen = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * fallen * risen

    def _judge(self, loss: float, held_out: Boxed, recorder: Recorder) -> None:
        parts = self.held_losses(held_out)
        held = sum(parts.values())
        told = {"train_loss": loss, "val_loss": held, **{f"val_{name}": value for name, value in parts.items()}}
        told["learning_rate"] = self.optimiser.param_groups[0]["lr"]
        for name, value in told.items():
            recorder.scalar(self.epoch, name, value)
        if not (math.isfinite(loss) and math.isfinite(held)):
            raise UsageError(
                f"The training died in epoch {self.epoch}: its loss is {loss}. Try a smaller detector.learning_rate, "
                "or detector.precision=fp32."
            )
        if held < self.best.loss:
            self.best = Best(self.epoch, held, _copy(self.net.state_dict()))

    def held_losses(self, films: Boxed) -> dict[str, float]:
        """Return the mean of each part of the loss over films as they are."""
        self.net.eval()
        sums = dict.fromkeys(_LOSSES, 0.0)
        with torch.inference_mode():
            for part in np.array_split(np.arange(len(films)), -(-len(films) // self.config.batch)):
                losses = self._losses(self._placed(_taken(films, part)))
                for name in _LOSSES:
                    sums[name] += float(losses[name]) * len(part)
        return {name: total / len(films) for name, total in sums.items()}

    def _state(self) -> Arrays:
        arrays = {f"net/{name}": value.cpu().numpy() for name, value in self.net.state_dict().items()}
        arrays |= {f"best/{name}": value.cpu().numpy() for name, value in self.best.state.items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            for name, value in moments.items():
                if value is not None:  # sgd before its first step
                    arrays[f"optimiser/{index}/{name}"] = torch.as_tensor(value).cpu().numpy()
        return arrays

    def _restore(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.net.load_state_dict(_tensors(under(arrays, "net")))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _tensors(under(arrays, "optimiser")).items():
            index, _, moment = name.partition("/")
            moments.setdefault(int(index), {})[moment] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.epoch = int(meta["step"])
        self.best = Best(int(meta["best"]), float(meta["loss"]), _tensors(under(arrays, "best")))


def _taken(films: Boxed, part: Int64) -> Batch:
    boxes = [torch.tensor(films.boxes[i]) for i in part]
    kinds = [torch.full((len(films.boxes[i]),), int(films.kinds[i])) for i in part]
    return Batch(torch.tensor(films.films[part]), boxes, kinds)


def _optimiser(net: BoxNet, config: RetinaNetConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(net.parameters(), lr=rate, momentum=config.momentum, weight_decay=decay)


def _seed_of(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.tensor(array) for name, array in arrays.items()}
