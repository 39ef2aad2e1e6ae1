"""The one interface every method fits: fit, score, save, load.

The public methods check shapes, dtype, range and finiteness, cut the work into chunks of one fixed size, and call the
private hooks. A new method writes `_fit`, `_score`, `_state`, `_restore` and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anomaly.config import Settings, validate
from anomaly.errors import DataError, ModelError, UsageError
from anomaly.prepare.images import CheckedSource, check_images
from anomaly.records import DetectorOutput, Float32, ImageSource, Target
from anomaly.runs import Arrays, NullRecorder, Recorder, read_tensors, write_tensors

WEIGHTS = "weights.safetensors"


class DetectorConfig(Settings):
    """Settings every method has."""

    score_batch: int = Field(default=16, ge=1)
    """Images per chunk when scoring; kept in the model, because the chunk's shape is part of the answer's last bits."""


class SupervisedConfig(DetectorConfig):
    """Settings of every method that learns from labels."""

    classes: str = "class"
    """What tells classes apart: "class" (folder or manifest class), "two" (normal against the rest), or a further
    column of the set or manifest ("kind"), where films without it count by their class."""
    normal_class: str | None = None
    """Which class is normal, where its name does not say so."""


def class_term(name: str) -> str:
    """Return the name of the term that holds the probability of a class."""
    return f"P({name})"


class Detector(ABC):
    """An anomaly detector over prepared images; higher scores are more abnormal.

    Args:
        config: The method's own settings; None for its defaults.
        size: Side S of the images.
        device: "auto", "cpu" or "cuda".
        seed: Of everything random inside the method.
    """

    name: ClassVar[str]
    Config: ClassVar[type[DetectorConfig]]
    supervised: ClassVar[bool] = False
    boxes: ClassVar[bool] = False
    """Whether it learns from boxes (`Target.boxes`) and draws some (`DetectorOutput.boxes`)."""

    def __init__(self, config: Any = None, *, size: int, device: str = "auto", seed: int = 0) -> None:
        self.config = self.Config() if config is None else config
        self.size = size
        self.device = device
        self.seed = seed
        self.channels: int | None = None
        """C of the images, known once fitted."""

    def fit(
        self, images: ImageSource, targets: Sequence[Target] | None = None, *, recorder: Recorder | None = None
    ) -> Self:
        """Learn from images; forgets any earlier fit.

        Args:
            images: Prepared images, (N, C, S, S) in [-1, 1]. Normal ones only, unless the method is supervised.
            targets: One per image, for supervised methods; an unsupervised one refuses them.
            recorder: Progress, history, samples and checkpoints; None records nothing.

        Raises:
            UsageError: Labels for an unsupervised method, or none for a supervised one.
            DataError: No image, or images of a wrong shape, dtype, range, or not finite.
        """
        if targets is not None and not self.supervised:
            raise UsageError(f"{self.name} learns from normal scans alone and takes no labels: leave them out.")
        if targets is None and self.supervised:
            raise UsageError(f"{self.name} is supervised and needs a label for every scan.")
        if len(images) == 0:
            raise DataError(f"{self.name} needs at least one image to fit.")
        source = CheckedSource(images, self.size)
        self.channels = None
        channels = next(source.batches(1)).shape[1]
        self._fit(source, targets, recorder or NullRecorder())
        self.channels = channels
        return self

    def score(
        self, images: Float32, *, inside: NDArray[np.bool_] | None = None, heatmaps: bool = True
    ) -> DetectorOutput:
        """Score images, each by itself: the answer does not depend on the other images, their number or order.

        Args:
            images: float32 (N, C, S, S) in [-1, 1].
            inside: bool (N, S, S), which pixels show film (see `Prepared`), at least one an image; None for all.
            heatmaps: Also return maps (and the normal twin, where the method has one).

        Returns:
            Scores (N,), maps (N, S, S) >= 0 (0 outside the film) or None, twin (N, C, S, S) or None, terms, features,
            boxes.

        Raises:
            ModelError: Not fitted yet.
            DataError: A wrong shape, dtype or range, or not finite.
        """
        if self.channels is None:
            raise ModelError(f"This {self.name} has not been fitted: call fit or load first.")
        check_images(images, self.size, self.channels)
        if inside is not None:
            check_inside(inside, len(images), self.size)
        batch = self.config.score_batch
        parts: list[DetectorOutput] = []
        for start in range(
            0, max(len(images), 1), batch
        ):  # no images: one chunk of padding, for the form of the answer
            chunk = images[start : start + batch]
            n = len(chunk)
            padded = np.zeros((batch, *images.shape[1:]), np.float32)
            padded[:n] = chunk
            film = np.ones((batch, self.size, self.size), np.bool_)
            if inside is not None:
                film[:n] = inside[start : start + batch]
            parts.append(_first(_masked(self._score(padded, film, heatmaps), film), n))
        return _join(parts)

    def save(self, folder: Path) -> None:
        """Write the fitted detector as one self-describing safetensors file in `folder`.

        Raises:
            ModelError: Not fitted yet.
        """
        if self.channels is None:
            raise ModelError(f"This {self.name} has not been fitted: there is nothing to save.")
        meta = {
            "method": self.name,
            "config": self.config.model_dump(mode="json"),
            "size": self.size,
            "channels": self.channels,
            "seed": self.seed,
        }
        write_tensors(folder / WEIGHTS, self._state(), meta)

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Self:
        """Load what `save` wrote. No pickle, no network.

        Raises:
            ModelError: The file is missing, damaged or of another method.
        """
        file = folder / WEIGHTS
        try:
            arrays, meta = read_tensors(file)
        except DataError as error:
            raise ModelError(f"{error} Fit the model again, or copy its folder again.") from error
        if meta.get("method") != cls.name:
            raise ModelError(f"{file} holds a {meta.get('method')!r} model, not {cls.name!r}.")
        try:
            config = validate(cls.Config, meta["config"], str(file))
            size, channels, seed = (int(meta[key]) for key in ("size", "channels", "seed"))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ModelError(f"{file} does not describe its model: {error}. Fit the model again.") from error
        detector = cls(config, size=size, device=device, seed=seed)
        try:
            detector._restore(arrays, channels)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError(f"{file} does not fit the method {cls.name!r}: {error}") from error
        detector.channels = channels
        return detector

    def runs_on(self) -> str:
        """Return where and in which number format scores are computed; another answer may differ a little."""
        return "cpu fp64"

    @property
    def backbone(self) -> str | None:
        """Return the architecture whose pretrained weights a fit takes from the weights folder; None for none."""
        return None

    def memory(self, count: int, channels: int) -> int | None:
        """Make sure, before anything is read, that a fit can be done, and return what it takes at its peak, in bytes.

        That is beside what is loaded to start with. Images that are read from the disk as they are looked at count in,
        since they fill memory that is free. None where it is not known.

        Raises:
            MissingError, ModelError, UsageError: What the fit itself would raise, for want of weights or for settings
                that it cannot work with.
        """
        return None

    def made_of(self) -> dict[str, str]:
        """Return what a fitted model is made of beside the films, name -> value: a backbone and its weights' sha256."""
        return {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes a fitted method tells apart, the normal one first; () where it knows none.

        Then `terms` hold the probability of each, by `class_term`, and they sum to 1.
        """
        return ()

    @property
    def cut(self) -> float | None:
        """The score above which a scan is called abnormal, chosen on labelled films held out of training; or None."""
        return None

    @property
    def raw_squared_error(self) -> bool:
        """Whether the score is a plain squared difference of pixels, which ruins a mean with other methods' scores."""
        return False

    @property
    def heat_unit(self) -> str:
        """Return what one unit of a map's heat is, where that is known: "σ" for deviations of normal variation."""
        return ""

    @property
    def heat_range(self) -> tuple[float, float] | None:
        """Where colours begin and saturate, for a method whose maps are next to nothing on normal films.

        None where held-out normals' maps set the scale.
        """
        return None

    def mapped(self) -> NDArray[np.bool_]:
        """Return which pixels of the square maps speak of, bool (S, S); the scale of heat is set on those alone."""
        return np.ones((self.size, self.size), np.bool_)

    @abstractmethod
    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        """Learn, from scratch."""

    @abstractmethod
    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        """Score exactly `score_batch` images, float32 (B, C, S, S); some may be padding.

        `inside` bool (B, S, S) tells what is film: nothing else may enter a score that is a sum over pixels. Maps need
        no masking here. The images that `_fit` saw repeated their films' borders in the same way.
        """

    @abstractmethod
    def _state(self) -> Arrays:
        """Return everything learned, as named arrays."""

    @abstractmethod
    def _restore(self, arrays: Arrays, channels: int) -> None:
        """Take back what `_state` returned."""


def check_inside(inside: NDArray[Any], count: int, size: int) -> None:
    """Refuse anything but bool (count, S, S) with some film on every image.

    Raises:
        DataError: Saying what was found and what is needed.
    """
    wanted = f"`inside` must be bool ({count}, {size}, {size}) as the images are"
    if inside.dtype != np.bool_ or inside.shape != (count, size, size):
        raise DataError(f"{wanted}; it is {inside.dtype} {inside.shape}.")
    if not inside.any(axis=(1, 2)).all():
        raise DataError(f"{wanted}, with at least one pixel of film on each; one has none.")


def _masked(output: DetectorOutput, inside: NDArray[np.bool_]) -> DetectorOutput:
    """Return the output with every map 0 outside the film: what is not there cannot be abnormal."""
    if inside.all():
        return output
    return replace(
        output,
        heatmaps=None if output.heatmaps is None else np.where(inside, output.heatmaps, np.float32(0.0)),
        term_maps={name: np.where(inside, heat, np.float32(0.0)) for name, heat in output.term_maps.items()},
    )


def _first(output: DetectorOutput, n: int) -> DetectorOutput:
    return DetectorOutput(
        output.scores[:n],
        None if output.heatmaps is None else output.heatmaps[:n],
        None if output.twin is None else output.twin[:n],
        {name: term[:n] for name, term in output.terms.items()},
        {name: term[:n] for name, term in output.term_maps.items()},
        None if output.features is None else output.features[:n],
        None if output.boxes is None else output.boxes[:n],
    )


def _join(parts: list[DetectorOutput]) -> DetectorOutput:
    heatmaps = [part.heatmaps for part in parts if part.heatmaps is not None]
    twins = [part.twin for part in parts if part.twin is not None]
    features = [part.features for part in parts if part.features is not None]
    return DetectorOutput(
        np.concatenate([part.scores for part in parts]),
        np.concatenate(heatmaps) if heatmaps else None,
        np.concatenate(twins) if twins else None,
        {name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
        {name: np.concatenate([part.term_maps[name] for part in parts]) for name in parts[0].term_maps},
        np.concatenate(features) if features else None,
        None if parts[0].boxes is None else tuple(box for part in parts for box in part.boxes or ()),
    )
