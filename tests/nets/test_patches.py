"""Patches: enlarging and blurring as two small products is what interpolation and convolution do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from anomaly.nets.patches import join, resize, spread, spreader


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
@pytest.mark.parametrize(("patches", "size"), [(8, 32), (7, 50), (28, 224)])
def test_spreading_is_enlarging_then_a_gaussian_blur_with_a_mirrored_border(how, patches, size):
    maps = torch.rand(3, 1, patches, patches, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma, reach = 2.5, 10
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    line = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = torch.outer(line, line) / torch.outer(line, line).sum()
    large = functional.interpolate(maps, size=(size, size), mode=how)
    wanted = functional.conv2d(functional.pad(large, [reach] * 4, mode="reflect"), kernel[None, None])[:, 0]
    found = spread(maps[:, 0].float(), spreader(patches, size, how, sigma))
    assert found.shape == (3, size, size)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-6)


def test_spreading_without_blur_only_enlarges():
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    found = spread(maps, spreader(4, 8, "nearest", 0.0))
    torch.testing.assert_close(found, functional.interpolate(maps[:, None], scale_factor=2.0)[:, 0])


def test_a_flat_map_stays_flat():
    found = spread(torch.full((1, 7, 7), 3.0), spreader(7, 64, "bilinear", 4.0))
    torch.testing.assert_close(found, torch.full((1, 64, 64), 3.0))


def test_joined_maps_have_the_size_of_the_first_and_all_channels():
    maps = [torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)]
    joined = join(maps, "nearest")
    assert joined.shape == (2, 8, 8, 8)
    assert torch.equal(joined[:, :3], maps[0])
    assert torch.equal(joined[:, 3:, ::2, ::2], maps[1])
    assert resize(maps[0], (8, 8), "bilinear") is maps[0]
