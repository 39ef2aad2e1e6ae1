"""Whether a generator in training lives: do its samples differ, and can it draw normals it has never seen?

Both need no label. A generator that draws one film over and over (mode collapse) has little diversity; one that has
learnt nothing, or the training films by heart, redraws held-out normals no better than the mean film does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from anomaly.detectors.anogan.search import SearchSettings, search
from anomaly.errors import UsageError
from anomaly.nets.dcgan import Discriminator, Generator

_POOR, _DEAD = 0.5, 0.1
_FILMS = 64  # held-out normals at most, evenly taken
_COARSE = 16  # px: diversity of anatomy, not of pixel noise
_SEARCH = SearchSettings(
    steps=40, rate=0.1, weight=0.0, residual="l2", shell=0.0, restarts=0, patience=0, tolerance=0.0, slots=32
)


@dataclass(frozen=True, slots=True)
class Health:
    """State of a generator.

    `diversity` is the mean pairwise distance of its samples over that of normals (1 is as diverse). `reconstruction` is
    the mean squared error of the nearest images to held-out normals, over that of the mean normal film (below 1 a
    twin of its own is nearer than the mean film).
    """

    diversity: float
    reconstruction: float

    @property
    def dead(self) -> bool:
        """Whether nothing can come of this any more."""
        return not self.diversity >= _DEAD  # NaN too

    def words(self) -> str | None:
        """Return what is wrong, or None."""
        if not (math.isfinite(self.diversity) and math.isfinite(self.reconstruction)):
            return "what it draws are no numbers"
        if self.diversity < _POOR:
            return (
                f"its samples differ {self.diversity:.2f} times as much from one another as normals do: the generator "
                "is collapsing onto a few chests"
            )
        if self.reconstruction >= 1.0:
            return (
                f"it redraws held-out normals {self.reconstruction:.2f} times as badly as the mean film does: its "
                "twins are of no use yet"
            )
        return None


class Watch:
    """Held-out normals, and what a generator is measured by against them.

    Args:
        held_out: float32 (N, C, S, S) in [-1, 1], N >= 2 normals that are not trained on.
        mean: float32 (C, S, S), the mean training film.
    """

    def __init__(self, held_out: Tensor, mean: Tensor) -> None:
        self._films = held_out[:: -(-len(held_out) // _FILMS)]
        self._usual = float(((self._films - mean) ** 2).mean())
        self._spread = _spread(self._films)
        self._search = replace(_SEARCH, slots=min(_SEARCH.slots, len(self._films)))

    def examine(self, generator: Generator, discriminator: Discriminator, latents: Tensor) -> Health:
        """Measure a generator in eval mode by its samples from `latents` (N, latent) and by the held-out normals."""
        with torch.no_grad():
            samples = generator(latents).float()
        first = torch.zeros(len(self._films), generator.latent, device=latents.device)
        found = search(generator, discriminator, self._films, first, self._search, seed=0, autocast=_as_it_is())
        with torch.no_grad():
            error = float(((generator(found.z).float() - self._films) ** 2).mean())
        return Health(_spread(samples) / max(self._spread, 1e-12), error / max(self._usual, 1e-12))


def stop_if_dead(health: Health, step: int) -> None:
    """Stop a training of which nothing can come.

    Raises:
        UsageError: The generator has collapsed.
    """
    if health.dead:
        raise UsageError(
            f"Training stopped at step {step}: {health.words()}. Try another --seed, a smaller "
            "detector.learning_rate, or detector.objective=hinge."
        )


def _spread(images: Tensor) -> float:
    """Return the mean distance between two of the images, by their coarse content."""
    coarse = F.adaptive_avg_pool2d(images.float(), min(_COARSE, images.shape[-1])).flatten(1)
    return float(torch.pdist(coarse).mean())


def _as_it_is() -> Callable[[], AbstractContextManager[object]]:
    return contextlib.nullcontext
