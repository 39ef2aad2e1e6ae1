"""PatchCore: a bank that keeps to its bound, scores of patches that are film."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.detectors.patchcore import Patchcore, PatchcoreConfig
from anomaly.detectors.pooling import pool
from anomaly.errors import UsageError
from anomaly.prepare.source import ArraySource

SIZE = 64
RANDOM = {"backbone_weights": "none", "precision": "fp32", "score_batch": 4}


@pytest.fixture(scope="module")
def films(phantom_images):
    return phantom_images(50, SIZE)


def build(**settings):
    return Patchcore(PatchcoreConfig(**{**RANDOM, **settings}), size=SIZE, device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "top"])
def test_the_score_is_the_map_pooled_over_the_film(films, pooling):
    fitted = build(pooling=pooling, top_share=0.2).fit(ArraySource(films[:20]))
    inside = np.ones((10, SIZE, SIZE), np.bool_)
    inside[3:, :20] = False
    out = fitted.score(films[40:], inside=inside)
    np.testing.assert_array_equal(out.scores, pool(out.heatmaps, inside, pooling, 0.2))


def test_the_published_score_looks_at_patches_of_film_alone(films):
    fitted = build(pooling="max").fit(ArraySource(films[:40]))
    strange = films[40:].copy()
    strange[:, :, :16] = np.where(np.arange(SIZE) % 2, 1.0, -1.0)  # stripes no normal has
    inside = np.ones((10, SIZE, SIZE), np.bool_)
    masked = inside.copy()
    masked[:, :24] = False
    shown, hidden = (fitted.score(strange, inside=film).scores for film in (inside, masked))
    assert (hidden < shown).all()
    corner = np.zeros_like(inside)
    corner[:, -3:, -3:] = True  # less film than half a patch anywhere
    assert np.isfinite(fitted.score(strange, inside=corner).scores).all()


def test_the_bank_keeps_to_its_bound_its_share_and_the_candidates(films):
    patch = 4 * 384
    for settings, count in (
        ({"share": 0.1}, 256),  # of 40 films of 8 x 8 patches
        ({"bank_mb": 100 * patch / 2**20}, 100),
        ({"candidates": 50}, 50),
        ({"share": 1e-9}, 1),
    ):
        bank = build(**settings).fit(ArraySource(films[:40]))._state()["bank"]
        assert bank.shape == (count, 384), settings
    with pytest.raises(UsageError, match="bank_mb"):
        build(bank_mb=0.001).memory(40, 1)


def test_candidates_are_patches_of_all_films(films):
    detector = build(share=1.0, candidates=200).fit(ArraySource(films[:40]))
    patches = detector._embedded(films[:40])
    rows = {row.tobytes(): place // 64 for place, row in enumerate(patches.numpy())}
    films_of = [rows.get(row.tobytes()) for row in detector._state()["bank"]]
    known = [film for film in films_of if film is not None]
    assert len(known) > 150  # batches of another size may round otherwise
    assert len(set(known)) > 25


def test_the_estimate_of_memory_is_bounded_but_for_the_images():
    detector = build(candidates=5000)
    few, many = detector.memory(200, 1), detector.memory(10_200, 1)
    assert many - few == 10_000 * 4 * SIZE**2


def test_bf16_scores_nearly_the_same_and_each_image_for_itself(films):
    exact = build().fit(ArraySource(films[:40]))
    coarse = build(precision="bf16").fit(ArraySource(films[:40]))
    out = coarse.score(films[40:])
    np.testing.assert_allclose(out.scores, exact.score(films[40:]).scores, rtol=0.1)
    for place in range(10):
        np.testing.assert_array_equal(coarse.score(films[40 + place : 41 + place]).heatmaps[0], out.heatmaps[place])
