"""One small network trained by Adam on normals beside frozen ones, one step at a time.

Every random draw is a function of (seed, step), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from anomaly.detectors.anogan.draws import batch_of
from anomaly.errors import UsageError
from anomaly.runs import Arrays, Recorder

if TYPE_CHECKING:
    from lightning.fabric import Fabric

LossOf = Callable[[nn.Module, Tensor], Tensor]
"""(network, int64 indices of this step's films) -> loss, a scalar."""


@dataclass(frozen=True, slots=True)
class DescentSettings:
    """How to train: Adam steps, films a step, learning rate, steps between checkpoints."""

    steps: int
    batch: int
    learning_rate: float
    checkpoint_every: int


class Descent:
    """A network and its optimiser, advanced by `run`; `name` is what progress and history call it."""

    def __init__(self, net: nn.Module, settings: DescentSettings, *, name: str, seed: int, fabric: Fabric) -> None:
        self.settings = settings
        self.name = name
        self.seed = seed
        self.fabric = fabric
        self.net = net
        optimiser = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
        self.wrapped, self.optimiser = fabric.setup(net, optimiser)
        self.step = 0

    def run(self, count: int, loss_of: LossOf, recorder: Recorder) -> None:
        """Train to the last step, from the recorder's checkpoint where it has one.

        Args:
            count: Films there are.
            loss_of: The loss of one step.
            recorder: Gets the loss as NAME_loss, checkpoints and progress.

        Raises:
            UsageError: The training died: its loss is no number.
        """
        settings = self.settings
        before = recorder.restore()
        if before is not None:
            self._restore(*before)
        self.net.train()
        while self.step < settings.steps:
            self.optimiser.zero_grad(set_to_none=True)
            loss = loss_of(self.wrapped, batch_of(count, settings.batch, self.step, self.seed))
            self.fabric.backward(loss)
            self.optimiser.step()
            self.step += 1
            last = self.step == settings.steps
            if self.step % 10 == 0 or last:
                self._tell(float(loss.detach()), recorder)
            recorder.progress(self.step, settings.steps, self.name)
            if self.step % settings.checkpoint_every == 0 or last:
                recorder.checkpoint(self._state(), {"step": self.step})

    def random(self) -> torch.Generator:
        """Return a generator of random numbers on the CPU, for this step."""
        state = int(np.random.SeedSequence((self.seed, self.step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator().manual_seed(state)

    def _tell(self, loss: float, recorder: Recorder) -> None:
        recorder.scalar(self.step, f"{self.name}_loss", loss)
        if not math.isfinite(loss):
            raise UsageError(
                f"The training of the {self.name} died at step {self.step}: its loss is {loss}. Try a smaller learning "
                "rate or detector.precision=fp32."
            )

    def _state(self) -> Arrays:
        arrays = {f"net/{key}": value.cpu().numpy() for key, value in self.net.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            arrays |= {f"adam/{index}/{key}": torch.as_tensor(value).cpu().numpy() for key, value in moments.items()}
        return arrays

    def _restore(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, array in arrays.items():
            part, _, key = name.partition("/")
            if part == "net":
                weights[key] = torch.from_numpy(array)
            else:
                index, _, moment = key.partition("/")
                moments.setdefault(int(index), {})[moment] = torch.from_numpy(array)
        self.net.load_state_dict(weights)
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.step = int(meta["step"])
