"""izi_f: teaching an encoder to invert the generator on normals (Schlegl et al., f-AnoGAN, 2019, section 2.2.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomaly.detectors.anogan.descent import Descent, DescentSettings
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.nets.device import freeze
from anomaly.nets.encoder import Encoder
from anomaly.records import Float32
from anomaly.runs import Recorder

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(images (N, C, S, S), random numbers on the CPU) -> images, each moved and exposed a little otherwise."""


class EncoderTraining:
    """An encoder in training beside a frozen generator and discriminator.

    Args:
        encoder: In the memory format of the other two.
        generator: Frozen, in eval mode, on the fabric's device.
        discriminator: Likewise.
        settings: How to train.
        kappa: Weight of the feature term; 1 in the paper.
        seed: Of every random draw.
        fabric: Device and precision.
        augment: What films go through before they are encoded; None leaves them as they are.
    """

    def __init__(
        self,
        encoder: Encoder,
        generator: Generator,
        discriminator: Discriminator,
        settings: DescentSettings,
        *,
        kappa: float,
        seed: int,
        fabric: Fabric,
        augment: Augment | None = None,
    ) -> None:
        self.encoder = encoder
        self.generator, self.discriminator = generator, discriminator
        self.kappa = kappa
        self.fabric = fabric
        self.augment = augment
        self.descent = Descent(encoder, settings, name="encoder", seed=seed, fabric=fabric)

    def run(self, images: Float32, recorder: Recorder) -> None:
        """Train to the last step, from the recorder's checkpoint where it has one; leave the encoder frozen.

        Args:
            images: float32 (N, C, S, S) in [-1, 1], normals only.
            recorder: Gets `encoder_loss`, checkpoints and progress.

        Raises:
            UsageError: The training died.
        """
        films = torch.from_numpy(images)

        def loss_of(encoder: nn.Module, chosen: Tensor) -> Tensor:
            real = self.fabric.to_device(films[chosen])
            return self._loss(encoder, real if self.augment is None else self.augment(real, self.descent.random()))

        self.descent.run(len(films), loss_of, recorder)
        freeze(self.encoder)

    def _loss(self, encoder: nn.Module, real: Tensor) -> Tensor:
        """Return eq. 5: |x - G(E(x))|^2 / n + kappa |f(x) - f(G(E(x)))|^2 / n_d, over the batch."""
        latents = encoder(real)
        with self.fabric.autocast():
            twins = self.generator(latents)
            residual = F.mse_loss(twins.float(), real)
            if self.kappa == 0.0:
                return residual
            with torch.no_grad():
                wanted = self.discriminator.features(real).float()
            found = self.discriminator.features(twins).float()
        return residual + self.kappa * F.mse_loss(found, wanted)
