"""DCGAN generator and discriminator.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional GANs, ICLR 2016. The discriminator
may be normalised otherwise: spectrally (Miyato et al., ICLR 2018), or over each image alone (Ba et al. 2016), as the
gradient penalty of Gulrajani et al. (NeurIPS 2017) needs it.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Norm = Literal["batch", "spectral", "layer", "none"]
"""How a discriminator is normalised; "none" is what `plain` makes of "spectral"."""


def levels(size: int) -> int:
    """Return how often a 4 x 4 map must double to reach `size`.

    Raises:
        ValueError: `size` is not a power of two of at least 16.
    """
    count = size.bit_length() - 3
    if size < 16 or 4 << count != size:
        raise ValueError(f"a DCGAN draws images whose side is a power of two of at least 16, not {size}")
    return count


class Generator(nn.Module):
    """Latent z (N, latent) -> image (N, C, S, S) in (-1, 1), by transposed convolutions from a 4 x 4 map."""

    def __init__(self, *, latent: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.latent = latent
        count = levels(size)
        features = width << (count - 1)
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(latent, features, 4, 1, 0, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(inplace=True),
        ]
        for _ in range(count - 1):
            layers += [
                nn.ConvTranspose2d(features, features // 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(features // 2),
                nn.ReLU(inplace=True),
            ]
            features //= 2
        layers += [nn.ConvTranspose2d(features, channels, 4, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def hidden(self, z: Tensor) -> Tensor:
        """Return the last hidden map, (N, width, S / 2, S / 2), of latents (N, latent)."""
        found: Tensor = self.layers[:-2](z[:, :, None, None])
        return found

    def forward(self, z: Tensor) -> Tensor:
        """Draw images from latents (N, latent)."""
        image: Tensor = self.layers(z[:, :, None, None])
        return image


class Discriminator(nn.Module):
    """Image (N, C, S, S) -> logit (N,) that it is real; `features` is the last 4 x 4 map, as AnoGAN compares it."""

    def __init__(self, *, channels: int, size: int, width: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.norm = norm
        self.shape = {"channels": channels, "size": size, "width": width}
        count = levels(size)
        blocks = [nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True))]
        features = width
        for _ in range(count - 1):
            parts: list[nn.Module] = [nn.Conv2d(features, features * 2, 4, 2, 1, bias=norm in ("spectral", "none"))]
            features *= 2
            if norm == "batch":
                parts.append(nn.BatchNorm2d(features))
            elif norm == "layer":
                parts.append(nn.GroupNorm(1, features))
            blocks.append(nn.Sequential(*parts, nn.LeakyReLU(0.2, inplace=True)))
        self.body = nn.Sequential(*blocks)
        self.head = nn.Conv2d(features, 1, 4, 1, 0)
        self.apply(_initialise)
        if norm == "spectral":
            for part in _convolutions(self):
                parametrizations.spectral_norm(part)

    def features(self, image: Tensor) -> Tensor:
        """Return the intermediate representation f(x), (N, F, 4, 4)."""
        found: Tensor = self.body(image)
        return found

    def last_maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last two maps: (N, F / 2, 8, 8) and f(x), (N, F, 4, 4)."""
        finer: Tensor = self.body[:-1](image)
        return finer, self.body[-1](finer)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N,)."""
        logits: Tensor = self.head(self.body(image))
        return logits.flatten()


@torch.no_grad()
def plain(discriminator: Discriminator) -> Discriminator:
    """Return a copy with spectrally normalised weights as they are, for a discriminator that learns no more.

    torch's own `remove_parametrizations` would break the original: a parametrised class is shared with its copies.
    """
    learned = copy.deepcopy(discriminator).eval()
    if learned.norm != "spectral":
        return learned
    with torch.random.fork_rng():
        baked = Discriminator(**learned.shape, norm="none").eval()
    pairs = zip(_convolutions(baked), _convolutions(learned), strict=True)
    for empty, full in pairs:
        empty.load_state_dict({"weight": full.weight, "bias": full.bias})
    return baked


def _convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)]


def _initialise(module: nn.Module) -> None:
    """Radford et al., section 4: weights from N(0, 0.02), batch-norm gains from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def recompute_batch_norm(generator: Generator, latents: Tensor, batch: int = 256) -> None:
    """Replace the running statistics of a generator's batch norms by those of its own samples.

    An averaged (EMA) generator has never run in training mode, so the statistics it inherited belong to other weights.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average over the batches below
    generator.train()
    for start in range(0, len(latents), batch):
        generator(latents[start : start + batch])
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
