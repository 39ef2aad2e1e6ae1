"""A file of weights that somebody made, read and fitted to an architecture: names, shapes, what is missing, what input.

Only safetensors files are read: a pickle can run code when it is opened.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.errors import ModelError, UsageError
from anomaly.runs import Arrays
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple, WeightsFacts, facts_from

if TYPE_CHECKING:
    from anomaly.nets.zoo import Blueprint

_PICKLES = (b"PK\x03\x04", b"\x80")
"""What a file of torch's starts with: a zip archive of a pickle, or a bare one."""

_INPUTS: dict[str, tuple[Triple, Triple]] = {
    "ImageNet mean/std": (IMAGENET_MEAN, IMAGENET_STD),
    "x/127.5-1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Words for the input, in headers and in what is said here -> mean and std of a picture in [0, 1]."""

_HEADS = ("fc", "classifier", "head", "heads")
"""What torchvision and timm call the classifier at the end."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""The names of DenseNet's layers in files older than torch 1.0, torchvision's own among them: norm.1 is norm1."""

_COUNTER = "num_batches_tracked"
_MOST_LISTED = 4
_DEEPEST_PREFIX = 3

Header = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fitted:
    """Tensors under an architecture's names.

    `lacks` names the modules (or tensors) of it that are not there, `up_to` the last module before them where nothing
    behind them is there; `notes` say what was done to make them fit.
    """

    tensors: Arrays
    lacks: tuple[str, ...]
    up_to: str | None
    notes: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Return the header of a safetensors file.

    Raises:
        UsageError: There is no such file.
        ModelError: It is a pickle, or no whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"{path} {'is a folder: name a file in it' if path.is_dir() else 'does not exist'}.")
    try:
        with safe_open(str(path), framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        with path.open("rb") as file:  # only now: the length that a safetensors file starts with may look like these
            if file.read(4).startswith(_PICKLES):
                raise ModelError(_no_pickles(path)) from error
        raise ModelError(f"{path} is no whole safetensors file ({error}): get it again.") from error


def read_arrays(path: Path) -> Arrays:
    """Return the tensors of a safetensors file whose header could be read.

    Raises:
        ModelError: They are of a type that numpy does not have, or not all finite.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        arrays: Arrays = {}
        for name in file.keys():  # noqa: SIM118 (not a dict)
            kind = file.get_slice(name).get_dtype()
            if kind == "BF16" or kind.startswith("F8"):
                raise ModelError(
                    f"{path} holds {name} as {kind}, which cannot be read here: save its tensors as float16 or float32."
                )
            arrays[name] = file.get_tensor(name)
            if not np.isfinite(arrays[name]).all():
                raise ModelError(
                    f"{path} holds values in {name} that are not finite: it is damaged, or was turned into half "
                    "precision though its values are too large for that."
                )
    if not arrays:
        raise ModelError(f"{path} holds no tensors.")
    return arrays


def _no_pickles(path: Path) -> str:
    """Say why a pickle is not opened, and the command that turns it into what is."""
    code = (
        "from torch import load; from safetensors.torch import save_file; "
        f'd = load({json.dumps(str(path))}, "cpu", weights_only=True); d = d.get("state_dict", d.get("model", d)); '
        'save_file({k: v.clone().contiguous() for k, v in d.items() if hasattr(v, "clone")}, '
        f"{json.dumps(str(path.with_suffix('.safetensors')))})"
    )
    return (
        f"{path} is a pickle, which can run code when it is opened, so it is left closed. Where you trust it, convert "
        f"it and import that:\n  python -c {shlex.quote(code)}"
    )


def own_facts(header: Header) -> WeightsFacts | None:
    """Return what a file exported by `anomaly weights` says of itself; None of anyone else's."""
    try:
        return facts_from(json.loads(header["meta"]))
    except (KeyError, TypeError, ValueError):
        return None


def input_of(header: Header) -> tuple[Triple, Triple, str | None]:
    """Return the mean and std of the input that a foreign header asks for, and a note where they are assumed."""
    said = header.get("input", "")
    for words, (mean, std) in _INPUTS.items():
        if said.replace(" ", "").lower() == words.replace(" ", "").lower():
            return mean, std, None
    unknown = f"its header says {said!r} of it, which is not understood; " if said else ""
    return (
        IMAGENET_MEAN,
        IMAGENET_STD,
        f"the input is taken to be normalised by ImageNet's mean and std: {unknown}say --mean and --std if it is not.",
    )


def parse_triple(text: str, flag: str) -> Triple:
    """Return "0.5,0.5,0.5" as numbers.

    Raises:
        UsageError: They are not three, or make no sense for pictures in [0, 1].
    """
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{flag} takes three numbers, as in {flag} 0.485,0.456,0.406, not {text!r}.") from error
    if not np.isfinite([a, b, c]).all() or (flag == "--std" and min(a, b, c) <= 0):
        raise UsageError(f"{flag} {text}: they must be finite{', and above 0' if flag == '--std' else ''}.")
    if max(a, b, c) > 1:
        raise UsageError(
            f"{flag} {text}: they are of a picture in [0, 1]; divide both by 255 if yours are of one in [0, 255]."
        )
    return a, b, c


def say_input(mean: Triple, std: Triple) -> str:
    """Return a mean and std as words."""
    for words, known in _INPUTS.items():
        if (mean, std) == known:
            return words
    return f"mean {_numbers(mean)}, std {_numbers(std)}"


def _numbers(values: Triple) -> str:
    return ",".join(f"{value:.4g}" for value in values)


def say_what_is_there(lacks: Sequence[str], up_to: str | None = None) -> str:
    """Return "complete", or "complete up to layer3; lacks layer4, fc"."""
    if not lacks:
        return "complete"
    more = f" and {len(lacks) - _MOST_LISTED} more" if len(lacks) > _MOST_LISTED else ""
    return f"{f'complete up to {up_to}; ' if up_to else ''}lacks {', '.join(lacks[:_MOST_LISTED])}{more}"


def fit_to(plan: Blueprint, given: Arrays, where: str) -> Fitted:
    """Bring tensors under an architecture's names, and check that they are its.

    Names may have something in front ("module."), or number the modules as a `Sequential` of them does. A classifier
    that does not fit, as one of another number of classes, is left out.

    Args:
        plan: The architecture.
        given: Tensors by name, of its first layers at least.
        where: What the user calls them, for messages.

    Raises:
        ModelError: A tensor is not one of the architecture's, or its first layer or one between others is missing.
    """
    names, notes = _renamed(plan, {name: array.shape for name, array in given.items()})
    likely = f"Are these weights of {plan.arch}? Say with --as what network they are of."
    taken: Arrays = {}
    unfit: list[str] = []
    for name, array in given.items():
        wrong = _wrong(plan, names[name], array)
        if wrong is None and names[name] in taken:
            wrong = f"stands for {names[name]}, and so does another"
        if wrong is None and array.dtype.kind != "f" and names[name] not in plan.whole:
            raise ModelError(f"{where}: {name} holds {array.dtype}, and only float16, float32 and float64 are taken.")
        if wrong is None:
            taken[names[name]] = array
        elif _head_of(plan) == names[name].partition(".")[0]:
            unfit.append(f"{name} {wrong}")
        elif array.ndim == 4 and array.shape[1] == 1 and names[name] == _stem_of(plan):
            raise ModelError(
                f"{where} is for images of one channel ({name} {wrong}): only weights for three are taken."
            )
        else:
            raise ModelError(f"{where} does not fit {plan.arch}: {name} {wrong}. {likely}")
    if unfit:
        notes.append(f"the classifier, {_head_of(plan)}, is left out: {unfit[-1]}.")
        taken = {name: array for name, array in taken.items() if name.partition(".")[0] != _head_of(plan)}

    needed = [name for name in plan.shapes if not name.endswith(_COUNTER)]
    if _stem_of(plan) not in taken:
        raise ModelError(f"{where} lacks {_stem_of(plan)}, the first layer of {plan.arch}: nothing works without it.")
    lacks = _lacking(needed, taken)
    for part in lacks:
        # a module left out whole may be one that nothing else needs (a second classifier, used in training alone)
        if "." in part and _any_behind(part, needed, taken):
            raise ModelError(f"{where} does not fit {plan.arch}: it lacks {part}, but not what comes after. {likely}")
    return Fitted(taken, lacks, _up_to(lacks, needed, taken), tuple(notes))


def _wrong(plan: Blueprint, name: str, array: np.ndarray[Any, Any]) -> str | None:
    """Return what is wrong with a tensor, or None."""
    wanted = plan.shapes.get(name)
    if wanted is None:
        return f"({_size(array.shape)}) is none of its tensors"
    if array.shape != wanted:
        return f"has shape {_size(array.shape)}, {plan.arch} wants {_size(wanted)}"
    return None


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _stem_of(plan: Blueprint) -> str:
    """Return the name of the first layer's weights."""
    return next(name for name, shape in plan.shapes.items() if name.endswith("weight") and len(shape) > 1)


def _head_of(plan: Blueprint) -> str | None:
    """Return the last module at the top if it is a classifier."""
    last = list(plan.shapes)[-1].partition(".")[0]
    return last if last in _HEADS else None


def _renamed(plan: Blueprint, given: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, str], list[str]]:
    """Return each name in the file -> the architecture's, by the prefix under which most fit, and notes.

    `given` is name -> shape: names alone may fit by chance, where modules are numbered.
    """
    prefixes = {
        "".join(f"{part}." for part in name.split(".")[:depth])
        for name in given
        for depth in range(_DEEPEST_PREFIX + 1)
    }
    numbered = not any(module.isdigit() for module in plan.modules)

    def rename(name: str, prefix: str) -> str:
        first, dot, rest = name.removeprefix(prefix).partition(".")
        if numbered and first.isdigit() and int(first) < len(plan.modules):
            first = plan.modules[int(first)]
        return _OLD_DENSENET.sub(r"\1\2", f"{first}{dot}{rest}")

    def fitting(prefix: str) -> int:
        return sum(plan.shapes.get(rename(name, prefix)) == shape for name, shape in given.items())

    prefix = max(sorted(prefixes, key=len), key=fitting)  # the shortest of the best
    names = {name: rename(name, prefix) for name in given}
    notes = [f"names were read without the {prefix!r} in front of them."] if prefix else []
    if numbered and any(name.removeprefix(prefix).partition(".")[0].isdigit() for name in given):
        order = ", ".join(f"{number} is {module}" for number, module in enumerate(plan.modules))
        notes.append(f"modules are numbered, and were taken in the order of {plan.arch}: {order}.")
    return names, notes


def _lacking(names: Sequence[str], there: Iterable[str], inside: str = "") -> tuple[str, ...]:
    """Return what is missing of `names`, as modules where all of a module is missing, in their order."""
    present = set(there)
    children: dict[str, list[str]] = {}
    for name in names:
        children.setdefault(inside + name.removeprefix(inside).partition(".")[0], []).append(name)
    lacks: list[str] = []
    for child, of_it in children.items():
        found = sum(name in present for name in of_it)
        if not found:
            lacks.append(child)
        elif found < len(of_it):
            lacks.extend(_lacking(of_it, present, f"{child}."))
    return tuple(lacks)


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _any_behind(part: str, names: Sequence[str], there: Iterable[str]) -> bool:
    last = max(index for index, name in enumerate(names) if _is_in(name, part))
    return not set(there).isdisjoint(names[last + 1 :])


def _up_to(lacks: Sequence[str], names: Sequence[str], there: Iterable[str]) -> str | None:
    """Return the module before the first that is missing, where nothing behind that is there."""
    if not lacks or _any_behind(lacks[0], names, there):
        return None
    first = next(index for index, name in enumerate(names) if _is_in(name, lacks[0]))
    return ".".join(names[first - 1].split(".")[: lacks[0].count(".") + 1])
