"""`anomalib`: any image model of anomalib that can be had without a download, trained as anomalib trains it.

Akcay et al., *Anomalib: A Deep Learning Library for Anomaly Detection*, ICIP 2022; the papers of the models are named
in its documentation. A model is trained through its own Lightning module, but it is given prepared films, not files;
its raw scores and maps are kept, which anomalib would squeeze into [0, 1] by a threshold that takes abnormal films; and
it is kept as safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, JsonValue
from torch import Tensor
from torch.nn import functional

from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.from_anomalib.build import Built, build, check_options, prepared, state_of, take_state
from anomaly.detectors.from_anomalib.catalogue import find_entry
from anomaly.detectors.from_anomalib.fences import drawn_by, quiet
from anomaly.detectors.pooling import Pooling, pool
from anomaly.errors import AnomalyError, UsageError
from anomaly.nets.device import freeze, resolve_device
from anomaly.records import DetectorOutput, Float32, ImageSource, Target, UInt8
from anomaly.runs import Arrays, Recorder, under
from anomaly.weights import StoredWeights, find_weights

_LOOKED_AT = 100  # training normals whose maps say how low maps go
_MODULE, _SHA256, _FLOOR, _SHAPES = "module", "sha256", "floor", "shapes"


class AnomalibConfig(DetectorConfig):
    """Settings of `anomalib`."""

    model: str = "Stfpm"
    """A class of `anomalib.models.image`; upper and lower case are alike. `anomaly models` lists them."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of that class: backbone, layers, n_features, …"""
    backbone_weights: Literal["pretrained", "none"] = "pretrained"
    """From the weights folder (`anomaly weights`), or random ones, drawn by the seed."""
    steps: int = Field(default=1000, ge=1)
    """Batches it is trained on; a model that goes through the films once (Padim, Patchcore) does just that."""
    batch: int = Field(default=32, ge=1)
    """Films a batch of the training."""
    pooling: Literal["own"] | Pooling = "own"
    """From map to score: the model's own score, or what of its map's pixels inside the film counts."""
    top_share: float = Field(default=0.1, gt=0, le=1)
    """Share of the pixels that pooling `top` takes."""
    score_batch: int = Field(default=1, ge=1)
    """Images a chunk. Each goes through the model by itself all the same, as some models mix what a batch holds."""


class FromAnomalib(Detector):
    """A model of anomalib: its raw score, and its raw map, lifted so that normals reach down to 0 where it is negative.

    Raises:
        UsageError: anomalib has no such model, or the model no such option.
        MissingError: The model needs what only a download would bring.
    """

    name: ClassVar[str] = "anomalib"
    Config: ClassVar[type[DetectorConfig]] = AnomalibConfig
    config: AnomalibConfig

    _built: Built
    _sha256: dict[str, str]
    _floor: float

    def __init__(self, config: AnomalibConfig | None = None, *, size: int, device: str = "auto", seed: int = 0) -> None:
        super().__init__(config, size=size, device=resolve_device(device), seed=seed)
        self._entry = find_entry(self.config.model)
        check_options(self._entry, self.config.options)

    @property
    def backbone(self) -> str | None:
        """The first backbone that the model takes pretrained weights of."""
        return next(iter(self._backbones()), None)

    def _backbones(self) -> tuple[str, ...]:
        return self._entry.backbones(self.config.options) if self.config.backbone_weights == "pretrained" else ()

    def made_of(self) -> dict[str, str]:
        """Return the model's name, its backbones and the sha256 of their weights."""
        found = {"model": self._entry.name}
        archs = self._entry.backbones(self.config.options)
        if archs:
            found["backbone"] = ", ".join(archs)
            found["backbone_sha256"] = ", ".join(self._sha256.get(arch, "none: random weights") for arch in archs)
        return found

    def runs_on(self) -> str:
        """Return the device; numbers are those the model has, fp32 unless its options say otherwise."""
        return f"{self.device} fp32"

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        # imported here: Lightning takes seconds, and loading a model does not need it
        from anomaly.detectors.from_anomalib.training import train

        recorder.restore()  # there is nothing to go on from, so an interrupted run's history is to be forgotten
        stored = {arch: find_weights(arch) for arch in self._backbones()}
        if self.config.backbone_weights == "none" and self._entry.default is not None:
            recorder.warn(
                f"The backbone of anomalib's {self._entry.name} has random weights (backbone_weights: none): it "
                "detects far less than with pretrained ones."
            )
        with drawn_by(self.seed), quiet(recorder):
            built = self._construct(stored, recorder)
            films = _together(images)
            try:
                train(
                    built,
                    films,
                    steps=self.config.steps,
                    batch=self.config.batch,
                    seed=self.seed,
                    device=self.device,
                    recorder=recorder,
                )
            except AnomalyError:
                raise
            except Exception as error:  # whatever a model's own code raises on films it was not made for
                raise self._failed("could not be trained", error) from error
        self._rebuild(state_of(built.module))
        self._sha256 = {arch: weights.sha256 for arch, weights in stored.items()}
        self._floor = self._lowest(films, recorder)

    def _construct(self, stored: dict[str, StoredWeights], recorder: Recorder) -> Built:
        def tensors(arch: str) -> Arrays:
            if arch not in stored:  # one that the catalogue does not know of
                stored[arch] = find_weights(arch)
            return stored[arch].tensors()

        pretrained = self.config.backbone_weights == "pretrained"
        built = build(self._entry, self.config.options, self.size, tensors if pretrained else None, fitting=True)
        for arch, weights in stored.items():
            if not np.allclose((built.mean, built.std), (weights.facts.mean, weights.facts.std), atol=1e-3):
                recorder.warn(
                    f"The weights of {arch} want pictures of mean {weights.facts.mean} and std {weights.facts.std}; "
                    f"anomalib's {self._entry.name} makes them {built.mean} and {built.std}."
                )
        return built

    def _failed(self, what: str, error: Exception) -> UsageError:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        return UsageError(
            f"anomalib's {self._entry.name} {what} on images of {self.size} pixels a side ({reason}): change size, "
            "detector.batch or detector.options."
        )

    def _rebuild(self, state: Arrays) -> None:
        """Build the module anew around what it learned, at the end of a fit as after loading: both score alike."""
        with drawn_by(self.seed), quiet():  # what is drawn at first is overwritten
            self._built = build(self._entry, self.config.options, self.size, None, fitting=False)
        take_state(self._built.module, state)
        freeze(self._built.module)
        self._built.module.to(self.device)

    def _lowest(self, films: Float32, recorder: Recorder) -> float:
        """Return what is taken off every map: the lowest of the training normals' where that is negative, else 0.

        Raises:
            UsageError: The model draws no map, or what it says are no numbers.
        """
        lowest = 0.0
        looked_at = np.unique(np.linspace(0, len(films) - 1, min(_LOOKED_AT, len(films)), dtype=np.int64))
        for done, index in enumerate(looked_at, 1):
            try:
                score, heat, _ = self._look(films[index])
            except Exception as error:  # as in training
                raise self._failed("could not score", error) from error
            if not (np.isfinite(score) and np.isfinite(heat).all()):
                raise UsageError(
                    f"anomalib's {self._entry.name} was trained into scores that are no numbers: change detector.steps "
                    "or detector.options."
                )
            lowest = min(lowest, float(heat.min()))
            recorder.progress(done, len(looked_at), "looking at maps")
        return lowest

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        looks = [self._look(image) for image in images]
        maps = np.stack([heat for _, heat, _ in looks])
        if self.config.pooling == "own":
            scores = np.array([score for score, _, _ in looks], np.float32)
        else:
            scores = pool(maps, inside, self.config.pooling, self.config.top_share)
        if not heatmaps:
            return DetectorOutput(scores)
        twins = [twin for _, _, twin in looks if twin is not None]
        heat = np.maximum(maps - np.float32(self._floor), np.float32(0.0))
        return DetectorOutput(scores, heat, np.stack(twins) if twins else None)

    def _look(self, image: Float32) -> tuple[np.float32, Float32, Float32 | None]:
        """Return the raw score, the raw map (S, S) and the twin (C, S, S) or None of one image (C, S, S)."""
        with torch.inference_mode():
            pictures = prepared(image[None], self._built).to(self.device)
            found = self._built.module.model(pictures)
            twin = self._twin(pictures, len(image))
        score = found.pred_score.float().cpu().numpy().reshape(-1)
        if score.shape != (1,):
            raise ValueError(f"scores of shape {tuple(found.pred_score.shape)} for one image")
        if twin is not None:
            return score[0], np.abs(image - twin).mean(axis=0), twin
        if found.anomaly_map is None:
            raise ValueError("with these options it draws no map")
        return score[0], self._square(found.anomaly_map), None

    def _square(self, heat: Tensor) -> Float32:
        """Return a raw map of one image as float32 (S, S)."""
        raw = heat.float().reshape(1, 1, *heat.shape[-2:])
        if raw.shape[-2:] != (self.size, self.size):  # some draw it smaller
            raw = functional.interpolate(raw, size=(self.size, self.size), mode="bilinear", align_corners=False)
        found: Float32 = raw[0, 0].cpu().numpy()
        return found

    def _twin(self, pictures: Tensor, channels: int) -> Float32 | None:
        """Return what the model redraws one image as, float32 (C, S, S) in [-1, 1]; None where it redraws none."""
        if self._entry.name != "Ganomaly":
            return None
        from anomalib.data.utils.image import pad_nextpow2

        drawn = self._built.module.model.generator(pad_nextpow2(pictures))[0].cpu()
        first = -(-(drawn.shape[-1] - self.size) // 2)  # it works on the next power of two
        drawn = drawn[0, :, first : first + self.size, first : first + self.size]
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self._built.mean, self._built.std))
        picture = drawn * std + mean
        if channels == 1:
            picture = picture.mean(dim=0, keepdim=True)
        twin: Float32 = (2 * picture - 1).clamp(-1, 1).numpy()
        return twin

    def _state(self) -> Arrays:
        arrays = {f"{_MODULE}/{name}": array for name, array in state_of(self._built.module).items()}
        arrays[_FLOOR] = np.array([self._floor], np.float32)
        for arch, sha256 in self._sha256.items():
            arrays[f"{_SHA256}/{arch}"] = np.frombuffer(bytes.fromhex(sha256), np.uint8)
        arrays[_SHAPES] = _digest(arrays)
        return arrays

    def _restore(self, arrays: Arrays, channels: int) -> None:
        rest = {name: array for name, array in arrays.items() if name != _SHAPES}
        if not np.array_equal(arrays[_SHAPES], _digest(rest)):
            raise ValueError("arrays are missing, or have other shapes than they were saved in")
        self._rebuild(under(rest, _MODULE))
        self._sha256 = {arch: array.tobytes().hex() for arch, array in under(rest, _SHA256).items()}
        self._floor = float(rest[_FLOOR].item())


def _together(images: ImageSource) -> Float32:
    """Return all images as one array (N, C, S, S), never held twice."""
    films: Float32 | None = None
    done = 0
    for part in images.batches():
        if films is None:
            films = np.empty((len(images), *part.shape[1:]), np.float32)
        films[done : done + len(part)] = part
        done += len(part)
    assert films is not None  # a fit begins with one image at least
    return films


def _digest(arrays: Arrays) -> UInt8:
    """Return the sha256 of all names and shapes: a memory bank's shape is not to be had from the settings."""
    shapes = sorted((name, np.atleast_1d(array).shape) for name, array in arrays.items())
    return np.frombuffer(hashlib.sha256(repr(shapes).encode()).digest(), np.uint8)
