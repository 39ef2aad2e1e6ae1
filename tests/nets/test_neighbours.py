"""Nearest neighbours by products are those of distances written out."""

from __future__ import annotations

import pytest
import torch

from anomaly.nets import neighbours
from anomaly.nets.neighbours import Neighbours


def vectors(n: int, d: int = 24, seed: int = 0) -> torch.Tensor:
    return 3.0 + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bf16", [False, True])
def test_distances_are_those_written_out(monkeypatch, bf16):
    monkeypatch.setattr(neighbours, "_QUERIES", 7)  # several chunks of both
    monkeypatch.setattr(neighbours, "_KEYS", 48)
    bank, queries = vectors(180), vectors(40, seed=1)
    apart = torch.linalg.norm(queries[:, None] - bank[None], dim=2)
    distance, place = Neighbours(bank, bf16=bf16).nearest(queries)
    torch.testing.assert_close(distance, apart[torch.arange(40), place])  # exact for what was found, in either format
    if bf16:
        assert (distance <= 1.02 * apart.min(dim=1).values).all()
    else:
        assert torch.equal(place, apart.argmin(dim=1))


@pytest.mark.parametrize("bf16", [False, True])
def test_a_vector_of_the_bank_is_its_own_neighbour_at_no_distance(bf16):
    bank = vectors(60)
    distance, place = Neighbours(bank, bf16=bf16).nearest(bank[20:30])
    assert torch.equal(place, torch.arange(20, 30))
    assert torch.equal(distance, torch.zeros(10))


def test_support_is_the_nearest_and_its_own_neighbours():
    bank, queries = vectors(50), vectors(6, seed=1)
    nearest = torch.cdist(queries, bank).argmin(dim=1)
    around = torch.cdist(bank[nearest], bank).argsort(dim=1)[:, :4]
    wanted = torch.linalg.norm(queries[:, None] - bank[around], dim=2)
    found = Neighbours(bank, bf16=False).within(queries, 4)
    torch.testing.assert_close(found, wanted)
    assert Neighbours(bank[:3], bf16=False).within(queries, 9).shape == (6, 3)


def test_an_answer_does_not_depend_on_the_other_queries():
    bank, queries = vectors(300, 64), vectors(33, 64, seed=1)
    for bf16 in (False, True):
        found = Neighbours(bank, bf16=bf16)
        together = found.nearest(queries)[0]
        turned = found.nearest(queries.flip(0))[0].flip(0)
        assert torch.equal(together, turned)
