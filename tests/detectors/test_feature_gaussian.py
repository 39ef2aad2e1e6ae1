"""One Gaussian over whole films, and a map from each place's own statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from anomaly.detectors.backbone import pooled
from anomaly.detectors.feature_gaussian import FeatureGaussian, FeatureGaussianConfig
from anomaly.detectors.gaussian import Gaussian
from anomaly.errors import DataError
from anomaly.prepare.source import ArraySource

SIZE = 64
RANDOM = {"backbone_weights": "none", "precision": "fp32", "score_batch": 4}


@pytest.fixture(scope="module")
def films(phantom_images):
    return phantom_images(50, SIZE)


def build(**settings):
    return FeatureGaussian(FeatureGaussianConfig(**{**RANDOM, **settings}), size=SIZE, device="cpu")


def test_distance_is_mahalanobis_under_the_shrunk_covariance():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(30, 50)) @ rng.normal(size=(50, 50))).astype(np.float32)
    other = rng.normal(size=(7, 50)).astype(np.float32)
    estimate = LedoitWolf().fit(vectors.astype(np.float64))
    wanted = np.sqrt(estimate.mahalanobis(other.astype(np.float64)))
    gaussian = Gaussian.fit(vectors)
    np.testing.assert_allclose(gaussian.distance(other), wanted, rtol=1e-3)
    again = Gaussian.from_arrays(gaussian.to_arrays(), 50)
    np.testing.assert_array_equal(again.distance(other), gaussian.distance(other))
    np.testing.assert_array_equal(gaussian.distance(other[3:4]), gaussian.distance(other)[3:4])
    with pytest.raises(ValueError, match="49"):
        Gaussian.from_arrays(gaussian.to_arrays(), 49)


def test_the_score_is_the_distance_of_the_mean_features_over_the_film(films):
    fitted = build(layers=("layer2", "layer3")).fit(ArraySource(films[:40]))
    inside = np.ones((10, SIZE, SIZE), np.bool_)
    inside[:, :, :32] = False
    maps = fitted._frozen.maps(films[40:])
    half = np.concatenate([layer[:, :, :, layer.shape[3] // 2 :].mean(dim=(2, 3)).numpy() for layer in maps], axis=1)
    np.testing.assert_allclose(pooled(maps, inside), half, rtol=1e-4, atol=1e-5)
    out = fitted.score(films[40:], inside=inside)
    np.testing.assert_allclose(out.scores, fitted._whole.distance(half), rtol=1e-3)
    assert out.features.shape == (10, 32)


def test_the_map_is_in_sigma_of_normals_at_each_place(films):
    fitted = build(smoothing=0.0).fit(ArraySource(films[:40]))
    assert fitted.heat_unit == "σ"
    own = fitted._apart(fitted._frozen.maps(films[:40])).numpy()
    mean, sd = fitted._usual
    np.testing.assert_allclose(own.mean(axis=0), mean, rtol=1e-4)
    np.testing.assert_allclose(own.std(axis=0), sd, rtol=1e-2)
    places = torch.cat([layer.flatten(2) for layer in fitted._frozen.maps(films[:40])], dim=1).double().numpy()
    apart = (places - places.mean(axis=0)).transpose(0, 2, 1).reshape(-1, 256)
    covariance = apart.T @ apart / (len(apart) - len(own[0]))
    whitened = fitted._whiten.double().numpy() @ covariance @ fitted._whiten.double().numpy().T
    alive = np.flatnonzero(np.diag(covariance) > 0)  # of random features some never answer
    assert len(alive) > 240
    np.testing.assert_allclose(whitened[np.ix_(alive, alive)], np.eye(len(alive)), atol=0.02)
    heat = fitted.score(films[:40]).heatmaps
    assert 0.1 < (heat > 0).mean() < 0.9


def test_one_film_is_too_few(films):
    with pytest.raises(DataError, match="at least 2"):
        build().fit(ArraySource(films[:1]))


def test_films_that_are_all_alike_give_finite_answers(films):
    out = build().fit(ArraySource(np.repeat(films[:1], 8, axis=0))).score(films[:4])
    assert np.isfinite(out.scores).all()
    assert np.isfinite(out.heatmaps).all()
