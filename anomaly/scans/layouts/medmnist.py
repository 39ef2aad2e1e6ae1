"""MedMNIST: what the numbers in a .npz stand for. The pictures themselves are read by `anomaly.scans.npz`.

Yang et al., "MedMNIST v2", Scientific Data 10 (2023).
"""

from __future__ import annotations

from anomaly.records import ABNORMAL, NORMAL, Int64

_FINDINGS = (
    *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax"),
    *("consolidation", "edema", "emphysema", "fibrosis", "pleural thickening", "hernia"),
)


def medmnist_classes(stem: str, labels: Int64) -> list[tuple[int | None, str]]:
    """Return (label, class name) for every picture.

    Args:
        stem: The file's name without extension; `_64`, `_128` and `_224` say the size of the pictures.
        labels: int64 (N, K), K numbers a picture.

    Returns:
        pneumoniamnist: 0 normal, 1 pneumonia. chestmnist: normal where none of the 14 findings is set. Of any other
        the label is unknown, and the class is its number.
    """
    name = stem.lower().partition("_")[0]
    if name == "pneumoniamnist" and labels.shape[1] == 1:
        known: dict[int, tuple[int | None, str]] = {0: (NORMAL, "normal"), 1: (ABNORMAL, "pneumonia")}
        return [known.get(number, (None, str(number))) for number in labels[:, 0].tolist()]
    if name == "chestmnist" and labels.shape[1] == len(_FINDINGS):
        return [_findings(row) for row in labels.tolist()]
    return [(None, " ".join(map(str, row))) for row in labels.tolist()]


def _findings(row: list[int]) -> tuple[int | None, str]:
    names = [name for name, value in zip(_FINDINGS, row, strict=True) if value]
    return (ABNORMAL, " | ".join(names)) if names else (NORMAL, "no finding")
