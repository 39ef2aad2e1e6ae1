"""What the tests of methods on a frozen backbone share."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from anomaly.nets.zoo import build
from anomaly.runs import Arrays

LAYERS = ("layer1", "layer2", "layer3")


def anomalib_models() -> tuple[Any, Any]:
    """Return anomalib's PadimModel and PatchcoreModel; importing them takes its time, and warns of itself."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, SyntaxWarning):
            warnings.simplefilter("ignore", kind)
        from anomalib.models.image.padim.torch_model import PadimModel
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    return PadimModel, PatchcoreModel


def resnet18_of(state: Arrays) -> nn.Module:
    """Return torchvision's resnet18 with the weights of the layers that a detector of ours holds."""
    network = build("resnet18")
    own = {k.removeprefix("backbone/"): torch.tensor(a) for k, a in state.items() if k.startswith("backbone/")}
    missing = network.load_state_dict({k: v for k, v in own.items() if k not in ("input", "sha256")}, strict=False)
    assert not missing.unexpected_keys
    return network


def normalised(films: Any) -> torch.Tensor:
    """Return films in [-1, 1], grey, as ImageNet's networks want them: float32 (N, 3, S, S)."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    picture = (torch.from_numpy(films) + 1) / 2
    return (picture - mean[:, None, None]) / std[:, None, None]
