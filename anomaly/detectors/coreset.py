"""Greedy k-centre selection: few patches that lie near all of them.

Sener and Savarese, *Active Learning for Convolutional Neural Networks: A Core-Set Approach*, ICLR 2018, as PatchCore
uses it: always take the patch farthest from what is taken, after a random projection (Johnson and Lindenstrauss).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anomaly.records import Int64
from anomaly.runs import Recorder

PROJECTED = 128
"""Dimensions distances are taken in; as in the authors' code."""
_TELL_EVERY = 100


def k_centres(patches: Tensor, count: int, *, seed: int, recorder: Recorder) -> Int64:
    """Choose `count` of the patches, the first at random.

    Args:
        patches: float32 (n, d).
        count: How many, at most n.
        seed: Draws the projection and the first patch.
        recorder: Told how far along it is.

    Returns:
        int64 (count,), distinct places in `patches`, in the order they were taken.
    """
    rng = np.random.default_rng(seed)
    seen = _projected(patches, rng)
    squares = seen.square().sum(dim=1)
    taken = np.empty(count, np.int64)
    taken[0] = rng.integers(len(patches))
    # squared distance to the nearest one taken, less the patch's own square in the product below
    nearest = torch.full((len(seen),), torch.inf, device=seen.device)
    for number in range(1, count):
        last = int(taken[number - 1])
        apart = torch.addmv(squares + squares[last], seen, seen[last], alpha=-2.0)
        torch.minimum(nearest, apart, out=nearest)
        nearest[last] = -torch.inf  # so that equal patches are taken once each
        taken[number] = int(nearest.argmax())
        if number % _TELL_EVERY == 0 or number == count - 1:
            recorder.progress(number + 1, count, "coreset")
    return taken


def _projected(patches: Tensor, rng: np.random.Generator) -> Tensor:
    if patches.shape[1] <= PROJECTED:
        return patches
    matrix = rng.standard_normal((patches.shape[1], PROJECTED), np.float32) / np.float32(PROJECTED**0.5)
    return patches @ torch.from_numpy(matrix).to(patches.device)
