"""Adversarial training of the DCGAN on normals (Goodfellow et al. 2014; Radford et al. 2016), one step at a time.

Every random draw is a function of (seed, step), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomaly.nets.dcgan import Discriminator, Generator, recompute_batch_norm
from anomaly.nets.device import seeded
from anomaly.records import Float32
from anomaly.runs import Arrays, Recorder

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train; see `AnoGanConfig` for what each is."""

    steps: int
    batch: int
    learning_rate: float
    label_smoothing: float
    ema: float
    checkpoint_every: int
    samples: int = 36


class Training:
    """The two networks, the averaged generator and their optimisers, advanced by `run`."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        settings: TrainingSettings,
        *,
        seed: int,
        fabric: Fabric,
    ) -> None:
        self.settings = settings
        self.seed = seed
        self.fabric = fabric
        self.generator, self.discriminator = generator, discriminator
        self.averaged = copy.deepcopy(generator)
        fabric.to_device(self.averaged).requires_grad_(False)
        adam: dict[str, Any] = {"lr": settings.learning_rate, "betas": (0.5, 0.999)}
        self.g, self.g_optimiser = fabric.setup(generator, torch.optim.Adam(generator.parameters(), **adam))
        self.d, self.d_optimiser = fabric.setup(discriminator, torch.optim.Adam(discriminator.parameters(), **adam))
        self.step = 0

    def run(self, images: Float32, recorder: Recorder) -> None:
        """Train to the last step, from the recorder's checkpoint where it has one.

        Args:
            images: float32 (N, C, S, S) in [-1, 1], normals only.
            recorder: Gets the losses, sample grids, checkpoints and progress.
        """
        settings = self.settings
        kept = recorder.restore()
        if kept is not None:
            self._restore(*kept)
        films = torch.from_numpy(images)
        shown = self._noise(settings.samples, draw=-1)
        self.generator.train()
        self.discriminator.train()
        while self.step < settings.steps:
            d_loss, g_loss, d_real, d_fake = self._advance(films)
            self.step += 1
            last = self.step == settings.steps
            if self.step % 10 == 0 or last:
                for name, value in (("d_loss", d_loss), ("g_loss", g_loss), ("d_real", d_real), ("d_fake", d_fake)):
                    recorder.scalar(self.step, name, float(value))
            recorder.progress(self.step, settings.steps, "training")
            if self.step % settings.checkpoint_every == 0 or last:
                recorder.images(self.step, self._sample(shown))
                recorder.checkpoint(self._state(), {"step": self.step})
        recompute_batch_norm(self.averaged, self._noise(2048, draw=-2))

    def _advance(self, films: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        settings = self.settings
        real = self.fabric.to_device(films[self._choose(len(films))])
        fake = self.g(self._noise(len(real), draw=self.step))

        self.d_optimiser.zero_grad(set_to_none=True)
        on_real, on_fake = self.d(real).float(), self.d(fake.detach()).float()
        smooth = torch.full_like(on_real, 1.0 - settings.label_smoothing)
        d_loss = F.binary_cross_entropy_with_logits(on_real, smooth)
        d_loss = d_loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        self.fabric.backward(d_loss)
        self.d_optimiser.step()

        self.g_optimiser.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)  # its weights' gradients are not needed here
        again = self.d(fake).float()
        g_loss = F.binary_cross_entropy_with_logits(again, torch.ones_like(again))
        self.fabric.backward(g_loss)
        self.g_optimiser.step()
        self.discriminator.requires_grad_(True)
        self._average()
        with torch.no_grad():
            return d_loss.detach(), g_loss.detach(), on_real.sigmoid().mean(), on_fake.sigmoid().mean()

    def _choose(self, count: int) -> Tensor:
        """Return the film indices of this step: each epoch is its own shuffle, without its incomplete last batch."""
        batch = min(self.settings.batch, count)
        epoch, position = divmod(self.step, count // batch)
        order = np.random.default_rng((self.seed, epoch)).permutation(count)
        return torch.from_numpy(order[position * batch : (position + 1) * batch])

    def _noise(self, count: int, *, draw: int) -> Tensor:
        """Return latents from N(0, I) for one step (>= 0) or one fixed purpose (< 0)."""
        entropy = (self.seed, 2 * draw if draw >= 0 else -2 * draw - 1)
        state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
        random = torch.Generator().manual_seed(state)
        return self.fabric.to_device(torch.randn(count, self.generator.latent, generator=random))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for kept, new in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            kept.lerp_(new, 1.0 - decay)

    @torch.no_grad()
    def _sample(self, latents: Tensor) -> Float32:
        """Draw a grid with the averaged generator as it will be used."""
        shown = copy.deepcopy(self.averaged)
        recompute_batch_norm(shown, self._noise(512, draw=-3))
        return np.asarray(shown(latents).float().cpu().numpy(), dtype=np.float32)

    def _parts(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "averaged": self.averaged}

    def _optimisers(self) -> dict[str, Any]:
        return {"g_optimiser": self.g_optimiser, "d_optimiser": self.d_optimiser}

    def _state(self) -> Arrays:
        arrays = {
            f"{part}/{k}": v.cpu().numpy() for part, net in self._parts().items() for k, v in net.state_dict().items()
        }
        for name, optimiser in self._optimisers().items():
            for index, moments in optimiser.state_dict()["state"].items():
                arrays |= {
                    f"{name}/{index}/{key}": torch.as_tensor(value).cpu().numpy() for key, value in moments.items()
                }
        return arrays

    def _restore(self, arrays: Arrays, meta: dict[str, Any]) -> None:
        for part, net in self._parts().items():
            net.load_state_dict(_under(arrays, part))
        for name, optimiser in self._optimisers().items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _under(arrays, name).items():
                index, _, moment = key.partition("/")
                state.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self.step = int(meta["step"])


def _under(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    start = prefix + "/"
    return {key.removeprefix(start): torch.from_numpy(array) for key, array in arrays.items() if key.startswith(start)}


def train(
    images: Float32,
    generator_shape: dict[str, int],
    discriminator_shape: dict[str, int],
    settings: TrainingSettings,
    *,
    seed: int,
    fabric: Fabric,
    recorder: Recorder,
) -> tuple[Generator, Discriminator]:
    """Train from scratch, or from the recorder's checkpoint; return the averaged generator and the discriminator."""
    with seeded(seed):
        generator, discriminator = Generator(**generator_shape), Discriminator(**discriminator_shape)
    # channels last: the layout convolutions are fastest in, on processors as on GPUs
    generator.to(memory_format=torch.channels_last)
    discriminator.to(memory_format=torch.channels_last)
    training = Training(generator, discriminator, settings, seed=seed, fabric=fabric)
    training.run(images, recorder)
    return training.averaged, training.discriminator
