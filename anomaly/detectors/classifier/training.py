"""Training of a classifier: staged unfreezing, StepLR, early stopping on validation loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly.detectors.classifier.augment import Augment
from anomaly.detectors.classifier.settings import ClassifierConfig
from anomaly.nets.classifier import Classifier
from anomaly.nets.epochs import EpochTraining, Verdict
from anomaly.records import Float32, Float64, Int64

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True, slots=True)
class Labelled:
    """Films float32 (N, C, S, S) in [-1, 1], and the number of each one's class, int64 (N,)."""

    films: Float32
    classes: Int64

    def __len__(self) -> int:
        return len(self.films)


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that learn at one rate."""

    modules: list[nn.Module]
    parameters: list[nn.Parameter]
    rate: float


class Training(EpochTraining[Classifier, Labelled]):
    """A classifier and its optimiser; the epoch with the lowest validation loss is kept."""

    def __init__(
        self, net: Classifier, config: ClassifierConfig, films: tuple[Labelled, Labelled], *, seed: int, fabric: Fabric
    ) -> None:
        self.config = config
        self.groups = _groups(net, config)
        optimiser = _optimiser([{"params": group.parameters, "lr": group.rate} for group in self.groups], config)
        super().__init__(net, optimiser, config, films, seed=seed, fabric=fabric)
        self.augment = Augment(config)
        self.weights = _class_weights(self.train.classes, even=config.class_weights)

    def begin_epoch(self) -> None:
        """Let those layers learn whose epoch has come; the others' norms keep their statistics."""
        config = self.config
        self.net.train()
        fallen = config.step_gamma ** (self.epoch // config.step_epochs)
        for depth, group in enumerate(self.groups):
            learns = depth == 0 or self.epoch >= config.frozen_epochs + (depth - 1) * config.stage_epochs
            for parameter in group.parameters:
                parameter.requires_grad_(learns)
            if not learns:
                for module in group.modules:
                    module.eval()
            self.optimiser.param_groups[depth]["lr"] = group.rate * fallen

    def may_stop(self) -> bool:
        """Tell whether all layers have learnt for an epoch."""
        config = self.config
        return self.epoch > config.frozen_epochs + (config.stages - 1) * config.stage_epochs

    def loss(self, part: Int64) -> Tensor:
        """Return the mean cross-entropy of the training films at these places, augmented."""
        films = self.fabric.to_device(self.augment(torch.tensor(self.train.films[part])))
        classes = self.fabric.to_device(torch.tensor(self.train.classes[part]))
        weights, smoothing = self.fabric.to_device(self.weights), self.config.label_smoothing
        return functional.cross_entropy(self.wrapped(films).float(), classes, weights, label_smoothing=smoothing)

    def validate(self) -> Verdict:
        """Return val_loss, val_accuracy and val_balanced_accuracy."""
        logits, classes = self.logits(self.held_out.films), self.held_out.classes
        loss = functional.cross_entropy(torch.tensor(logits), torch.tensor(classes), self.weights.double())
        right = logits.argmax(axis=1) == classes
        balanced = np.mean([right[classes == c].mean() for c in np.unique(classes)])
        told = {"val_loss": float(loss), "val_accuracy": float(right.mean()), "val_balanced_accuracy": float(balanced)}
        return Verdict(float(loss), told)

    def logits(self, films: Float32) -> Float64:
        """Return the network's logits of films as they are, float64 (N, K)."""
        self.net.eval()
        told = []
        with torch.inference_mode():
            for start in range(0, len(films), self.config.batch):
                part = torch.tensor(films[start : start + self.config.batch])
                told.append(self.wrapped(self.fabric.to_device(part)).double().cpu().numpy())
        return np.concatenate(told)


def _groups(net: Classifier, config: ClassifierConfig) -> list[Group]:
    """Return what learns at one rate: first the last layer, then ever deeper groups; what is in none, with the last."""
    layers = [[net.head], *net.depths(config.stages)]
    rates = [1.0, *(config.backbone_rate * config.stage_rate**depth for depth in range(len(layers) - 1))]
    groups = [
        Group(modules, [p for module in modules for p in module.parameters(recurse=False)], config.learning_rate * rate)
        for modules, rate in zip(layers, rates, strict=True)
    ]
    known = {id(parameter) for group in groups for parameter in group.parameters}
    groups[-1].parameters.extend(parameter for parameter in net.parameters() if id(parameter) not in known)
    return groups


def _optimiser(groups: list[dict[str, Any]], config: ClassifierConfig) -> torch.optim.Optimizer:
    decay = config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, weight_decay=decay)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, momentum=config.momentum, weight_decay=decay)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=decay)


def _class_weights(classes: Int64, *, even: bool) -> Tensor:
    """Return the weight of each class in the loss, float32 (K,): N / (K n_k), or 1."""
    counts = np.bincount(classes)
    weights = len(classes) / (len(counts) * counts) if even else np.ones(len(counts))
    return torch.tensor(weights, dtype=torch.float32)
