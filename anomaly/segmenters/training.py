"""Training of a U-Net: cross-entropy and soft Dice, early stopping on validation Dice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anomaly.nets.epochs import EpochTraining, Verdict
from anomaly.records import Float32, Int64
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


class Training(EpochTraining[Network, Outlined]):
    """A U-Net and its optimiser; the epoch with the highest validation Dice is kept."""

    def __init__(
        self, net: Network, config: UNetConfig, films: tuple[Outlined, Outlined], *, seed: int, fabric: Fabric
    ) -> None:
        optimiser = torch.optim.Adam(net.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        super().__init__(net, optimiser, config, films, seed=seed, fabric=fabric)
        self.config = config
        self.augment = Augment(config)

    def begin_epoch(self) -> None:
        """Put the network into training, at a rate that falls as half a cosine."""
        self.net.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * self.epoch / self.config.epochs))

    def loss(self, part: Int64) -> Tensor:
        """Return the mean loss of the training films at these places, augmented with their masks."""
        films, masks = self.augment(torch.tensor(self.train.films[part]), torch.tensor(self.train.masks[part]))
        logits = self.wrapped(self.fabric.to_device(films)).float()
        return loss_of(logits, self.fabric.to_device(masks)).mean()

    def validate(self) -> Verdict:
        """Return val_loss, and val_dice: mean Dice of what is called at a chance of a half."""
        losses, dices = [], []
        with torch.inference_mode():
            for start in range(0, len(self.held_out), self.config.batch):
                part = slice(start, start + self.config.batch)
                films, truth = (torch.tensor(array[part]) for array in (self.held_out.films, self.held_out.masks))
                logits = self.wrapped(self.fabric.to_device(films)).float().cpu()
                losses.append(loss_of(logits, truth))
                called = logits >= 0
                both = (called & truth).sum(dim=(1, 2))
                dices.append(2 * both / (called.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))))  # no mask is empty
        dice = float(torch.cat(dices).double().mean())
        return Verdict(-dice, {"val_loss": float(torch.cat(losses).mean()), "val_dice": dice})


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
