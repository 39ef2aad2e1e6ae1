"""The networks: shapes, and parity with the published DCGAN by its parameter counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anomaly.nets.dcgan import Discriminator, Generator, levels, recompute_batch_norm

SIZES = [16, 32, 64, 128]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def statistics(module: nn.Module) -> list[torch.Tensor]:
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    return [values.clone() for norm in norms for values in (norm.running_mean, norm.running_var) if values is not None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_generator_draws_images_in_range(size: int, channels: int) -> None:
    generator = Generator(latent=5, channels=channels, size=size, width=4)
    images = generator(torch.randn(3, 5))
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_discriminator_gives_a_logit_and_a_last_map_of_4_by_4(size: int, channels: int) -> None:
    discriminator = Discriminator(channels=channels, size=size, width=4)
    images = torch.rand(3, channels, size, size) * 2 - 1
    assert discriminator(images).shape == (3,)
    assert discriminator.features(images).shape == (3, 4 * size // 8, 4, 4)


def test_parameter_counts_are_those_of_the_published_dcgan() -> None:
    """At 64 px, nz = 100, ngf = ndf = 64, 3 channels: 3,576,704 and 2,765,568 in PyTorch's DCGAN, which has no bias.

    Ours has one where no batch norm follows: on the generator's last layer (3), on the discriminator's first (64) and
    last (1).
    """
    assert parameters(Generator(latent=100, channels=3, size=64, width=64)) == 3_576_704 + 3
    assert parameters(Discriminator(channels=3, size=64, width=64)) == 2_765_568 + 64 + 1


def test_layers_are_those_of_the_published_dcgan() -> None:
    generator = Generator(latent=100, channels=3, size=64, width=64)
    drawn = [part for part in generator.modules() if isinstance(part, nn.ConvTranspose2d)]
    assert [(part.in_channels, part.out_channels) for part in drawn] == [
        (100, 512),
        (512, 256),
        (256, 128),
        (128, 64),
        (64, 3),
    ]
    assert [(part.stride[0], part.padding[0]) for part in drawn] == [(1, 0)] + 4 * [(2, 1)]
    assert {part.kernel_size for part in drawn} == {(4, 4)}
    assert isinstance(generator.layers[-1], nn.Tanh)
    discriminator = Discriminator(channels=3, size=64, width=64)
    read = [part for part in discriminator.modules() if isinstance(part, nn.Conv2d)]
    assert [(part.in_channels, part.out_channels) for part in read] == [
        (3, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1),
    ]
    assert {part.negative_slope for part in discriminator.modules() if isinstance(part, nn.LeakyReLU)} == {0.2}
    assert sum(isinstance(part, nn.BatchNorm2d) for part in discriminator.modules()) == 3, "none on the first layer"


def test_weights_start_as_radford_et_al_say() -> None:
    torch.manual_seed(0)
    generator = Generator(latent=100, channels=1, size=64, width=32)
    for part in generator.modules():
        if isinstance(part, nn.ConvTranspose2d):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(part, nn.BatchNorm2d):
            assert part.weight.mean().item() == pytest.approx(1.0, abs=0.02)


def test_levels_counts_the_doublings_from_4() -> None:
    assert [levels(size) for size in SIZES] == [2, 3, 4, 5]


@pytest.mark.parametrize("size", [-64, 0, 1, 4, 8, 15, 17, 48, 63, 65, 96, 100])
def test_levels_refuses_what_a_dcgan_cannot_draw(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        levels(size)


def test_recomputed_statistics_are_those_of_the_generators_own_samples() -> None:
    torch.manual_seed(1)
    generator = Generator(latent=8, channels=1, size=32, width=8)
    for part in generator.modules():
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.normal_(part.weight, 0.0, 0.05)
    before = statistics(generator)
    latents = torch.randn(1024, 8)
    recompute_batch_norm(generator, latents)
    assert not generator.training
    assert not any(torch.allclose(a, b) for a, b in zip(before, statistics(generator), strict=True))
    first = next(part for part in generator.modules() if isinstance(part, nn.BatchNorm2d))
    assert first.momentum == 0.1, "put back"
    with torch.no_grad():
        seen = generator.layers[0](latents[:, :, None, None])
        alone = generator(latents)
        generator.train()
        together = generator(latents)
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-2, rtol=0)
    assert (alone - together).abs().max() < 0.02
    assert together.std() > 0.05, "else the comparison says nothing"


def test_recomputing_twice_gives_the_same_statistics() -> None:
    generator = Generator(latent=8, channels=1, size=32, width=8)
    latents = torch.randn(300, 8)
    recompute_batch_norm(generator, latents)
    once = statistics(generator)
    recompute_batch_norm(generator, latents)
    assert all(torch.equal(a, b) for a, b in zip(once, statistics(generator), strict=True))
