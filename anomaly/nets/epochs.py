"""A network trained epoch by epoch, stopped by films it does not learn from, resumable after any epoch.

Every random draw is a function of (seed, epoch), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from anomaly.errors import UsageError
from anomaly.nets.device import seeded
from anomaly.nets.state import arrays_of, copied, epoch_seed, optimiser_arrays, restore_optimiser, tensors_of
from anomaly.records import Int64
from anomaly.runs import Arrays, Recorder, under

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Films = TypeVar("Films", bound=Sized)
Net = TypeVar("Net", bound=nn.Module)


class Pace(Protocol):
    """The settings that every such training has."""

    @property
    def epochs(self) -> int:
        """The most there may be."""

    @property
    def batch(self) -> int:
        """Films a step."""

    @property
    def patience(self) -> int:
        """Epochs without a better one after which the training stops."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the validation films say of an epoch: `least` is to fall, `told` goes into the history."""

    least: float
    told: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the lowest `Verdict.least` so far, and the network's state after it."""

    epoch: int
    least: float
    state: dict[str, Tensor]


class EpochTraining(ABC, Generic[Net, Films]):
    """A network and its optimiser, advanced epoch by epoch by `run`."""

    clip: float | None = None
    """Length that no step's gradient exceeds."""

    def __init__(
        self,
        net: Net,
        optimiser: torch.optim.Optimizer,
        pace: Pace,
        films: tuple[Films, Films],
        *,
        seed: int,
        fabric: Fabric,
    ) -> None:
        """Take a network and what it learns from.

        Args:
            net: The network.
            optimiser: Of its parameters.
            pace: Epochs, films a step, patience.
            films: What to learn from, and other patients' films, which stop the training and choose the epoch.
            seed: Of all draws.
            fabric: Device and precision.
        """
        self.pace = pace
        self.train, self.held_out = films
        self.seed = seed
        self.fabric = fabric
        self.net = net
        self.wrapped, self.optimiser = fabric.setup(net, optimiser)
        self.epoch = 0
        self.best = Best(0, math.inf, {})

    @abstractmethod
    def loss(self, part: Int64) -> Tensor:
        """Return the mean loss of the training films at these places, changed at random; a scalar."""

    @abstractmethod
    def validate(self) -> Verdict:
        """Say how good the network is on the validation films, as they are."""

    def begin_epoch(self) -> None:
        """Put the network into training, and set what an epoch has of its own."""
        self.net.train()

    def begin_step(self, step: int, steps: int) -> None:
        """Set what a step has of its own; it is the `step`th of the epoch's `steps`."""

    def may_stop(self) -> bool:
        """Tell whether enough has been learnt for patience to end."""
        return True

    def run(self, recorder: Recorder) -> None:
        """Train until no epoch has been better for `patience` of them; leave the best epoch's weights.

        Args:
            recorder: Gets train_loss, what `validate` tells and learning_rate of every epoch, checkpoints, progress.

        Raises:
            UsageError: The training died: its loss is no number.
        """
        before = recorder.restore()
        if before is not None:
            self._restore(*before)
        while self.epoch < self.pace.epochs and not self._tired():
            loss = self.learn(recorder)
            self.epoch += 1
            self._judge(loss, recorder)
            recorder.checkpoint(self._state(), {"step": self.epoch, "best": self.best.epoch, "least": self.best.least})
        self.net.load_state_dict(self.best.state)
        self.net.eval()

    def learn(self, recorder: Recorder) -> float:
        """Go through the training films once; return the mean loss."""
        count = len(self.train)
        steps = max(1, count // self.pace.batch)  # no batch of a single film
        total = 0.0
        done = 0
        self.begin_epoch()
        with seeded(epoch_seed(self.seed, self.epoch)):
            order = torch.randperm(count).numpy()
            for step, part in enumerate(np.array_split(order, steps)):
                self.begin_step(step, steps)
                self.optimiser.zero_grad(set_to_none=True)
                loss = self.loss(part)
                self.fabric.backward(loss)
                if self.clip is not None:
                    clip_grad_norm_(self.net.parameters(), self.clip)
                self.optimiser.step()
                total += float(loss.detach()) * len(part)
                done += len(part)
                recorder.progress(self.epoch * count + done, self.pace.epochs * count, "training")
        return total / count

    def _tired(self) -> bool:
        return self.may_stop() and self.epoch - self.best.epoch >= self.pace.patience

    def _judge(self, loss: float, recorder: Recorder) -> None:
        self.net.eval()
        verdict = self.validate()
        told = {"train_loss": loss, **verdict.told, "learning_rate": self.optimiser.param_groups[0]["lr"]}
        for name, value in told.items():
            recorder.scalar(self.epoch, name, value)
        if not all(math.isfinite(value) for value in told.values()):
            raise UsageError(
                f"The training died in epoch {self.epoch}: its loss is {loss}. Try a smaller detector.learning_rate, "
                "or detector.precision=fp32."
            )
        if verdict.least < self.best.least:
            self.best = Best(self.epoch, verdict.least, copied(self.net.state_dict()))

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
        self.best = Best(int(meta["best"]), float(meta["least"]), tensors_of(under(arrays, "best")))
