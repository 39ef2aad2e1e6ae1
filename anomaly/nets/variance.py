"""Variance head: what squared residual to expect at each pixel of a drawn image.

Mao, Xue, Wang, Zhang, Zheng, Liu: Abnormality Detection in Chest X-Ray Images Using Uncertainty Prediction
Autoencoders, MICCAI 2020; the loss is that of Kendall, Gal: What Uncertainties Do We Need in Bayesian Deep Learning for
Computer Vision?, NeurIPS 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anomaly.nets.dcgan import _initialise

LOWEST = 2.0 * math.log(2.0 / 255.0)
"""log variance of one grey level of 255 on [-1, 1]: below it a residual means nothing."""
HIGHEST = 2.0 * math.log(2.0)
"""log variance of black where white was: no residual of images in [-1, 1] is larger."""


class VarianceHead(nn.Module):
    """Last hidden map of a generator (N, width, S / 2, S / 2) -> log variance (N, S, S) in [LOWEST, HIGHEST]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(width, 1, 4, 2, 1)
        self.apply(_initialise)

    @torch.no_grad()
    def expect(self, variance: float) -> None:
        """Start from one variance (> 0) for every pixel, about which the weights then tell pixels apart."""
        nn.init.constant_(self.layer.bias, math.log(variance))  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the log variance s."""
        found: Tensor = self.layer(hidden)
        return found.squeeze(1).clamp(LOWEST, HIGHEST)
