"""The model folder: everything `score` needs, checked before it is trusted, readable without a pickle or a network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anomaly
from anomaly.calibrate import CALIBRATION, Calibration, load_calibration
from anomaly.config import PrepareConfig, ReadConfig, Recipe, Settings, validate
from anomaly.detectors.base import WEIGHTS, Detector
from anomaly.errors import DataError, ModelError, UsageError
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import Template
from anomaly.registry import detector_class
from anomaly.runs import owner, read_json, read_tensors, sha256_of, write_json, write_tensors, write_text

SCHEMA_VERSION = 4
"""1: without prepare.register. 2: without the features of held-out normals. 3: without the films that calibration
scores are of."""
MODEL_JSON = "model.json"
SEGMENTER = "segmenter"
"""The `kind` that model.json names where the model draws masks; one that scores names none."""
PREPARATION = "preparation.safetensors"
"""What the preparation has learnt from the normals, where it learns anything."""
LUNGS = "lungs"
"""The folder of the U-Net that finds the lungs, where the preparation looks for any."""
_LUNGS_JSON, _LUNGS_WEIGHTS = f"{LUNGS}/{MODEL_JSON}", f"{LUNGS}/{WEIGHTS}"
_REGISTERED = f"""
Every film is first brought onto the mean normal chest ({PREPARATION}); one that cannot be is scored as it is, with a
warning in scores.csv.
"""
_CROPPED = """
Only the middle {share:g} of the side of a film so prepared is compared; around it a map shows nothing.
"""
INTENDED_USE = "Research only: ranking scans for review. Not a medical device, never a diagnosis."


class ModelFacts(Settings):
    """What model.json says; `parent` is the sha256 of the model.json this one was recalibrated from."""

    schema_version: int
    anomaly_version: str
    method: str
    size: int
    seed: int
    read: ReadConfig
    prepare: PrepareConfig
    detector: dict[str, Any]
    alpha: float
    data: dict[str, Any]
    parent: str | None = None
    intended_use: str
    sha256: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that make up the model, beside model.json and the card."""
        learnt = () if self.prepare.registration == "none" else (PREPARATION,)
        lungs = () if self.prepare.lungs == "none" else (_LUNGS_JSON, _LUNGS_WEIGHTS)
        return (WEIGHTS, CALIBRATION, *learnt, *lungs)


@dataclass(frozen=True, slots=True)
class Model:
    """A fitted detector with the preparation and calibration that belong to it."""

    facts: ModelFacts
    preparation: Preparation
    detector: Detector
    calibration: Calibration


def save_model(
    folder: Path,
    recipe: Recipe,
    preparation: Preparation,
    detector: Detector,
    calibration: Calibration,
    *,
    data: dict[str, Any],
) -> None:
    """Write the model folder; model.json comes last, so a half-written folder is never taken for a model.

    Args:
        folder: Where; made if missing.
        recipe: As it was fitted.
        preparation: Fitted.
        detector: Fitted.
        calibration: Of that detector.
        data: Fingerprint of the scans: counts, hash of the file list, …
    """
    detector.save(folder)
    calibration.save(folder)
    if preparation.template is not None:
        write_tensors(folder / PREPARATION, *preparation.template.to_entry())
    facts = ModelFacts(
        schema_version=SCHEMA_VERSION,
        anomaly_version=anomaly.__version__,
        method=recipe.method,
        size=recipe.size,
        seed=recipe.seed,
        read=recipe.read,
        prepare=recipe.prepare,
        detector=detector.config.model_dump(mode="json"),
        alpha=recipe.calibration.alpha,
        data=data,
        intended_use=INTENDED_USE,
        sha256={},
    )
    describe_model(folder, facts)


def describe_model(folder: Path, facts: ModelFacts) -> None:
    """Write the model card and, last, model.json, of this schema, with the sha256 of the files it stands for."""
    write_text(folder / "README.md", _card(facts))
    sha256 = {name: sha256_of(folder / name) for name in facts.files}
    told = facts.model_dump(mode="json") | {"schema_version": SCHEMA_VERSION}
    sha256[MODEL_JSON] = digest_of(told)
    write_json(folder / MODEL_JSON, {**told, "sha256": sha256})


def digest_of(told: Mapping[str, Any]) -> str:
    """Return the sha256 of everything model.json says, as it says it, but the checksums."""
    rest = {key: value for key, value in told.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def find_model(path: Path) -> Path:
    """Return the model folder for a run folder or a model folder.

    Raises:
        ModelError: There is none.
    """
    for folder in (path, path / "model"):
        if (folder / MODEL_JSON).is_file():
            return folder
    if owner(path) == "fit":
        raise ModelError(f"{path} holds no finished model: finish it with `anomaly fit … -o {path} --resume`.")
    raise ModelError(f"{path} holds no model (no {MODEL_JSON}): give --model a folder written by `anomaly fit`.")


def load_model(path: str | Path, *, device: str = "auto") -> Model:
    """Load a model, checking its schema and the sha256 of its files. Nothing is unpickled or downloaded.

    Args:
        path: A run folder (`runs/a`) or its `model` folder.
        device: "auto", "cpu" or "cuda".

    Raises:
        ModelError: A file is missing, damaged, or of a newer schema.
        UsageError: The device is not there.
    """
    folder = find_model(Path(path))
    facts = read_facts(folder)
    for name in facts.files:
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{file} is missing: copy the whole model folder again, or fit again.")
        if sha256_of(file) != facts.sha256.get(name):
            raise ModelError(f"{file} is damaged (its sha256 is not the recorded one): copy it again, or fit again.")
    try:
        cls = detector_class(facts.method)
    except UsageError as error:
        raise ModelError(f"{folder}: {error}") from error
    detector: Detector = cls.load(folder, device=device)
    return Model(facts, _load_preparation(folder, facts, device), detector, load_calibration(folder))


def _load_preparation(folder: Path, facts: ModelFacts, device: str) -> Preparation:
    preparation = Preparation(facts.prepare, facts.size)
    if preparation.needs_lungs:
        from anomaly.workflows.lungs import lung_finder  # it builds on this module, and on torch

        preparation = preparation.with_lungs(lung_finder(folder / LUNGS, device=device))
    if not preparation.registers:
        return preparation
    try:
        return preparation.with_template(Template.from_entry(*read_tensors(folder / PREPARATION)))
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / PREPARATION} holds no template: {error}. Fit the model again.") from error


def read_facts(folder: Path) -> ModelFacts:
    """Read and check model.json.

    Raises:
        ModelError: Missing, not JSON, of a newer schema, with settings this version does not know, or changed.
    """
    try:
        data = read_json(folder / MODEL_JSON)
        version = int(data["schema_version"])
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / MODEL_JSON} is not a model description: {error}") from error
    if data.get("kind") == SEGMENTER:
        raise ModelError(f"{folder} draws masks and gives no score: use it with `anomaly segment apply`.")
    if version > SCHEMA_VERSION:
        raise ModelError(
            f"{folder} was written by a newer anomaly (schema {version}, this one reads {SCHEMA_VERSION}): "
            "upgrade this installation."
        )
    try:
        facts = validate(ModelFacts, data, str(folder / MODEL_JSON))
    except UsageError as error:
        raise ModelError(str(error)) from error
    if facts.sha256.get(MODEL_JSON) != digest_of(data):
        raise ModelError(f"{folder / MODEL_JSON} was changed after the fit: copy it again, or fit again.")
    return facts


_NORMALS = """Fitted on normal scans only, with anomaly {version}. A score ranks scans by how unusual they look beside
those normals; a p-value says what share of the held-out normals score as high."""
_LABELLED = """Trained on labelled scans, with anomaly {version}: a score is 1 - P(normal), and says nothing of what
is in none of the classes it learnt. A p-value says what share of the held-out normals score as high."""
_BOXED = """Trained on labelled scans with boxes, with anomaly {version}: a score is the confidence of the best box, and
says nothing of what was never boxed. A p-value says what share of the held-out normals score as high."""


def _card(facts: ModelFacts) -> str:
    said = _LABELLED if "classes" in facts.data else _BOXED if "boxes" in facts.data else _NORMALS
    origin = said.format(version=facts.anomaly_version)
    registered = "" if facts.prepare.registration == "none" else _REGISTERED
    share = facts.prepare.central_crop
    cropped = _CROPPED.format(share=share) if share < 1 else ""
    counts = "\n".join(f"* {key}: {value}" for key, value in facts.data.items())
    return f"""# Anomaly model: {facts.method}

{INTENDED_USE}

{origin} On scans from another site, scanner or age group both shift: recalibrate with `anomaly calibrate`.
{registered}{cropped}
{counts}

Settings are in model.json; nothing here is a pickle.
"""
