"""AnoGAN: training that resumes bit for bit, a search that keeps the best, the score of Schlegl et al. 2017."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from anomaly.config import validate
from anomaly.detectors.anogan.detector import AnoGan, AnoGanConfig
from anomaly.detectors.anogan.search import search
from anomaly.detectors.anogan.terms import Match, schlegl_2017
from anomaly.detectors.anogan.training import Training, TrainingSettings
from anomaly.errors import UsageError
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.nets.device import freeze, open_fabric
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32
from anomaly.runs import Arrays, NullRecorder

SIZE = 32
SMALL = {"latent": 8, "width": 8, "steps": 40, "batch": 8, "search_steps": 10, "score_batch": 4, "precision": "fp32"}

Phantoms = Callable[..., Float32]


def small(*, size: int = SIZE, seed: int = 0, **settings: Any) -> AnoGan:
    return AnoGan(AnoGanConfig(**{**SMALL, **settings}), size=size, device="cpu", seed=seed)


class MemoryRecorder(NullRecorder):
    """Keeps the history and the last checkpoint in memory; interrupts the training where told."""

    def __init__(self, *, kept: tuple[Arrays, dict[str, Any]] | None = None, stop_at: int | None = None) -> None:
        self.kept, self.stop_at = kept, stop_at
        self.history: list[tuple[int, str, float]] = []
        self.samples: dict[int, Float32] = {}
        self.steps: list[int] = []

    def scalar(self, step: int, name: str, value: float) -> None:
        self.history.append((step, name, value))

    def images(self, step: int, images: Float32) -> None:
        self.samples[step] = images

    def progress(self, done: int, total: int, what: str) -> None:
        self.steps.append(done)
        if done == self.stop_at:
            raise KeyboardInterrupt

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.kept = ({name: array.copy() for name, array in arrays.items()}, dict(meta))

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        return self.kept


def equal(a: Arrays, b: Arrays) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(np.ravel(a[name]), np.ravel(b[name]), err_msg=name)


# training


def test_an_interrupted_training_goes_on_bit_for_bit(phantom_images: Phantoms) -> None:
    source = ArraySource(phantom_images(20, SIZE))
    straight = MemoryRecorder()
    whole = small(checkpoint_every=20).fit(source, recorder=straight)
    stopped = MemoryRecorder(stop_at=27)
    detector = small(checkpoint_every=20)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(source, recorder=stopped)
    assert stopped.kept is not None
    assert stopped.kept[1] == {"step": 20}
    resumed = MemoryRecorder(kept=stopped.kept)
    detector.fit(source, recorder=resumed)
    assert resumed.steps == list(range(21, 41))
    equal(whole._state(), detector._state())
    assert straight.kept is not None
    assert resumed.kept is not None
    equal(straight.kept[0], resumed.kept[0])
    assert [row for row in straight.history if row[0] > 20] == resumed.history
    np.testing.assert_array_equal(straight.samples[40], resumed.samples[40])


def test_a_finished_training_resumed_gives_the_same_model(phantom_images: Phantoms) -> None:
    source = ArraySource(phantom_images(20, SIZE))
    recorder = MemoryRecorder()
    whole = small(steps=6).fit(source, recorder=recorder)
    again = small(steps=6).fit(source, recorder=recorder)
    equal(whole._state(), again._state())


def test_training_is_recorded(phantom_images: Phantoms) -> None:
    recorder = MemoryRecorder()
    small(steps=13, checkpoint_every=5).fit(ArraySource(phantom_images(20, SIZE)), recorder=recorder)
    assert recorder.steps == list(range(1, 14))
    assert {step for step, _, _ in recorder.history} == {10, 13}
    assert {name for _, name, _ in recorder.history} == {"d_loss", "g_loss", "d_real", "d_fake"}
    assert all(np.isfinite(value) for _, _, value in recorder.history)
    assert sorted(recorder.samples) == [5, 10, 13]
    assert all(grid.shape == (36, 1, SIZE, SIZE) and np.abs(grid).max() <= 1 for grid in recorder.samples.values())


def test_fewer_films_than_a_batch_still_train(phantom_images: Phantoms) -> None:
    assert np.isfinite(
        small(steps=3).fit(ArraySource(phantom_images(3, SIZE))).score(phantom_images(2, SIZE)).scores
    ).all()


def test_every_epoch_sees_every_film_once_in_another_order() -> None:
    settings = TrainingSettings(40, 5, 2e-4, 0.1, 0.999, 100)
    fabric = open_fabric("cpu", "fp32")
    shape = {"channels": 1, "size": SIZE, "width": 4}
    training = Training(Generator(latent=4, **shape), Discriminator(**shape), settings, seed=3, fabric=fabric)
    epochs = []
    for epoch in range(2):
        seen: list[int] = []
        for step in range(4):
            training.step = 4 * epoch + step
            seen += training._choose(20).tolist()
        assert sorted(seen) == list(range(20))
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_another_seed_gives_another_model(phantom_images: Phantoms) -> None:
    films = phantom_images(20, SIZE)
    a, b = (small(steps=3, seed=seed).fit(ArraySource(films)).score(films).scores for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_the_averaged_generator_has_batch_norm_statistics_of_its_own_fakes(phantom_images: Phantoms) -> None:
    recorder = MemoryRecorder()
    detector = small().fit(ArraySource(phantom_images(20, SIZE)), recorder=recorder)
    assert recorder.kept is not None
    copied, state = recorder.kept[0], detector._state()
    statistics = [name for name in state if name.startswith("generator/") and name.endswith(("_mean", "_var"))]
    assert len(statistics) == 2 * 3
    for name in statistics:
        assert not np.allclose(state[name], copied[name.replace("generator/", "averaged/")]), "not the initial ones"
        assert not np.allclose(state[name], copied[name]), "not the trained generator's either"
    weights = [name for name in state if name.endswith("weight") and name.startswith("generator/")]
    assert all(np.array_equal(state[n], copied[n.replace("generator/", "averaged/")]) for n in weights)
    latents = torch.randn(2048, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        alone = detector._generator(latents)
        together = detector._generator.train()(latents)
    detector._generator.eval()
    assert (alone - together).abs().mean() < 0.01
    assert (alone - together).abs().max() < 0.1


# search


@pytest.fixture(scope="module")
def nets() -> tuple[Generator, Discriminator, Tensor]:
    """Untrained networks with lively weights, and scans that one of them drew."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"channels": 1, "size": SIZE, "width": 8}
        generator, discriminator = Generator(latent=8, **shape), Discriminator(**shape)
        for net in (generator, discriminator):
            for part in net.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(part.weight, 0.0, 0.1)
                elif isinstance(part, nn.BatchNorm2d):
                    nn.init.normal_(part.bias)  # at 0 every unit would be dead at the common start z = 0
            freeze(net)
        with torch.no_grad():
            scans = 0.5 * generator(2 * torch.randn(6, 8))
    return generator, discriminator, scans


def loss_of(generator: Generator, discriminator: Discriminator, scans: Tensor, z: Tensor, weight: float) -> Tensor:
    twins = generator(z)
    residual = (scans - twins).abs().mean(dim=(1, 2, 3))
    features = (discriminator.features(scans) - discriminator.features(twins)).abs().mean(dim=(1, 2, 3))
    return (1 - weight) * residual + weight * features


def find(nets: tuple[Generator, Discriminator, Tensor], steps: int, rate: float = 0.05, weight: float = 0.1) -> Tensor:
    generator, discriminator, scans = nets
    return search(
        generator,
        discriminator,
        scans,
        steps=steps,
        learning_rate=rate,
        weight=weight,
        autocast=contextlib.nullcontext,
    )


@pytest.mark.parametrize("rate", [0.05, 2.0])
def test_more_steps_never_raise_the_best_loss(nets: tuple[Generator, Discriminator, Tensor], rate: float) -> None:
    losses = torch.stack([loss_of(*nets, find(nets, steps, rate), 0.1) for steps in (0, 1, 2, 5, 10, 20, 40)])
    assert (losses.diff(dim=0) <= 1e-6).all()
    assert (losses[-1] < losses[0]).all()


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
def test_the_best_latent_met_is_kept_not_the_last(nets: tuple[Generator, Discriminator, Tensor], weight: float) -> None:
    """Against a plain search of the same steps, one scan after the other, at a rate that overshoots."""
    generator, discriminator, scans = nets
    found = loss_of(*nets, find(nets, 15, 4.0, weight), weight)
    best, last = [], []
    for scan in scans.split(1):
        z = torch.zeros(1, 8, requires_grad=True)
        optimiser = torch.optim.Adam([z], lr=4.0)
        met = []
        for _ in range(16):
            loss = loss_of(generator, discriminator, scan, z, weight)
            met.append(loss.item())
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
        best.append(min(met))
        last.append(met[-1])
    np.testing.assert_allclose(found.numpy(), best, rtol=1e-3)
    assert any(b < e for b, e in zip(best, last, strict=True)), "else the test says nothing"


def test_no_search_steps_leave_every_scan_at_the_common_start(phantom_images: Phantoms) -> None:
    films = phantom_images(20, SIZE)
    detector = small(steps=3, search_steps=0).fit(ArraySource(films))
    twin = detector.score(films[:6]).twin
    assert twin is not None
    np.testing.assert_array_equal(twin, np.repeat(twin[:1], 6, axis=0))
    with torch.no_grad():
        start = detector._generator(torch.zeros(4, 8))[:1].numpy()
    np.testing.assert_array_equal(twin[:1], start)


@pytest.fixture(scope="module")
def trained(phantom_images: Phantoms) -> tuple[AnoGan, Float32]:
    films = phantom_images(48, SIZE)
    return small(steps=60).fit(ArraySource(films[:24])), films[24:]


def rebuilt(detector: AnoGan, **settings: Any) -> AnoGan:
    """The same weights under other settings."""
    other = small(**settings)
    other._restore(detector._state(), 1)
    other.channels = 1
    return other


def test_losses_are_summed_so_the_batch_size_hardly_matters(trained: tuple[AnoGan, Float32]) -> None:
    detector, films = trained
    scores = [rebuilt(detector, score_batch=batch).score(films).scores for batch in (1, 4, 16)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3)
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-3)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_image_one_answer_at_the_default_chunk_on_two_threads(
    trained: tuple[AnoGan, Float32], precision: str
) -> None:
    """Every place of a chunk of 16, beside copies of itself, flat films and other films, in both precisions."""
    detector = rebuilt(trained[0], score_batch=16, precision=precision, search_steps=1)
    films = trained[1][:16]
    alone = detector.score(films[:1])
    assert alone.heatmaps is not None
    copies = detector.score(np.repeat(films[:1], 16, axis=0))
    np.testing.assert_array_equal(copies.scores, np.repeat(alone.scores, 16))
    np.testing.assert_array_equal(copies.heatmaps, np.repeat(alone.heatmaps, 16, axis=0))
    for place in (1, 6, 15):
        flat = np.ones_like(films)
        flat[place] = films[0]
        for among in (flat, np.roll(films, place, axis=0)):
            assert detector.score(among).scores[place] == alone.scores[0], place


def test_bf16_ranks_as_fp32_does(trained: tuple[AnoGan, Float32]) -> None:
    detector, films = trained
    full, half = (rebuilt(detector, precision=p).score(films).scores for p in ("fp32", "bf16"))
    correlation = spearmanr(full, half).statistic
    print(f"Spearman of bf16 and fp32 scores: {correlation:.5f}")
    assert correlation >= 0.99


# scores


def match_of(scan: Any, twin: Any, scan_features: Any, twin_features: Any, inside: Any = None) -> Match:
    arrays = [np.asarray(values, np.float32) for values in (scan, twin, scan_features, twin_features)]
    everywhere = np.ones((len(arrays[0]), *arrays[0].shape[2:]), np.bool_)
    return Match(*arrays, everywhere if inside is None else inside)


def test_schlegl_2017_by_hand() -> None:
    """R = (0.5 + 0 + 1 + 0.5) / 4 = 0.5; D = (1 + 3) / 2 = 2; A = 0.9 * 0.5 + 0.1 * 2 = 0.65."""
    scan = [[[[0.5, 0.0], [1.0, -1.0]]], [[[0.0, 0.0], [0.0, 0.0]]]]
    twin = [[[[0.0, 0.0], [0.0, -0.5]]], [[[0.0, 0.0], [0.0, 0.0]]]]
    match = match_of(scan, twin, [[[[2.0]], [[0.0]]], [[[1.0]], [[1.0]]]], [[[[1.0]], [[3.0]]], [[[1.0]], [[1.0]]]])
    scored = schlegl_2017(match, weight=0.1, residual_sigma=0.0)
    np.testing.assert_allclose(scored.scores, [0.65, 0.0], rtol=1e-6)
    np.testing.assert_allclose(scored.terms["residual"], [0.5, 0.0])
    np.testing.assert_allclose(scored.terms["discrimination"], [2.0, 0.0])
    np.testing.assert_allclose(scored.heatmaps, [[[0.5, 0.0], [1.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 0.5), (1.0, 2.0), (0.5, 1.25)])
def test_lambda_weighs_residual_against_features(weight: float, expected: float) -> None:
    match = match_of(
        np.full((1, 1, 4, 4), 0.5), np.zeros((1, 1, 4, 4)), np.full((1, 2, 1, 1), 2), np.zeros((1, 2, 1, 1))
    )
    assert schlegl_2017(match, weight=weight, residual_sigma=0).scores == pytest.approx([expected])


def test_the_map_averages_channels_and_its_blur_stays_within_each_image() -> None:
    scan = np.zeros((2, 3, 16, 16))
    scan[0, :, 8, 8] = 0.3, 0.6, 0.0
    match = match_of(scan, np.zeros_like(scan), np.zeros((2, 1, 4, 4)), np.zeros((2, 1, 4, 4)))
    raw, blurred = (schlegl_2017(match, weight=0.1, residual_sigma=sigma).heatmaps for sigma in (0.0, 0.1))
    assert raw[0, 8, 8] == pytest.approx(0.3)
    assert blurred[0].argmax() == raw[0].argmax()
    assert blurred[0].sum() == pytest.approx(raw[0].sum(), rel=1e-2)
    assert blurred[0, 8, 8] < raw[0, 8, 8]
    assert blurred[1].max() == 0
    assert raw.dtype == blurred.dtype == np.float32


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_the_residual_is_a_mean_over_the_film_whatever_lies_outside(sigma: float) -> None:
    rng = np.random.default_rng(0)
    scan = rng.uniform(-1, 1, (1, 1, 16, 16))
    inside = np.ones((1, 16, 16), np.bool_)
    inside[:, :, 11:] = False
    other = np.where(inside[:, None], scan, rng.uniform(-1, 1, scan.shape))
    features = np.zeros((1, 1, 4, 4))
    matches = [match_of(film, np.zeros_like(scan), features, features, inside) for film in (scan, other)]
    one, two = (schlegl_2017(match, weight=0.1, residual_sigma=sigma) for match in matches)
    np.testing.assert_array_equal(one.terms["residual"], two.terms["residual"])
    np.testing.assert_array_equal(one.heatmaps[inside], two.heatmaps[inside])
    assert one.terms["residual"] == pytest.approx(one.heatmaps[inside].mean(), rel=1e-5)


def test_the_score_is_the_sum_of_its_terms(trained: tuple[AnoGan, Float32]) -> None:
    out = trained[0].score(trained[1])
    terms = out.terms
    np.testing.assert_allclose(out.scores, 0.9 * terms["residual"] + 0.1 * terms["discrimination"], rtol=1e-5)
    assert out.twin is not None
    assert out.heatmaps is not None
    np.testing.assert_allclose(terms["residual"], out.heatmaps.mean(axis=(1, 2)), rtol=1e-5)
    assert (terms["residual"] < np.abs(out.twin - trained[1]).mean(axis=(1, 2, 3))).all()


def test_the_blur_comes_before_the_absolute_value() -> None:
    """Noise that changes sign from pixel to pixel cancels; a broad difference of the same strength stays."""
    checks = np.where(np.indices((32, 32)).sum(axis=0) % 2, 0.4, -0.4)
    broad = np.full((32, 32), 0.4)
    scan = np.stack([checks, broad])[:, None]
    features = np.zeros((2, 1, 4, 4))
    scored = schlegl_2017(match_of(scan, np.zeros_like(scan), features, features), weight=0.1, residual_sigma=0.06)
    assert scored.terms["residual"][0] < 0.02
    assert scored.terms["residual"][1] == pytest.approx(0.4, rel=1e-5)


# settings


@pytest.mark.parametrize("size", [24, 48, 8, 100])
def test_a_size_it_cannot_draw_is_refused_with_the_fix(size: int) -> None:
    with pytest.raises(UsageError, match=rf"{size}.*--set size="):
        small(size=size).fit(ArraySource(np.zeros((4, 1, size, size), np.float32)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label_smoothing", -0.1),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("ema", -0.1),
        ("latent", 0),
        ("width", 0),
        ("steps", 0),
        ("batch", 1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("checkpoint_every", 0),
        ("search_steps", -1),
        ("search_rate", 0.0),
        ("weight", 1.1),
        ("weight", -0.1),
        ("residual_sigma", 0.5),
        ("residual_sigma", -0.1),
        ("precision", "fp8"),
        ("score_batch", 0),
        ("steps", 1.5),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        validate(AnoGanConfig, {key: value}, "recipe")


def test_an_unknown_device_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="tpu"):
        AnoGan(AnoGanConfig(**SMALL), size=SIZE, device="tpu")
