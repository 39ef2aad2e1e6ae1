"""Augmentation that keeps a chest a chest: a small shift, a small change of scale, another exposure.

Applied to real and drawn images alike before the discriminator sees them, and differentiable, so that the generator
still learns the films as they are (Zhao et al.: Differentiable Augmentation for Data-Efficient GAN Training, NeurIPS
2020). No flips: a heart on the right is not normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much of each at most: `shift` and `scale` as shares of the width, `exposure` in gain and in grey."""

    shift: float
    scale: float
    exposure: float

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Return images (N, C, S, S), each moved and exposed by draws of its own from `random`, a generator on the CPU.

        Values may leave [-1, 1], as the discriminator does not mind and clamping would stop gradients.
        """
        count = len(images)
        drawn = (2.0 * torch.rand(count, 5, generator=random) - 1.0).to(images.device)
        if self.shift or self.scale:
            size = 1.0 + self.scale * drawn[:, 0]
            way = torch.zeros(count, 2, 3, device=images.device)
            way[:, 0, 0], way[:, 1, 1] = size, size
            way[:, :, 2] = 2.0 * self.shift * drawn[:, 1:3]
            grid = F.affine_grid(way, list(images.shape), align_corners=False)
            images = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        if self.exposure:
            gain, offset = self.exposure * drawn[:, 3, None, None, None], self.exposure * drawn[:, 4, None, None, None]
            images = images * (1.0 + gain) + offset
        return images
