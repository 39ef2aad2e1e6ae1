"""anomalib's Lightning modules, built without a network: backbones take their weights from the weights folder, or none.

Many of anomalib's models ask timm or torchvision for a pretrained network and leave no choice. While one is being
constructed, both libraries hand out networks whose weights come from us.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anomaly.config import did_you_mean
from anomaly.detectors.from_anomalib.catalogue import Entry
from anomaly.detectors.from_anomalib.fences import replaced
from anomaly.errors import AnomalyError, MissingError, ModelError, UsageError
from anomaly.records import Float32
from anomaly.runs import Arrays
from anomaly.weights import Triple

Weights = Callable[[str], Arrays]
"""Name of an architecture -> its pretrained tensors."""

_OURS = {"pre_processor", "post_processor", "evaluator", "visualizer", "pre_trained"}
_SIZED = {"FoundAD": "image_size", "Glass": "input_shape"}  # arguments that must say the size of the images
_TEXTURES = "dtd_dir"
_PICTURELESS = str(Path(__file__).parent)


@dataclass(frozen=True)
class Built:
    """A module of anomalib, and what it wants done to pictures in [0, 1] beforehand: (picture - mean) / std."""

    module: Any
    mean: Triple
    std: Triple


def models() -> ModuleType:
    """Import anomalib's image models (slow)."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, SyntaxWarning):  # of its own and its dependencies' old names
            warnings.simplefilter("ignore", kind)
        from anomalib.models import image
    module: ModuleType = image
    return module


def check_options(entry: Entry, options: Mapping[str, object]) -> None:
    """Refuse options that the model's constructor does not take; imports anomalib if there are any.

    Raises:
        UsageError: Naming the nearest.
    """
    if not options:
        return
    takes = inspect.signature(getattr(models(), entry.name)).parameters
    known = takes.keys() - _OURS - {_SIZED.get(entry.name, "")}
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"anomalib's {entry.name} has no option {name!r}{did_you_mean(name, known)}")
        choices = _choices(takes[name])
        if choices and value not in choices:
            raise UsageError(f"anomalib's {entry.name}: option {name!r} is one of {', '.join(choices)}, not {value!r}.")


def build(entry: Entry, options: Mapping[str, object], size: int, weights: Weights | None, *, fitting: bool) -> Built:
    """Construct a model for images of side `size`; draws from the global random states, so fence them.

    Args:
        entry: Which.
        options: Arguments of its constructor, checked.
        size: Side S of the images.
        weights: Where its backbone's weights come from; None leaves them random.
        fitting: Else it is only to take a state: what a fit alone needs is not looked for.

    Raises:
        UsageError: It cannot be built with these options at this size.
        MissingError, ModelError: What `weights` raises, weights that lack what it uses, or no folder of textures.
    """
    cls = getattr(models(), entry.name)
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    # asked without a size: what some make of one is a crop; of all they do, only Normalize is for us
    own = getattr(cls.configure_pre_processor(), "transform", None)
    steps = [step for step in getattr(own, "transforms", [own]) if isinstance(step, Normalize)]
    # several ask this pre-processor for the size; Resize does nothing to images that have it
    pre_processor = PreProcessor(transform=Compose([Resize((size, size), antialias=True), *steps]))
    takes = inspect.signature(cls).parameters
    given: dict[str, Any] = {name: _argument(takes[name], value) for name, value in options.items()}
    if _TEXTURES in takes and not (fitting and given.get(_TEXTURES)):
        given[_TEXTURES] = _PICTURELESS  # where it finds no picture it makes textures of noise, and downloads none
    elif _TEXTURES in takes and not Path(str(given[_TEXTURES])).is_dir():
        raise MissingError(
            f"{_TEXTURES}: there is no folder {given[_TEXTURES]}, and anomalib would download it: leave the option "
            "out, or name a folder of pictures."
        )
    if entry.name in _SIZED:
        given[_SIZED[entry.name]] = size if entry.name == "FoundAD" else (size, size)
    given |= {"post_processor": False, "evaluator": False, "visualizer": False, "pre_processor": pre_processor}
    try:
        with _networks(weights):
            module = cls(**given)
    except AnomalyError:
        raise
    except Exception as error:  # whatever anomalib's own code raises at arguments it cannot use
        raise UsageError(
            f"anomalib's {entry.name} cannot be built for images of {size} pixels a side"
            f"{' with these options' if options else ''} ({type(error).__name__}: {_first_line(error)})."
        ) from error
    if weights is not None:
        _whole(module, entry.name)
    module.pre_processor = None  # done beforehand, so that modules that go through the films themselves see the same
    mean, std = (_triple(steps[0].mean), _triple(steps[0].std)) if steps else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Built(module, mean, std)


def prepared(images: Float32, built: Built) -> Tensor:
    """Return images as a module wants them, float32 (N, 3, S, S), on the processor.

    Args:
        images: float32 (N, 1 or 3, S, S) in [-1, 1]; grey goes into all three channels.
        built: Says mean and standard deviation by channel of pictures in [0, 1].
    """
    pictures = (torch.from_numpy(np.ascontiguousarray(images)) + 1) / 2
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (built.mean, built.std))
    return (pictures.expand(-1, 3, -1, -1) - mean) / std


def take_state(module: nn.Module, arrays: Arrays) -> None:
    """Give a module the state that `state_of` returned.

    Raises:
        KeyError, RuntimeError, ValueError: It is not of such a module.
    """
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    for name, ours in module.state_dict().items():
        if name in state and ours.ndim == 0 and state[name].numel() == 1:
            state[name] = state[name].reshape(())  # a file keeps a single number as a row of one
    buffers = dict(module.named_buffers())
    for name in state.keys() & buffers.keys():
        if state[name].shape != buffers[name].shape:  # a memory bank: as large as the fit made it
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, torch.empty_like(state[name], dtype=buffers[name].dtype))
    module.load_state_dict(state, strict=True)


def state_of(module: nn.Module) -> Arrays:
    """Return a module's state as arrays; what numpy has no type for is widened."""
    found: Arrays = {}
    for name, tensor in module.state_dict().items():
        plain = tensor.detach().cpu()
        found[name] = (plain.float() if plain.dtype is torch.bfloat16 else plain).contiguous().numpy()
    return found


@contextlib.contextmanager
def _networks(weights: Weights | None) -> Iterator[None]:
    """Inside the block, pretrained networks of timm and torchvision get our weights, or stay random."""
    import timm
    import torchvision.models
    from torchvision.models._api import WeightsEnum

    create = timm.create_model

    def create_model(model_name: str, pretrained: bool = False, **given: Any) -> Any:  # as timm's own is called
        if not (pretrained and weights is not None):
            return create(model_name, pretrained=False, **given)
        tensors = _completed(create(model_name, pretrained=False).state_dict(), weights(model_name), model_name)
        network: Any = create(model_name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}, **given)
        network.pretrained_cfg.pop("state_dict", None)  # or they would stay in memory a second time
        return network

    def get_state_dict(published: Any, **how: Any) -> dict[str, Tensor]:  # noqa: ARG001 (torchvision calls it so)
        names = torchvision.models.list_models(module=torchvision.models)
        arch = next(name for name in names if torchvision.models.get_model_weights(name) is type(published))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how random weights will be drawn one day
            random: dict[str, Tensor] = torchvision.models.get_model(arch, weights=None).state_dict()
        return random if weights is None else _completed(random, weights(arch), arch)

    with replaced(timm, "create_model", create_model), replaced(WeightsEnum, "get_state_dict", get_state_dict):
        yield


def _completed(network: Mapping[str, Tensor], tensors: Arrays, arch: str) -> dict[str, Tensor]:
    """Return every tensor of a network from `tensors`; those they lack are NaN, which `_whole` finds where used.

    Raises:
        ModelError: One has another shape.
    """
    found = {}
    for name, ours in network.items():
        if not ours.is_floating_point():  # it counts or points, and follows from the network alone
            found[name] = ours
        elif name not in tensors:
            found[name] = torch.full_like(ours, torch.nan)
        elif tensors[name].shape != tuple(ours.shape):
            raise ModelError(
                f"The weights folder's {arch} does not fit: {name} has shape {tensors[name].shape}, and should have "
                f"{tuple(ours.shape)}. Import the weights of this very network."
            )
        else:
            found[name] = torch.tensor(tensors[name], dtype=ours.dtype)
    return found


def _whole(module: nn.Module, name: str) -> None:
    """Refuse a module that uses what its backbone's file lacks.

    Raises:
        ModelError: Naming the first tensor.
    """
    lacking = [key for key, tensor in module.named_parameters() if tensor.isnan().any()]
    if lacking:
        raise ModelError(
            f"The weights folder's file of this backbone lacks {len(lacking)} tensors that anomalib's {name} uses, "
            f"{lacking[0]} first: import one that holds all layers, or choose other layers."
        )


def _choices(argument: inspect.Parameter) -> list[str]:
    return [str(member.value) for member in type(argument.default)] if isinstance(argument.default, Enum) else []


def _argument(argument: inspect.Parameter, value: object) -> object:
    """Return an option as its constructor wants it: a member where it lists some, a number for YAML's "1e-4"."""
    if isinstance(argument.default, Enum):
        return type(argument.default)(value)
    if isinstance(argument.default, float) and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _triple(values: Any) -> Triple:
    a, b, c = (float(value) for value in values)
    return a, b, c


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
