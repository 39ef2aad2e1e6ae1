"""Nearest neighbours by chunked matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

_QUERIES, _KEYS = 1024, 2048  # so many by so many products stay in a processor's cache
_GROUPS = 16
_NEVER = -1e30


class Neighbours:
    """A bank of vectors that nearest ones are looked up in.

    |x - y|^2 = |x|^2 - 2 (x.y - |y|^2 / 2), so the nearest y has the largest x.y - |y|^2 / 2: one matrix product, with
    -|y|^2 / 2 as further coordinates of y that meet ones in x (in bf16 three of them, which together hold what one does
    in fp32). The product only proposes: the distance to what it proposes is computed in fp32, from the vectors.

    Args:
        bank: float32 (m, d).
        bf16: Whether products are done in bf16.
    """

    def __init__(self, bank: Tensor, *, bf16: bool) -> None:
        self.bank = bank
        # about their mean vectors are short, so that products lose few digits
        self._centre = bank.mean(dim=0)
        centred = bank - self._centre
        rest = centred.square().sum(dim=1, keepdim=True) / -2
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        columns = [centred.to(self._dtype)]
        for _ in range(3 if bf16 else 1):
            columns.append(rest.to(self._dtype))
            rest = rest - columns[-1].float()
        self._ones = len(columns) - 1
        keys = torch.cat(columns, dim=1)
        missing = torch.zeros(-len(bank) % _GROUPS, keys.shape[1], dtype=self._dtype, device=bank.device)
        missing[:, -1] = _NEVER
        self._keys = torch.cat([keys, missing])

    def nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance to the nearest vector of the bank and its place, float32 (n,) and int64 (n,).

        Args:
            queries: float32 (n, d).
        """
        found = [self._nearest(part) for part in torch.split(queries, _QUERIES)]
        return torch.cat([distance for distance, _ in found]), torch.cat([place for _, place in found])

    def _nearest(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        ones = torch.ones(len(queries), self._ones, dtype=self._dtype, device=queries.device)
        asked = torch.cat([(queries - self._centre).to(self._dtype), ones], dim=1)
        best, place = _best(asked, self._keys[:_KEYS])
        for start in range(_KEYS, len(self._keys), _KEYS):
            value, near = _best(asked, self._keys[start : start + _KEYS])
            better = value > best
            best, place = torch.where(better, value, best), torch.where(better, near + start, place)
        return (queries - self.bank[place]).square_().sum(dim=1).sqrt_(), place

    def within(self, queries: Tensor, count: int) -> Tensor:
        """Return how far queries (n, d) lie from the vectors that are neighbours of their nearest, float32 (n, count).

        The first is the nearest vector itself: what PatchCore weighs its score by (Roth et al. 2022, equation 7).
        """
        _, places = self.nearest(queries)
        apart = torch.cdist(self.bank[places], self.bank, compute_mode="use_mm_for_euclid_dist")
        apart[torch.arange(len(places)), places] = -1.0  # itself first, whatever rounding says
        support = apart.topk(min(count, len(self.bank)), largest=False, dim=1).indices
        return (queries[:, None] - self.bank[support]).square_().sum(dim=2).sqrt_()


def _best(asked: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest product of each row with any key, (n,), and that key's place.

    The largest of many is found far faster than where it is, so that is asked of few: first across groups.
    """
    close = (asked @ keys.T).view(len(asked), _GROUPS, -1)
    column = close.amax(dim=1).max(dim=1).indices
    value, group = close[torch.arange(len(asked), device=asked.device), :, column].max(dim=1)
    return value, group * close.shape[2] + column
