"""AnoGAN: three objectives, training that resumes bit for bit and tells when it has died, one detector of all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from anomaly.config import validate
from anomaly.detectors.anogan.augment import Augmentation
from anomaly.detectors.anogan.detector import AnoGan, _held_out
from anomaly.detectors.anogan.draws import batch_of
from anomaly.detectors.anogan.objectives import OBJECTIVES, gradient_penalty
from anomaly.detectors.anogan.settings import AnoGanConfig
from anomaly.detectors.anogan.training import Best, Training
from anomaly.detectors.anogan.watch import Health, Watch, stop_if_dead
from anomaly.errors import DataError, UsageError
from anomaly.nets.dcgan import Discriminator, Generator, plain
from anomaly.nets.device import open_fabric, seeded
from anomaly.nets.encoder import Encoder
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32
from anomaly.runs import Arrays, NullRecorder

SIZE = 32
SMALL: dict[str, Any] = {
    "latent": 8,
    "width": 8,
    "steps": 40,
    "batch": 8,
    "holdout": 0.5,
    "encoder_steps": 10,
    "search_steps": 6,
    "components": 1,
    "slots": 4,
    "score_batch": 4,
    "precision": "fp32",
}

Phantoms = Callable[..., Float32]


def small(*, size: int = SIZE, seed: int = 0, **settings: Any) -> AnoGan:
    return AnoGan(AnoGanConfig(**{**SMALL, **settings}), size=size, device="cpu", seed=seed)


class MemoryRecorder(NullRecorder):
    """Keeps the history and the last checkpoint in memory; interrupts the training where told."""

    def __init__(
        self, *, kept: tuple[Arrays, dict[str, Any]] | None = None, stop_at: tuple[int, str] | None = None
    ) -> None:
        self.kept, self.stop_at = kept, stop_at
        self.history: list[tuple[int, str, float]] = []
        self.samples: dict[int, Float32] = {}
        self.steps: list[int] = []
        self.warnings: list[str] = []
        self.bests: list[Any] = []

    def scalar(self, step: int, name: str, value: float) -> None:
        self.history.append((step, name, value))

    def images(self, step: int, images: Float32) -> None:
        self.samples[step] = images

    def progress(self, done: int, total: int, what: str) -> None:
        self.steps.append(done)
        if (done, what) == self.stop_at:
            raise KeyboardInterrupt

    def warn(self, words: str) -> None:
        self.warnings.append(words)

    def checkpoint(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.kept = ({name: array.copy() for name, array in arrays.items()}, dict(meta))
        self.bests += [meta["state"]["best"]] if "best" in meta["state"] else []

    @property
    def best(self) -> Any:
        """Return what the last checkpoint of the GAN says of the one kept."""
        return self.bests[-1]

    def restore(self) -> tuple[Arrays, dict[str, Any]] | None:
        return self.kept


def equal(a: Arrays, b: Arrays) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(np.ravel(a[name]), np.ravel(b[name]), err_msg=name)


# objectives


LOGITS = torch.tensor([2.0, -0.5]), torch.tensor([-3.0, 0.5])


def test_objectives_by_hand() -> None:
    """Against the formulas worked out for two real and two drawn images."""
    real, fake = LOGITS
    hinge = (0.0 + 1.5) / 2 + (0.0 + 1.5) / 2
    assert OBJECTIVES["hinge"].discriminator_loss(real, fake, 0.0).item() == pytest.approx(hinge)
    assert OBJECTIVES["hinge"].generator_loss(fake).item() == pytest.approx(1.25)
    assert OBJECTIVES["wgan-gp"].discriminator_loss(real, fake, 0.0).item() == pytest.approx(-1.25 - 0.75)
    soft = np.log1p(np.exp([-2.0, 0.5])).mean() + np.log1p(np.exp([-3.0, 0.5])).mean()
    assert OBJECTIVES["dcgan"].discriminator_loss(real, fake, 0.0).item() == pytest.approx(soft)
    assert OBJECTIVES["dcgan"].generator_loss(fake).item() == pytest.approx(np.log1p(np.exp([3.0, -0.5])).mean())


def test_smoothing_lowers_the_reward_of_being_sure() -> None:
    sure = torch.full((4,), 9.0), torch.full((4,), -9.0)
    plain_loss, smoothed = (OBJECTIVES["dcgan"].discriminator_loss(*sure, smoothing) for smoothing in (0.0, 0.1))
    assert smoothed > plain_loss + 0.5


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_known(slope: float) -> None:
    """A critic x -> slope * x_0 has gradient `slope` everywhere, so its penalty is (slope - 1)^2."""
    real, fake = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    penalty = gradient_penalty(lambda x: slope * x[:, 0, 0, 0], real, fake, torch.rand(5, 1, 1, 1))
    assert penalty.item() == pytest.approx((slope - 1.0) ** 2, abs=1e-5)


def test_a_plain_discriminator_answers_as_its_spectrally_normalised_one() -> None:
    with seeded(0):
        discriminator = Discriminator(channels=1, size=SIZE, width=8, norm="spectral")
        images = torch.rand(6, 1, SIZE, SIZE)
        for _ in range(5):
            discriminator(images)
        baked = plain(discriminator)
    with torch.no_grad():
        torch.testing.assert_close(baked(images), discriminator.eval()(images))
        finer, last = baked.last_maps(images)
    torch.testing.assert_close(last, baked.features(images))
    assert finer.shape == (6, 16, 8, 8)
    assert not any("parametrizations" in name for name in baked.state_dict())
    assert any("parametrizations" in name for name in discriminator.state_dict()), "the original is left as it was"


# augmentation


def test_augmentation_off_changes_nothing_and_on_keeps_the_anatomy() -> None:
    y, x = np.mgrid[:SIZE, :SIZE]
    blob = torch.from_numpy(np.exp(-((x - 10) ** 2 + (y - 20) ** 2) / 18).astype(np.float32))[None, None].repeat(
        64, 1, 1, 1
    )
    assert torch.equal(Augmentation(0, 0, 0)(blob, torch.Generator().manual_seed(0)), blob)
    moved = Augmentation(0.04, 0.04, 0.0)(blob, torch.Generator().manual_seed(0))
    peaks = moved.reshape(64, -1).argmax(dim=1)
    across, down = peaks % SIZE - 10, peaks // SIZE - 20
    assert len(set(peaks.tolist())) > 3, "films are moved, each on its own"
    assert across.abs().max() <= 3
    assert down.abs().max() <= 3, "never mirrored, never far"
    exposed = Augmentation(0.0, 0.0, 0.1)(blob, torch.Generator().manual_seed(0))
    assert (exposed - blob).abs().max() <= 0.2 + 1e-6
    assert exposed.flatten(1).mean(dim=1).std() > 0.01


def test_gradients_pass_through_augmentation() -> None:
    images = torch.rand(3, 1, SIZE, SIZE, requires_grad=True)
    Augmentation(0.04, 0.04, 0.1)(images, torch.Generator().manual_seed(0)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


# health


def drawing(images: Tensor) -> Generator:
    """Return a generator that draws what `images` are made of, whatever its weights were: for the watch alone."""

    class Fixed(Generator):
        def forward(self, z: Tensor) -> Tensor:
            return images[torch.arange(len(z)) % len(images)] + 0.0 * z.sum()

    with seeded(0):
        return Fixed(latent=4, channels=1, size=SIZE, width=4).eval()


def health_of(samples: Tensor, held_out: Tensor) -> Health:
    with seeded(0):
        discriminator = Discriminator(channels=1, size=SIZE, width=4).eval()
    watch = Watch(held_out, held_out.mean(dim=0))
    return watch.examine(
        drawing(samples), discriminator, torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    )


def test_a_collapsed_generator_is_seen_and_said_in_words(phantom_images: Phantoms) -> None:
    films = torch.from_numpy(phantom_images(32, SIZE))
    alive, dead = health_of(films, films), health_of(films[:1], films)
    assert alive.diversity == pytest.approx(1.0, abs=0.1)
    assert dead.diversity == pytest.approx(0.0, abs=1e-3)
    half = health_of(0.3 * films + 0.7 * films.mean(dim=0), films)
    assert half.diversity == pytest.approx(0.3, abs=0.05)
    words = half.words()
    assert words is not None
    assert "collapsing" in words
    stop_if_dead(half, 5)
    with pytest.raises(UsageError, match=r"step 7.*--seed"):
        stop_if_dead(dead, 7)


def test_twins_no_nearer_than_the_mean_film_are_said_in_words(phantom_images: Phantoms) -> None:
    films = torch.from_numpy(phantom_images(40, SIZE))
    far = health_of(-films, films)
    assert far.reconstruction > 1.0
    words = far.words()
    assert words is not None
    assert "mean film" in words
    assert health_of(films.mean(dim=0, keepdim=True), films).reconstruction == pytest.approx(1.0, abs=1e-3)
    assert Health(0.9, 0.6).words() is None


def test_a_training_that_diverges_stops_with_the_fix(phantom_images: Phantoms) -> None:
    with pytest.raises(UsageError, match=r"step 10.*learning_rate"):
        small(learning_rate=1e30).fit(ArraySource(phantom_images(24, SIZE)))


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (Health(float("nan"), 0.5), "step 5: what it draws are no numbers"),
        (Health(0.01, float("nan")), "step 5: what it draws are no numbers"),
        (Health(0.01, 0.5), "step 5: its samples differ 0.01 times"),
    ],
)
def test_a_dead_generator_stops_the_training_in_words(health: Health, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        stop_if_dead(health, 5)


def collapse(generator: Generator) -> None:
    """Make it draw one picture."""
    with torch.no_grad():
        for weight in generator.parameters():
            weight.zero_()


@pytest.mark.parametrize(("step", "judged"), [(399, False), (499, False), (500, True), (1000, True)])
def test_a_collapsed_generator_stops_the_training_once_it_had_the_time_to_learn(
    phantom_images: Phantoms, step: int, judged: bool
) -> None:
    films = torch.from_numpy(phantom_images(8, SIZE))
    training, recorder = training_of(small(steps=1000)), MemoryRecorder()
    training.step = step
    collapse(training.averaged)
    watch, shown = Watch(films, films.mean(dim=0)), torch.zeros(1, 8)
    if judged:
        with pytest.raises(UsageError, match=f"step {step}: .*collapsing"):
            training._take_stock(watch, shown, recorder)
    else:
        training._take_stock(watch, shown, recorder)
    assert not recorder.warnings


def test_what_is_warned_of_at_the_end_is_the_generator_that_was_kept(phantom_images: Phantoms) -> None:
    films = torch.from_numpy(phantom_images(8, SIZE))
    said = []
    for sick in (False, True):
        training, recorder = training_of(small()), MemoryRecorder()
        training.step, training.best = 40, Best(16, 0.5)
        collapse(training.kept.generator if sick else training.averaged)
        watch = Watch(0.05 * films, films.mean(dim=0))  # normals that differ little, so that most generators do enough
        training._judge_kept(watch, recorder)
        assert recorder.history == [(40, "kept_step", 16)]
        said += [words for words in recorder.warnings if "collapsing" in words]
    assert len(said) == 1
    assert said[0].startswith("the generator that was kept, that of step 16 of the training: ")


# training


GAMES = {"hinge": {}, "dcgan": {"objective": "dcgan", "label_smoothing": 0.1}, "game alone": {"redraw": 0.0}} | {
    "wgan-gp": {"objective": "wgan-gp", "critic_steps": 2}
}
"""Every objective, with and without an encoder trained along."""


STOPS = ((13, "training"), (7, "encoder"), (3, "variance"))


@pytest.mark.parametrize(("game", "stops"), [(game, STOPS if game == "hinge" else STOPS[:1]) for game in GAMES])
def test_an_interrupted_fit_goes_on_bit_for_bit(
    phantom_images: Phantoms, game: str, stops: tuple[tuple[int, str], ...]
) -> None:
    source = ArraySource(phantom_images(24, SIZE))
    settings: dict[str, Any] = {"steps": 20, "checkpoint_every": 5, "variance_steps": 6, **GAMES[game]}
    settings["terms"] = {"residual_pca": 1.0, "uncertainty": 0.0}
    straight = MemoryRecorder()
    whole = small(**settings).fit(source, recorder=straight)
    for stop_at in stops:
        stopped, detector = MemoryRecorder(stop_at=stop_at), small(**settings)
        with pytest.raises(KeyboardInterrupt):
            detector.fit(source, recorder=stopped)
        resumed = MemoryRecorder(kept=stopped.kept)
        detector.fit(source, recorder=resumed)
        equal(whole._state(), detector._state())
        assert straight.kept is not None
        assert resumed.kept is not None
        equal(straight.kept[0], resumed.kept[0])
        assert resumed.history == straight.history[len(straight.history) - len(resumed.history) :]
        assert len(resumed.steps) < len(straight.steps)


def test_a_finished_fit_resumed_gives_the_same_model_without_training(phantom_images: Phantoms) -> None:
    source = ArraySource(phantom_images(24, SIZE))
    recorder = MemoryRecorder()
    whole = small(steps=6).fit(source, recorder=recorder)
    trained = len(recorder.steps)
    again = small(steps=6).fit(source, recorder=recorder)
    equal(whole._state(), again._state())
    assert len(recorder.steps) == trained


def test_training_is_recorded_on_one_time_axis(phantom_images: Phantoms) -> None:
    recorder = MemoryRecorder()
    small(steps=13, checkpoint_every=5).fit(ArraySource(phantom_images(24, SIZE)), recorder=recorder)
    names = {name: [step for step, told, _ in recorder.history if told == name] for _, name, _ in recorder.history}
    losses = {name: [10, 13] for name in ("d_loss", "g_loss", "d_real", "d_fake", "redraw_loss")}
    health = {name: [5, 10, 13] for name in ("diversity", "reconstruction")}
    assert names == losses | health | {"kept_step": [13], "encoder_loss": [23]}
    assert all(np.isfinite(value) for _, _, value in recorder.history)
    assert sorted(recorder.samples) == [5, 10, 13]
    assert all(grid.shape == (36, 1, SIZE, SIZE) and np.abs(grid).max() <= 1 for grid in recorder.samples.values())


def test_the_checkpoint_that_redraws_held_out_normals_best_is_kept(phantom_images: Phantoms) -> None:
    """The best of the history is what training leaves, however it went on: the networks of a training to that step."""
    source, recorder = ArraySource(phantom_images(24, SIZE)), MemoryRecorder()
    settings: dict[str, Any] = {"checkpoint_every": 8, "learning_rate": 1e-2, "ema": 0.0, "redraw": 0.0}
    whole = small(steps=40, **settings).fit(source, recorder=recorder)
    errors = {step: value for step, name, value in recorder.history if name == "reconstruction"}
    assert len(errors) == 5
    best = min(errors, key=errors.__getitem__)
    assert best < 40, "else the test says nothing"
    assert recorder.best == [best, errors[best]]
    assert (40, "kept_step", best) in recorder.history
    equal(whole._state(), small(steps=best, **settings).fit(source)._state())


def training_of(detector: AnoGan) -> Training:
    shape = {"channels": 1, "size": SIZE, "width": 8}
    with seeded(0):
        generator, discriminator = Generator(latent=8, **shape), Discriminator(**shape, norm="spectral")
        encoder = Encoder(latent=8, **shape)
    fabric = open_fabric("cpu", "fp32")
    return Training(generator, discriminator, encoder, detector.config.training(), seed=3, fabric=fabric)


def test_every_epoch_sees_every_film_once_in_another_order() -> None:
    epochs = []
    for epoch in range(2):
        seen: list[int] = []
        for turn in range(4):
            seen += batch_of(20, 5, 4 * epoch + turn, 3).tolist()
        assert sorted(seen) == list(range(20))
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_redrawing_makes_twins_of_normals_better(phantom_images: Phantoms) -> None:
    """What `redraw` is for: after as many steps the nearest drawings are nearer than by the game alone."""
    errors = []
    for redraw in (0.0, 20.0):
        recorder = MemoryRecorder()
        small(steps=120, checkpoint_every=120, redraw=redraw, learning_rate=1e-3).fit(
            ArraySource(phantom_images(40, SIZE)), recorder=recorder
        )
        errors += [value for _, name, value in recorder.history if name == "reconstruction"]
    assert errors[1] < 0.9 * errors[0]


def test_another_seed_gives_another_model(phantom_images: Phantoms) -> None:
    films = phantom_images(24, SIZE)
    a, b = (small(steps=3, seed=seed).fit(ArraySource(films)).score(films).scores for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_the_generator_has_batch_norm_statistics_of_its_own_fakes(phantom_images: Phantoms) -> None:
    generator = small().fit(ArraySource(phantom_images(24, SIZE)))._generator
    latents = torch.randn(2048, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        alone = generator(latents)
        together = generator.train()(latents)
    generator.eval()
    assert (alone - together).abs().mean() < 0.01
    assert (alone - together).abs().max() < 0.15


# the detector


@pytest.fixture(scope="module")
def trained(phantom_images: Phantoms) -> tuple[AnoGan, Float32]:
    films = phantom_images(64, SIZE)
    return small(steps=60).fit(ArraySource(films[:40])), films[40:]


def rebuilt(detector: AnoGan, **settings: Any) -> AnoGan:
    """The same weights under other settings."""
    other = small(**settings)
    other._restore(detector._state(), 1)
    other.channels = 1
    return other


def test_no_search_takes_the_encoders_twin(phantom_images: Phantoms) -> None:
    films = phantom_images(24, SIZE)
    detector = small(steps=3, search_steps=0).fit(ArraySource(films))
    twin = detector.score(films[:4]).twin
    assert twin is not None
    assert detector._encoder is not None
    with torch.no_grad():
        drawn = detector._generator(detector._encoder(torch.from_numpy(films[:4])))
    np.testing.assert_allclose(twin, drawn.numpy(), atol=1e-5)


def test_without_an_encoder_searches_start_from_the_priors_mean(phantom_images: Phantoms) -> None:
    """Seen where the search hardly moves."""
    films = phantom_images(24, SIZE)
    without = small(steps=3, search_steps=1, search_rate=1e-9, redraw=0.0, encoder_steps=0).fit(ArraySource(films))
    twin = without.score(films[:4]).twin
    assert twin is not None
    with torch.no_grad():
        np.testing.assert_allclose(twin, without._generator(torch.zeros(4, 8)).numpy(), atol=1e-5)


@pytest.mark.parametrize("encoder", [{"redraw": 1.0}, {"encoder_steps": 1}, {"restarts": 1}, {}])
def test_every_scan_the_same_twin_is_refused(encoder: dict[str, Any]) -> None:
    settings = {"search_steps": 0, "redraw": 0.0, "encoder_steps": 0} | encoder
    if encoder:
        validate(AnoGanConfig, settings, "recipe")
    else:
        with pytest.raises(UsageError, match=r"search_steps is 0.*encoder_steps or redraw"):
            validate(AnoGanConfig, settings, "recipe")


def test_the_batch_size_hardly_matters(trained: tuple[AnoGan, Float32]) -> None:
    detector, films = trained
    scores = [rebuilt(detector, score_batch=batch, slots=batch).score(films).scores for batch in (1, 4, 16)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-3, atol=1e-3)


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
    detector = rebuilt(trained[0], score_batch=16, slots=16, precision=precision, search_steps=1)
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
    assert spearmanr(full, half).statistic >= 0.99


def test_the_score_is_the_weighted_sum_of_its_standardised_terms(trained: tuple[AnoGan, Float32]) -> None:
    detector, films = trained
    out = detector.score(films)
    scoring = detector._scoring
    total = sum(
        weight * (out.terms[name] - scoring.scale[row, 0]) / scoring.scale[row, 1]
        for row, (name, weight) in enumerate(scoring.weights.items())
    )
    np.testing.assert_allclose(out.scores, total, rtol=1e-4, atol=1e-5)
    assert out.heatmaps is not None
    np.testing.assert_allclose(out.heatmaps, sum(out.term_maps.values()), rtol=1e-5)
    assert detector.heat_unit == "σ²"


def test_the_recipe_of_2017_scores_as_the_paper_says(phantom_images: Phantoms) -> None:
    """A(x) = 0.9 |x - G(z)| + 0.1 |f(x) - f(G(z))|, as means, from z = 0, without standardising."""
    films = phantom_images(24, SIZE)
    stock: dict[str, Any] = {"objective": "dcgan", "redraw": 0.0, "encoder_steps": 0, "search_residual": "l1"}
    stock |= {"terms": {"l1": 0.9, "features_raw": 0.1}, "standardise": False, "elsewhere": 1.0, "shell": 0.0}
    detector = small(steps=4, **stock).fit(ArraySource(films))
    out = detector.score(films[:4])
    assert out.twin is not None
    with torch.no_grad():
        f_scan, f_twin = (detector._discriminator.features(torch.from_numpy(x)) for x in (films[:4], out.twin))
    residual = np.abs(films[:4] - out.twin).mean(axis=(1, 2, 3))
    discrimination = (f_scan - f_twin).abs().mean(dim=(1, 2, 3)).numpy()
    np.testing.assert_allclose(out.scores, 0.9 * residual + 0.1 * discrimination, rtol=1e-4)


ALL_NETWORKS: dict[str, Any] = {"variance_steps": 3, "terms": {"residual_pca": 1.0, "uncertainty": 0.5}}


@pytest.mark.parametrize("more", [{"redraw": 0.0, "encoder_steps": 0}, ALL_NETWORKS], ids=["game alone", "all"])
def test_held_out_patients_are_whole_and_never_trained_on(phantom_images: Phantoms, more: dict[str, Any]) -> None:
    """Two films a patient: other films in the held-out ones' place leave the networks as they were."""
    films, groups = phantom_images(24, SIZE), np.arange(24, dtype=np.int64) // 2
    one = small(steps=4, checkpoint_every=4, **more)
    held = _held_out(groups, one.config.holdout, one.seed)
    assert held.sum() == 12
    assert len(set(groups[held])) == 6
    assert not set(groups[held]) & set(groups[~held])
    other = films.copy()
    other[held] = other[held][:, :, ::-1]
    one.fit(ArraySource(films, groups))
    two = small(steps=4, checkpoint_every=4, **more).fit(ArraySource(other, groups))
    states = one._state(), two._state()
    learned = {name for name in states[0] if not name.startswith(("scoring/", "space/", "air"))}
    assert {name.partition("/")[0] for name in learned} == {"generator", "discriminator"} | (
        {"encoder", "head"} if more is ALL_NETWORKS else set()
    )
    for name in learned | {"air"}:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)
    assert (states[0]["scoring/scale"] != states[1]["scoring/scale"]).any()


def test_too_few_patients_are_refused_with_the_fix(phantom_images: Phantoms) -> None:
    films = phantom_images(6, SIZE)
    with pytest.raises(DataError, match="at least 4 patients"):
        small().fit(ArraySource(films, np.zeros(6, np.int64)))
    with pytest.raises(
        DataError, match=r"holds 3 of these 6 out.* 8 normal scans.*; 2 are too few.* 10 held out"
    ) as told:
        small().fit(ArraySource(films))
    for part in ("about 20 ", "holdout=0.5", "detector.components", "detector.holdout", "detector.folds"):
        assert part in str(told.value)


def test_the_fewest_normals_accepted_scale_the_default_terms(phantom_images: Phantoms) -> None:
    """Settings of the score as shipped: fewer are refused, and as many give terms that tell other normals apart."""
    shipped = {name: AnoGanConfig.model_fields[name].get_default() for name in ("components", "terms", "folds")}
    films, unseen = phantom_images(46, SIZE), phantom_images(76, SIZE)[46:]
    with pytest.raises(DataError, match=r"residual_pca .*at least 18 .*; 17 are too few.* 23 held out, about 46 "):
        small(steps=20, **shipped).fit(ArraySource(films[:45]))
    detector = small(steps=20, **shipped).fit(ArraySource(films))
    told = detector.score(unseen).terms
    for (name, weight), (mean, sd) in zip(detector._scoring.weights.items(), detector._scoring.scale, strict=True):
        z = (told[name] - mean) / sd
        assert weight > 0
        assert abs(z.mean()) < 2, name
        assert 0.3 < z.std() < 3, name


def test_elsewhere_dims_the_map_but_not_the_score(trained: tuple[AnoGan, Float32]) -> None:
    detector, films = trained
    dim, full = (rebuilt(detector, elsewhere=share) for share in (0.0, 1.0))
    out, same = dim.score(films), full.score(films)
    assert out.heatmaps is not None
    assert same.heatmaps is not None
    np.testing.assert_array_equal(out.scores, same.scores)
    np.testing.assert_allclose(out.heatmaps, same.heatmaps * detector._air, rtol=1e-5, atol=1e-6)
    for name, heat in out.term_maps.items():
        np.testing.assert_allclose(heat, same.term_maps[name] * detector._air, rtol=1e-5, atol=1e-6)
    assert out.heatmaps.mean() < 0.7 * same.heatmaps.mean()


def test_maps_speak_of_the_lungs(trained: tuple[AnoGan, Float32]) -> None:
    detector = trained[0]
    seen = detector.mapped()
    assert seen.dtype == np.bool_
    assert 0.05 < seen.mean() < 0.5
    assert detector._air[seen].min() >= 0.5 > detector._air[~seen].max()
    assert rebuilt(detector, elsewhere=1.0).mapped().all()


@pytest.mark.parametrize("left", ["both lungs", "one lung at the frame", "no lungs"])
def test_where_not_both_lungs_are_found_nothing_is_dimmed_and_it_is_said(phantom_images: Phantoms, left: str) -> None:
    films = phantom_images(24, SIZE)
    if left == "no lungs":
        films = films * np.float32(0.02) + np.linspace(-0.8, 0.8, SIZE, dtype=np.float32)
    elif left == "one lung at the frame":
        films = films.copy()
        films[..., SIZE // 3 : 2 * SIZE // 3, : SIZE // 3] = -0.95  # as dark as a lung, and open to the frame
    recorder = MemoryRecorder()
    detector = small(steps=2, encoder_steps=1).fit(ArraySource(films), recorder=recorder)
    said = [words for words in recorder.warnings if "elsewhere" in words]
    if left == "both lungs":
        assert said == []
        assert detector._air.any()
        return
    (words,) = said
    assert ("no lung was found in the left half" if "one" in left else "no lungs were found") in words
    assert (detector._dimmed() == 1.0).all()
    assert detector.mapped().all()
    silent = MemoryRecorder()
    small(steps=2, encoder_steps=1, elsewhere=1.0).fit(ArraySource(films), recorder=silent)
    assert not any("elsewhere" in words for words in silent.warnings)


def test_several_gpus_share_a_batch_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GPUs here, only what Fabric is asked for can be tested."""
    import lightning.fabric

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(lightning.fabric, "Fabric", lambda **words: asked.append(words))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    open_fabric("cuda", "fp32", every=True)
    open_fabric("cuda", "fp32")
    assert asked[0] == {"accelerator": "cuda", "devices": "auto", "strategy": "dp", "precision": "32-true"}
    assert asked[1] == {"accelerator": "cuda", "devices": 1, "precision": "32-true"}


# settings


@pytest.mark.parametrize("size", [24, 48, 8, 16, 100])
def test_a_size_it_cannot_draw_is_refused_with_the_fix(size: int) -> None:
    with pytest.raises(UsageError, match=rf"{size}.*--set size="):
        small(size=size)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("objective", "lsgan"), ("label_smoothing", -0.1), ("label_smoothing", 1.0), ("ema", 1.0), ("ema", -0.1)],
        *[("latent", 0), ("width", 0), ("steps", 0), ("batch", 1), ("learning_rate", 0.0), ("critic_steps", 0)],
        *[("learning_rate", float("nan")), ("learning_rate", float("inf")), ("checkpoint_every", 0), ("shift", 0.5)],
        *[("scale", -0.1), ("exposure", 1.0), ("redraw", -1.0), ("holdout", 0.0), ("holdout", 1.0), ("kappa", -1.0)],
        *[("encoder_steps", -1), ("encoder_rate", 0.0), ("variance_steps", 0), ("search_steps", -1), ("slots", 0)],
        *[
            ("search_rate", 0.0),
            ("search_residual", "l3"),
            ("weight", 1.1),
            ("weight", -0.1),
            ("shell", -1.0),
            ("radius", -1.0),
        ],
        *[("restarts", -1), ("patience", -1), ("tolerance", 1.0), ("terms", {"residul": 1.0}), ("terms", {})],
        *[("terms", {"residual": -1.0}), ("terms", {"residual": 0.0}), ("residual_sigma", 0.5), ("components", 0)],
        *[("direction", "up"), ("window", 0.0), ("floor", -0.1), ("exposure_limit", -1.0), ("pooling", "median")],
        *[("top_share", 0.0), ("folds", 1), ("elsewhere", 1.1), ("precision", "fp8"), ("score_batch", 0)],
        *[("steps", 1.5), ("residual_sigma", -0.1)],
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UsageError, match="term" if key == "terms" else key):
        validate(AnoGanConfig, {key: value}, "recipe")


def test_a_misspelt_term_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"structure_defict.*structure_deficit"):
        validate(AnoGanConfig, {"terms": {"structure_defict": 1.0}}, "recipe")


def test_an_unknown_device_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="tpu"):
        AnoGan(AnoGanConfig(**SMALL), size=SIZE, device="tpu")
