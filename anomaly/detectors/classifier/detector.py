"""`classifier`: any classification network, trained on labels; score = 1 - P(normal), map = Grad-CAM.

Not a method of this project's kind but what it is to be measured against: the networks of many published studies
(He et al., CVPR 2016, for the default), fine-tuned from ImageNet weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from anomaly.detectors.base import Detector, DetectorConfig, class_term
from anomaly.detectors.classifier.settings import ClassifierConfig
from anomaly.detectors.classifier.temperature import choose_cut, fit_temperature
from anomaly.detectors.classifier.training import Labelled, Training
from anomaly.errors import DataError, ModelError
from anomaly.nets.classifier import Classifier
from anomaly.nets.device import freeze, open_fabric, resolve_device, seeded
from anomaly.nets.gradcam import grad_cam
from anomaly.records import NORMAL, DetectorOutput, Float32, ImageSource, Int64, Target
from anomaly.runs import Arrays, Recorder, under
from anomaly.scans.split import split_test
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple, find_weights

_NET = "net"
_BYTES = 4
_COPIES = 4  # of the weights while training: themselves, gradients, two moments
_KEPT = 2.5
"""Times the numbers an image leaves behind on its way that training keeps of it: an estimate, not measured."""
_COLOURED = (0.75, 0.99)  # quantiles of the heat that colours span
_DRAWN = 128  # validation films they are taken over
_SETTLING = 8  # batches that folded norms are given statistics from


class ClassifierDetector(Detector):
    """A classifier; the first class is the normal one."""

    name: ClassVar[str] = "classifier"
    Config: ClassVar[type[DetectorConfig]] = ClassifierConfig
    supervised: ClassVar[bool] = True
    config: ClassifierConfig

    _net: Classifier
    _names: tuple[str, ...]
    _temperature: float
    _cut: float
    _range: tuple[float, float]
    _input: tuple[Triple, Triple]
    _sha256: str

    @property
    def backbone(self) -> str | None:
        """The network, where it starts from pretrained weights."""
        return self.config.arch if self.config.backbone_weights == "pretrained" else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the normal one first."""
        return self._names

    @property
    def cut(self) -> float:
        """The score with the highest balanced accuracy on validation films."""
        return self._cut

    @property
    def heat_unit(self) -> str:
        """Grad-CAM is in units of log-odds."""
        return "logit"

    @property
    def heat_range(self) -> tuple[float, float]:
        """Colours span the hottest quarter of validation films that are not normal, but for its last hundredth."""
        return self._range

    def made_of(self) -> dict[str, str]:
        """Return the network, its weights' sha256, the maps Grad-CAM weighs, classes, temperature and cut."""
        return {
            "arch": self.config.arch,
            "backbone_sha256": self._sha256 or "none: random weights",
            "grad_cam_layer": self._net.target_name,
            "classes": ", ".join(self._names),
            "temperature": f"{self._temperature:.3f}",
            "cut": f"{self._cut:.4f}",
        }

    def runs_on(self) -> str:
        """Return the device; scores are computed in fp32."""
        return f"{resolve_device(self.device)} fp32"

    def memory(self, count: int, channels: int) -> int:
        """Return the bytes of a fit, once it is clear that it can be done: images, weights, one batch at work."""
        net, _ = self._open(2)
        images = count * channels * self.size**2
        weights = _COPIES * sum(parameter.numel() for parameter in net.parameters())
        return int(_BYTES * (images + weights + _KEPT * self.config.batch * net.activations))

    def _open(self, classes: int) -> tuple[Classifier, list[str]]:
        """Return the network to train, and which parts of it the pretrained weights leave random.

        Raises:
            MissingError: The weights folder has none of this network.
            ModelError: They are damaged, or do not fit.
            UsageError: No such network, or one that cannot serve.
        """
        config = self.config
        with seeded(self.seed):
            net = Classifier(config.arch, classes, size=self.size, dropout=config.dropout)
        self._input, self._sha256 = (IMAGENET_MEAN, IMAGENET_STD), ""
        if config.backbone_weights == "none":
            return net, []
        stored = find_weights(config.arch)
        try:
            random = net.take(stored.tensors())
        except ValueError as error:
            raise ModelError(f"{stored.path} does not fit {config.arch}: {error}.") from error
        self._input, self._sha256 = (stored.facts.mean, stored.facts.std), stored.sha256
        net.set_input(*self._input)
        return net, random

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        self._names, numbers = _classes_of(targets or ())
        net, random = self._open(len(self._names))
        if random:
            recorder.warn(
                f"The weights of {self.config.arch} lack {', '.join(random)}, which start from random values: expect "
                "less of it than of a whole one."
            )
        films = np.concatenate(list(images.batches()))
        train, held_out = self._parts(films, numbers, images.groups)
        if self.config.backbone_weights == "pretrained":
            batch = self.config.batch
            starts = range(0, min(len(train), _SETTLING * batch), batch)
            net.unfold_norms(torch.tensor(train.films[start : start + batch]) for start in starts)
        fabric = open_fabric(self.device, self.config.precision)
        training = Training(net, self.config, (train, held_out), seed=self.seed, fabric=fabric)
        training.run(recorder)
        logits = training.logits(held_out.films)
        self._temperature = fit_temperature(logits, held_out.classes)
        scores = 1.0 - softmax(logits / self._temperature, axis=1)[:, 0]
        self._cut = choose_cut(scores, held_out.classes > 0)
        recorder.scalar(training.epoch, "temperature", self._temperature)
        recorder.scalar(training.epoch, "best_epoch", training.best.epoch)
        self._place(net)
        self._range = self._usual_heat(held_out.films[held_out.classes > 0][:_DRAWN])

    def _usual_heat(self, films: Float32) -> tuple[float, float]:
        """Return what colours span: quantiles of the maps of films that are not normal, float32 (N, C, S, S)."""
        batch = self.config.score_batch
        parts = (torch.tensor(films[i : i + batch], device=self._net.gain.device) for i in range(0, len(films), batch))
        heat = np.concatenate([grad_cam(self._net, part)[1].cpu().numpy().ravel() for part in parts])
        low, high = (float(value) for value in np.quantile(heat, _COLOURED))
        return (low, high) if high > low else (low, low + 1.0)

    def _place(self, net: Classifier) -> None:
        freeze(net)
        self._net = net.to(device=resolve_device(self.device)).to(memory_format=torch.channels_last)

    def _parts(self, films: Float32, numbers: Int64, groups: Int64) -> tuple[Labelled, Labelled]:
        """Return films to train on and films of other patients to validate on, with every class in both.

        Raises:
            DataError: A class has a single patient.
        """
        for number, name in enumerate(self._names):
            if len(np.unique(groups[numbers == number])) < 2:
                raise DataError(
                    f"The class {name!r} has the films of one patient alone, who cannot be both trained on and "
                    "validated on: give more patients of it, or leave the class out."
                )
        try:
            train, held = split_test(groups.tolist(), numbers.tolist(), self.config.validation, self.seed)
        except DataError as error:
            raise DataError(f"No validation films can be set apart: {error}.") from error
        for part, what in ((train, "train on"), (held, "validate on")):
            missing = set(range(len(self._names))) - set(numbers[part].tolist())
            if missing:
                raise DataError(
                    f"Whole patients leave no film of the class {self._names[min(missing)]!r} to {what}: give more "
                    "patients of it, or change detector.validation."
                )
        rng = np.random.default_rng(self.seed)
        train = rng.permutation(train)  # folded norms are settled on the first batches
        return Labelled(films[train], numbers[train]), Labelled(films[held], numbers[held])

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        batch = torch.tensor(images, device=resolve_device(self.device))
        if heatmaps:
            logits, maps = grad_cam(self._net, batch)
        else:
            with torch.inference_mode():
                logits = self._net(batch)
        chances = softmax(logits.double().cpu().numpy() / self._temperature, axis=1)
        terms = {class_term(name): chances[:, number].astype(np.float32) for number, name in enumerate(self._names)}
        scores = chances[:, 1:].sum(axis=1).astype(np.float32)
        return DetectorOutput(scores, maps.cpu().numpy() if heatmaps else None, terms=terms)

    def _state(self) -> Arrays:
        arrays = {f"{_NET}/{name}": value.cpu().numpy() for name, value in self._net.state_dict().items()}
        return arrays | {
            "names": np.frombuffer(json.dumps(self._names).encode(), np.uint8),
            "calibration": np.array([self._temperature, self._cut, *self._range], np.float64),
            "input": np.array(self._input, np.float64),
            "sha256": np.frombuffer(bytes.fromhex(self._sha256), np.uint8),
        }

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._names = tuple(str(name) for name in json.loads(arrays["names"].tobytes()))
        self._temperature, self._cut, low, high = (float(value) for value in arrays["calibration"])
        self._range = (low, high)
        self._sha256 = arrays["sha256"].tobytes().hex()
        mean, std = ((float(a), float(b), float(c)) for a, b, c in arrays["input"])
        self._input = (mean, std)
        with seeded(self.seed):
            net = Classifier(self.config.arch, len(self._names), size=self.size)
        net.load_state_dict({name: torch.tensor(array) for name, array in under(arrays, _NET).items()})
        net.set_input(*self._input)
        self._place(net)


def _classes_of(targets: Sequence[Target]) -> tuple[tuple[str, ...], Int64]:
    """Return the names of the classes, the normal one first, and each film's number.

    Raises:
        DataError: A film without a class, or not one normal class and at least one other.
    """
    unknown = sum(target.class_name is None or target.label is None for target in targets)
    if unknown:
        raise DataError(f"{unknown} of {len(targets)} films have no class: leave them out, or label them.")
    names = {str(target.class_name): target.label == NORMAL for target in targets}
    normal = sorted(name for name, is_normal in names.items() if is_normal)
    others = sorted(name for name, is_normal in names.items() if not is_normal)
    if len(normal) != 1 or not others:
        raise DataError(
            f"A classifier needs one normal class and at least one other; normal: {', '.join(normal) or 'none'}; "
            f"others: {', '.join(others) or 'none'}."
        )
    ordered = (*normal, *others)
    return ordered, np.array([ordered.index(str(target.class_name)) for target in targets], np.int64)
