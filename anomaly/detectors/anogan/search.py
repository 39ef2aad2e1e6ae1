"""The latent search: the z whose image G(z) looks most like the scan (Schlegl et al. 2017, eq. 4-6).

All images of a chunk are searched at once. They share the networks, which are frozen in eval mode, and nothing else:
the losses are summed, so no image's gradient reaches another's z, and Adam works element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from anomaly.nets.dcgan import Discriminator, Generator


def search(
    generator: Generator,
    discriminator: Discriminator,
    scans: Tensor,
    *,
    steps: int,
    learning_rate: float,
    weight: float,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Tensor:
    """Find a latent for every scan.

    Args:
        generator: Frozen, in eval mode.
        discriminator: Frozen, in eval mode.
        scans: float32 (N, C, S, S) in [-1, 1].
        steps: Adam steps from the common start z = 0, the mean of the prior; 0 returns the start.
        learning_rate: Of Adam.
        weight: lambda, the share of the feature term in the loss.
        autocast: Makes the context the networks run in (bf16 or nothing).

    Returns:
        float32 (N, latent): for each scan the best z met, by that scan's own loss.
    """
    with torch.no_grad(), autocast():
        target_features = discriminator.features(scans).float()
    z = torch.zeros(len(scans), generator.latent, device=scans.device, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=learning_rate)
    best_z = z.detach().clone()
    best_loss = torch.full((len(scans),), torch.inf, device=scans.device)
    for step in range(steps + 1):
        with autocast():
            twins = generator(z)
            features = discriminator.features(twins)
        residual = (scans - twins.float()).abs().mean(dim=(1, 2, 3))
        discrimination = (target_features - features.float()).abs().mean(dim=(1, 2, 3))
        loss = (1.0 - weight) * residual + weight * discrimination
        with torch.no_grad():
            better = loss < best_loss
            best_loss = torch.where(better, loss, best_loss)
            best_z = torch.where(better[:, None], z, best_z)
        if step == steps:
            break
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
    return best_z
