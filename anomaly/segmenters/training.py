"""Training of a U-Net: cross-entropy and soft Dice, early stopping on validation Dice, resumable after any epoch.

Every random draw is a function of (seed, epoch), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anomaly.errors import UsageError
from anomaly.nets.device import seeded
from anomaly.nets.state import arrays_of, copied, epoch_seed, optimiser_arrays, restore_optimiser, tensors_of
from anomaly.records import Float32
from anomaly.runs import Arrays, Recorder, under
from anomaly.segmenters.augment import Augment
from anomaly.segmenters.network import Network
from anomaly.segmenters.settings import UNetConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_SMOOTHING = 1.0
"""Pixels added above and below in the soft Dice, so that a film with next to nothing in it does not rule a batch."""


@dataclass(frozen=True, slots=True)
class Outlined:
    """Films float32 (N, C, S, S) in [-1, 1], and the mask of each, bool (N, S, S)."""

    films: Float32
    masks: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.films)


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the highest validation Dice so far, and the network's state after it."""

    epoch: int
    dice: float
    state: dict[str, Tensor]


class Training:
    """A U-Net and its optimiser, advanced epoch by epoch by `run`."""

    def __init__(self, net: Network, config: UNetConfig, *, seed: int, fabric: Fabric) -> None:
        self.config = config
        self.seed = seed
        self.fabric = fabric
        self.net = net
        optimiser = torch.optim.Adam(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.wrapped, self.optimiser = fabric.setup(net, optimiser)
        self.augment = Augment(config)
        self.epoch = 0
        self.best = Best(0, -1.0, {})

    def run(self, train: Outlined, held_out: Outlined, recorder: Recorder) -> None:
        """Train until the validation Dice has not risen for `patience` epochs; leave the best epoch's weights.

        Args:
            train: What to learn from.
            held_out: Other patients' films, which stop the training and choose the epoch.
            recorder: Gets train_loss, val_loss, val_dice and learning_rate of every epoch, checkpoints, progress.

        Raises:
            UsageError: The training died: its loss is no number.
        """
        config = self.config
        before = recorder.restore()
        if before is not None:
            self._restore(*before)
        while self.epoch < config.epochs and self.epoch - self.best.epoch < config.patience:
            loss = self._pass(train, recorder)
            self.epoch += 1
            self._judge(loss, held_out, recorder)
            recorder.checkpoint(self._state(), {"step": self.epoch, "best": self.best.epoch, "dice": self.best.dice})
        self.net.load_state_dict(self.best.state)
        self.net.eval()

    def _pass(self, train: Outlined, recorder: Recorder) -> float:
        """Go through the films once; return the mean loss."""
        config = self.config
        self.net.train()
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * self.epoch / config.epochs))
        total = 0.0
        done = 0
        with seeded(epoch_seed(self.seed, self.epoch)):
            for films, masks in self._batches(train):
                self.optimiser.zero_grad(set_to_none=True)
                loss = loss_of(self.wrapped(films).float(), masks).mean()
                self.fabric.backward(loss)
                self.optimiser.step()
                total += float(loss.detach()) * len(films)
                done += len(films)
                recorder.progress(self.epoch * len(train) + done, config.epochs * len(train), "training")
        return total / len(train)

    def _batches(self, train: Outlined) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(train)).numpy()
        for part in np.array_split(order, max(1, len(train) // self.config.batch)):  # no batch of a single film
            films, masks = self.augment(torch.tensor(train.films[part]), torch.tensor(train.masks[part]))
            yield self.fabric.to_device(films), self.fabric.to_device(masks)

    def _judge(self, loss: float, held_out: Outlined, recorder: Recorder) -> None:
        held, dice = self._validate(held_out)
        rate = self.optimiser.param_groups[0]["lr"]
        told = {"train_loss": loss, "val_loss": held, "val_dice": dice, "learning_rate": rate}
        for name, value in told.items():
            recorder.scalar(self.epoch, name, value)
        if not (math.isfinite(loss) and math.isfinite(held)):
            raise UsageError(
                f"The training died in epoch {self.epoch}: its loss is {loss}. Try a smaller detector.learning_rate, "
                "or detector.precision=fp32."
            )
        if dice > self.best.dice:
            self.best = Best(self.epoch, dice, copied(self.net.state_dict()))

    def _validate(self, held_out: Outlined) -> tuple[float, float]:
        """Return the mean loss of films as they are, and the mean Dice of what is called at a chance of a half."""
        self.net.eval()
        losses, dices = [], []
        with torch.inference_mode():
            for start in range(0, len(held_out), self.config.batch):
                part = slice(start, start + self.config.batch)
                films, truth = (torch.tensor(array[part]) for array in (held_out.films, held_out.masks))
                logits = self.wrapped(self.fabric.to_device(films)).float().cpu()
                losses.append(loss_of(logits, truth))
                called = logits >= 0
                both = (called & truth).sum(dim=(1, 2))
                dices.append(2 * both / (called.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))))  # no mask is empty
        return float(torch.cat(losses).mean()), float(torch.cat(dices).double().mean())

    def _state(self) -> Arrays:
        parts = {
            "net": arrays_of(self.net.state_dict()),
            "best": arrays_of(self.best.state),
            "optimiser": optimiser_arrays(self.optimiser),
        }
        return {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def _restore(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.net.load_state_dict(tensors_of(under(arrays, "net")))
        restore_optimiser(self.optimiser, under(arrays, "optimiser"))
        self.epoch = int(meta["step"])
        self.best = Best(int(meta["best"]), float(meta["dice"]), tensors_of(under(arrays, "best")))


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the loss of each film, float32 (N,): mean cross-entropy of its pixels + 1 - soft Dice.

    The soft Dice is 2 Σ p g / (Σ p² + Σ g²) (Milletari et al., V-Net, 3DV 2016, equation 3).

    Args:
        logits: float32 (N, S, S).
        masks: bool (N, S, S).
    """
    truth = masks.to(logits.dtype)
    surprise = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2))
    chances = logits.sigmoid()
    both = (chances * truth).sum(dim=(1, 2))
    all_of_it = chances.square().sum(dim=(1, 2)) + truth.sum(dim=(1, 2))
    return surprise + 1 - (2 * both + _SMOOTHING) / (all_of_it + _SMOOTHING)
