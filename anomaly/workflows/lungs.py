"""Lungs for `prepare.lungs`: a fitted U-Net as the function a preparation takes, and its copy inside the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.detectors.base import WEIGHTS
from anomaly.errors import UsageError
from anomaly.prepare.prepare import LungFinder, Preparation, Shrunk
from anomaly.prepare.resize import resize
from anomaly.runs import sha256_of
from anomaly.scans.borders import whole
from anomaly.workflows.model import LUNGS, MODEL_JSON

FILES = (WEIGHTS, MODEL_JSON, "README.md")


def lung_finder(path: Path, *, device: str = "auto") -> LungFinder:
    """Return a function that finds lungs with a fitted U-Net.

    Args:
        path: A run folder of `anomaly segment fit`, or the model folder in it.
        device: "auto", "cpu" or "cuda".

    Raises:
        ModelError: The model cannot be used.
    """
    from anomaly.workflows.segment_model import load_segmenter  # which needs torch

    segmenter = load_segmenter(path, device=device)
    preparation, unet = segmenter.preparation, segmenter.unet

    def find(pixels: NDArray[Any]) -> NDArray[np.bool_]:
        image = preparation.finish(_as_kept(pixels, preparation)).image
        chances = unet.chances(image[None])[0]
        return np.asarray(resize(chances, len(pixels)) >= unet.threshold)

    return find


def _as_kept(pixels: NDArray[Any], preparation: Preparation) -> Shrunk:
    """Return a square film, of whatever side and depth, as another preparation would have kept it."""
    top = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    side, depth = int(preparation.shrinks_by["side"]), str(preparation.shrinks_by["depth"])
    small = resize(np.asarray(pixels, dtype=np.float32) / np.float32(top), side)
    if depth != "float32":
        most = np.iinfo(depth).max
        small = np.clip(np.rint(small * np.float32(most)), 0, most).astype(depth)
    return Shrunk(small, whole(small), (side, side), ())


def check_lungs(preparation: Preparation, lungs: Path | None) -> None:
    """Refuse a U-Net that is not asked for, or a preparation that wants one and has none.

    Raises:
        UsageError: Either of them.
    """
    if preparation.needs_lungs and lungs is None:
        raise UsageError(
            f"prepare.lungs is {preparation.config.lungs!r}: add --lungs RUN, a run of `anomaly segment fit` on lungs."
        )
    if lungs is not None and not preparation.needs_lungs:
        raise UsageError("--lungs does nothing by itself: add --set prepare.lungs=mask, or crop.")


def copy_lungs(lungs: Path, model: Path) -> str:
    """Copy a U-Net's files into a model folder, where `load_model` finds them; return the sha256 of its weights."""
    from anomaly.workflows.segment_model import find_segmenter

    folder = find_segmenter(lungs)
    (model / LUNGS).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, model / LUNGS / name)
    return sha256_of(model / LUNGS / WEIGHTS)
