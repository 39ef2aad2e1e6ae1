"""Encoder and variance head: shapes, ranges, starts, and what their trainings teach and resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anomaly.detectors.anogan.augment import Augmentation
from anomaly.detectors.anogan.descent import DescentSettings
from anomaly.detectors.anogan.invert import EncoderTraining
from anomaly.detectors.anogan.uncertainty import VarianceTraining
from anomaly.errors import UsageError
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.nets.device import freeze, open_fabric, seeded
from anomaly.nets.encoder import Encoder
from anomaly.nets.variance import HIGHEST, LOWEST, VarianceHead
from anomaly.records import Float32
from anomaly.runs import Arrays, NullRecorder

SIZE, LATENT, WIDTH = 32, 8, 8
SHAPE = {"channels": 1, "size": SIZE, "width": WIDTH}

Train = Callable[..., nn.Module]


class Kept(NullRecorder):
    """Keeps the last checkpoint and the history in memory; interrupts where told."""

    def __init__(self, kept: tuple[Arrays, dict[str, Any]] | None = None, stop_at: int | None = None) -> None:
        self.kept, self.stop_at = kept, stop_at
        self.history: dict[int, float] = {}
        self.names: set[str] = set()

    def scalar(self, step: int, name: str, value: float) -> None:
        self.history[step] = value
        self.names.add(name)

    def progress(self, done: int, total: int, what: str) -> None:
        if done == self.stop_at:
            raise KeyboardInterrupt

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.kept = ({name: array.copy() for name, array in arrays.items()}, dict(meta))

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        return self.kept


@pytest.fixture(scope="module")
def nets() -> tuple[Generator, Discriminator]:
    """A frozen generator and discriminator with lively weights."""
    with seeded(0):
        generator, discriminator = Generator(latent=LATENT, **SHAPE), Discriminator(**SHAPE)
        for part in (*generator.modules(), *discriminator.modules()):
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(part.weight, 0.0, 0.2)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.bias)
    freeze(generator)
    freeze(discriminator)
    return generator, discriminator


@pytest.fixture(scope="module")
def drawn(nets: tuple[Generator, Discriminator]) -> tuple[Float32, Tensor]:
    """24 films that the generator drew, and the latents it drew them from."""
    latents = torch.randn(24, LATENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return nets[0](latents).numpy(), latents


def settings(steps: int = 4, **changed: Any) -> DescentSettings:
    return DescentSettings(**{"steps": steps, "batch": 8, "learning_rate": 1e-3, "checkpoint_every": 2, **changed})


@pytest.fixture
def train_encoder(nets: tuple[Generator, Discriminator], drawn: tuple[Float32, Tensor]) -> Train:
    def train(how: DescentSettings, recorder: NullRecorder, augment: Augmentation | None = None) -> nn.Module:
        with seeded(2):
            encoder = Encoder(latent=LATENT, **SHAPE)
        fabric = open_fabric("cpu", "fp32")
        EncoderTraining(encoder, *nets, how, kappa=1.0, seed=3, fabric=fabric, augment=augment).run(drawn[0], recorder)
        return encoder

    return train


@pytest.fixture
def train_variance(nets: tuple[Generator, Discriminator], drawn: tuple[Float32, Tensor]) -> Train:
    def train(how: DescentSettings, recorder: NullRecorder, films: Float32 | None = None) -> nn.Module:
        with seeded(2):
            head = VarianceHead(WIDTH)
        films = drawn[0] * np.float32(0.5) if films is None else films
        VarianceTraining(head, nets[0], how, seed=3, fabric=open_fabric("cpu", "fp32")).run(films, drawn[1], recorder)
        return head

    return train


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 64)])
def test_an_encoder_turns_images_into_latents_without_bounds(channels: int, size: int) -> None:
    with seeded(0):
        encoder = Encoder(latent=5, channels=channels, size=size, width=4)
    images = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert encoder(images).shape == (3, 5)
    nn.init.constant_(encoder.layers[-1].bias, 7.0)
    assert (encoder(images) > 3.0).all()


def test_an_encoder_starts_as_the_discriminator_does() -> None:
    with seeded(0):
        encoder = Encoder(latent=16, channels=1, size=64, width=16)
    for part in encoder.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(part, nn.BatchNorm2d):
            assert part.weight.mean().item() == pytest.approx(1.0, abs=0.02)


def test_an_encoder_of_an_impossible_size_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Encoder(latent=8, channels=1, size=48, width=8)


def test_a_trained_encoder_finds_where_the_generator_drew(
    train_encoder: Train, nets: tuple[Generator, Discriminator], drawn: tuple[Float32, Tensor]
) -> None:
    """Four times nearer than the drawing of the prior's mean, and towards the very latent."""
    recorder = Kept()
    encoder = train_encoder(settings(90, learning_rate=5e-3, checkpoint_every=90), recorder)
    films = torch.from_numpy(drawn[0])
    with torch.no_grad():
        latents = encoder(films)
        missed = (nets[0](latents) - films).pow(2).mean()
        before = (nets[0](torch.zeros_like(latents)) - films).pow(2).mean()
    assert missed < before / 4
    assert torch.cosine_similarity(latents, drawn[1]).mean() > 0.7
    assert recorder.names == {"encoder_loss"}
    assert sorted(recorder.history) == list(range(10, 91, 10))
    assert recorder.history[90] < recorder.history[10] / 4
    assert not encoder.training
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_the_feature_term_weighs_in(train_encoder: Train, nets: tuple[Generator, Discriminator]) -> None:
    """The first loss is that of eq. 5, reckoned by hand."""
    generator, discriminator = nets
    recorder = Kept()
    train_encoder(settings(1, batch=24), recorder)
    with seeded(2):
        encoder = Encoder(latent=LATENT, **SHAPE)
    with torch.no_grad():
        films = generator(torch.randn(24, LATENT, generator=torch.Generator().manual_seed(1)))
        twins = generator(encoder.train()(films))
        apart = (discriminator.features(films) - discriminator.features(twins)).pow(2).mean()
        assert recorder.history[1] == pytest.approx(float((films - twins).pow(2).mean() + apart), rel=1e-4)
    assert apart > 0.01, "else the test says nothing"


def test_the_generator_and_discriminator_stay_as_they_are(
    train_encoder: Train, nets: tuple[Generator, Discriminator]
) -> None:
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in nets]
    train_encoder(settings(2), NullRecorder())
    for net, state in zip(nets, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("which", ["train_encoder", "train_variance"])
def test_an_interrupted_training_goes_on_bit_for_bit(which: str, request: pytest.FixtureRequest) -> None:
    train: Train = request.getfixturevalue(which)
    more: dict[str, Any] = {"augment": Augmentation(0.05, 0.05, 0.1)} if which == "train_encoder" else {}
    straight = Kept()
    whole = train(settings(4), straight, **more)
    stopped = Kept(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        train(settings(4), stopped, **more)
    assert stopped.kept is not None
    assert stopped.kept[1] == {"step": 2}
    resumed = Kept(stopped.kept)
    again = train(settings(4), resumed, **more)
    assert whole.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())
    assert straight.history[4] == resumed.history[4]
    finished = train(settings(4), resumed, **more)
    assert all(torch.equal(value, finished.state_dict()[key]) for key, value in whole.state_dict().items())


def test_augmentation_changes_what_is_encoded(train_encoder: Train) -> None:
    plainly, moved = Kept(), Kept()
    train_encoder(settings(1), plainly)
    train_encoder(settings(1), moved, augment=Augmentation(0.1, 0.1, 0.2))
    assert plainly.history[1] != moved.history[1]


@pytest.mark.parametrize("which", ["train_encoder", "train_variance"])
def test_fewer_films_than_a_batch_still_train(which: str, request: pytest.FixtureRequest) -> None:
    recorder = Kept()
    request.getfixturevalue(which)(settings(2, batch=100), recorder)
    assert np.isfinite(recorder.history[2])


def test_a_training_that_dies_says_so(train_encoder: Train) -> None:
    with pytest.raises(UsageError, match=r"encoder died at step 10: .*smaller learning rate"):
        train_encoder(settings(30, learning_rate=1e30), NullRecorder())


def test_log_variances_stay_within_a_grey_level_and_black_for_white() -> None:
    with seeded(0):
        head = VarianceHead(4)
    hidden = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert head(hidden).shape == (2, 16, 16)
    extremes = head(1e4 * hidden).detach().numpy()
    assert extremes.min() == pytest.approx(LOWEST)
    assert extremes.max() == pytest.approx(HIGHEST)
    head.expect(0.09)
    assert head(0.0 * hidden).detach().numpy() == pytest.approx(np.log(0.09))


def test_the_head_learns_where_the_twin_misses(train_variance: Train, nets: tuple[Generator, Discriminator]) -> None:
    """Films that are their twins but for noise of sd 0.4 where they are bright and 0.04 where dark."""
    latents = torch.randn(24, LATENT, generator=torch.Generator().manual_seed(1))
    generator = nets[0]
    with torch.no_grad():
        twins, hidden = generator(latents), generator.hidden(latents)
    noise = np.random.default_rng(0).standard_normal(twins.shape).astype(np.float32)
    spread = np.where(twins.numpy() > 0.0, np.float32(0.4), np.float32(0.04))
    recorder = Kept()
    head = train_variance(settings(300, learning_rate=2e-2), recorder, films=twins.numpy() + spread * noise)
    assert not head.training
    with torch.no_grad():
        sd = torch.exp(0.5 * head(hidden)).numpy()
    bright = twins.numpy()[:, 0] > 0.0
    assert np.median(sd[bright]) > 2.5 * np.median(sd[~bright])
    assert 0.03 < np.median(sd[~bright]) < 0.15
    assert recorder.names == {"variance_loss"}
    assert recorder.history[300] < recorder.history[10]
