"""The residual in units of what was to be expected of it at each pixel.

Mao, Xue, Wang, Zhang, Zheng, Liu: Abnormality Detection in Chest X-Ray Images Using Uncertainty Prediction
Autoencoders, MICCAI 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.scoring.term import Term
from anomaly.detectors.normality import blur
from anomaly.records import Float32

_BLUR = 0.02  # of the width: a pixel or two, the size of what the head cannot place


@dataclass(frozen=True, slots=True)
class Uncertainty(Term):
    """exp(-s) (x - G(z))^2, s the variance head's log variance (AE-U's score); mean over channels, a little blurred."""

    def maps(self, match: Match) -> Float32:
        """Return float32 (N, S, S) >= 0, 1 where the residual is as large as expected.

        Raises:
            ValueError: There is no variance head.
        """
        if match.log_variance is None:
            raise ValueError(
                "The term uncertainty needs a variance head, and this model has none: train with one, or leave it out."
            )
        squared = np.square(match.scan - match.twin).mean(axis=1)
        return match.masked(blur(match.masked(np.exp(match.masked(-match.log_variance)) * squared), _BLUR))
