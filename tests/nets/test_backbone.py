"""A backbone gives what the whole network gives at the layers asked for, and keeps no more than they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomaly.errors import UsageError
from anomaly.nets.backbone import Backbone
from anomaly.nets.zoo import blueprint, build
from anomaly.runs import Arrays
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD
from anomaly.workflows.weights_file import fit_to, read_arrays, read_header

CASES = [
    ("resnet18", ("layer1", "layer2", "layer3")),
    ("mobilenet_v2", ("features.3", "features.6")),
    ("test_resnet", ("layer1", "layer2")),  # of timm
    ("squeezenet1_1", ("features.0", "features.3")),  # the first followed by an activation in place
    ("resnet18", ("layer2", "bn1")),  # as asked for, not as the network goes; the second followed by such a one, too
]


def trained(arch: str) -> nn.Module:
    """Return a network whose batch norms have seen something, so that folding them is no empty exercise."""
    network = build(arch)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.3, generator=draw)
                module.running_var.uniform_(0.5, 2, generator=draw)
                module.weight.uniform_(0.5, 1.5, generator=draw)
                module.bias.normal_(0, 0.3, generator=draw)
    return network


def arrays_of(network: nn.Module) -> Arrays:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def images(n: int = 2, channels: int = 3, size: int = 64) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def as_wanted(pictures: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return images in [-1, 1] as a network trained with this mean and std wants them."""
    return ((pictures + 1) / 2 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def hooked(network: nn.Module, layers: tuple[str, ...], given: Tensor) -> list[Tensor]:
    """Return what the layers of the whole network give, copied before the next layer can write into it."""
    seen: dict[str, Tensor] = {}
    modules = dict(network.named_modules())
    hooks = [
        modules[layer].register_forward_hook(lambda _, __, out, layer=layer: seen.__setitem__(layer, out.clone()))
        for layer in layers
    ]
    with torch.inference_mode():
        network(given)
    for hook in hooks:
        hook.remove()
    return [seen[layer] for layer in layers]


def maps_of(backbone: Backbone, pictures: Tensor) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        return [found.float().numpy() for found in backbone(pictures)]


@pytest.fixture(scope="module")
def resnet() -> Arrays:
    return arrays_of(trained("resnet18"))


@pytest.fixture
def backbone(resnet: Arrays) -> Backbone:
    made = Backbone("resnet18", ("layer1", "layer2"))
    made.take(resnet)
    return made


@pytest.mark.parametrize(("arch", "layers"), CASES)
def test_features_are_those_of_the_whole_network(arch: str, layers: tuple[str, ...]) -> None:
    network = trained(arch)
    given = as_wanted(images(), IMAGENET_MEAN, IMAGENET_STD)
    expected = hooked(network, layers, given)
    made = Backbone(arch, layers)
    made.take(arrays_of(network))
    with torch.inference_mode():
        unfolded = made.network(given)
    for layer, folded, wanted in zip(layers, maps_of(made, images()), expected, strict=True):
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(unfolded[layer].numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5 * scale)
        np.testing.assert_allclose(folded, wanted.numpy(), rtol=1e-4, atol=1e-5 * scale)


def test_batch_norms_are_folded_in_the_fast_copy_alone(backbone: Backbone, resnet: Arrays) -> None:
    backbone.place("cpu", bf16=False)
    assert backbone._fast is not None
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone._fast.modules())
    for name, array in backbone.tensors().items():
        np.testing.assert_array_equal(array, resnet[name])


def test_grey_is_three_equal_channels(backbone: Backbone) -> None:
    grey = images(channels=1)
    for one, three in zip(maps_of(backbone, grey), maps_of(backbone, grey.expand(-1, 3, -1, -1)), strict=True):
        np.testing.assert_array_equal(one, three)


def test_input_is_normalised_as_the_weights_want(backbone: Backbone, resnet: Arrays) -> None:
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.25, 1.0)
    network = build("resnet18")
    network.load_state_dict({name: torch.from_numpy(array) for name, array in resnet.items()})
    before = maps_of(backbone, images())
    backbone.set_input(mean, std)
    found = maps_of(backbone, images())
    assert not np.allclose(found[0], before[0], rtol=0.1)
    for got, wanted in zip(found, hooked(network, backbone.layers, as_wanted(images(), mean, std)), strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_only_tensors_of_the_layers_used_are_kept(backbone: Backbone, resnet: Arrays) -> None:
    kept = backbone.tensors()
    wanted = {name for name in resnet if name.startswith(("conv1.", "bn1.", "layer1.", "layer2."))}
    assert set(kept) == {name for name in wanted if not name.endswith("num_batches_tracked")}
    again = Backbone("resnet18", backbone.layers)
    again.take(kept)
    for one, other in zip(maps_of(backbone, images()), maps_of(again, images()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_missing_tensor_is_named(backbone: Backbone, resnet: Arrays) -> None:
    short = {name: array for name, array in resnet.items() if not name.startswith("layer2.1.")}
    with pytest.raises(ValueError, match=r"lack 10 of 50 tensors of resnet18 up to layer2, layer2\.1\.conv1\.weight"):
        backbone.take(short)


def test_a_tensor_of_another_shape_is_named(backbone: Backbone, resnet: Arrays) -> None:
    wrong = {**resnet, "layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)}
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight has shape \(64, 64, 1, 1\)"):
        backbone.take(wrong)


def test_a_refused_file_changes_nothing(backbone: Backbone, resnet: Arrays) -> None:
    before = maps_of(backbone, images())
    with pytest.raises(ValueError, match="lack"):
        backbone.take({name: array + 1 for name, array in resnet.items() if name != "layer2.1.bn2.bias"})
    np.testing.assert_array_equal(maps_of(backbone, images())[1], before[1])


def test_half_precision_is_taken(backbone: Backbone, resnet: Arrays) -> None:
    exact = maps_of(backbone, images())
    for kind in (np.float16, np.float64):
        other = {name: array.astype(kind) if array.dtype.kind == "f" else array for name, array in resnet.items()}
        backbone.take(other)
        assert all(array.dtype == np.float32 for array in backbone.tensors().values())
        for got, wanted in zip(maps_of(backbone, images()), exact, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=0.02, atol=2e-3 * float(np.abs(wanted).max()))


def test_taking_weights_replaces_those_it_ran_with(backbone: Backbone, resnet: Arrays) -> None:
    before = maps_of(backbone, images())
    backbone.take({name: array * 0.5 if name == "conv1.weight" else array for name, array in resnet.items()})
    assert not np.allclose(maps_of(backbone, images())[0], before[0])


def test_bf16_is_close(backbone: Backbone) -> None:
    exact = maps_of(backbone, images())
    backbone.place("cpu", bf16=True)
    with torch.inference_mode():
        assert all(found.dtype == torch.bfloat16 for found in backbone(images()))
    for got, wanted in zip(maps_of(backbone, images()), exact, strict=True):
        assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.999
        assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()


def test_nothing_trains(backbone: Backbone) -> None:
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.network.modules())


@pytest.mark.parametrize(
    ("arch", "layer", "said"),
    [
        ("resnet18", "layer9", r"did you mean 'layer4'\?"),
        ("resnet18", "layer1.0.conv9", "did you mean"),
        ("mobilenet_v2", "feature.6", r"did you mean 'features.6'\?"),
        ("resnt18", "layer1", r"did you mean 'resnet18'\?"),
        ("densenet-of-mine", "layer1", "Neither torchvision nor timm"),
    ],
)
def test_unknown_names_are_hinted_at(arch: str, layer: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Backbone(arch, (layer,))


@pytest.mark.parametrize(
    ("arch", "layer", "size"),
    [
        ("resnet18", "fc", 64),  # a vector
        ("vit_tiny_patch16_224", "blocks.1", 224),  # tokens
        ("swin_t", "features.1", 64),  # maps with channels last: their number would be taken for a side
    ],
)
def test_what_gives_no_maps_is_refused(arch: str, layer: str, size: int) -> None:
    with pytest.raises(UsageError, match="gives no maps"):
        Backbone(arch, (layer,)).shapes(size)


def test_a_network_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'test_vit' cannot be cut into layers"):
        Backbone("test_vit", ("blocks.1",))


def test_images_that_are_too_small_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    made = Backbone("squeezenet1_1", ("features.0",))
    assert made.shapes(3) == [(64, 1, 1)]
    with pytest.raises(UsageError, match=r"Images of 2 pixels a side do not suit squeezenet1_1 up to features\.0: .+$"):
        made.shapes(2)
    assert capfd.readouterr() == ("", "")


def test_shapes(backbone: Backbone) -> None:
    assert backbone.shapes(224) == [(64, 56, 56), (128, 28, 28)]
    assert backbone.shapes(96) == [(64, 24, 24), (128, 12, 12)]


@pytest.mark.real
def test_real_weights_serve_the_layers_they_hold(shared_data: Path) -> None:
    file = shared_data / "weights" / "resnet18_imagenet_conv1-layer3.safetensors"
    assert read_header(file)["arch"] == "resnet18"
    made = Backbone("resnet18", ("layer1", "layer2", "layer3"))
    made.take(fit_to(blueprint("resnet18"), read_arrays(file), file.name).tensors)
    maps = maps_of(made, images(channels=1, size=224))
    assert [found.shape[1:] for found in maps] == [(64, 56, 56), (128, 28, 28), (256, 14, 14)]
    assert all(np.isfinite(found).all() and found.std() > 0.05 for found in maps)
    with pytest.raises(ValueError, match="layer4"):
        Backbone("resnet18", ("layer4",)).take(made.tensors())
