"""The model folder of a segmenter: checked before it is trusted, readable without a pickle or a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anomaly
from anomaly.config import PrepareConfig, ReadConfig, Recipe, Settings, validate
from anomaly.errors import DataError, ModelError, UsageError
from anomaly.prepare.prepare import Preparation
from anomaly.records import Scan
from anomaly.registry import segmenter_class
from anomaly.runs import owner, read_json, sha256_of, write_json, write_text
from anomaly.segmenters.curve import cut
from anomaly.segmenters.unet import WEIGHTS, UNet
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.model import MODEL_JSON, SEGMENTER, digest_of
from anomaly.workflows.segment_results import chances_on_film

SCHEMA_VERSION = 1
INTENDED_USE = "Research only: outlines for review and for measuring. Not a medical device, never a diagnosis."
FIT = "segment fit"
"""The command that a run's receipt names."""


class SegmenterFacts(Settings):
    """What model.json of a segmenter says."""

    schema_version: int
    anomaly_version: str
    kind: str
    method: str
    size: int
    seed: int
    read: ReadConfig
    prepare: PrepareConfig
    detector: dict[str, Any]
    threshold: float
    data: dict[str, Any]
    intended_use: str
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A fitted network with the preparation that belongs to it."""

    facts: SegmenterFacts
    preparation: Preparation
    unet: UNet

    def mask_of(self, scan: Scan) -> Mask:
        """Return what the network outlines on a film, bool (H, W)."""
        prepared = self.preparation(scan)
        chances = self.unet.chances(prepared.image[None])[0]
        return cut(chances_on_film(chances, prepared.geometry), self.unet.threshold)


def save_segmenter(folder: Path, recipe: Recipe, unet: UNet, *, data: dict[str, Any]) -> None:
    """Write the model folder; model.json comes last, so a half-written folder is never taken for a model.

    Args:
        folder: Where; made if missing.
        recipe: As it was fitted.
        unet: Fitted.
        data: Of what it was fitted on: counts, hashes, …
    """
    unet.save(folder)
    facts = SegmenterFacts(
        schema_version=SCHEMA_VERSION,
        anomaly_version=anomaly.__version__,
        kind=SEGMENTER,
        method=recipe.method,
        size=recipe.size,
        seed=recipe.seed,
        read=recipe.read,
        prepare=recipe.prepare,
        detector=unet.config.model_dump(mode="json"),
        threshold=unet.threshold,
        data=data,
        intended_use=INTENDED_USE,
        sha256={},
    )
    write_text(folder / "README.md", _card(facts))
    told = facts.model_dump(mode="json")
    write_json(
        folder / MODEL_JSON, {**told, "sha256": {WEIGHTS: sha256_of(folder / WEIGHTS), MODEL_JSON: digest_of(told)}}
    )


def find_segmenter(path: Path) -> Path:
    """Return the model folder for a run folder or a model folder.

    Raises:
        ModelError: There is none.
    """
    for folder in (path, path / "model"):
        if (folder / MODEL_JSON).is_file():
            return folder
    if owner(path) == FIT:
        raise ModelError(f"{path} holds no finished model: finish it with `anomaly {FIT} … -o {path} --resume`.")
    raise ModelError(f"{path} holds no model (no {MODEL_JSON}): give a folder written by `anomaly {FIT}`.")


def load_segmenter(path: str | Path, *, device: str = "auto") -> Segmenter:
    """Load a segmenter, checking its schema and the sha256 of its weights. Nothing is unpickled or downloaded.

    Args:
        path: A run folder (`runs/lungs`) or its `model` folder.
        device: "auto", "cpu" or "cuda".

    Raises:
        ModelError: A file is missing, damaged, of a newer schema, or of a model that scores.
        UsageError: The device is not there.
    """
    folder = find_segmenter(Path(path))
    facts = _read_facts(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelError(f"{file} is missing: copy the whole model folder again, or fit again.")
    if sha256_of(file) != facts.sha256.get(WEIGHTS):
        raise ModelError(f"{file} is damaged (its sha256 is not the recorded one): copy it again, or fit again.")
    try:
        cls = segmenter_class(facts.method)
    except UsageError as error:
        raise ModelError(f"{folder}: {error}") from error
    unet: UNet = cls.load(folder, device=device)
    return Segmenter(facts, Preparation(facts.prepare, facts.size), unet)


def _read_facts(folder: Path) -> SegmenterFacts:
    try:
        data = read_json(folder / MODEL_JSON)
        version = int(data["schema_version"])
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / MODEL_JSON} is not a model description: {error}") from error
    if data.get("kind") != SEGMENTER:
        raise ModelError(f"{folder} scores films and draws no masks: give a model of `anomaly {FIT}`.")
    if version > SCHEMA_VERSION:
        raise ModelError(
            f"{folder} was written by a newer anomaly (schema {version}, this one reads {SCHEMA_VERSION}): "
            "upgrade this installation."
        )
    try:
        facts = validate(SegmenterFacts, data, str(folder / MODEL_JSON))
    except UsageError as error:
        raise ModelError(str(error)) from error
    if facts.sha256.get(MODEL_JSON) != digest_of(data):
        raise ModelError(f"{folder / MODEL_JSON} was changed after the fit: copy it again, or fit again.")
    return facts


def _card(facts: SegmenterFacts) -> str:
    counts = "\n".join(f"* {key}: {value}" for key, value in facts.data.items())
    return f"""# Segmentation model: {facts.method}

{INTENDED_USE}

A network that outlines on a film what people outlined on the films it was trained on, with anomaly
{facts.anomaly_version}. A pixel belongs where its chance is at least {facts.threshold:.2f}: there masks agreed best
(mean IoU) on films of patients held out of the training. On films of another site, scanner or age group masks may be
wrong in other ways: look at the overlays, and measure with `anomaly segment evaluate` against masks of that
place.

{counts}

Settings are in model.json; nothing here is a pickle.
"""
