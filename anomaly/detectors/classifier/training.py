"""Training of a classifier: staged unfreezing, StepLR, early stopping on validation loss, resumable after any epoch.

Every random draw is a function of (seed, epoch), so a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly.detectors.classifier.augment import Augment
from anomaly.detectors.classifier.settings import ClassifierConfig
from anomaly.errors import UsageError
from anomaly.nets.classifier import Classifier
from anomaly.nets.device import seeded
from anomaly.nets.state import arrays_of, copied, epoch_seed, optimiser_arrays, restore_optimiser, tensors_of
from anomaly.records import Float32, Float64, Int64
from anomaly.runs import Arrays, Recorder, under

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


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the lowest validation loss so far, and the network's state after it."""

    epoch: int
    loss: float
    state: dict[str, Tensor]


class Training:
    """A classifier and its optimiser, advanced epoch by epoch by `run`."""

    def __init__(self, net: Classifier, config: ClassifierConfig, *, seed: int, fabric: Fabric) -> None:
        self.config = config
        self.seed = seed
        self.fabric = fabric
        self.net = net
        self.groups = _groups(net, config)
        optimiser = _optimiser([{"params": group.parameters, "lr": group.rate} for group in self.groups], config)
        self.wrapped, self.optimiser = fabric.setup(net, optimiser)
        self.augment = Augment(config)
        self.epoch = 0
        self.best = Best(0, math.inf, {})

    def run(self, train: Labelled, held_out: Labelled, recorder: Recorder) -> None:
        """Train until the validation loss has not fallen for `patience` epochs; leave the best epoch's weights.

        Args:
            train: What to learn from.
            held_out: Other patients' films, which stop the training and choose the epoch.
            recorder: Gets train_loss, val_loss, val_accuracy, val_balanced_accuracy and learning_rate of every epoch,
                checkpoints, progress.

        Raises:
            UsageError: The training died: its loss is no number.
        """
        config = self.config
        before = recorder.restore()
        if before is not None:
            self._restore(*before)
        weights = self.fabric.to_device(_class_weights(train.classes, even=config.class_weights))
        while self.epoch < config.epochs and not self._tired():
            loss = self._pass(train, weights, recorder)
            self.epoch += 1
            self._judge(loss, held_out, weights, recorder)
            recorder.checkpoint(self._state(), {"step": self.epoch, "best": self.best.epoch, "loss": self.best.loss})
        self.net.load_state_dict(self.best.state)
        self.net.eval()

    def _tired(self) -> bool:
        """Tell whether the validation loss has stopped falling, once all layers have learnt for an epoch."""
        config = self.config
        whole = config.frozen_epochs + (config.stages - 1) * config.stage_epochs + 1
        return self.epoch >= whole and self.epoch - self.best.epoch >= config.patience

    def _pass(self, train: Labelled, weights: Tensor, recorder: Recorder) -> float:
        """Go through the films once; return the mean loss."""
        config = self.config
        self._thaw()
        total = 0.0
        done = 0
        with seeded(epoch_seed(self.seed, self.epoch)):
            for films, classes in self._batches(train):
                self.optimiser.zero_grad(set_to_none=True)
                loss = functional.cross_entropy(
                    self.wrapped(films).float(), classes, weights, label_smoothing=config.label_smoothing
                )
                self.fabric.backward(loss)
                self.optimiser.step()
                total += float(loss.detach()) * len(films)
                done += len(films)
                recorder.progress(self.epoch * len(train) + done, config.epochs * len(train), "training")
        return total / len(train)

    def _batches(self, train: Labelled) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(train)).numpy()
        for part in np.array_split(order, max(1, len(train) // self.config.batch)):  # no batch of a single film
            films = self.augment(torch.tensor(train.films[part]))
            yield self.fabric.to_device(films), self.fabric.to_device(torch.tensor(train.classes[part]))

    def _thaw(self) -> None:
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

    def _judge(self, loss: float, held_out: Labelled, weights: Tensor, recorder: Recorder) -> None:
        logits = self.logits(held_out.films)
        classes = torch.tensor(held_out.classes)
        held = float(functional.cross_entropy(torch.tensor(logits), classes, weights.cpu().double()))
        right = logits.argmax(axis=1) == held_out.classes
        balanced = np.mean([right[held_out.classes == c].mean() for c in np.unique(held_out.classes)])
        told = {"train_loss": loss, "val_loss": held, "val_accuracy": float(right.mean())}
        told |= {"val_balanced_accuracy": float(balanced), "learning_rate": self.optimiser.param_groups[0]["lr"]}
        for name, value in told.items():
            recorder.scalar(self.epoch, name, value)
        if not (math.isfinite(loss) and math.isfinite(held)):
            raise UsageError(
                f"The training died in epoch {self.epoch}: its loss is {loss}. Try a smaller detector.learning_rate, "
                "or detector.precision=fp32."
            )
        if held < self.best.loss:
            self.best = Best(self.epoch, held, copied(self.net.state_dict()))

    def logits(self, films: Float32) -> Float64:
        """Return the network's logits of films as they are, float64 (N, K)."""
        self.net.eval()
        told = []
        with torch.inference_mode():
            for start in range(0, len(films), self.config.batch):
                part = torch.tensor(films[start : start + self.config.batch])
                told.append(self.wrapped(self.fabric.to_device(part)).double().cpu().numpy())
        return np.concatenate(told)

    def _state(self) -> Arrays:
        parts = {
            "net": arrays_of(self.net.state_dict()),
            "best": arrays_of(self.best.state),
            "optimiser": optimiser_arrays(self.optimiser),
        }
        return {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def _restore(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        self.net.load_state_dict(tensors_of(under(arrays, "net")))
        restore_optimiser(self.optimiser, under(arrays, "optimiser"))
        self.epoch = int(meta["step"])
        self.best = Best(int(meta["best"]), float(meta["loss"]), tensors_of(under(arrays, "best")))


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
