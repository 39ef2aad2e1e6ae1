"""The training of a classifier: what learns when, when it stops, how it resumes; temperature and cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from anomaly.detectors.base import class_term
from anomaly.detectors.classifier.augment import Augment
from anomaly.detectors.classifier.detector import ClassifierDetector
from anomaly.detectors.classifier.settings import ClassifierConfig
from anomaly.detectors.classifier.temperature import choose_cut, fit_temperature
from anomaly.detectors.classifier.training import Labelled, Training, _class_weights
from anomaly.errors import DataError, MissingError, UsageError
from anomaly.nets.classifier import Classifier
from anomaly.nets.device import open_fabric, seeded
from anomaly.nets.zoo import build
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32, Target
from anomaly.runs import NullRecorder, RunRecorder, read_tensors
from anomaly.weights import WeightsFacts, store_weights

SIZE = 32
SMALL: dict[str, Any] = {
    "arch": "mobilenet_v3_small",
    "backbone_weights": "none",
    "epochs": 2,
    "batch": 8,
    "precision": "fp32",
    "score_batch": 4,
}


def config(**settings: Any) -> ClassifierConfig:
    return ClassifierConfig(**{**SMALL, **settings})


@pytest.fixture(scope="module")
def films(phantom_images: Callable[..., Float32]) -> Float32:
    """Return 40 films; every second one is brighter in its upper left quarter."""
    images = phantom_images(40, SIZE).copy()
    images[1::2, :, 2:15, 2:15] = np.clip(images[1::2, :, 2:15, 2:15] + 0.8, -1, 1)
    return images


TARGETS = [Target(i % 2, ("normal", "bright")[i % 2]) for i in range(40)]


def fitted(films: Float32, recorder: Any = None, **settings: Any) -> ClassifierDetector:
    detector = ClassifierDetector(config(**settings), size=SIZE, device="cpu")
    return detector.fit(ArraySource(films), TARGETS, recorder=recorder)


def training(films: Float32, **settings: Any) -> Training:
    chosen = config(**settings)
    with seeded(0):
        net = Classifier(chosen.arch, 2, size=SIZE)
    labelled = Labelled(films, np.arange(40, dtype=np.int64) % 2)
    return Training(net, chosen, (labelled, labelled), seed=0, fabric=open_fabric("cpu", "fp32"))


def test_what_is_easily_told_apart_is_learnt_and_shown(films: Float32) -> None:
    detector = fitted(films, arch="resnet18", epochs=8, frozen_epochs=0, backbone_rate=1.0, augment=False)
    out = detector.score(films)
    assert (out.scores[1::2].min() > out.scores[::2].max()) or np.mean(out.scores[1::2] > 0.5) > 0.9
    assert detector.classes == ("normal", "bright")
    np.testing.assert_allclose(out.scores, out.terms[class_term("bright")], atol=1e-6)
    np.testing.assert_allclose(sum(out.terms.values()), 1.0, atol=1e-6)
    assert out.heatmaps is not None
    heat = out.heatmaps[1::2].mean(axis=0)
    assert heat[:16, :16].mean() > heat.mean(), "the map lies on what makes the difference"


def test_a_frozen_network_learns_in_its_last_layer_alone(films: Float32) -> None:
    run = training(films, frozen_epochs=1)
    before = {name: value.clone() for name, value in run.net.state_dict().items()}
    run.learn(NullRecorder())
    changed = {name for name, value in run.net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.classifier.3.weight", "network.classifier.3.bias"}


def test_layers_are_unfrozen_stage_by_stage_at_falling_rates(films: Float32) -> None:
    run = training(films, frozen_epochs=1, stages=3, stage_epochs=2, step_epochs=100)
    learns = []
    for epoch in (0, 1, 3, 5):
        run.epoch = epoch
        run.begin_epoch()
        learns.append([group.parameters[0].requires_grad for group in run.groups])
    assert learns == [[True] + [False] * 3, [True] * 2 + [False] * 2, [True] * 3 + [False], [True] * 4]
    rates = [group["lr"] for group in run.optimiser.param_groups]
    np.testing.assert_allclose(rates, [1e-3, 3e-4, 1.5e-4, 7.5e-5])
    held = [m for group in run.groups[2:] for m in group.modules if isinstance(m, nn.BatchNorm2d)]
    run.epoch = 1
    run.begin_epoch()
    assert not any(module.training for module in held)


def test_rates_fall_by_steps(films: Float32) -> None:
    run = training(films, step_epochs=2, step_gamma=0.1)
    told = []
    for epoch in range(5):
        run.epoch = epoch
        run.begin_epoch()
        told.append(run.optimiser.param_groups[0]["lr"])
    np.testing.assert_allclose(told, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_a_resumed_training_ends_where_an_unbroken_one_does(optimizer: str, films: Float32, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "epochs": 3, "stages": 2, "dropout": 0.3}
    whole = fitted(films, RunRecorder(tmp_path / "whole", resume=False), **settings)

    class Stopped(RunRecorder):
        def checkpoint(self, arrays: Any, meta: Any) -> None:
            super().checkpoint(arrays, meta)
            if meta["step"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(films, Stopped(tmp_path / "broken", resume=False), **settings)
    resumed = fitted(films, RunRecorder(tmp_path / "broken", resume=True), **settings)
    for name, array in whole._state().items():
        np.testing.assert_array_equal(array, resumed._state()[name], err_msg=name)


def test_it_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best(films: Float32, tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, resume=False)
    fitted(films, recorder, epochs=30, patience=1, learning_rate=0.3, frozen_epochs=0, backbone_rate=1.0)
    recorder.flush()
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()[1:]]
    losses = [float(value) for _, name, value in rows if name == "val_loss"]
    best = next(int(float(value)) for _, name, value in rows if name == "best_epoch")
    assert len(losses) < 30
    assert int(np.argmin(losses)) + 1 == best == len(losses) - 1
    arrays, meta = read_tensors(tmp_path / "checkpoints" / "last.safetensors")
    assert (meta["best"], meta["step"]) == (best, len(losses))
    assert any(name.startswith("best/") for name in arrays)


def test_a_dead_training_says_what_to_change(films: Float32) -> None:
    with pytest.raises(UsageError, match=r"died in epoch \d.*learning_rate"):
        fitted(films, learning_rate=1e30, optimizer="sgd", frozen_epochs=0)


def test_class_weights_make_classes_count_the_same() -> None:
    classes = np.array([0] * 30 + [1] * 10, np.int64)
    weights = _class_weights(classes, even=True).numpy()
    np.testing.assert_allclose(weights, [40 / 60, 2.0])
    np.testing.assert_allclose(weights[classes].mean(), 1.0)
    assert (_class_weights(classes, even=False).numpy() == 1).all()


def test_augmentation_changes_every_film_by_itself_and_none_when_off(films: Float32) -> None:
    batch = torch.tensor(films[:4])
    with seeded(0):
        changed = Augment(config())(batch)
        again = Augment(config())(torch.stack([batch[0]] * 3))
    assert changed.shape == batch.shape
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert (changed != batch).flatten(1).any(dim=1).all()
    assert not torch.equal(again[0], again[1])
    torch.testing.assert_close(Augment(config(augment=False))(batch), batch, atol=1e-6, rtol=0)


def test_the_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    chances = softmax(logits, axis=1)
    classes = np.array([rng.choice(3, p=row) for row in chances], np.int64)
    assert fit_temperature(logits, classes) == pytest.approx(1.0, abs=0.1)
    assert fit_temperature(5 * logits, classes) == pytest.approx(5.0, abs=0.5)


def test_the_cut_is_where_balanced_accuracy_is_highest() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.25, 0.8, 0.9])
    abnormal = np.array([False, False, False, False, True, True, True])
    cut = choose_cut(scores, abnormal)
    assert 0.2 < cut < 0.25 or 0.6 < cut < 0.8
    j = (scores[abnormal] > cut).mean() - (scores[~abnormal] > cut).mean()
    every = [(scores[abnormal] > c).mean() - (scores[~abnormal] > c).mean() for c in np.linspace(0, 1, 1000)]
    assert j == pytest.approx(max(every))


def test_validation_is_patient_wise_with_every_class_in_it(films: Float32) -> None:
    detector = ClassifierDetector(config(), size=SIZE, device="cpu")
    detector._names = ("normal", "bright")
    groups = np.arange(40, dtype=np.int64) // 4
    numbers = (groups % 2).astype(np.int64)
    marked = np.broadcast_to(groups[:, None, None, None], (40, 1, 2, 2)).astype(np.float32)
    train, held = detector._parts(marked, numbers, groups)
    assert not set(train.films[:, 0, 0, 0]) & set(held.films[:, 0, 0, 0])
    assert set(train.classes) == set(held.classes) == {0, 1}


def test_a_class_of_one_patient_is_refused(films: Float32) -> None:
    groups = np.where(np.arange(40) % 2, 100, np.arange(40)).astype(np.int64)
    with pytest.raises(DataError, match=r"'bright' has the films of one patient"):
        ClassifierDetector(config(), size=SIZE, device="cpu").fit(ArraySource(films, groups), TARGETS)


def test_films_without_a_class_and_a_single_class_are_refused(films: Float32) -> None:
    detector = ClassifierDetector(config(), size=SIZE, device="cpu")
    with pytest.raises(DataError, match="1 of 40 films have no class"):
        detector.fit(ArraySource(films), [Target(None), *TARGETS[1:]])
    with pytest.raises(DataError, match="at least one other"):
        detector.fit(ArraySource(films), [Target(0, "normal")] * 40)


def test_pretrained_weights_are_asked_for_taken_and_recorded(
    films: Float32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path))
    detector = ClassifierDetector(config(arch="resnet18", backbone_weights="pretrained"), size=SIZE, device="cpu")
    assert detector.backbone == "resnet18"
    with pytest.raises(MissingError, match="anomaly weights fetch resnet18"):
        detector.memory(40, 1)
    tensors = {name: tensor.numpy() for name, tensor in build("resnet18").state_dict().items()}
    part = {name: array for name, array in tensors.items() if not name.startswith(("layer4", "fc"))}
    stored = store_weights(part, WeightsFacts("resnet18", "random.safetensors", lacks=("layer4", "fc")))
    memory = detector.memory(40, 1)
    assert memory > 4 * 11e6 * 4

    class Heard(NullRecorder):
        words = ""

        def warn(self, words: str) -> None:
            self.words += words

    heard = Heard()
    detector.fit(ArraySource(films), TARGETS, recorder=heard)
    assert "lack layer4" in heard.words
    assert detector.made_of()["backbone_sha256"] == stored.sha256
    assert detector.made_of()["grad_cam_layer"] == "layer3"  # at this size layer4 no longer tells places apart


def test_scores_stay_apart_near_one() -> None:
    """A score is 1 - P(normal) summed over the other classes, so that sure answers keep their order."""
    logits = np.array([[0.0, 12.0], [0.0, 14.0]])
    chances = softmax(logits, axis=1)
    assert chances[1, 1].astype(np.float32) > chances[0, 1].astype(np.float32)
