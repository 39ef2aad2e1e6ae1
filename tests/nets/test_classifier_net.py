"""A classifier of any network: its head, the maps Grad-CAM weighs, the norms it came with, and what learns when."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly.config import load_recipe, recipe_names
from anomaly.errors import UsageError
from anomaly.nets.classifier import Classifier
from anomaly.nets.device import freeze, seeded
from anomaly.nets.gradcam import grad_cam, log_odds
from anomaly.nets.zoo import build
from anomaly.runs import Arrays

PLACES = [
    ("resnet18", "layer4", "fc"),
    ("mobilenet_v2", "features", "classifier.1"),
    ("mobilenet_v3_small", "features", "classifier.3"),
    ("alexnet", "features.11", "classifier.6"),  # before the pooling that ends the features
    ("squeezenet1_1", "features", "classifier.1"),  # whose head is a convolution
    ("densenet121", "features", "classifier"),  # whose maps are overwritten by what follows
    ("test_resnet", "layer4", "fc"),  # of timm
    ("test_efficientnet", "bn2", "classifier"),
]
SUPERVISED = [name for name in recipe_names() if load_recipe(name).method == "classifier"]


def images(n: int = 2, channels: int = 1, size: int = 64) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def classifier(arch: str, classes: int = 3, *, size: int = 64, dropout: float = 0.0) -> Classifier:
    with seeded(0):
        return Classifier(arch, classes, size=size, dropout=dropout)


@pytest.mark.parametrize(("arch", "target", "head"), PLACES, ids=[place[0] for place in PLACES])
def test_head_and_maps_are_found(arch: str, target: str, head: str) -> None:
    net = classifier(arch)
    assert net.head_name == head
    assert target in (net.target_name, net.target_name.rpartition(".")[0])
    assert net(images()).shape == (2, 3)
    freeze(net)
    logits, maps = grad_cam(net, images())
    assert maps.shape == (2, 64, 64)
    assert (maps >= 0).all()
    torch.testing.assert_close(logits, net(images()))


def test_grad_cam_is_what_the_paper_says() -> None:
    net = classifier("resnet18")
    freeze(net)
    kept: list[Tensor] = []
    hook = net.target.register_forward_hook(lambda _, __, output: kept.append(output.requires_grad_()))
    log_odds(net(images())).sum().backward()
    hook.remove()
    assert kept[0].grad is not None
    weights = kept[0].grad.mean(dim=(2, 3), keepdim=True)
    wanted = (weights * kept[0]).sum(dim=1, keepdim=True).relu().detach()
    wanted = functional.interpolate(wanted, (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(grad_cam(net, images())[1], wanted)
    assert wanted.max() > 0


def test_log_odds_are_those_of_not_being_normal() -> None:
    logits = torch.tensor([[0.3, 1.2, -0.4], [2.0, 0.0, 0.1]])
    normal = logits.softmax(dim=1)[:, 0]
    torch.testing.assert_close(log_odds(logits), torch.log((1 - normal) / normal))


def test_networks_that_keep_no_map_or_take_no_such_size_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="Grad-CAM has nothing to weigh"):
        classifier("test_vit", size=160)
    with pytest.raises(UsageError, match="side 32 do not go through 'alexnet'"):
        classifier("alexnet", size=32)
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        classifier("resnet17")


def arrays_of(network: nn.Module) -> Arrays:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def test_weights_are_taken_but_for_the_head_and_what_is_lacking_is_told() -> None:
    whole = arrays_of(build("resnet18"))
    net = classifier("resnet18")
    before = net.network.layer4[0].conv1.weight.clone()
    part = {name: array for name, array in whole.items() if not name.startswith("layer4")}
    assert net.take(part) == ["layer4"]
    torch.testing.assert_close(net.network.conv1.weight, torch.tensor(whole["conv1.weight"]))
    torch.testing.assert_close(net.network.layer4[0].conv1.weight, before)
    assert net.take(whole) == []
    with pytest.raises(ValueError, match=r"conv1\.weight has shape"):
        net.take({**whole, "conv1.weight": whole["conv1.weight"][:3]})


def test_folded_norms_are_given_statistics_without_changing_any_output() -> None:
    tensors = arrays_of(build("resnet18"))
    for name in tensors:
        if "bn" in name and name.endswith("bias"):
            tensors[name] = tensors[name] + 0.3
    net = classifier("resnet18")
    net.take(tensors)
    before = net(images(8))
    net.unfold_norms([images(8)])
    norm = net.network.layer1[0].bn1
    assert (norm.running_var - 1).abs().max() > 0.01
    assert (norm.running_mean != 0).all()
    torch.testing.assert_close(net(images(8)), before, atol=1e-4, rtol=1e-4)
    net.train()  # and what it normalises by in training is what it came with
    torch.testing.assert_close(net(images(8)), before, atol=0.1, rtol=0.1)


def test_norms_with_statistics_of_their_own_are_left_alone() -> None:
    tensors = arrays_of(build("resnet18"))
    tensors["bn1.running_mean"] = tensors["bn1.running_mean"] + 0.1
    net = classifier("resnet18")
    net.take(tensors)
    net.unfold_norms([images(4)])
    torch.testing.assert_close(net.network.bn1.running_mean, torch.full((64,), 0.1))


def test_depths_hold_every_layer_once_the_deepest_last() -> None:
    net = classifier("resnet18")
    groups = net.depths(3)
    assert len(groups) == 3
    assert groups[-1][-1] is net.network.conv1
    flat = [module for group in groups for module in group]
    assert len(set(map(id, flat))) == len(flat)
    assert net.head not in flat
    of_layers = {id(p) for module in (*flat, net.head) for p in module.parameters(recurse=False)}
    assert of_layers == {id(p) for p in net.parameters()}


def test_dropout_before_the_head_acts_in_training_alone() -> None:
    net = classifier("resnet18", dropout=0.9)
    torch.testing.assert_close(net(images()), net(images()))
    net.head.train()
    assert (net(images()) - net(images())).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPERVISED)
def test_every_recipes_network_goes_forward_draws_a_map_and_learns_a_step(name: str) -> None:
    recipe = load_recipe(name)
    net = classifier(str(recipe.detector["arch"]), 2, size=recipe.size)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    before = net.head.weight.detach().clone()
    net.train()
    functional.cross_entropy(net(images(2, size=recipe.size)), torch.tensor([0, 1])).backward()
    optimiser.step()
    assert (net.head.weight != before).any()
    freeze(net)
    logits, maps = grad_cam(net, images(1, size=recipe.size))
    assert logits.isfinite().all()
    assert maps.shape == (1, recipe.size, recipe.size)
    assert maps.isfinite().all()
