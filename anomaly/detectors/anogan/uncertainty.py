"""Learning, on normals, how far the frozen generator's twins miss at each pixel (Mao et al., AE-U, MICCAI 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anomaly.detectors.anogan.descent import Descent, DescentSettings
from anomaly.nets.dcgan import Generator
from anomaly.nets.device import freeze
from anomaly.nets.variance import VarianceHead
from anomaly.records import Float32
from anomaly.runs import Recorder

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_LOOKED_AT = 256  # films whose residual gives the head its start


class VarianceTraining:
    """A variance head in training on a frozen generator.

    Args:
        head: In the generator's memory format.
        generator: Frozen, in eval mode, on the fabric's device.
        settings: How to train.
        seed: Of every random draw.
        fabric: Device and precision.
    """

    def __init__(
        self, head: VarianceHead, generator: Generator, settings: DescentSettings, *, seed: int, fabric: Fabric
    ) -> None:
        self.head = head
        self.generator = generator
        self.fabric = fabric
        self.descent = Descent(head, settings, name="variance", seed=seed, fabric=fabric)

    def run(self, images: Float32, latents: Tensor, recorder: Recorder) -> None:
        """Train to the last step, from the recorder's checkpoint where it has one; leave the head frozen.

        Args:
            images: float32 (N, C, S, S) in [-1, 1], normals only.
            latents: float32 (N, latent), where the search or the encoder puts each of them.
            recorder: Gets `variance_loss`, checkpoints and progress.

        Raises:
            UsageError: The training died.
        """
        films = torch.from_numpy(images)
        latents = latents.cpu()

        def missed(chosen: Tensor) -> tuple[Tensor, Tensor]:
            return self._missed(self.fabric.to_device(films[chosen]), self.fabric.to_device(latents[chosen]))

        def loss_of(head: nn.Module, chosen: Tensor) -> Tensor:
            hidden, squared = missed(chosen)
            log_variance = head(hidden).float()
            # Mao et al., eq. 4; Kendall and Gal, eq. 8
            loss: Tensor = (torch.exp(-log_variance) * squared + log_variance).mean()
            return loss

        spread = torch.arange(0, len(films), max(1, len(films) // _LOOKED_AT))
        self.head.expect(max(float(missed(spread)[1].mean()), torch.finfo(torch.float32).tiny))
        self.descent.run(len(films), loss_of, recorder)
        freeze(self.head)

    @torch.no_grad()
    def _missed(self, films: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the generator's hidden map of each film and its squared residual, mean over channels, (N, S, S)."""
        with self.fabric.autocast():
            hidden = self.generator.hidden(latents)
            twins = self.generator.layers[-2:](hidden).float()
        return hidden, ((films - twins) ** 2).mean(dim=1)
