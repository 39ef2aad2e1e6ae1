"""The coreset: greedy k-centre, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomaly.detectors.coreset import PROJECTED, k_centres
from anomaly.runs import NullRecorder


class Progress(NullRecorder):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []

    def progress(self, done: int, total: int, what: str) -> None:
        self.told.append((done, total, what))


def patches(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def test_every_next_patch_is_the_farthest_from_those_taken():
    seen = patches(120, 16)
    taken = k_centres(seen, 30, seed=0, recorder=NullRecorder())
    assert len(set(taken.tolist())) == 30
    apart = torch.cdist(seen.double(), seen.double()).numpy()
    for number in range(1, 30):
        nearest = apart[:, taken[:number]].min(axis=1)
        assert nearest[taken[number]] == pytest.approx(nearest.max(), rel=1e-4)


def test_rare_kinds_are_kept_where_chance_would_miss_them():
    kinds = 20 * patches(25, 300, 1)
    counts = [200] + 24 * [2]
    seen = torch.cat(
        [kind + patches(count, 300, number) for number, (kind, count) in enumerate(zip(kinds, counts, strict=True))]
    )
    kind_of = np.repeat(np.arange(25), counts)
    assert seen.shape[1] > PROJECTED
    assert set(kind_of[k_centres(seen, 25, seed=0, recorder=NullRecorder())]) == set(range(25))


def test_equal_patches_are_taken_once_each_and_all_may_be_taken():
    seen = torch.zeros(12, 5)
    assert sorted(k_centres(seen, 12, seed=0, recorder=NullRecorder())) == list(range(12))


def test_the_seed_decides_and_progress_is_told():
    seen, told = patches(400, 10), Progress()
    one = k_centres(seen, 250, seed=3, recorder=told)
    assert (one == k_centres(seen, 250, seed=3, recorder=NullRecorder())).all()
    assert (one != k_centres(seen, 250, seed=4, recorder=NullRecorder())).any()
    assert told.told == [(101, 250, "coreset"), (201, 250, "coreset"), (250, 250, "coreset")]
