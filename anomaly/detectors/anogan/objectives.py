"""What generator and discriminator play for: three adversarial objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomaly.nets.dcgan import Norm

ObjectiveName = Literal["dcgan", "hinge", "wgan-gp"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One game.

    `norm` is how its discriminator is normalised, `betas` Adam's, `penalty` the weight of the gradient penalty.
    `discriminator_loss` takes the logits (N,) of real films and of drawn ones, and the label smoothing;
    `generator_loss` those of drawn ones. Both return a scalar.
    """

    norm: Norm
    betas: tuple[float, float]
    penalty: float
    discriminator_loss: Callable[[Tensor, Tensor, float], Tensor]
    generator_loss: Callable[[Tensor], Tensor]


def _cross_entropy(on_real: Tensor, on_fake: Tensor, smoothing: float) -> Tensor:
    """Goodfellow et al. 2014; real films are labelled 1 minus the smoothing (Salimans et al. 2016)."""
    real = F.binary_cross_entropy_with_logits(on_real, torch.full_like(on_real, 1.0 - smoothing))
    return real + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))


def _deceive(on_fake: Tensor) -> Tensor:
    """Goodfellow et al. 2014, section 3: the form that does not saturate."""
    return F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))


def _hinge(on_real: Tensor, on_fake: Tensor, _smoothing: float) -> Tensor:
    """Lim, Ye 2017; Miyato et al. 2018, eq. 16."""
    return F.relu(1.0 - on_real).mean() + F.relu(1.0 + on_fake).mean()


def _wasserstein(on_real: Tensor, on_fake: Tensor, _smoothing: float) -> Tensor:
    """Arjovsky et al. 2017; Gulrajani et al. 2017, eq. 3 without its penalty."""
    return on_fake.mean() - on_real.mean()


def _raise(on_fake: Tensor) -> Tensor:
    return -on_fake.mean()


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "dcgan": Objective("batch", (0.5, 0.999), 0.0, _cross_entropy, _deceive),
    "hinge": Objective("spectral", (0.0, 0.99), 0.0, _hinge, _raise),
    "wgan-gp": Objective("layer", (0.0, 0.9), 10.0, _wasserstein, _raise),
}
"""Radford et al. 2016 · Miyato et al. 2018 with spectral norm · Gulrajani et al. 2017, as f-AnoGAN is trained.

The betas of hinge are ours: Miyato et al. use (0, 0.9).
"""


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Return the mean squared distance from 1 of the critic's gradient between real and drawn images.

    Gulrajani et al. 2017, eq. 3; in float32, as it is differentiated twice.

    Args:
        critic: Images (N, C, S, S) -> (N,).
        real: float32 (N, C, S, S).
        fake: Likewise.
        share: float32 (N, 1, 1, 1) in [0, 1], where on the way from real to drawn each image is taken.
    """
    between = torch.lerp(real.float(), fake.float(), share).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = ((slope.flatten(1).norm(dim=1) - 1.0) ** 2).mean()
    return penalty
