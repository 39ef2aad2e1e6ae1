"""Adversarial training of the DCGAN on normals (Goodfellow et al. 2014; Radford et al. 2016), one step at a time.

With `redraw`, an encoder is trained along, and the generator learns to redraw the films it is shown beside deceiving
the discriminator (Larsen et al.: Autoencoding beyond pixels using a learned similarity metric, ICML 2016; Rosca et al.:
Variational Approaches for Auto-Encoding GANs, 2017). The error of a redrawn film is weighed mostly by its coarse
content, so that texture stays the discriminator's business; latents of films are held to the prior by their first two
moments. Samples of the prior and redrawn films are both judged by the discriminator.

Every random draw is a function of (seed, step), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from anomaly.detectors.anogan.augment import Augmentation
from anomaly.detectors.anogan.draws import batch_of
from anomaly.detectors.anogan.objectives import OBJECTIVES, ObjectiveName, gradient_penalty
from anomaly.detectors.anogan.watch import Watch, stop_if_dead
from anomaly.errors import UsageError
from anomaly.nets.dcgan import Discriminator, Generator, recompute_batch_norm
from anomaly.nets.device import seeded
from anomaly.nets.encoder import Encoder
from anomaly.records import Float32
from anomaly.runs import Arrays, Recorder, under

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_SAMPLES = 36  # of a grid
_EXAMINED = 64  # samples whose diversity is measured
_TIME_TO_LEARN = 400  # steps before which no generator is judged
_COARSE = 4  # pixels a side that the coarse content of a film is averaged over
_FINE = 0.25  # share of the error pixel by pixel, beside that of the coarse content
_PRIOR = 0.1  # weight of the moments of the latents of a batch of films


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train; see `AnoGanConfig` for what each is."""

    objective: ObjectiveName
    steps: int
    batch: int
    learning_rate: float
    critic_steps: int
    label_smoothing: float
    augmentation: Augmentation
    redraw: float
    ema: float
    checkpoint_every: int


@dataclass(frozen=True, slots=True)
class Trained:
    """The averaged generator and what was trained along: the discriminator and, with `redraw`, an encoder."""

    generator: Generator
    discriminator: Discriminator
    encoder: Encoder | None


@dataclass(frozen=True, slots=True)
class Best:
    """The checkpoint that redraws held-out normals best so far: `error` of `Health.reconstruction`."""

    step: int
    error: float


class Training:
    """The networks, the averaged generator and their optimisers, advanced by `run`; an encoder only with `redraw`."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        encoder: Encoder | None,
        settings: TrainingSettings,
        *,
        seed: int,
        fabric: Fabric,
    ) -> None:
        self.settings = settings
        self.objective = OBJECTIVES[settings.objective]
        self.seed = seed
        self.fabric = fabric
        self.generator, self.discriminator, self.encoder = generator, discriminator, encoder
        self.averaged = copy.deepcopy(generator)
        fabric.to_device(self.averaged).requires_grad_(False)
        adam: dict[str, Any] = {"lr": settings.learning_rate, "betas": self.objective.betas}
        self.g, self.g_optimiser = fabric.setup(generator, torch.optim.Adam(generator.parameters(), **adam))
        self.d, self.d_optimiser = fabric.setup(discriminator, torch.optim.Adam(discriminator.parameters(), **adam))
        self.optimisers = {"g_optimiser": self.g_optimiser, "d_optimiser": self.d_optimiser}
        if encoder is not None:
            e_optimiser = torch.optim.Adam(encoder.parameters(), lr=2.0 * settings.learning_rate)
            self.e, self.optimisers["e_optimiser"] = fabric.setup(encoder, e_optimiser)
        self.step = 0
        self.best = Best(0, math.inf)
        self.kept = self._copy()

    def run(self, images: Float32, held_out: Float32, recorder: Recorder) -> None:
        """Train to the last step, from the recorder's checkpoint where it has one.

        Args:
            images: float32 (N, C, S, S) in [-1, 1], normals only.
            held_out: Likewise, other patients' normals: they choose the checkpoint that is kept.
            recorder: Gets the losses, sample grids, checkpoints, warnings and progress.

        Raises:
            UsageError: The training died: its losses are no numbers, or the generator has collapsed.
        """
        settings = self.settings
        before = recorder.restore()
        if before is not None:
            self._restore(*before)
        films = torch.from_numpy(images)
        mean = self.fabric.to_device(films.mean(dim=0))
        watch = Watch(self.fabric.to_device(torch.from_numpy(held_out)), mean)
        shown = self._noise(_SAMPLES, purpose=1)
        for net in (self.generator, self.discriminator, self.encoder):
            if net is not None:
                net.train()
        while self.step < settings.steps:
            told = self._advance(films)
            self.step += 1
            last = self.step == settings.steps
            if self.step % 10 == 0 or last:
                self._tell(told, recorder)
            recorder.progress(self.step, settings.steps, "training")
            if self.step % settings.checkpoint_every == 0 or last:
                self._take_stock(watch, shown, recorder)
                if last:
                    self._judge_kept(watch, recorder)
                recorder.checkpoint(self._state(), {"step": self.step, "best": [self.best.step, self.best.error]})

    def _advance(self, films: Tensor) -> dict[str, Tensor]:
        """Take one step: the discriminator learns `critic_steps` times, then the generator once."""
        settings, objective = self.settings, self.objective
        last = (self.step + 1) * settings.critic_steps - 1
        for turn in range(self.step * settings.critic_steps, last + 1):
            random = self._random(turn, purpose=2)
            real = self.fabric.to_device(films[batch_of(len(films), settings.batch, turn, self.seed)])
            with torch.set_grad_enabled(turn == last):
                latents = self._noise(len(real), turn=turn)
                if self.encoder is not None:
                    own = self.e(real).float()
                    latents = torch.cat([latents, own])
                fake = self.g(latents).float()
            seen_real = settings.augmentation(real, random)
            seen_fake = settings.augmentation(fake, random)
            self.d_optimiser.zero_grad(set_to_none=True)
            on_real, on_fake = self.d(seen_real).float(), self.d(seen_fake.detach()).float()
            d_loss = objective.discriminator_loss(on_real, on_fake, settings.label_smoothing)
            if objective.penalty:
                share = self.fabric.to_device(torch.rand(len(real), 1, 1, 1, generator=random))
                drawn = seen_fake[: len(real)].detach()
                penalty = gradient_penalty(self.discriminator, seen_real, drawn, share)
                d_loss = d_loss + objective.penalty * penalty
            self.fabric.backward(d_loss)
            self.d_optimiser.step()

        told = {"d_loss": d_loss, "d_real": on_real.mean(), "d_fake": on_fake.mean()}
        self.g_optimiser.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)  # its weights' gradients are not needed here
        g_loss = told["g_loss"] = objective.generator_loss(self.d(seen_fake).float())
        if self.encoder is not None:
            self.optimisers["e_optimiser"].zero_grad(set_to_none=True)
            redrawn = told["redraw_loss"] = _missed(fake[len(real) :], real)
            g_loss = g_loss + settings.redraw * redrawn + _PRIOR * _strangeness(own)
        self.fabric.backward(g_loss)
        self.g_optimiser.step()
        if self.encoder is not None:
            self.optimisers["e_optimiser"].step()
        self.discriminator.requires_grad_(True)
        self._average()
        return {name: value.detach() for name, value in told.items()}

    def _tell(self, told: Mapping[str, Tensor], recorder: Recorder) -> None:
        for name, value in told.items():
            recorder.scalar(self.step, name, float(value))
            if not math.isfinite(float(value)):
                raise UsageError(
                    f"Training died at step {self.step}: {name} is {float(value)}. Try a smaller "
                    "detector.learning_rate or detector.precision=fp32."
                )

    def _take_stock(self, watch: Watch, shown: Tensor, recorder: Recorder) -> None:
        """Draw a grid, examine the averaged generator as it will be used, and keep it if it is the best so far."""
        now = self._copy()
        with torch.no_grad():
            recorder.images(self.step, np.asarray(now.generator(shown).float().cpu().numpy(), dtype=np.float32))
        health = watch.examine(now.generator, self.discriminator, self._noise(_EXAMINED, purpose=3))
        recorder.scalar(self.step, "diversity", health.diversity)
        recorder.scalar(self.step, "reconstruction", health.reconstruction)
        if health.reconstruction < self.best.error:
            self.best = Best(self.step, health.reconstruction)
            self.kept = now
        if self.step >= max(_TIME_TO_LEARN, self.settings.steps // 2):
            stop_if_dead(health, self.step)

    def _judge_kept(self, watch: Watch, recorder: Recorder) -> None:
        """Record which step was kept, and warn of its generator if it is sick, whatever became of those after it."""
        recorder.scalar(self.step, "kept_step", self.best.step)
        health = watch.examine(self.kept.generator, self.discriminator, self._noise(_EXAMINED, purpose=3))
        words = health.words()
        if words is not None:
            recorder.warn(f"the generator that was kept, that of step {self.best.step} of the training: {words}")

    def _random(self, turn: int, *, purpose: int) -> torch.Generator:
        """Return a generator of random numbers on the CPU, for one turn and purpose."""
        state = int(np.random.SeedSequence((self.seed, purpose, turn)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator().manual_seed(state)

    def _noise(self, count: int, *, turn: int = 0, purpose: int = 0) -> Tensor:
        """Return latents from N(0, I), float32 (count, latent)."""
        random = self._random(turn, purpose=purpose)
        return self.fabric.to_device(torch.randn(count, self.generator.latent, generator=random))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for kept, new in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
            kept.lerp_(new, 1.0 - decay)

    @torch.no_grad()
    def _ready(self) -> Generator:
        """Return a copy of the averaged generator as it will be used: with the statistics of its own samples."""
        ready = copy.deepcopy(self.averaged)
        recompute_batch_norm(ready, self._noise(1024, purpose=4))
        return ready

    def _copy(self) -> Trained:
        """Return the networks as they would be kept now."""
        return Trained(self._ready(), copy.deepcopy(self.discriminator), copy.deepcopy(self.encoder))

    def _parts(self) -> dict[str, nn.Module]:
        kept = self.kept
        parts: dict[str, nn.Module | None] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "encoder": self.encoder,
            "averaged": self.averaged,
            "kept.generator": kept.generator,
            "kept.discriminator": kept.discriminator,
            "kept.encoder": kept.encoder,
        }
        return {name: net for name, net in parts.items() if net is not None}

    def _state(self) -> Arrays:
        arrays = {
            f"{part}/{k}": v.cpu().numpy() for part, net in self._parts().items() for k, v in net.state_dict().items()
        }
        for name, optimiser in self.optimisers.items():
            for index, moments in optimiser.state_dict()["state"].items():
                arrays |= {
                    f"{name}/{index}/{key}": torch.as_tensor(value).cpu().numpy() for key, value in moments.items()
                }
        return arrays

    def _restore(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        for part, net in self._parts().items():
            net.load_state_dict(_tensors(arrays, part))
        for name, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _tensors(arrays, name).items():
                index, _, moment = key.partition("/")
                state.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self.step = int(meta["step"])
        self.best = Best(int(meta["best"][0]), float(meta["best"][1]))


def _missed(drawn: Tensor, films: Tensor) -> Tensor:
    """Return the mean squared error of redrawn films (N, C, S, S), of their coarse content and of every pixel."""
    difference = drawn - films
    coarse = F.avg_pool2d(difference, _COARSE)
    return (coarse**2).mean() + _FINE * (difference**2).mean()


def _strangeness(latents: Tensor) -> Tensor:
    """Return how far mean and variance of a batch of latents (N, latent) are from the prior's, N(0, I)."""
    return (latents.mean(dim=0) ** 2).mean() + ((latents.var(dim=0) - 1.0) ** 2).mean()


def _tensors(arrays: Arrays, part: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(array) for key, array in under(arrays, part).items()}


def train(
    images: Float32,
    held_out: Float32,
    generator_shape: dict[str, int],
    discriminator_shape: dict[str, int],
    settings: TrainingSettings,
    *,
    seed: int,
    fabric: Fabric,
    recorder: Recorder,
) -> Trained:
    """Train from scratch, or from the recorder's checkpoint.

    Returns:
        The networks of the checkpoint whose averaged generator redraws `held_out` best.

    Raises:
        UsageError: The training died.
    """
    with seeded(seed):
        generator = Generator(**generator_shape)
        discriminator = Discriminator(**discriminator_shape, norm=OBJECTIVES[settings.objective].norm)
        encoder = Encoder(**generator_shape) if settings.redraw else None
    for net in (generator, discriminator, encoder):
        if net is not None:  # the layout convolutions are fastest in, on processors as on GPUs
            net.to(memory_format=torch.channels_last)
    training = Training(generator, discriminator, encoder, settings, seed=seed, fabric=fabric)
    training.run(images, held_out, recorder)
    return training.kept
