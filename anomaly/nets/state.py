"""What a training keeps of itself so that it can go on after any epoch, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from anomaly.runs import Arrays


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch's draws: a resumed training draws what an unbroken one would have."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state as it is now, whatever becomes of the network."""
    return {name: value.detach().clone() for name, value in state.items()}


def arrays_of(state: Mapping[str, Tensor]) -> Arrays:
    """Return a network's state as arrays."""
    return {name: value.cpu().numpy() for name, value in state.items()}


def tensors_of(arrays: Arrays) -> dict[str, Tensor]:
    """Return what `arrays_of` was given."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def optimiser_arrays(optimiser: torch.optim.Optimizer) -> Arrays:
    """Return an optimiser's moments, `INDEX/NAME` -> array."""
    return {
        f"{index}/{name}": torch.as_tensor(value).cpu().numpy()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
        if value is not None  # sgd before its first step
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Take back what `optimiser_arrays` returned; rates stay what they are."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors_of(arrays).items():
        index, _, moment = name.partition("/")
        moments.setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
