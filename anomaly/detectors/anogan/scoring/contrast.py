"""Terms that compare local contrast: consolidated lung hides the vessels and ribs that a normal chest shows there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.settings import TermSettings
from anomaly.detectors.anogan.scoring.usual import Deviation
from anomaly.detectors.normality import local_contrast
from anomaly.records import Float32

_EPS = 0.02  # of grey values that range over 2: contrast below some levels of 8 bits is noise


@dataclass(frozen=True, slots=True)
class StructureDeficit(Deviation):
    """log(local sd of the twin) - log(local sd of the scan), in sigma of normals exposed alike; its positive part.

    What the normal twin has and the scan lacks. More structure than the twin's is no deficit and adds nothing. Squared
    where `direction` squares.
    """

    @staticmethod
    def measured(match: Match, settings: TermSettings) -> Float32:
        """Return the logarithm of how many times the scan's local contrast the twin has, float32 (N, S, S)."""
        return _log_contrast(match.twin, match, settings.window) - _log_contrast(match.scan, match, settings.window)


@dataclass(frozen=True, slots=True)
class ContrastDeficit(Deviation):
    """-log(local sd of the scan), in sigma of normals exposed alike; its positive part, or the square of that.

    It looks at no twin: the trivial comparison that `StructureDeficit` has to be reported beside, much of which is how
    soft a film is as a whole.
    """

    @staticmethod
    def measured(match: Match, settings: TermSettings) -> Float32:
        """Return minus the logarithm of the scan's local contrast, float32 (N, S, S)."""
        return -_log_contrast(match.scan, match, settings.window)


def _log_contrast(images: Float32, match: Match, window: float) -> Float32:
    """Return the logarithm of local contrast, (N, C, S, S) -> (N, S, S)."""
    contrast = local_contrast(images.mean(axis=1), window, match.inside)
    logarithm: Float32 = np.log(contrast + np.float32(_EPS))
    return logarithm
