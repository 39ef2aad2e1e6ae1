"""PaDiM: statistics in one pass, weights that travel inside, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from anomaly.detectors.padim import Padim, PadimConfig
from anomaly.detectors.pooling import pool
from anomaly.errors import DataError, MissingError, ModelError, UsageError
from anomaly.prepare.source import ArraySource
from anomaly.weights import WeightsFacts, store_weights

SIZE = 64
RANDOM = {"backbone_weights": "none", "precision": "fp32", "features": 30, "score_batch": 4}


@pytest.fixture(scope="module")
def films(phantom_images):
    return phantom_images(50, SIZE)


def build(**settings):
    return Padim(PadimConfig(**{**RANDOM, **settings}), size=SIZE, device="cpu")


@pytest.fixture(scope="module")
def padim(films):
    return build().fit(ArraySource(films[:40]))


def test_statistics_do_not_depend_on_the_batches_they_came_in(films, padim, monkeypatch):
    monkeypatch.setattr("anomaly.detectors.padim._BATCH", 7)
    again = build().fit(ArraySource(films[:40]))
    np.testing.assert_allclose(again.score(films[40:]).scores, padim.score(films[40:]).scores, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "top", "max"])
def test_the_score_is_the_map_pooled_over_the_film(films, pooling):
    fitted = build(pooling=pooling, top_share=0.2).fit(ArraySource(films[:20]))
    inside = np.ones((10, SIZE, SIZE), np.bool_)
    inside[3:, :20] = False
    out = fitted.score(films[40:], inside=inside)
    np.testing.assert_array_equal(out.scores, pool(out.heatmaps, inside, pooling, 0.2))


def test_channels_are_drawn_by_the_seed(films):
    one, two = (Padim(PadimConfig(**RANDOM), size=SIZE, device="cpu", seed=seed) for seed in (0, 1))
    drawn = [detector.fit(ArraySource(films[:5]))._channels for detector in (one, two)]
    assert (drawn[0] != drawn[1]).any()
    assert all(len(set(channels)) == 30 for channels in drawn)


def test_more_channels_than_there_are_is_refused_before_anything_is_read(films):
    with pytest.raises(UsageError, match="448 channels"):
        build(features=449).memory(100, 1)
    with pytest.raises(UsageError, match="layer4"):
        build(layers=("layer9",)).memory(100, 1)
    with pytest.raises(UsageError, match="smoothing"):
        build(smoothing=20.0).memory(100, 1)
    with pytest.raises(DataError, match="at least 2"):
        build().fit(ArraySource(films[:1]))


def test_the_estimate_of_memory_grows_by_the_images_alone():
    detector = build()
    assert detector.memory(1100, 1) - detector.memory(100, 1) == 1000 * 4 * SIZE**2


def test_weights_come_from_the_folder_and_travel_inside(films, tmp_path, monkeypatch):
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    detector = build(backbone_weights="pretrained")
    assert detector.backbone == "resnet18"
    for attempt in (lambda: detector.memory(10, 1), lambda: detector.fit(ArraySource(films[:8]))):
        with pytest.raises(MissingError, match=r"resnet18\.safetensors"):
            attempt()
    random = build().fit(ArraySource(films[:8]))
    assert random.backbone is None
    assert random.made_of()["backbone_sha256"].startswith("none")
    given = {name.removeprefix("backbone/"): a for name, a in random._state().items() if name.startswith("backbone/")}
    tensors = {name: a for name, a in given.items() if name not in ("input", "sha256")}
    half = (0.5, 0.5, 0.5)
    stored = store_weights(tensors, WeightsFacts("resnet18", "mine.safetensors", half, half))
    detector.fit(ArraySource(films[:8]))
    assert detector.made_of() == {"backbone": "resnet18", "backbone_sha256": stored.sha256}
    wanted = detector.score(films[40:])
    assert (wanted.scores != random.score(films[40:]).scores).all(), "the weights want another input"
    detector.save(tmp_path / "model")
    stored.path.unlink()
    loaded = Padim.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.score(films[40:]).scores, wanted.scores)
    assert loaded.made_of() == detector.made_of()


def test_weights_without_the_layers_used_are_refused_by_name(films, tmp_path, monkeypatch):
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path))
    own = build(layers=("layer1",)).fit(ArraySource(films[:4]))._state()
    given = {name.removeprefix("backbone/"): a for name, a in own.items() if name.startswith("backbone/")}
    store_weights({k: a for k, a in given.items() if k not in ("input", "sha256")}, WeightsFacts("resnet18", "x"))
    build(backbone_weights="pretrained", layers=("layer1",)).memory(10, 1)
    with pytest.raises(ModelError, match=r"layer2\.0\.conv1\.weight"):
        build(backbone_weights="pretrained").memory(10, 1)
    given["layer1.0.conv1.weight"] = given["layer1.0.conv1.weight"][:1]
    facts = WeightsFacts("resnet18", "x")
    store_weights({k: a for k, a in given.items() if k not in ("input", "sha256")}, facts, overwrite=True)
    with pytest.raises(ModelError, match=r"layer1\.0\.conv1\.weight has shape \(1, 64, 3, 3\)"):
        build(backbone_weights="pretrained", layers=("layer1",)).memory(10, 1)


def test_random_weights_are_warned_of(films):
    warned: list[str] = []

    class Told:
        def warn(self, words):
            warned.append(words)

        def progress(self, done, total, what):
            pass

    build().fit(ArraySource(films[:4]), recorder=Told())
    assert len(warned) == 1
    assert "random weights" in warned[0]


def test_bf16_scores_nearly_the_same(films, padim):
    coarse = build(precision="bf16").fit(ArraySource(films[:40]))
    assert coarse.runs_on() == "cpu bf16"
    assert padim.runs_on() == "cpu fp32"
    np.testing.assert_allclose(coarse.score(films[40:]).scores, padim.score(films[40:]).scores, rtol=0.05)
    same = coarse.score(films[40:])
    for place in range(10):
        np.testing.assert_array_equal(coarse.score(films[40 + place : 41 + place]).heatmaps[0], same.heatmaps[place])


def test_another_backbone_and_a_size_that_no_layer_divides(films):
    detector = Padim(
        PadimConfig(**{**RANDOM, "backbone": "mobilenet_v2", "layers": ("features.3", "features.6")}),
        size=50,
        device="cpu",
    )
    small = np.ascontiguousarray(films[:, :, :50, :50])
    out = detector.fit(ArraySource(small[:40])).score(small[40:])
    assert out.heatmaps.shape == (10, 50, 50)
