"""What the trainings of anogan share: which films a step takes, and arrays by their part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def batch_of(count: int, batch: int, turn: int, seed: int) -> Tensor:
    """Return the film indices of one turn, int64: each epoch is its own shuffle, without its incomplete last batch.

    A function of its arguments alone, so that a resumed training goes on exactly where it was.

    Args:
        count: Films there are.
        batch: Films a turn, at most `count`.
        turn: From 0, through all epochs.
        seed: Of the shuffles.
    """
    batch = min(batch, count)
    epoch, position = divmod(turn, count // batch)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return torch.from_numpy(order[position * batch : (position + 1) * batch])
