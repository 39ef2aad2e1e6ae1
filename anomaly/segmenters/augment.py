"""Films and their masks as they might also have been: turned, shifted, sheared, scaled, flipped, dimmed."""

from __future__ import annotations

import torch
from torch import Tensor

from anomaly.segmenters.settings import UNetConfig


class Augment:
    """Changes every film of a batch by draws of its own, from torch's random state, and its mask in the same way."""

    def __init__(self, config: UNetConfig) -> None:
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        turned = v2.RandomAffine(
            config.rotation,
            translate=(config.shift, config.shift),
            scale=(1 - config.scale, 1 + config.scale),
            shear=(-config.shear, config.shear, -config.shear, config.shear),
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        parts = [v2.RandomHorizontalFlip(config.flip), turned, v2.ColorJitter(brightness=config.brightness)]
        self._change = v2.Compose(parts) if config.augment else v2.Identity()
        self._picture, self._mask = tv_tensors.Image, tv_tensors.Mask

    def __call__(self, films: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return films float32 (N, C, S, S) in [-1, 1] and masks bool (N, S, S) changed.

        What lies beyond a film's borders is black and in no mask.
        """
        pairs = [
            self._change(self._picture((film + 1.0) / 2.0), self._mask(mask.to(torch.uint8)))
            for film, mask in zip(films, masks, strict=True)
        ]
        changed = torch.stack([film.as_subclass(Tensor) for film, _ in pairs]).clamp_(0.0, 1.0) * 2.0 - 1.0
        return changed, torch.stack([mask.as_subclass(Tensor) for _, mask in pairs]) > 0
