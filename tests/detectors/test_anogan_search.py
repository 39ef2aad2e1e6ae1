"""The latent search: what it finds, what it keeps, when it stops, and that one image has one answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anomaly.detectors.anogan.search import Found, SearchSettings, search
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.nets.device import freeze, seeded

SIZE, LATENT, COUNT = 32, 8, 7
PLAIN = SearchSettings(
    steps=20, rate=0.05, weight=0.1, residual="l1", shell=0.0, restarts=0, patience=0, tolerance=0.0, slots=4
)

Find = Callable[..., Found]


class Nets:
    """Untrained networks with lively weights, and films that the generator drew at `latents`."""

    def __init__(self) -> None:
        shape = {"channels": 1, "size": SIZE, "width": 8}
        with seeded(0):
            self.generator, self.discriminator = Generator(latent=LATENT, **shape), Discriminator(**shape)
            for net in (self.generator, self.discriminator):
                for part in net.modules():
                    if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                        nn.init.normal_(part.weight, 0.0, 0.2)
                    elif isinstance(part, nn.BatchNorm2d):
                        nn.init.normal_(part.bias)  # at 0 every unit would be dead at z = 0
                freeze(net)
                net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.latents = torch.randn(COUNT, LATENT)
        with torch.no_grad():
            self.films = self.generator(self.latents)

    def loss(self, z: Tensor, films: Tensor, how: SearchSettings) -> Tensor:
        """Return float32 (N,), the loss as documented."""
        twins = self.generator(z)
        apart = [films - twins, self.discriminator.features(films) - self.discriminator.features(twins)]
        residual, features = ((d.abs() if how.residual == "l1" else d**2).mean(dim=(1, 2, 3)) for d in apart)
        shell = (z.norm(dim=1) / LATENT**0.5 - how.radius) ** 2
        return (1 - how.weight) * residual + how.weight * features + how.shell * shell


@pytest.fixture(scope="module")
def nets() -> Nets:
    return Nets()


def settings(**changed: Any) -> SearchSettings:
    return SearchSettings(**{**{name: getattr(PLAIN, name) for name in PLAIN.__slots__}, **changed})


@pytest.fixture
def find(nets: Nets) -> Find:
    def run(films: Tensor | None = None, first: Tensor | None = None, **changed: Any) -> Found:
        films = nets.films if films is None else films
        first = torch.zeros(len(films), LATENT) if first is None else first
        return search(
            nets.generator,
            nets.discriminator,
            films,
            first,
            settings(**changed),
            seed=5,
            autocast=contextlib.nullcontext,
        )

    return run


def equal(a: Found, b: Found) -> None:
    for name in ("z", "loss", "steps"):
        np.testing.assert_array_equal(getattr(a, name).numpy(), getattr(b, name).numpy(), err_msg=name)


def rows(found: Found, index: Any) -> Found:
    return Found(found.z[index], found.loss[index], found.steps[index])


@pytest.mark.parametrize(("residual", "share"), [("l1", 0.25), ("l2", 0.1)])
def test_a_film_the_generator_drew_is_found(nets: Nets, find: Find, residual: str, share: float) -> None:
    how = {"residual": residual, "weight": 0.0}
    found = find(steps=150, **how)
    start = nets.loss(torch.zeros(COUNT, LATENT), nets.films, settings(**how))
    assert found.loss.mean() < share * start.mean()
    assert torch.cosine_similarity(found.z, nets.latents).mean() > 0.9
    assert found.steps.tolist() == [150] * COUNT


@pytest.mark.parametrize("residual", ["l1", "l2"])
@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("shell", "radius"), [(0.0, 0.0), (0.3, 0.0), (0.3, 1.0)])
def test_it_is_torchs_adam_on_the_documented_loss_keeping_the_best(
    nets: Nets, find: Find, residual: str, weight: float, shell: float, radius: float
) -> None:
    """Against a plain search, one film after the other, at a rate that overshoots."""
    how = settings(residual=residual, weight=weight, shell=shell, radius=radius, rate=0.5, steps=12)
    first = torch.randn(COUNT, LATENT, generator=torch.Generator().manual_seed(9))
    best, last = [], []
    for film, start in zip(nets.films.split(1), first.split(1), strict=True):  # type: ignore[no-untyped-call]
        z = start.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([z], lr=how.rate)
        met = []
        for _ in range(how.steps + 1):
            loss = nets.loss(z, film, how)
            met.append(loss.item())
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
        best.append(min(met))
        last.append(met[-1])
    found = find(first=first, residual=residual, weight=weight, shell=shell, radius=radius, rate=0.5, steps=12)
    np.testing.assert_allclose(found.loss.numpy(), best, rtol=1e-3)
    np.testing.assert_allclose(found.loss.numpy(), nets.loss(found.z, nets.films, how).numpy(), rtol=1e-4)
    assert any(b < e for b, e in zip(best, last, strict=True)), "else the test says nothing of the best"


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"weight": 0.0, "residual": "l2", "shell": 0.1, "radius": 1.0},
        {"restarts": 2},
        {"patience": 2, "tolerance": 0.05},
        {"restarts": 1, "patience": 3, "tolerance": 0.1, "shell": 0.02, "slots": 5},
        {"slots": 32, "restarts": 1},
        {"slots": 1},
    ],
)
def test_one_image_one_answer_to_the_last_bit(nets: Nets, find: Find, how: dict[str, Any]) -> None:
    """Whatever the companions, their order and the slot: refilled slots too, as there are fewer than films."""
    first = 0.5 * nets.latents.roll(1, dims=0)
    together = find(first=first, **how)
    assert (len(set(together.steps.tolist())) > 1) == ("patience" in how), "else nobody stops before another"
    for i in range(COUNT):
        equal(find(nets.films[i : i + 1], first[i : i + 1], **how), rows(together, slice(i, i + 1)))
    order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    equal(find(nets.films[order], first[order], **how), rows(together, order))
    beside = torch.cat([torch.ones(2, 1, SIZE, SIZE), nets.films[2:3], -nets.films[:1]])
    starts = torch.cat([torch.full((2, LATENT), 9.0), first[2:3], first[:1]])
    equal(rows(find(beside, starts, **how), slice(2, 3)), rows(together, slice(2, 3)))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_one_image_one_answer_in_bf16_on_two_threads(nets: Nets) -> None:
    def run(films: Tensor) -> Found:
        how = settings(slots=8, steps=4, restarts=1, patience=2, tolerance=0.05)
        return search(
            nets.generator,
            nets.discriminator,
            films,
            torch.zeros(len(films), LATENT),
            how,
            seed=5,
            autocast=lambda: torch.autocast("cpu", torch.bfloat16),
        )

    films = nets.films.repeat(2, 1, 1, 1)
    together = run(films)
    for i in (0, 3, 6):
        alone = run(films[i : i + 1])
        for place in range(i, len(films), COUNT):
            equal(rows(together, slice(place, place + 1)), alone)
    assert together.loss.dtype == together.z.dtype == torch.float32


def test_other_slots_change_no_more_than_last_bits(find: Find) -> None:
    losses = [find(slots=slots).loss.numpy() for slots in (1, 4, 16)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    np.testing.assert_allclose(losses[0], losses[2], rtol=1e-3)


@pytest.mark.parametrize("rate", [0.05, 2.0])
def test_more_steps_never_raise_the_best_loss(find: Find, rate: float) -> None:
    losses = torch.stack([find(steps=steps, rate=rate, restarts=1).loss for steps in (0, 1, 2, 5, 20)])
    assert (losses.diff(dim=0) <= 0).all()
    assert (losses[-1] < losses[0]).all()


def test_restarts_are_never_worse_and_the_same_for_every_film(nets: Nets, find: Find) -> None:
    losses = torch.stack([find(restarts=restarts).loss for restarts in (0, 1, 4)])
    assert (losses.diff(dim=0) <= 0).all()
    assert (losses[-1] < losses[0]).any()
    assert find(restarts=4).steps.tolist() == [20 * 5] * COUNT
    starts = torch.randn(4, LATENT, generator=torch.Generator().manual_seed(5))
    far = torch.full((COUNT, LATENT), 50.0)
    found = find(first=far, steps=0, restarts=4)
    each = torch.stack([nets.loss(z.expand(COUNT, -1), nets.films, PLAIN) for z in starts])
    np.testing.assert_array_equal(found.z.numpy(), starts[each.argmin(dim=0)].numpy())


def test_without_steps_the_start_is_the_answer(nets: Nets, find: Find) -> None:
    found = find(first=nets.latents, steps=0)
    np.testing.assert_array_equal(found.z.numpy(), nets.latents.numpy())
    assert found.steps.tolist() == [0] * COUNT
    assert found.loss.isnan().all()
    same = find(first=nets.latents, steps=0, restarts=2)
    np.testing.assert_array_equal(same.z.numpy(), nets.latents.numpy(), err_msg="no restart is nearer than the truth")
    assert same.loss.max() < 1e-5


@pytest.mark.parametrize("radius", [0.0, 1.0])
def test_the_shell_pulls_the_norm(nets: Nets, find: Find, radius: float) -> None:
    for scale in (0.0, 0.2, 3.0):
        first = scale * nets.latents
        free, held = (find(first=first, shell=shell, radius=radius, rate=0.2, steps=40).z for shell in (0.0, 10.0))
        off = [(z.norm(dim=1) / LATENT**0.5 - radius).abs() for z in (free, held)]
        assert off[1].max() < 0.5
        assert off[1].mean() < 0.3 * off[0].mean()


def test_patience_stops_early_and_says_when(nets: Nets, find: Find) -> None:
    """From the truth nothing gains, so a start is given up after `patience` steps; elsewhere it goes on."""
    first = torch.cat([nets.latents[:3], torch.zeros(COUNT - 3, LATENT)])
    found = find(first=first, patience=3, tolerance=0.0, steps=30)
    assert found.steps[:3].tolist() == [3, 3, 3]
    assert (found.steps[3:] > 3).all()
    assert find(first=first, patience=30, steps=30).steps.tolist() == [30] * COUNT
    eager, calm = (find(patience=3, tolerance=share, steps=100) for share in (0.2, 0.005))
    assert (eager.steps < calm.steps).all()
    assert eager.steps.min() >= 3
    assert (eager.loss >= calm.loss).all()


def test_patience_that_never_runs_out_changes_nothing(find: Find) -> None:
    equal(find(patience=21), find())


def test_a_discriminator_without_weight_is_not_run(nets: Nets) -> None:
    class Never(Discriminator):
        def features(self, image: Tensor) -> Tensor:
            raise AssertionError("the discriminator was run")

    never = Never(channels=1, size=SIZE, width=8)
    first = torch.zeros(COUNT, LATENT)
    for how, runs in ((settings(weight=0.0), False), (settings(steps=0), False), (settings(), True)):
        with pytest.raises(AssertionError) if runs else contextlib.nullcontext():
            search(nets.generator, never, nets.films, first, how, seed=0, autocast=contextlib.nullcontext)


def test_no_films_have_no_latents(find: Find) -> None:
    found = find(torch.zeros(0, 1, SIZE, SIZE))
    assert found.z.shape == (0, LATENT)
    assert found.loss.shape == found.steps.shape == (0,)


def test_networks_films_and_starts_are_left_alone(nets: Nets, find: Find) -> None:
    before = [nets.films.clone(), nets.latents.clone()]
    weights = {k: v.clone() for k, v in nets.generator.state_dict().items()}
    find(first=nets.latents, restarts=1)
    assert torch.equal(before[0], nets.films)
    assert torch.equal(before[1], nets.latents)
    assert all(torch.equal(value, weights[key]) for key, value in nets.generator.state_dict().items())
    assert all(weight.grad is None for weight in nets.generator.parameters())
