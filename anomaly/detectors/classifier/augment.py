"""Films as they might also have been taken: turned, shifted, sheared, scaled, flipped, dimmed; by torchvision's v2."""

from __future__ import annotations

import torch
from torch import Tensor

from anomaly.detectors.classifier.settings import ClassifierConfig


class Augment:
    """Changes every film of a batch by draws of its own, from torch's random state."""

    def __init__(self, config: ClassifierConfig) -> None:
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

    def __call__(self, films: Tensor) -> Tensor:
        """Return films, float32 (N, C, S, S) in [-1, 1], changed; what lies beyond their borders is black."""
        pictures = (films + 1.0) / 2.0  # what torchvision takes for a picture
        return torch.stack([self._change(picture) for picture in pictures]).clamp_(0.0, 1.0) * 2.0 - 1.0
