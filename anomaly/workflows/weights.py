"""`anomaly weights`: pretrained backbones put into the weights folder, listed, and carried to another machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anomaly.errors import MissingError, OutputError, UsageError
from anomaly.runs import Arrays, sha256_of, writing
from anomaly.weights import (
    FOLDER_VARIABLE,
    OFFLINE_VARIABLE,
    StoredWeights,
    WeightsFacts,
    find_weights,
    list_weights,
    offline,
    refuse_to_overwrite,
    store_weights,
    weights_files,
    weights_folder,
    weights_path,
)
from anomaly.workflows.weights_file import (
    Fitted,
    fit_to,
    input_of,
    own_facts,
    parse_triple,
    read_arrays,
    read_header,
    say_input,
    say_what_is_there,
)

Say = Callable[[str], None]

_SHOWN = 12
"""Digits of a hash that are shown to people."""

_HOW_TO_FILL = (
    "There are none yet. With a network: `anomaly weights fetch resnet18`. Without: `anomaly weights import FILE --as "
    "resnet18`, of a safetensors file brought from elsewhere."
)


@dataclass(frozen=True, slots=True)
class Put:
    """Weights put into the folder: where, what is there in words, and what was done to make them fit."""

    stored: StoredWeights
    there: str
    notes: tuple[str, ...]


def ensure_weights(arch: str, *, offline: bool, say: Say) -> StoredWeights:
    """Return the weights of an architecture, downloading them where they are not in the folder yet.

    Args:
        arch: A name torchvision or timm knows.
        offline: Forbid the network; ANOMALY_OFFLINE does too.
        say: Told what is going to be downloaded from where, before it is.

    Raises:
        MissingError: They are not there, and the network is forbidden or cannot be reached.
        ModelError: The file in the folder is damaged.
        UsageError: No such architecture, or none of its weights are published.
        OutputError: The folder cannot be written.
    """
    if weights_path(arch).is_file():
        return find_weights(arch)

    from anomaly.nets.zoo import library_of

    library_of(arch)  # a name that is nobody's is not for want of a network
    _refuse_offline(arch, offline)
    # another process may do the same: the file is written whole or not at all, so the last one wins
    return _fetch(arch, say, overwrite=True).stored


def fetch_weights(arch: str, *, overwrite: bool, offline: bool, say: Say) -> Put:
    """Download the published weights of an architecture into the folder.

    Raises:
        UsageError: They are there already, no such architecture, or none of its weights are published.
        MissingError: The network is forbidden or cannot be reached.
        OutputError: The folder cannot be written.
    """
    refuse_to_overwrite(weights_path(arch), overwrite=overwrite)
    _refuse_offline(arch, offline)
    return _fetch(arch, say, overwrite=overwrite)


def _refuse_offline(arch: str, forbidden: bool) -> None:
    if forbidden or offline():
        path = weights_path(arch)
        raise MissingError(
            f"The weights of {arch} would have to be downloaded into {path}, and the network is forbidden (--offline "
            f"or {OFFLINE_VARIABLE}): run `anomaly weights fetch {arch}` where it is not, or, without a network, do "
            f"that on another machine, `anomaly weights export DIR` there, and `anomaly weights import DIR/"
            f"{path.name}` here."
        )


def _fetch(arch: str, say: Say, *, overwrite: bool) -> Put:
    from anomaly.nets.zoo import address_of, blueprint, download

    address = address_of(arch)
    if address is not None:  # else `download` says what to do
        say(f"Downloading the weights of {arch} from {address} into {weights_path(arch)} (once); --offline forbids it.")
    tensors, facts = download(arch)
    return _put(fit_to(blueprint(arch), tensors, facts.origin), facts, overwrite=overwrite)


def import_weights(
    file: Path,
    *,
    arch: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    overwrite: bool = False,
) -> Put:
    """Put a safetensors file that was brought from elsewhere into the folder.

    Args:
        file: Of `anomaly weights export`, or anyone's: all of an architecture's tensors, or those of its first layers.
        arch: What network they are of; None: the file's header says so.
        mean: "a,b,c": of the input they want, a picture in [0, 1]; None: the header says so, else ImageNet's.
        std: The same.
        overwrite: Replace weights of that network that are there already.

    Raises:
        UsageError: No such file or network, it is there already, or the header does not say what --as leaves out.
        ModelError: The file is a pickle, is damaged, or holds other tensors than the network's.
        OutputError: The folder cannot be written.
    """
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std go together: give both, or neither.")
    header = read_header(file)
    facts, notes = _facts_of(file, arch, own_facts(header), dict(header), asked=mean is not None)
    if mean is not None and std is not None:
        facts = replace(facts, mean=parse_triple(mean, "--mean"), std=parse_triple(std, "--std"))
    refuse_to_overwrite(weights_path(facts.arch), overwrite=overwrite)

    from anomaly.nets.zoo import blueprint

    fitted = fit_to(blueprint(facts.arch), read_arrays(file), str(file))
    return _put(fitted, facts, overwrite=overwrite, notes=notes)


def _facts_of(
    file: Path, arch: str | None, own: WeightsFacts | None, header: dict[str, str], *, asked: bool
) -> tuple[WeightsFacts, tuple[str, ...]]:
    """Return what is known of a file to import, and notes on what is assumed."""
    if own is not None:  # weights keep their origin when they are carried about, and so their hash
        return replace(own, arch=arch or own.arch), ()
    named = arch or header.get("arch")
    if not named:
        raise UsageError(f"{file} does not say what network it is of: add --as NAME (resnet18, wide_resnet50_2, …).")
    mean, std, note = input_of(header)
    notes = (note,) if note is not None and not asked else ()
    return WeightsFacts(named, file.name, mean, std, sha256_of(file)), notes


def _put(fitted: Fitted, facts: WeightsFacts, *, overwrite: bool, notes: Sequence[str] = ()) -> Put:
    stored = store_weights(_ordered(fitted.tensors), replace(facts, lacks=fitted.lacks), overwrite=overwrite)
    return Put(stored, say_what_is_there(fitted.lacks, fitted.up_to), (*fitted.notes, *notes))


def _ordered(tensors: Arrays) -> Arrays:
    return {name: tensors[name] for name in sorted(tensors)}


def render_put(put: Put) -> str:
    """Return what was put into the folder as one line."""
    facts = put.stored.facts
    return (
        f"{put.stored.path}: {facts.arch}, {put.there}; input {say_input(facts.mean, facts.std)}; "
        f"sha256 {put.stored.sha256[:_SHOWN]}"
    )


def export_weights(folder: Path, *, only: Sequence[str] = (), overwrite: bool = False) -> list[Path]:
    """Copy weights into a folder, to be carried to a machine without a network.

    Args:
        folder: Made where it is not there.
        only: Names of architectures; empty: all there are.
        overwrite: Replace files of the same name.

    Returns:
        The copies.

    Raises:
        MissingError: There are none, or none of a name in `only`.
        ModelError: One is damaged.
        UsageError: A file is there already, or the folder is a file.
        OutputError: The folder cannot be written.
    """
    stored = [find_weights(name) for name in dict.fromkeys(only)] or [find_weights(p.stem) for p in weights_files()]
    if not stored:
        raise MissingError(f"{weights_folder()} holds no weights. {_HOW_TO_FILL}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder.")
    copies = [folder / weights.path.name for weights in stored]
    for copy in copies:
        refuse_to_overwrite(copy, overwrite=overwrite)
    for weights, copy in zip(stored, copies, strict=True):
        try:
            with weights.path.open("rb") as source, writing(copy) as target:
                shutil.copyfileobj(source, target)
        except OutputError as error:
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise OutputError(f"Cannot write {copy}: {reason}. Free some space or name another folder.") from error
    return copies


def render_export(copies: Sequence[Path]) -> str:
    """Return what was exported, and what to do with it, as lines for people."""
    folder = copies[0].parent
    commands = "\n".join(f"  anomaly weights import {folder.name}/{copy.name}" for copy in copies)
    return (
        f"{folder}: {len(copies)} {'file' if len(copies) == 1 else 'files'}. Carry the folder to the other machine, "
        f"and there:\n{commands}\nor let {FOLDER_VARIABLE} name it."
    )


def describe_weights() -> dict[str, Any]:
    """Say what the weights folder holds.

    Returns:
        folder; weights: name, bytes, lacks, mean, std, origin, origin_sha256, sha256 of each; damaged: file name ->
        reason.
    """
    whole, damaged = list_weights()
    return {
        "folder": str(weights_folder()),
        "weights": [
            {
                "name": weights.facts.arch,
                "bytes": weights.path.stat().st_size,
                "lacks": list(weights.facts.lacks),
                "mean": list(weights.facts.mean),
                "std": list(weights.facts.std),
                "origin": weights.facts.origin,
                "origin_sha256": weights.facts.origin_sha256,
                "sha256": weights.sha256,
            }
            for weights in whole
        ],
        "damaged": damaged,
    }


def render(facts: dict[str, Any]) -> str:
    """Return what `describe_weights` found as a table for people."""
    rows = [("name", "MiB", "there", "input", "origin", "sha256")] if facts["weights"] else []
    for each in facts["weights"]:
        size = f"{each['bytes'] / 2**20:.1f}"
        wants = say_input(tuple(each["mean"]), tuple(each["std"]))
        there = say_what_is_there(each["lacks"])
        rows.append((each["name"], size, there, wants, each["origin"], each["sha256"][:_SHOWN]))
    widths = [max(len(row[column]) for row in rows) for column in range(6)] if rows else []
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    reasons = [f"not usable: {reason}" for reason in facts["damaged"].values()]
    lines = [facts["folder"], *table, *reasons]
    return "\n".join(lines if table or reasons else [*lines, _HOW_TO_FILL])
