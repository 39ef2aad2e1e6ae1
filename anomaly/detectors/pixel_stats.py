"""`pixel-stats`: the mean normal image and the spread of every pixel; the floor every other method must clear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.records import DetectorOutput, Float32, Float64, ImageSource, Target
from anomaly.runs import Arrays, Recorder


class PixelStatsConfig(DetectorConfig):
    """Settings of `pixel-stats`."""

    floor: float = Field(default=0.02, gt=0)
    """Smallest standard deviation of a pixel, in units of the image range [-1, 1]."""


class PixelStats(Detector):
    """Per-pixel Gaussian over the normals: score = mean |x - mean| / sd over the film, map = the same per pixel."""

    name: ClassVar[str] = "pixel-stats"
    Config: ClassVar[type[DetectorConfig]] = PixelStatsConfig
    config: PixelStatsConfig

    _mean: Float64
    _sd: Float64

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        count, total, squares = 0, np.float64(0.0), np.float64(0.0)
        for batch in images.batches():
            count += len(batch)
            total = total + batch.sum(axis=0, dtype=np.float64)
            squares = squares + np.square(batch, dtype=np.float64).sum(axis=0)
            recorder.progress(count, len(images), "fitting")
        self._mean = np.asarray(total / count)
        variance = np.maximum(np.asarray(squares / count) - self._mean**2, 0.0)
        self._sd = np.maximum(np.sqrt(variance), self.config.floor)

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        z = np.where(inside[:, None], np.abs((images - self._mean) / self._sd), 0.0)
        scores = (z.sum(axis=(1, 2, 3)) / (images.shape[1] * inside.sum(axis=(1, 2)))).astype(np.float32)
        if not heatmaps:
            return DetectorOutput(scores)
        twin = np.broadcast_to(self._mean.astype(np.float32), images.shape).copy()
        return DetectorOutput(scores, z.mean(axis=1).astype(np.float32), twin)

    def _state(self) -> Arrays:
        return {"mean": self._mean, "sd": self._sd}

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._mean, self._sd = arrays["mean"], arrays["sd"]
        if self._mean.shape != (channels, self.size, self.size):
            raise ValueError(f"mean image of shape {self._mean.shape}")
