"""The U-Net: that it learns, resumes bit for bit, gives one image one answer, and refuses what it cannot use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anomaly.config import PrepareConfig
from anomaly.errors import DataError, MissingError, ModelError, UsageError
from anomaly.nets.device import seeded
from anomaly.nets.zoo import build
from anomaly.prepare.geometry import mask_to_square
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32, Scan
from anomaly.runs import NullRecorder, RunRecorder, read_tensors, write_tensors
from anomaly.scans.phantom import make_phantom
from anomaly.segmenters.augment import Augment
from anomaly.segmenters.curve import THRESHOLDS, count, mean_curve
from anomaly.segmenters.network import Network
from anomaly.segmenters.settings import UNetConfig
from anomaly.segmenters.training import loss_of
from anomaly.segmenters.unet import UNet
from anomaly.weights import WeightsFacts, store_weights

SIZE = 32
SMALL: dict[str, Any] = {
    "encoder": "resnet18",
    "backbone_weights": "none",
    "decoder_channels": (32, 16, 16, 8, 8),
    "epochs": 2,
    "batch": 4,
    "learning_rate": 3e-3,
    "precision": "fp32",
    "segment_batch": 4,
}
Masks = NDArray[np.bool_]


def config(**settings: Any) -> UNetConfig:
    return UNetConfig(**{**SMALL, **settings})


@pytest.fixture(scope="module")
def outlined() -> tuple[Float32, Masks]:
    """Return 24 phantoms and their lungs."""
    prepare = Preparation(PrepareConfig(), SIZE)
    images, masks = [], []
    for index in range(24):
        film = make_phantom(index)
        prepared = prepare(Scan(f"phantom-{index}", film.pixels, 16))
        images.append(prepared.image)
        masks.append(mask_to_square(film.lung_mask, prepared.geometry))
    return np.stack(images), np.stack(masks)


def fitted(outlined: tuple[Float32, Masks], recorder: Any = None, **settings: Any) -> UNet:
    unet = UNet(config(**settings), size=SIZE, device="cpu")
    return unet.fit(ArraySource(outlined[0]), outlined[1], recorder=recorder)


@pytest.fixture(scope="module")
def unet(outlined: tuple[Float32, Masks]) -> UNet:
    """Return one that learnt for a while; never changed."""
    return fitted(outlined, epochs=8, augment=False)


def test_it_learns_lungs(unet: UNet, outlined: tuple[Float32, Masks]) -> None:
    images, masks = outlined
    train, held = unet.parts(np.arange(24))
    assert len(held) == 5
    guess = mean_curve(count(unet.mean_mask, mask) for mask in masks[held])
    np.testing.assert_allclose(unet.mean_mask, masks[train].mean(axis=0), atol=1e-6)
    assert unet.curve.highest > max(0.85, guess.highest)
    found = unet.segment(images)
    assert found.dtype == np.bool_
    assert np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(found, masks, strict=True)]) > 0.85


def test_the_threshold_is_the_best_on_validation_films(unet: UNet, outlined: tuple[Float32, Masks]) -> None:
    images, masks = outlined
    _, held = unet.parts(np.arange(24))
    chances = unet.chances(images[held])
    assert chances.dtype == np.float32
    assert chances.min() >= 0
    assert chances.max() <= 1
    again = mean_curve(count(chance, mask) for chance, mask in zip(chances, masks[held], strict=True))
    np.testing.assert_array_equal(unet.curve.iou, again.iou)
    assert unet.curve.iou[list(unet.curve.thresholds).index(unet.threshold)] == unet.curve.iou.max()
    np.testing.assert_array_equal(unet.segment(images[:3]), unet.chances(images[:3]) >= np.float32(unet.threshold))
    assert unet.curve.thresholds.tolist() == pytest.approx(THRESHOLDS.tolist())


def test_one_image_one_answer(unet: UNet, outlined: tuple[Float32, Masks]) -> None:
    images = outlined[0]
    before = images.copy()
    together = unet.chances(images)
    np.testing.assert_array_equal(images, before)
    for place in (0, 5, 23):
        np.testing.assert_array_equal(unet.chances(images[place : place + 1])[0], together[place])
    np.testing.assert_array_equal(unet.chances(images[::-1])[::-1], together)
    assert unet.chances(images[:0]).shape == (0, SIZE, SIZE)


def test_what_is_saved_gives_the_same_bits(unet: UNet, outlined: tuple[Float32, Masks], tmp_path: Path) -> None:
    unet.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    other = UNet.load(tmp_path, device="cpu")
    np.testing.assert_array_equal(other.chances(outlined[0]), unet.chances(outlined[0]))
    np.testing.assert_array_equal(other.mean_mask, unet.mean_mask)
    np.testing.assert_array_equal(other.curve.iou, unet.curve.iou)
    assert (other.threshold, other.config, other.channels) == (unet.threshold, unet.config, 1)
    assert other.made_of() == unet.made_of()
    other.save(tmp_path / "again")
    assert (tmp_path / "again/weights.safetensors").read_bytes() == (tmp_path / "weights.safetensors").read_bytes()


def test_a_damaged_or_foreign_file_is_refused(unet: UNet, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Fit the model again"):
        UNet.load(tmp_path)
    unet.save(tmp_path)
    arrays, meta = read_tensors(tmp_path / "weights.safetensors")
    for changed, said in (({"method": "padim"}, "'padim' model"), ({"size": None}, "does not describe its model")):
        write_tensors(tmp_path / "weights.safetensors", arrays, {**meta, **changed})
        with pytest.raises(ModelError, match=said):
            UNet.load(tmp_path)
    write_tensors(tmp_path / "weights.safetensors", {k: v for k, v in arrays.items() if k != "iou"}, meta)
    with pytest.raises(ModelError, match="does not describe its model"):
        UNet.load(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="Cannot read"):
        UNet.load(tmp_path)


def test_a_resumed_training_ends_where_an_unbroken_one_does(outlined: tuple[Float32, Masks], tmp_path: Path) -> None:
    whole = fitted(outlined, RunRecorder(tmp_path / "whole", resume=False), epochs=3)

    class Stopped(RunRecorder):
        def checkpoint(self, arrays: Any, meta: Any) -> None:
            super().checkpoint(arrays, meta)
            if meta["step"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(outlined, Stopped(tmp_path / "broken", resume=False), epochs=3)
    resumed = fitted(outlined, RunRecorder(tmp_path / "broken", resume=True), epochs=3)
    for one, name in ((whole, "whole"), (resumed, "broken")):
        one.save(tmp_path / name)
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


def test_it_stops_when_validation_dice_no_longer_rises_and_keeps_the_best(
    outlined: tuple[Float32, Masks], tmp_path: Path
) -> None:
    recorder = RunRecorder(tmp_path, resume=False)
    stopped = fitted(outlined, recorder, epochs=40, patience=1, learning_rate=0.1)
    recorder.flush()
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text(encoding="utf-8").splitlines()[1:]]
    dices = [float(value) for _, name, value in rows if name == "val_dice"]
    arrays, meta = read_tensors(tmp_path / "checkpoints" / "last.safetensors")
    assert len(dices) < 40
    assert int(np.argmax(dices)) + 1 == meta["best"] == len(dices) - 1
    kept = stopped._net.state_dict()
    assert all(np.array_equal(arrays[f"best/{name}"].ravel(), value.numpy().ravel()) for name, value in kept.items())


def test_a_dead_training_and_one_that_learnt_nothing_say_so(outlined: tuple[Float32, Masks]) -> None:
    with pytest.raises(UsageError, match=r"died in epoch \d.*learning_rate"):
        fitted(outlined, learning_rate=1e30)

    class Heard(NullRecorder):
        words = ""

        def warn(self, words: str) -> None:
            self.words += words

    heard = Heard()
    fitted(outlined, heard, epochs=1, learning_rate=1e-9)
    assert "no better" in heard.words


def test_colour_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.2, 0.2, (24, 3, SIZE, SIZE)).astype(np.float32)
    masks = np.zeros((24, SIZE, SIZE), np.bool_)
    for image, mask in zip(images, masks, strict=True):
        (a, b), (c, d) = rng.integers(2, 22, (2, 2))
        image[1, c : c + 8, d : d + 8] += 0.7  # as bright, but green
        image[:, a : a + 8, b : b + 8] = [[[0.9]], [[-0.6]], [[-0.6]]]
        mask[a : a + 8, b : b + 8] = True
    unet = UNet(config(epochs=6, augment=False), size=SIZE, device="cpu").fit(ArraySource(images), masks)
    assert unet.channels == 3
    assert unet.curve.highest > 0.6
    with pytest.raises(DataError, match=r"float32 \(N, 3, 32, 32\)"):
        unet.chances(images[:, :1])


def test_a_picture_and_its_mask_are_changed_alike() -> None:
    masks = torch.zeros(8, 64, 64, dtype=torch.bool)
    masks[:, 10:40, 12:30] = True
    films = masks[:, None].float() * 2 - 1
    with seeded(0):
        changed, moved = Augment(config(rotation=20, shift=0.2, brightness=0))(films, masks)
    assert (changed.min(), changed.max()) == (-1, 1)
    assert ((changed[:, 0] > 0) == moved).float().mean() > 0.985
    assert (moved != masks).float().mean() > 0.05
    assert len({mask.sum().item() for mask in moved}) > 1, "every film by draws of its own"
    same, still = Augment(config(augment=False))(films, masks)
    torch.testing.assert_close(same, films)
    assert torch.equal(still, masks)


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[50.0, -50.0], [-50.0, -50.0]]])
    masks = torch.tensor([[[True, False], [False, False]]] * 2)
    half = np.log(2) + 1 - (2 * 0.5 + 1) / (4 * 0.25 + 1 + 1)
    np.testing.assert_allclose(loss_of(logits, masks).numpy(), [half, 0.0], atol=1e-6)


def test_patients_are_whole_in_training_and_validation() -> None:
    unet = UNet(config(), size=SIZE)
    groups = np.repeat(np.arange(8), 3)
    train, held = unet.parts(groups)
    assert not set(groups[train]) & set(groups[held])
    assert sorted([*train, *held]) == list(range(24))
    with pytest.raises(DataError, match="one patient"):
        unet.parts(np.zeros(24, np.int64))


def test_pretrained_weights_are_asked_for_taken_and_their_norms_settled(
    outlined: tuple[Float32, Masks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path))
    unet = UNet(config(backbone_weights="pretrained", epochs=1), size=SIZE, device="cpu")
    assert unet.backbone == "resnet18"
    with pytest.raises(MissingError, match="anomaly weights fetch resnet18"):
        unet.check()
    tensors = {name: tensor.numpy() for name, tensor in build("resnet18").state_dict().items()}
    wrong = {**tensors, "conv1.weight": tensors["conv1.weight"][:3]}
    for given, said in ((wrong, "has shape"), ({"other": np.zeros(3)}, "as in torchvision")):
        store_weights(given, WeightsFacts("resnet18", "random"), overwrite=True)
        with pytest.raises(ModelError, match=said):
            unet.check()
    part = {name: array for name, array in tensors.items() if not name.startswith(("layer4", "fc"))}
    halves = (0.5, 0.5, 0.5)
    stored = store_weights(part, WeightsFacts("resnet18", "random", mean=halves, std=halves), overwrite=True)

    class Heard(NullRecorder):
        words = ""

        def warn(self, words: str) -> None:
            self.words += words

    heard = Heard()
    unet.fit(ArraySource(outlined[0]), outlined[1], recorder=heard)
    assert "lack layer4" in heard.words
    assert unet.made_of()["encoder_sha256"] == stored.sha256
    torch.testing.assert_close(unet._net(torch.zeros(1, 1, SIZE, SIZE)), unet._net(torch.zeros(1, 3, SIZE, SIZE)))
    assert float(unet._net.gain[0, 0, 0, 0]) == 1.0
    with seeded(0):
        net = Network(config(), size=SIZE)
    net.take(part)
    images = torch.tensor(outlined[0])
    before = net(images)
    net.unfold_norms([images])
    norm = net.network.get_submodule("encoder.layer1.0.bn1")
    assert (norm.running_var - 1).abs().max() > 0.01
    assert (net.network.get_submodule("decoder.blocks.0.conv1.1").running_var == 1).all(), "drawn, not folded"
    torch.testing.assert_close(net(images), before, atol=1e-3, rtol=1e-3)


def test_what_cannot_be_used_is_refused(unet: UNet, outlined: tuple[Float32, Masks]) -> None:
    images, masks = outlined
    new = UNet(config(), size=SIZE, device="cpu")
    for call in (lambda: new.chances(images), lambda: new.segment(images), lambda: new.save(Path("nowhere"))):
        with pytest.raises(ModelError, match="not been fitted"):
            call()
    empty = masks.copy()
    empty[3] = False
    for wrong, said in (
        (masks[:-1], "one an image"),
        (masks[:, 1:], "one an image"),
        (masks.astype(np.uint8), "uint8"),
        (empty, "1 are empty"),
    ):
        with pytest.raises(DataError, match=said):
            new.fit(ArraySource(images), wrong)
    with pytest.raises(DataError, match="range over"):
        new.fit(ArraySource(images * 2), masks)
    with pytest.raises(DataError, match="needs images"):
        new.fit(ArraySource(images[:0]), masks[:0])
    with pytest.raises(DataError, match="cannot learn from 1 film"):
        new.fit(ArraySource(images[:2]), masks[:2])
    with pytest.raises(DataError, match="NaN"):
        unet.chances(np.full_like(images[:1], np.nan))
    with pytest.raises(DataError, match="float64"):
        unet.chances(images.astype(np.float64))


@pytest.mark.parametrize("encoder", ["resnet81", "zzz", "timm-skresnet18"])
def test_an_unknown_encoder_is_refused_with_one_that_is_known(encoder: str) -> None:
    with pytest.raises(UsageError, match=rf"'{encoder}'.*resnet18|'{encoder}'.*did you mean"):
        UNet(config(encoder=encoder), size=SIZE).check()
