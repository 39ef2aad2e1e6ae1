"""RetinaNet: planted squares are found, training resumes and stops, boxes turn with the film, mAP is COCO's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomaly.detectors.retinanet.augment import Batch, augmented
from anomaly.detectors.retinanet.detector import RetinaNetDetector, box_map
from anomaly.detectors.retinanet.precision import mean_average_precision
from anomaly.detectors.retinanet.settings import RetinaNetConfig
from anomaly.errors import DataError, MissingError, UsageError
from anomaly.nets.device import seeded
from anomaly.nets.retinanet import BoxNet
from anomaly.nets.zoo import build
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32, Target
from anomaly.runs import NullRecorder, RunRecorder
from anomaly.weights import WeightsFacts, store_weights

SIZE = 64
SMALL: dict[str, Any] = {
    "backbone": "test_resnet",
    "backbone_weights": "none",
    "width": 16,
    "epochs": 2,
    "warmup": 5,
    "learning_rate": 3e-3,
    "step_epochs": 8,
    "smallest": 0.125,
    "precision": "fp32",
    "score_batch": 4,
}
NONE = np.zeros((0, 4), np.float32)


def squares(count: int, seed: int) -> tuple[Float32, list[Target]]:
    """Return films of noise; every second one has a bright square somewhere."""
    rng = np.random.default_rng(seed)
    films = rng.normal(-0.3, 0.15, (count, 1, SIZE, SIZE))
    targets = []
    for i, film in enumerate(films):
        if i % 2 == 0:
            targets.append(Target(0, "normal", NONE))
            continue
        side = int(rng.integers(14, 22))
        x, y = rng.integers(0, SIZE - side, 2)
        film[0, y : y + side, x : x + side] += 0.8
        targets.append(Target(1, "abnormal", np.array([[x, y, x + side, y + side]], np.float32)))
    return np.clip(films, -1, 1).astype(np.float32), targets


FILMS, TARGETS = squares(24, 0)


def fitted(recorder: Any = None, films: Float32 = FILMS, targets: Any = TARGETS, **settings: Any) -> RetinaNetDetector:
    detector = RetinaNetDetector(RetinaNetConfig(**{**SMALL, **settings}), size=SIZE, device="cpu")
    return detector.fit(ArraySource(films), targets, recorder=recorder)


@pytest.mark.slow
def test_planted_squares_are_found() -> None:
    detector = fitted(None, *squares(100, 1), epochs=12, patience=12)
    films, targets = squares(40, 2)
    out = detector.score(films)
    truths = [NONE if target.boxes is None else target.boxes for target in targets]
    assert out.boxes is not None
    assert mean_average_precision(out.boxes, truths).at_half > 0.4
    assert np.mean(out.scores[1::2] > detector.cut) > 0.9
    assert np.mean(out.scores[::2] <= detector.cut) > 0.9
    assert out.heatmaps is not None
    for heat, boxes, (truth, *_) in zip(out.heatmaps[1::2], out.boxes[1::2], truths[1::2], strict=True):
        assert heat.max() == boxes[0, 4]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:4] <= SIZE).all()
        assert truth.shape == (4,)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_resumed_training_ends_where_an_unbroken_one_does(optimizer: str, tmp_path: Path) -> None:
    settings = {"optimizer": optimizer, "epochs": 3, "learning_rate": 1e-3}
    whole = fitted(RunRecorder(tmp_path / "whole", resume=False), **settings)

    class Stopped(RunRecorder):
        def checkpoint(self, arrays: Any, meta: Any) -> None:
            super().checkpoint(arrays, meta)
            if meta["step"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(Stopped(tmp_path / "broken", resume=False), **settings)
    resumed = fitted(RunRecorder(tmp_path / "broken", resume=True), **settings)
    for name, array in whole._state().items():
        np.testing.assert_array_equal(array, resumed._state()[name], err_msg=name)


def test_it_stops_when_the_validation_loss_no_longer_falls_and_keeps_the_best(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, resume=False)
    fitted(recorder, epochs=30, patience=1, learning_rate=0.03)
    recorder.flush()
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()[1:]]
    losses = [float(value) for _, name, value in rows if name == "val_loss"]
    best = next(int(float(value)) for _, name, value in rows if name == "best_epoch")
    assert len(losses) < 30
    assert int(np.argmin(losses)) + 1 == best == len(losses) - 1


def test_a_dead_training_says_what_to_change() -> None:
    with pytest.raises(UsageError, match=r"died in epoch \d.*learning_rate"):
        fitted(learning_rate=1e30, warmup=0, optimizer="sgd", clip=1e30)


def test_scores_go_on_below_the_floor_where_no_box_is_drawn() -> None:
    out = fitted(epochs=1, score_threshold=0.99).score(FILMS)
    assert out.boxes is not None
    assert out.heatmaps is not None
    assert {boxes.shape for boxes in out.boxes} == {(0, 5)}
    assert not out.heatmaps.any()
    assert len(np.unique(out.scores)) == len(FILMS)


def test_a_map_holds_the_highest_confidence_at_every_pixel() -> None:
    heat = box_map(np.array([[1, 1, 5, 4, 0.9], [3, 0, 8, 3, 0.2]], np.float32), 8)
    assert heat.dtype == np.float32
    expected = np.zeros((8, 8), np.float32)
    expected[0:3, 3:8] = 0.2
    expected[1:4, 1:5] = 0.9
    np.testing.assert_array_equal(heat, expected)
    assert not box_map(np.zeros((0, 5), np.float32), 8).any()


def shown(**settings: Any) -> Batch:
    films = torch.full((8, 1, SIZE, SIZE), -1.0)
    films[:, :, 20:36, 8:28] = 1.0
    boxes = [torch.tensor([[8.0, 20.0, 28.0, 36.0], [60.0, 0.0, 64.0, 4.0]])] * 7 + [torch.zeros(0, 4)]
    kinds = [torch.tensor([0, 1])] * 7 + [torch.zeros(0, dtype=torch.int64)]
    with seeded(0):
        return augmented(Batch(films, boxes, kinds), RetinaNetConfig(**settings))


def test_boxes_go_with_their_film() -> None:
    still = shown(flip=0, scale=0, shift=0)
    torch.testing.assert_close(still.boxes[0], torch.tensor([[8.0, 20.0, 28.0, 36.0], [60.0, 0.0, 64.0, 4.0]]))
    mirrored = shown(flip=1, scale=0, shift=0)
    torch.testing.assert_close(mirrored.films, still.films.flip(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored.boxes[0][0], torch.tensor([SIZE - 28.0, 20.0, SIZE - 8.0, 36.0]))
    moved = shown(flip=0.5, scale=0.2, shift=0.1)
    assert moved.boxes[7].shape == (0, 4)
    assert {len(boxes) for boxes in moved.boxes[:7]} == {1, 2}, "what is moved out of the picture is no box any more"
    assert all(len(kinds) == len(boxes) for kinds, boxes in zip(moved.kinds, moved.boxes, strict=True))
    for film, boxes in zip(moved.films[:7], moved.boxes[:7], strict=True):
        rows, columns = torch.nonzero(film[0] > 0, as_tuple=True)
        lit = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        torch.testing.assert_close(boxes[0], lit, atol=0.6, rtol=0)


def test_a_box_is_of_the_kind_of_its_film() -> None:
    kinds = [Target(t.label, ("b", "a")[i % 4 == 1] if t.label else "normal", t.boxes) for i, t in enumerate(TARGETS)]
    detector = fitted(targets=kinds, epochs=1, score_threshold=0.0)
    assert detector._kinds == ("a", "b")
    assert detector.classes == ()
    out = detector.score(FILMS[:3])
    assert out.boxes is not None
    np.testing.assert_array_equal([boxes[0, 4] for boxes in out.boxes], out.scores)


def test_abnormal_films_without_boxes_are_left_out_and_said() -> None:
    class Warned(NullRecorder):
        said = ""

        def warn(self, message: str) -> None:
            self.said += message

    recorder = Warned()
    fitted(recorder, targets=[Target(1, "abnormal"), *TARGETS[1:]], epochs=1)
    assert "1 abnormal films have no box" in recorder.said


def test_targets_that_cannot_be_learnt_from_are_refused() -> None:
    wrong = Target(1, "abnormal", np.array([[5, 5, 5, 9]], np.float32))
    with pytest.raises(DataError, match="x1 < x2"):
        fitted(targets=[wrong, *TARGETS[1:]])
    with pytest.raises(DataError, match="labelled normal has boxes"):
        fitted(targets=[Target(0, "normal", TARGETS[1].boxes), *TARGETS[1:]])
    with pytest.raises(DataError, match="No film has a box"):
        fitted(targets=[Target(i % 2, None, NONE) for i in range(24)])
    groups = np.where(np.arange(24) % 2, 100, np.arange(24)).astype(np.int64)
    with pytest.raises(DataError, match="Films with boxes are of fewer than two patients"):
        RetinaNetDetector(RetinaNetConfig(**SMALL), size=SIZE, device="cpu").fit(ArraySource(FILMS, groups), TARGETS)


def test_networks_without_such_maps_are_refused() -> None:
    for arch, said in (("alexnet", "no maps of 1/8"), ("vit_b_16", "cannot carry a pyramid")):
        with pytest.raises(UsageError, match=said):
            BoxNet(arch, 1, size=SIZE, width=8, smallest=0.1)


def test_pretrained_norms_keep_their_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingError):
        fitted(backbone_weights="pretrained")
    with seeded(3):
        network = build("test_resnet")
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    store_weights(tensors, WeightsFacts("test_resnet", "random", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), None))
    detector = fitted(backbone_weights="pretrained", epochs=1)
    kept = detector._net.body.state_dict()
    np.testing.assert_array_equal(kept["bn1.running_mean"].numpy(), tensors["bn1.running_mean"])
    assert (kept["conv1.0.weight" if "conv1.0.weight" in kept else "conv1.weight"].numpy() != 0).any()
    assert detector.backbone == "test_resnet"
    assert len(detector.made_of()["backbone_sha256"]) == 64


def test_perfect_boxes_have_a_map_of_1_and_none_has_0() -> None:
    truths = [np.array([[1, 2, 30, 40], [50, 50, 60, 63]]), NONE, np.array([[5, 5, 25, 20]])]
    perfect = [np.column_stack([boxes, np.full(len(boxes), 0.7)]) for boxes in truths]
    found = mean_average_precision(perfect, truths)
    assert found.at_half == pytest.approx(1.0)
    assert found.mean == pytest.approx(1.0)
    nothing = mean_average_precision([np.zeros((0, 5))] * 3, truths)
    assert nothing.at_half == nothing.mean == 0.0
    wide = [boxes + np.array([0, 0, 10, 0, 0]) if len(boxes) else boxes for boxes in perfect]
    loose = mean_average_precision(wide, truths)
    assert loose.at_half == pytest.approx(1.0, abs=0.4)
    assert 0 < loose.mean < loose.at_half
    with pytest.raises(DataError, match="no film has a true box"):
        mean_average_precision([np.zeros((0, 5))], [NONE])
