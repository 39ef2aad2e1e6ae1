"""What every score term is: learned from normals, it turns matches into maps, which are pooled into values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.settings import TermSettings
from anomaly.records import Float32
from anomaly.runs import Arrays

ENOUGH = 8
"""Normals on which a mean and a spread are of use: with fewer, one of others may lie any number of spreads away."""


@dataclass(frozen=True, slots=True)
class Term(ABC):
    """A score term that learns nothing; one that does adds fields and its own `fit`, `to_arrays` and `from_arrays`."""

    compares_features: ClassVar[bool] = False
    """Whether it looks at a match's features."""

    settings: TermSettings

    @classmethod
    def fit(cls, normals: Match, settings: TermSettings) -> Self:
        """Learn what is normal.

        Raises:
            ValueError: The normals lack what the term compares.
        """
        term = cls(settings)
        term.maps(normals.of(slice(0, 1)))  # what scans lack, normals lack: better said now than when scoring
        return term

    @classmethod
    def least(cls, settings: TermSettings) -> int:  # noqa: ARG003 (nothing is learned)
        """Return how many normals it must be fitted on for what it learns to hold for others."""
        return 1

    @abstractmethod
    def maps(self, match: Match) -> Float32:
        """Return how abnormal each pixel is, float32 (N, S, S), 0 outside the film, negative only where signed.

        The row of a scan depends on that scan alone, bit for bit.
        """

    @property
    def unit(self) -> str:
        """What maps are in: "σ" for standard deviations of normal variation, "σ²" for their squares, "" for neither."""
        return ""

    def to_arrays(self) -> Arrays:
        """Return what was learned, float32 arrays by name."""
        return {}

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, Float32],  # noqa: ARG003 (nothing was learned)
        settings: TermSettings,
        size: int,  # noqa: ARG003 (nothing was learned)
    ) -> Self:
        """Build from what `to_arrays` returned, for maps of `size` pixels a side.

        Raises:
            ValueError: An array is missing or of another shape or type.
        """
        return cls(settings)


def take(arrays: Mapping[str, Float32], name: str, shape: tuple[int | None, ...]) -> Float32:
    """Return one of the arrays, after a look at it; None in a shape stands for any number.

    Raises:
        ValueError: It is missing or of another shape or type.
    """
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
    if not fits or array.dtype != "float32":
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not float32 of ({wanted})")
    return array
