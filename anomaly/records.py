"""What passes between the layers: frozen records of numpy arrays and plain values, nothing else.

Image conventions, everywhere: rows first; bone bright; a coordinate (x, y) = (column, row) names the
centre of a pixel, so the top-left pixel's centre is (0, 0) and its outer corner (-0.5, -0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

NORMAL, ABNORMAL = 0, 1
"""Labels; the third value is None: unknown, which is never taken for normal."""


@dataclass(frozen=True, slots=True)
class ScanFile:
    """A file that claims to be an image, and what the folder or manifest says of it (nothing is decoded yet).

    `relative` is posix and relative to the SCANS the user gave; `scan_id` is unique and stable for it.
    `patient` is a grouping key already hashed, or None. `extra` carries unknown manifest columns through.
    `member` names the picture inside a file that holds many ("train/12" of a MedMNIST .npz). `set_aside` is a reason
    why `fit` passes over a file that its set marks as not for training or as a copy; `score` scores it all the same.
    """

    scan_id: str
    path: Path
    relative: str
    label: int | None = None
    class_name: str | None = None
    label_source: str | None = None
    patient: str | None = None
    view: str | None = None
    split: str | None = None
    mask: Path | None = None
    boxes: Path | None = None
    member: str | None = None
    set_aside: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scan:
    """One radiograph at full depth.

    `pixels`: float32 (H, W) or, for colour sets, (H, W, 3) RGB; in [0, 1]; bone bright. `bits` is the depth
    the file stored (8..16), so a 16-bit file keeps its 65,536 levels. `spacing_mm` is (row, column). `file_size` is
    in bytes.
    `facts` holds what may leave the reader: format, transfer syntax, photometric interpretation.
    """

    scan_id: str
    pixels: Float32
    bits: int
    patient: str | None = None
    view: str | None = None
    spacing_mm: tuple[float, float] | None = None
    file_size: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Geometry:
    """The way back from prepared pixels to the film's pixels.

    `matrix`: float64 (3, 3), homogeneous affine taking a prepared pixel centre (x, y) to film coordinates;
    `film_shape`: (H, W) of the film; `size`: S, side of the prepared square.
    """

    matrix: Float64
    film_shape: tuple[int, int]
    size: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A scan ready for a detector: `image` float32 (C, S, S) in [-1, 1], and the way back to the film.

    `inside`: bool (S, S), which prepared pixels show film, None when all do; the others repeat the film's border.
    """

    image: Float32
    geometry: Geometry
    warnings: tuple[str, ...] = ()
    inside: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What a supervised detector may learn from: one label (1, 0 or None) and class name an image.

    `boxes` float32 (n, 4): x1, y1, x2, y2 of corners in pixels of the prepared square, whose own corners are (0, 0) and
    (S, S); (0, 4) for a film known to have none, None where it is not known.
    """

    label: int | None
    class_name: str | None = None
    boxes: Float32 | None = None


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """What a detector says of N images; higher is more abnormal.

    `scores` float32 (N,); `heatmaps` float32 (N, S, S) >= 0 or None; `twin` float32 (N, C, S, S) in [-1, 1],
    the normal image the scan was compared with, or None; `terms` what the score is made of, each float32 (N,), and
    `term_maps` what a term adds to the heatmap, float32 (N, S, S) >= 0, for those that add to it; empty without maps.
    `features` float32 (N, F), 2 <= F <= 64: where the method places each image among normals, near ones alike; None
    where it has no such space. They are for pictures alone.
    `boxes` of each image float32 (n, 5): x1, y1, x2, y2 as in `Target`, and a confidence in [0, 1], the most confident
    first; None where the method draws none.
    """

    scores: Float32
    heatmaps: Float32 | None = None
    twin: Float32 | None = None
    terms: dict[str, Float32] = field(default_factory=dict)
    term_maps: dict[str, Float32] = field(default_factory=dict)
    features: Float32 | None = None
    boxes: tuple[Float32, ...] | None = None


class ImageSource(Protocol):
    """Prepared images by the batch, in a fixed order, for `Detector.fit`.

    `groups` is int64 (N,): images of one patient share a number, so what is held out inside fit is patient-disjoint.
    """

    @property
    def groups(self) -> Int64:
        """Patient groups, int64 (N,)."""
        ...

    def __len__(self) -> int: ...

    def batches(self, batch_size: int = 64) -> Iterator[Float32]:
        """Yield float32 (n, C, S, S) in [-1, 1], n <= batch_size, every image once, always in the same order."""
        ...


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One line of scores.csv. A file that could not be read has status "failed", an `error`, and no score.

    `extra` is what the manifest or the set says of the file beside what this tool knows of.
    """

    scan_id: str
    path: str
    status: str
    patient: str | None = None
    label: int | None = None
    class_name: str | None = None
    score: float | None = None
    p_value: float | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    terms: dict[str, float] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
