"""`retinanet`: RetinaNet learnt from boxes; score = confidence of the best box, map = the boxes.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. A supervised method, to measure this project's own
against: it looks for what was boxed in training and for nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.classifier.temperature import choose_cut
from anomaly.detectors.retinanet.settings import RetinaNetConfig
from anomaly.detectors.retinanet.training import Boxed, Training
from anomaly.errors import DataError, ModelError
from anomaly.nets.device import freeze, open_fabric, resolve_device, seeded
from anomaly.nets.retinanet import BoxNet
from anomaly.records import ABNORMAL, DetectorOutput, Float32, Float64, ImageSource, Int64, Target
from anomaly.runs import Arrays, Recorder, under
from anomaly.scans.split import split_test
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple, find_weights

_NET = "net"
_BYTES = 4
_COPIES = 4  # of the weights while training: themselves, gradients, two moments
_KEPT = 2.5
"""Times the numbers an image leaves behind on its way that training keeps of it: an estimate, as the classifier's."""
_NO_BOXES = np.zeros((0, 4), np.float32)


class RetinaNetDetector(Detector):
    """A detector of boxes; confidences are of the most confident kind of box where there are several kinds."""

    name: ClassVar[str] = "retinanet"
    Config: ClassVar[type[DetectorConfig]] = RetinaNetConfig
    supervised: ClassVar[bool] = True
    boxes: ClassVar[bool] = True
    config: RetinaNetConfig

    _net: BoxNet
    _kinds: tuple[str, ...]
    _cut: float
    _input: tuple[Triple, Triple]
    _sha256: str

    @property
    def backbone(self) -> str | None:
        """The network that maps are taken from, where it starts from pretrained weights."""
        return self.config.backbone if self.config.backbone_weights == "pretrained" else None

    @property
    def cut(self) -> float:
        """The score with the highest balanced accuracy on validation films."""
        return self._cut

    def made_of(self) -> dict[str, str]:
        """Return the network, its weights' sha256, the kinds of boxes and the cut."""
        return {
            "backbone": self.config.backbone,
            "backbone_sha256": self._sha256 or "none: random weights",
            "boxes": ", ".join(self._kinds),
            "cut": f"{self._cut:.4f}",
        }

    def runs_on(self) -> str:
        """Return the device; scores are computed in fp32."""
        return f"{resolve_device(self.device)} fp32"

    def memory(self, count: int, channels: int) -> int:
        """Return the bytes of a fit, once it is clear that it can be done: images, weights, one batch at work."""
        net, _ = self._open(1)
        images = count * channels * self.size**2
        weights = _COPIES * sum(parameter.numel() for parameter in net.parameters())
        return int(_BYTES * (images + weights + _KEPT * self.config.batch * net.activations))

    def _make(self, kinds: int) -> BoxNet:
        config = self.config
        with seeded(self.seed):
            return BoxNet(
                config.backbone,
                kinds,
                size=self.size,
                width=config.width,
                smallest=config.smallest,
                floor=config.score_threshold,
                overlap=config.nms_threshold,
                most=config.max_boxes,
            )

    def _open(self, kinds: int) -> tuple[BoxNet, list[str]]:
        """Return the network to train, and which parts of its backbone the pretrained weights leave random.

        Raises:
            MissingError: The weights folder has none of this backbone.
            ModelError: They are damaged, or do not fit.
            UsageError: No such network, or one that cannot serve.
        """
        net = self._make(kinds)
        self._input, self._sha256 = (IMAGENET_MEAN, IMAGENET_STD), ""
        if self.config.backbone_weights == "none":
            return net, []
        stored = find_weights(self.config.backbone)
        try:
            random = net.take(stored.tensors())
        except ValueError as error:
            raise ModelError(f"{stored.path} does not fit {self.config.backbone}: {error}.") from error
        self._input, self._sha256 = (stored.facts.mean, stored.facts.std), stored.sha256
        net.set_input(*self._input)
        return net, random

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        targets = targets or ()
        known = np.array([i for i, target in enumerate(targets) if _is_known(target)], np.int64)
        if len(known) < len(targets):
            recorder.warn(
                f"{len(targets) - len(known)} abnormal films have no box within the prepared square and were left out."
            )
        self._kinds = _kinds_of([targets[i] for i in known])
        net, random = self._open(len(self._kinds))
        if random:
            recorder.warn(
                f"The weights of {self.config.backbone} lack {', '.join(random)}, which start from random values: "
                "expect less of it than of a whole one."
            )
        films = np.concatenate(list(images.batches()))
        train, held_out = self._parts(films, targets, known, images.groups)
        fabric = open_fabric(self.device, self.config.precision)
        training = Training(net, self.config, (train, held_out), seed=self.seed, fabric=fabric)
        training.run(recorder)
        self._place(net)
        scores = self._scores_of(held_out.films)
        self._cut = choose_cut(scores, np.array([len(boxes) > 0 for boxes in held_out.boxes]))
        recorder.scalar(training.epoch, "best_epoch", training.best.epoch)

    def _place(self, net: BoxNet) -> None:
        freeze(net)
        self._net = net.to(device=resolve_device(self.device)).to(memory_format=torch.channels_last)

    def _parts(self, films: Float32, targets: Sequence[Target], known: Int64, groups: Int64) -> tuple[Boxed, Boxed]:
        """Return films to train on and films of other patients to validate on, with and without boxes in both.

        Args:
            films: float32 (N, C, S, S).
            targets: One a film.
            known: Places of the films whose boxes are known, int64 (M,).
            groups: int64 (N,), patient of each film.

        Raises:
            DataError: One patient alone has boxes, or none, or they come out on one side.
        """
        boxed = np.array([len(_boxes(targets[i])) > 0 for i in known], np.int64)
        for number, what in enumerate(("no boxes", "boxes")):
            if len(np.unique(groups[known[boxed == number]])) < 2:
                raise DataError(
                    f"Films with {what} are of fewer than two patients, who cannot be both trained on and validated "
                    "on: give more."
                )
        try:
            sides = split_test(groups[known].tolist(), boxed.tolist(), self.config.validation, self.seed)
        except DataError as error:
            raise DataError(f"No validation films can be set apart: {error}.") from error
        for side, what in zip(sides, ("train on", "validate on"), strict=True):
            if len(set(boxed[side].tolist())) < 2:
                raise DataError(
                    f"Whole patients do not leave films with boxes and without to {what}: give more patients, or "
                    "change detector.validation."
                )
        train, held = (known[side] for side in sides)
        return self._boxed(films, targets, train), self._boxed(films, targets, held)

    def _boxed(self, films: Float32, targets: Sequence[Target], places: Int64) -> Boxed:
        kinds = {name: number for number, name in enumerate(self._kinds)}
        numbers = np.array([kinds.get(_kind(targets[i]), 0) for i in places], np.int64)
        return Boxed(films[places], [_boxes(targets[i]) for i in places], numbers)

    def _scores_of(self, films: Float32) -> Float64:
        """Return the scores of films, float64 (N,), in chunks of `score_batch`."""
        chunk = self.config.score_batch
        scores = [self._detect(films[start : start + chunk])[0] for start in range(0, len(films), chunk)]
        return np.concatenate(scores).astype(np.float64)

    def _detect(self, images: Float32) -> tuple[Float32, list[Float32]]:
        with torch.inference_mode():
            outputs = self._net(torch.tensor(images, device=resolve_device(self.device)))
            best, boxes = self._net.detect(outputs)
        return best.cpu().numpy(), [found.cpu().numpy() for found in boxes]

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        best, boxes = self._detect(images)
        maps = np.stack([box_map(found, self.size) for found in boxes]) if heatmaps else None
        return DetectorOutput(best, maps, boxes=tuple(boxes))

    def _state(self) -> Arrays:
        arrays = {f"{_NET}/{name}": value.cpu().numpy() for name, value in self._net.state_dict().items()}
        return arrays | {
            "kinds": np.frombuffer(json.dumps(self._kinds).encode(), np.uint8),
            "cut": np.array([self._cut], np.float64),
            "input": np.array(self._input, np.float64),
            "sha256": np.frombuffer(bytes.fromhex(self._sha256), np.uint8),
        }

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._kinds = tuple(str(name) for name in json.loads(arrays["kinds"].tobytes()))
        (self._cut,) = (float(value) for value in arrays["cut"])
        self._sha256 = arrays["sha256"].tobytes().hex()
        mean, std = ((float(a), float(b), float(c)) for a, b, c in arrays["input"])
        self._input = (mean, std)
        net = self._make(len(self._kinds))
        net.load_state_dict({name: torch.tensor(array) for name, array in under(arrays, _NET).items()})
        net.set_input(*self._input)
        self._place(net)


def box_map(boxes: Float32, size: int) -> Float32:
    """Return the highest confidence of the boxes that hold each pixel's centre, 0 where none does.

    Args:
        boxes: float32 (n, 5): x1, y1, x2, y2, confidence.
        size: S.

    Returns:
        float32 (S, S) >= 0.
    """
    heat = np.zeros((size, size), np.float32)
    centres = np.arange(size) + 0.5
    for x1, y1, x2, y2, confidence in boxes:
        held = ((centres >= y1) & (centres < y2))[:, None] & ((centres >= x1) & (centres < x2))
        np.maximum(heat, confidence, out=heat, where=held)
    return heat


def _boxes(target: Target) -> Float32:
    return _NO_BOXES if target.boxes is None else target.boxes


def _is_known(target: Target) -> bool:
    """Tell whether it is known where a film has boxes: an abnormal one has some, a normal one may go without saying."""
    return len(_boxes(target)) > 0 if target.label == ABNORMAL else target.label is not None


def _kind(target: Target) -> str:
    return target.class_name or "abnormal"


def _kinds_of(targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the names of the kinds of boxes.

    Raises:
        DataError: A box that is none, or no box at all.
    """
    for target in targets:
        boxes = _boxes(target)
        if (
            boxes.ndim != 2
            or boxes.shape[1] != 4
            or not np.isfinite(boxes).all()
            or (boxes[:, 2:] <= boxes[:, :2]).any()
        ):
            raise DataError(
                f"Boxes must be finite (n, 4): x1 < x2, y1 < y2; these are {boxes.shape}: {boxes.tolist()}."
            )
        if target.label != ABNORMAL and len(boxes):
            raise DataError("A film labelled normal has boxes: take them out, or label it abnormal.")
    kinds = tuple(sorted({_kind(target) for target in targets if len(_boxes(target))}))
    if not kinds:
        raise DataError(
            "No film has a box to learn from: give abnormal films boxes, in a boxes.csv beside the films or a "
            "manifest's column boxes."
        )
    return kinds
