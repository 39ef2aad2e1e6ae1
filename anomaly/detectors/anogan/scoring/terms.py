"""All score terms by name, in the order in which they are listed and added."""

from __future__ import annotations

from anomaly.detectors.anogan.scoring.contrast import ContrastDeficit, StructureDeficit
from anomaly.detectors.anogan.scoring.features import Features, FeaturesMap, FeaturesRaw
from anomaly.detectors.anogan.scoring.residual import L1, L2, Residual, ResidualPca
from anomaly.detectors.anogan.scoring.similarity import ContrastStructure, Ssim
from anomaly.detectors.anogan.scoring.term import Term
from anomaly.detectors.anogan.scoring.uncertainty import Uncertainty

TERMS: dict[str, type[Term]] = {
    "residual_pca": ResidualPca,
    "residual": Residual,
    "l1": L1,
    "l2": L2,
    "ssim": Ssim,
    "contrast_structure": ContrastStructure,
    "structure_deficit": StructureDeficit,
    "contrast_deficit": ContrastDeficit,
    "uncertainty": Uncertainty,
    "features": Features,
    "features_raw": FeaturesRaw,
    "features_map": FeaturesMap,
}
