"""Films as they might have been taken, boxes and all: mirrored, nearer or farther, a little aside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from anomaly.detectors.retinanet.settings import RetinaNetConfig

_SEEN = 0.25  # of a box must lie in the picture still: of the rest nothing can be learnt


@dataclass(frozen=True, slots=True)
class Batch:
    """Films float32 (N, C, S, S); of each its boxes, float32 (n, 4): x1, y1, x2, y2, and their kinds, int64 (n,)."""

    films: Tensor
    boxes: list[Tensor]
    kinds: list[Tensor]


def augmented(batch: Batch, config: RetinaNetConfig) -> Batch:
    """Return a batch with every film, by itself, flipped, scaled and shifted at random by up to what the settings say.

    Draws from torch's global random state; where a film ends, its border goes on.
    """
    count, side = len(batch.films), batch.films.shape[3]
    mirror = torch.where(torch.rand(count) < config.flip, -1.0, 1.0)
    scale = 1.0 + config.scale * (2.0 * torch.rand(count) - 1.0)
    shift = config.shift * 2.0 * (2.0 * torch.rand(count, 2) - 1.0)  # of [-1, 1], the way grids count
    gain = torch.stack([mirror * scale, scale], dim=1)
    ways = torch.zeros(count, 2, 3)
    ways[:, 0, 0], ways[:, 1, 1], ways[:, :, 2] = gain[:, 0], gain[:, 1], shift
    grid = functional.affine_grid(ways, list(batch.films.shape), align_corners=False)
    films = functional.grid_sample(batch.films, grid, padding_mode="border", align_corners=False)
    moved = [_moved(*one, side) for one in zip(batch.boxes, batch.kinds, gain, shift, strict=True)]
    return Batch(films, [boxes for boxes, _ in moved], [kinds for _, kinds in moved])


def _moved(boxes: Tensor, kinds: Tensor, gain: Tensor, shift: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Bring boxes where their film was brought: what is at `place` there was at `gain * place + shift`."""
    places = (2.0 * boxes.view(-1, 2, 2) / side - 1.0 - shift) / gain
    corners = (places + 1.0) / 2.0 * side
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    area = (high - low).prod(dim=1)
    low, high = low.clamp(0.0, side), high.clamp(0.0, side)
    seen = (high - low).prod(dim=1) >= _SEEN * area
    return torch.cat([low, high], dim=1)[seen], kinds[seen]
