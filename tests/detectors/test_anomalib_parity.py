"""PaDiM and PatchCore are anomalib's: the same maps and scores to 1e-4, with the same backbone and tensors, in fp32."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anomaly.detectors.padim import Padim, PadimConfig
from anomaly.detectors.patchcore import Patchcore, PatchcoreConfig
from anomaly.nets.zoo import build
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32
from anomaly.runs import Arrays

SIZE = 64
RANDOM = {"backbone_weights": "none", "precision": "fp32"}
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


@pytest.fixture(scope="module")
def films(phantom_images: Callable[..., Float32]) -> Float32:
    return phantom_images(50, SIZE)


def padim(**settings: Any) -> Padim:
    return Padim(PadimConfig(**{**RANDOM, "features": 30, **settings}), size=SIZE, device="cpu")


def patchcore(**settings: Any) -> Patchcore:
    return Patchcore(PatchcoreConfig(**{**RANDOM, **settings}), size=SIZE, device="cpu")


def test_padim_with_the_same_channels_and_a_fit_of_its_own(films):
    ours = padim(pooling="max").fit(ArraySource(films[:40]))
    theirs = anomalib_models()[0](resnet18_of(ours._state()), list(LAYERS), pre_trained=False, n_features=30)
    theirs.idx = torch.from_numpy(ours._channels)
    theirs.train()
    theirs(normalised(films[:40]))
    theirs.fit()
    theirs.eval()
    wanted = theirs(normalised(films[40:]))
    found = ours.score(films[40:])
    np.testing.assert_allclose(found.heatmaps, wanted.anomaly_map[:, 0].numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.scores, wanted.pred_score.numpy().ravel(), rtol=1e-4)


@pytest.mark.parametrize("neighbours", [9, 1])
def test_patchcore_with_the_same_bank(films, neighbours):
    ours = patchcore(pooling="max", neighbours=neighbours).fit(ArraySource(films[:40]))
    state = ours._state()
    theirs = anomalib_models()[1](
        ["layer2", "layer3"], resnet18_of(state), pre_trained=False, num_neighbors=neighbours
    ).eval()
    theirs.memory_bank = torch.from_numpy(state["bank"])
    wanted = theirs(normalised(films[40:]))
    found = ours.score(films[40:])
    np.testing.assert_allclose(found.heatmaps, wanted.anomaly_map[:, 0].numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.scores, wanted.pred_score.numpy(), rtol=1e-4)
