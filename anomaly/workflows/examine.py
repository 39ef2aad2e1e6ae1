"""What one scan shows without any model: the facts of its file, its quality, its one-number baselines, small copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.evaluate.baselines import trivial_statistics
from anomaly.records import Scan, UInt8
from anomaly.scans.duplicates import pixel_digest, thumbnail
from anomaly.scans.quality import Flag, quality_flags
from anomaly.workflows.panels import small_film


@dataclass(frozen=True, slots=True)
class Findings:
    """What stays of a scan when its full-size pixels are gone; the same for the same file, so it can be cached.

    `shape` is (H, W) of the film; `content_sha256` is of the file's bytes, `pixels_sha256` of the decoded picture;
    `patient` is hashed and as the file itself says (folders and manifests may overrule it, see `ScanFile`);
    `film` uint8 (h, w) or (h, w, 3), longer side <= 512; `thumb` uint8 (64, 64).
    """

    content_sha256: str
    pixels_sha256: str
    shape: tuple[int, int]
    bits: int
    file_size: int
    patient: str | None
    view: str | None
    spacing_mm: tuple[float, float] | None
    facts: dict[str, str]
    warnings: tuple[str, ...]
    flags: tuple[Flag, ...]
    trivial: dict[str, float]
    film: UInt8
    thumb: UInt8

    def to_entry(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return arrays and plain JSON that `from_entry` turns back."""
        meta = {
            "content_sha256": self.content_sha256,
            "pixels_sha256": self.pixels_sha256,
            "shape": list(self.shape),
            "bits": self.bits,
            "file_size": self.file_size,
            "patient": self.patient,
            "view": self.view,
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "facts": self.facts,
            "warnings": list(self.warnings),
            "flags": [[flag.name, flag.detail] for flag in self.flags],
            "trivial": self.trivial,
        }
        return {"film": self.film, "thumb": self.thumb}, meta

    @classmethod
    def from_entry(cls, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Findings:
        """Build from what `to_entry` returned."""
        spacing = meta["spacing_mm"]
        shaped = {
            "shape": (int(meta["shape"][0]), int(meta["shape"][1])),
            "spacing_mm": None if spacing is None else (float(spacing[0]), float(spacing[1])),
            "warnings": tuple(meta["warnings"]),
            "flags": tuple(Flag(name, detail) for name, detail in meta["flags"]),
        }
        return cls(**{**meta, **shaped}, film=np.asarray(arrays["film"]), thumb=np.asarray(arrays["thumb"]))


def examine(scan: Scan, content_sha256: str) -> Findings:
    """Look at one scan at full size.

    Args:
        scan: As read, its `patient` and `view` those of the file itself.
        content_sha256: Of the file's bytes.
    """
    return Findings(
        content_sha256=content_sha256,
        pixels_sha256=pixel_digest(scan.pixels),
        shape=(scan.pixels.shape[0], scan.pixels.shape[1]),
        bits=scan.bits,
        file_size=scan.file_size,
        patient=scan.patient,
        view=scan.view,
        spacing_mm=scan.spacing_mm,
        facts=scan.facts,
        warnings=scan.warnings,
        flags=quality_flags(scan),
        trivial=trivial_statistics(scan.pixels, scan.file_size),
        film=small_film(scan.pixels),
        thumb=thumbnail(scan.pixels),
    )
