"""Encoder: from an image straight to a latent whose drawing looks like it.

Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth: f-AnoGAN: Fast unsupervised anomaly detection with generative
adversarial networks, Medical Image Analysis 2019.
"""

from __future__ import annotations

from torch import Tensor, nn

from anomaly.nets.dcgan import _initialise, levels


class Encoder(nn.Module):
    """Image (N, C, S, S) -> latent (N, latent), by strided convolutions to a 4 x 4 map and a linear head.

    The head is not squashed: the prior N(0, I) has no bounds.
    """

    def __init__(self, *, latent: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        features = width
        for _ in range(levels(size) - 1):
            layers += [
                nn.Conv2d(features, features * 2, 4, 2, 1, bias=False),
                nn.BatchNorm2d(features * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            features *= 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(features, latent, 4, 1, 0))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> Tensor:
        """Return latents (N, latent)."""
        latents: Tensor = self.layers(image)
        return latents.flatten(1)
