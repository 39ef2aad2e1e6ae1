"""The latent search: the z whose image G(z) looks most like the scan (Schlegl et al. 2017, eq. 4-6).

A fixed number of slots is searched at once, each holding one start of one scan. Slots share the networks, which are
frozen in eval mode, and nothing else: the losses are summed, so no slot's gradient reaches another's z; Adam keeps its
moments and its count by slot and uses only operations that round alike wherever a value lies; and whatever passes a
network comes in batches of the same shape, because processors choose their kernels by it. So a scan's answer does not
depend, to the last bit, on the other scans, on their order or on the slot it falls into.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from anomaly.nets.dcgan import Discriminator, Generator

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
_AT_ZERO = 1e-12  # so that the norm has a slope, 0, at z = 0 too
_LOOK_EVERY = 4  # steps between looks at who has converged; each is a wait for the device

Autocast = Callable[[], AbstractContextManager[object]]
"""Makes the context the networks run in: bf16 or nothing."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How to search.

    The loss of a latent z for a scan x is

        (1 - weight) |x - G(z)| + weight |f(x) - f(G(z))| + shell (||z|| / sqrt(latent) - radius)^2

    with f the discriminator's last map and |.| the mean over pixels or features of the absolute ("l1", Schlegl et al.
    2017) or squared ("l2", f-AnoGAN) difference. The last term is the prior N(0, I). At radius 0 it is minus its log
    density: the most probable z is sought, and what the generator can only draw far out, as a lesion, is left out of
    the twin. At radius 1 it is the shell on which the prior's draws lie: z keeps its direction and its distance.
    The recipe takes radius 0: a twin a little too near the mean chest should cost less than one that follows a lesion.
    """

    steps: int
    """Most Adam steps a start; 0 takes the start as it is."""
    rate: float
    """Learning rate of Adam."""
    weight: float
    """lambda in [0, 1]; at 0 the discriminator is not run."""
    residual: Literal["l1", "l2"]
    shell: float
    """Weight of the prior; at 0 z is free."""
    restarts: int
    """Starts a scan has beside its first: latents drawn once from N(0, I), the same for every scan."""
    patience: int
    """Steps without the loss falling by `tolerance` after which a start has converged; 0 takes every step."""
    tolerance: float
    """Share of the loss in [0, 1)."""
    slots: int
    """Starts searched at once; part of the answer's last bits."""
    radius: float = 0.0
    """Of the shell, in units of sqrt(latent): 0 for the most probable z, 1 for a typical one."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found for N scans.

    `z` float32 (N, latent): the best met over all starts, by the scan's own loss. `loss` float32 (N,): its loss, NaN
    where there was nothing to compare (no steps, no restarts). `steps` int64 (N,): Adam steps taken over all starts.
    """

    z: Tensor
    loss: Tensor
    steps: Tensor


def search(
    generator: Generator,
    discriminator: Discriminator,
    scans: Tensor,
    first: Tensor,
    settings: SearchSettings,
    *,
    seed: int,
    autocast: Autocast,
) -> Found:
    """Find a latent for every scan.

    Args:
        generator: Frozen, in eval mode.
        discriminator: Frozen, in eval mode.
        scans: float32 (N, C, S, S) in [-1, 1], on the networks' device.
        first: float32 (N, latent), where each scan's search starts: the encoder's answer, or zeros, the prior's mean.
        settings: How to search.
        seed: Of the restarts' latents.
        autocast: The precision of the networks; losses are float32.
    """
    starts = torch.cat([first.detach().float()[:, None], _restarts(first, settings.restarts, seed)], dim=1)
    if len(scans) == 0 or (settings.steps == 0 and settings.restarts == 0):
        loss = torch.full((len(scans),), torch.nan, device=first.device)
        return Found(starts[:, 0].clone(), loss, torch.zeros_like(loss, dtype=torch.int64))
    goal = _Goal(generator, discriminator, settings, autocast)
    table = _Slots(scans, goal.features_of(scans), starts, settings)
    waiting = iter(range(starts.shape[0] * starts.shape[1]))
    table.fill(waiting)
    while table.busy:
        z = table.z.detach().requires_grad_(True)
        loss = goal(z, table.films, table.features)
        table.keep(loss.detach())
        emptied = table.empty()
        if table.busy:
            (slope,) = torch.autograd.grad(loss.sum(), z)
            table.descend(slope)
        if emptied:
            table.fill(waiting)
    return table.best_of_starts()


def _restarts(first: Tensor, count: int, seed: int) -> Tensor:
    """Return float32 (N, count, latent), the same latents for every scan."""
    drawn = torch.randn(count, first.shape[1], generator=torch.Generator().manual_seed(seed))
    return drawn.to(first.device).expand(len(first), -1, -1)


class _Goal:
    """The loss of latents against scans, both in batches of exactly `slots`."""

    def __init__(
        self, generator: Generator, discriminator: Discriminator, settings: SearchSettings, autocast: Autocast
    ) -> None:
        self._generator, self._discriminator = generator, discriminator
        self._settings = settings
        self._autocast = autocast

    @torch.no_grad()
    def features_of(self, scans: Tensor) -> Tensor:
        """Return f(x) of every scan, float32 (N, F, 4, 4); (N, 0, 4, 4) where the discriminator has no weight."""
        if self._settings.weight == 0.0:
            return scans.new_zeros(len(scans), 0, 4, 4)
        parts = []
        for start in range(0, len(scans), self._settings.slots):
            chunk = scans[start : start + self._settings.slots]
            padded = scans.new_zeros(self._settings.slots, *scans.shape[1:])
            padded[: len(chunk)] = chunk
            with self._autocast():
                parts.append(self._discriminator.features(_channels_last(padded)).float()[: len(chunk)])
        return torch.cat(parts)

    def __call__(self, z: Tensor, films: Tensor, features: Tensor) -> Tensor:
        """Return float32 (slots,) for z (slots, latent), films (slots, C, S, S) and their f(x)."""
        settings = self._settings
        with self._autocast():
            twins = self._generator(z)
            found = self._discriminator.features(twins) if settings.weight else None
        loss = (1.0 - settings.weight) * self._distance(films, twins)
        if found is not None:
            loss = loss + settings.weight * self._distance(features, found)
        if settings.shell:
            radius = ((z * z).mean(dim=1) + _AT_ZERO).sqrt()
            off = radius - settings.radius
            loss = loss + settings.shell * (off * off)
        return loss

    def _distance(self, wanted: Tensor, found: Tensor) -> Tensor:
        difference = wanted - found.float()
        apart = difference.abs() if self._settings.residual == "l1" else difference * difference
        return apart.mean(dim=(1, 2, 3))


class _Slots:
    """What is searched at the moment, what has been found, and Adam's state, all by slot.

    A job is one start of one scan, numbered scan by scan; `holds` says which job a slot has, -1 for none. A slot
    without a job, or whose job has converged, is moved like the others, and nothing is kept of where it gets.
    """

    def __init__(self, scans: Tensor, features: Tensor, starts: Tensor, settings: SearchSettings) -> None:
        count, slots, device = starts.shape[0] * starts.shape[1], settings.slots, starts.device
        self._settings = settings
        self._scans, self._features, self._starts = scans, features, starts.flatten(0, 1)
        self._per_scan = starts.shape[1]
        self.films = _channels_last(scans.new_zeros(slots, *scans.shape[1:]))
        self.features = _channels_last(features.new_zeros(slots, *features.shape[1:]))
        self.z = starts.new_zeros(slots, starts.shape[2])
        self._best_z, self._mean, self._square = (torch.zeros_like(self.z) for _ in range(3))
        self._best, self._mark = (torch.full((slots,), torch.inf, device=device) for _ in range(2))
        self._idle, self._taken = (torch.zeros(slots, dtype=torch.int64, device=device) for _ in range(2))
        self._running = torch.zeros(slots, dtype=torch.bool, device=device)
        # beta^k by table: a power of a tensor rounds otherwise at the end of a vector register than within it
        power = np.arange(1, settings.steps + 2)
        self._corrections = [
            torch.from_numpy((1.0 - beta**power).astype(np.float32)).to(device)[:, None] for beta in _BETAS
        ]
        self._holds = np.full(slots, -1)
        self._begun = np.zeros(slots, np.int64)
        self._round = 0
        self._found_z = torch.zeros_like(self._starts)
        self._found_loss = torch.full((count,), torch.inf, device=device)
        self._found_steps = torch.zeros(count, dtype=torch.int64, device=device)

    @property
    def busy(self) -> bool:
        """Whether any slot has a job."""
        return bool((self._holds >= 0).any())

    def fill(self, waiting: Iterator[int]) -> None:
        """Give the free slots the next jobs."""
        jobs = list(itertools.islice(waiting, int((self._holds < 0).sum())))
        if not jobs:
            return
        places = np.flatnonzero(self._holds < 0)[: len(jobs)]
        self._holds[places], self._begun[places] = jobs, self._round
        place, job = (torch.tensor(numbers, device=self.z.device) for numbers in (places, jobs))
        scan = job // self._per_scan
        self.films[place], self.features[place] = self._scans[scan], self._features[scan]
        self.z[place] = self._best_z[place] = self._starts[job]
        self._mean[place], self._square[place] = 0.0, 0.0
        self._best[place], self._mark[place] = torch.inf, torch.inf
        self._idle[place], self._taken[place] = 0, 0
        self._running[place] = True

    def keep(self, loss: Tensor) -> None:
        """Take the losses of the present z: keep the best, see who has converged or taken every step."""
        settings = self._settings
        better = self._running & (loss < self._best)
        self._best = torch.where(better, loss, self._best)
        self._best_z = torch.where(better[:, None], self.z, self._best_z)
        self._running &= self._taken < settings.steps
        if settings.patience:
            gained = loss < self._mark * (1.0 - settings.tolerance)
            self._mark = torch.where(gained, loss, self._mark)
            self._idle = torch.where(gained, 0, self._idle + 1)
            self._running &= self._idle < settings.patience
        self._round += 1

    def empty(self) -> bool:
        """Take the finished jobs out of their slots, if it is time to look; return whether any was."""
        over = (self._holds >= 0) & (self._round - self._begun > self._settings.steps)
        if self._settings.patience and (over.any() or self._round % _LOOK_EVERY == 0):
            over = (self._holds >= 0) & ~self._running.cpu().numpy()
        if not over.any():
            return False
        place, job = (torch.tensor(n, device=self.z.device) for n in (np.flatnonzero(over), self._holds[over]))
        self._found_z[job] = self._best_z[place]
        self._found_loss[job] = self._best[place]
        self._found_steps[job] = self._taken[place]
        self._holds[over] = -1
        return True

    def descend(self, slope: Tensor) -> None:
        """Take one step of Adam (Kingma, Ba, ICLR 2015, algorithm 1); only the slots that run count it."""
        (one, two), rate = _BETAS, self._settings.rate
        self._mean = one * self._mean + (1.0 - one) * slope
        self._square = two * self._square + (1.0 - two) * (slope * slope)
        first, second = (table[self._taken] for table in self._corrections)
        self.z = self.z - rate * ((self._mean / first) / ((self._square / second).sqrt() + _EPSILON))
        self._taken += self._running

    def best_of_starts(self) -> Found:
        """Return, for every scan, the best of its starts; the earlier of two equals."""
        losses = self._found_loss.reshape(-1, self._per_scan)
        best = torch.from_numpy(losses.cpu().numpy().argmin(axis=1)).to(losses.device)
        rows = torch.arange(len(losses), device=losses.device)
        steps = self._found_steps.reshape(-1, self._per_scan).sum(dim=1)
        return Found(self._found_z[rows * self._per_scan + best], losses[rows, best], steps)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
