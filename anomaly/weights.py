"""The weights folder: pretrained backbones as safetensors files, found without a network and never unpickled.

One file an architecture, `resnet18.safetensors`: tensors under the architecture's own names, all of them or only those
of its first layers, and in the header what input they want and where they come from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError, MissingError, ModelError, OutputError, UsageError
from anomaly.runs import Arrays, read_tensors, sha256_of, write_bytes

FOLDER_VARIABLE, OFFLINE_VARIABLE = "ANOMALY_WEIGHTS", "ANOMALY_OFFLINE"
SUFFIX = ".safetensors"

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class WeightsFacts:
    """What a file of weights says of itself.

    `mean` and `std` are of the input the network was trained on, a picture in [0, 1], by channel: it is given
    (picture - mean) / std. `origin` is the file or the address it came from, `origin_sha256` that file's hash where it
    is known. `lacks` names the modules (or tensors) of the architecture that the file leaves out, in its order.
    """

    arch: str
    origin: str
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    origin_sha256: str | None = None
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """A file of the weights folder."""

    path: Path
    facts: WeightsFacts
    sha256: str

    def tensors(self) -> Arrays:
        """Return the tensors by name, of the type they are stored in.

        Raises:
            ModelError: The file is damaged.
        """
        try:
            return read_tensors(self.path)[0]
        except DataError as error:
            raise ModelError(f"{error} Remove it, and import or fetch it again.") from error


def weights_folder() -> Path:
    """Return the folder: ANOMALY_WEIGHTS, or `weights` in the user's data folder. It need not exist."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given).expanduser()

    import platformdirs

    return Path(platformdirs.user_data_dir("anomaly-cxr")) / "weights"


def offline() -> bool:
    """Return whether ANOMALY_OFFLINE forbids the network."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() not in ("", "0", "false", "f", "no", "n", "off")


def weights_path(arch: str) -> Path:
    """Return where the weights of an architecture lie, or would.

    Raises:
        UsageError: No architecture can be called that.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", arch):
        raise UsageError(f"{arch!r} is no name of an architecture; resnet18 is one.")
    return weights_folder() / f"{arch}{SUFFIX}"


def list_weights() -> tuple[list[StoredWeights], dict[str, str]]:
    """Return every file of the weights folder, by name, and the reason for each that is damaged or not of ours."""
    whole: list[StoredWeights] = []
    damaged: dict[str, str] = {}
    for path in weights_files():
        try:
            whole.append(_stored(path))
        except ModelError as error:
            damaged[path.name] = str(error)
    return whole, damaged


def weights_files() -> list[Path]:
    """Return the files of the weights folder, by name, unread."""
    return sorted(path for path in weights_folder().glob(f"*{SUFFIX}") if path.is_file())


def find_weights(arch: str) -> StoredWeights:
    """Return the stored weights of an architecture.

    Raises:
        MissingError: There are none; the message says how to get them.
        ModelError: The file is damaged or not of ours.
    """
    path = weights_path(arch)
    if not path.is_file():
        raise MissingError(
            f"{path} is not there: fetch it with `anomaly weights fetch {arch}`, or, without a network, do that on "
            f"another machine, `anomaly weights export DIR` there, and `anomaly weights import DIR/{path.name}` here."
        )
    return _stored(path)


def store_weights(tensors: Arrays, facts: WeightsFacts, *, overwrite: bool = False) -> StoredWeights:
    """Put weights into the folder, whole or not at all.

    Raises:
        UsageError: There are such weights already.
        OutputError: The folder cannot be written.
    """
    path = weights_path(facts.arch)
    refuse_to_overwrite(path, overwrite=overwrite)

    from safetensors.numpy import save

    # as `runs.write_tensors`, but that a tensor of no dimensions keeps its shape: it has to fit an architecture
    whole = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        write_bytes(path, save(whole, metadata={"meta": json.dumps(asdict(facts))}))
    except OutputError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise OutputError(
            f"Cannot write {path}: {reason}. Free some space, or set {FOLDER_VARIABLE} to a folder you may write to."
        ) from error
    return find_weights(facts.arch)


def refuse_to_overwrite(path: Path, *, overwrite: bool) -> None:
    """Refuse when a file is there already and may not be replaced.

    Raises:
        UsageError: So it is.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already: add --overwrite to replace it.")


def facts_from(meta: Mapping[str, Any]) -> WeightsFacts:
    """Return what the header of a file of ours says.

    Raises:
        KeyError, TypeError, ValueError: It is not of ours.
    """
    mean, std = ((float(a), float(b), float(c)) for a, b, c in (meta["mean"], meta["std"]))
    if min(std) <= 0:
        raise ValueError(f"std of {std}")
    sha256 = meta.get("origin_sha256")
    lacks = tuple(str(name) for name in meta.get("lacks", ()))
    return WeightsFacts(
        str(meta["arch"]), str(meta["origin"]), mean, std, None if sha256 is None else str(sha256), lacks
    )


def _stored(path: Path) -> StoredWeights:
    return StoredWeights(path, _read_facts(path), sha256_of(path))


def _read_facts(path: Path) -> WeightsFacts:
    """Read what a file of the folder says of itself; its tensors stay on the disk."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:  # opens only a file whose length fits its header
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read ({error}): remove it, and import or fetch it again.") from error
    try:
        facts = facts_from(json.loads(header["meta"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path} was not put there by `anomaly weights`: move it elsewhere and `anomaly weights import` it."
        ) from error
    if facts.arch != path.name.removesuffix(SUFFIX):
        raise ModelError(f"{path} holds weights of {facts.arch!r}: its name must be {facts.arch}{SUFFIX}.")
    return facts
