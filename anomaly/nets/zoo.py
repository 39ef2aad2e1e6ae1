"""Classification networks by name: torchvision's where it has one of that name, else timm's."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import torch
from torch import nn

from anomaly.config import did_you_mean
from anomaly.errors import MissingError, ModelError, UsageError
from anomaly.runs import Arrays, sha256_of
from anomaly.weights import Triple, WeightsFacts

Library = Literal["torchvision", "timm"]

COUNTER = "num_batches_tracked"
"""The last part of the name of a tensor that only counts batches: weights need not bring it."""

_PATIENCE = 20.0
"""Seconds of silence after which a server is given up."""

_HALVES: Triple = (0.5, 0.5, 0.5)
_FROM_TENSORFLOW = ("googlenet", "inception_v3")
"""Published weights of these want halves for mean and std: torchvision's networks turn ImageNet's into them inside
when they are built with these weights, and only then."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What an architecture is made of, without its weights.

    `shapes` holds every tensor by name, in the order of the network, counters of batches included; `whole` names those
    that hold whole numbers; `modules` its children, in the same order, those without tensors included.
    """

    arch: str
    shapes: dict[str, tuple[int, ...]]
    whole: frozenset[str]
    modules: tuple[str, ...]


def library_of(arch: str) -> Library:
    """Return which library an architecture comes from.

    Raises:
        UsageError: Neither has one of that name.
    """
    import torchvision

    ours = torchvision.models.list_models(module=torchvision.models)
    if arch in ours:
        return "torchvision"

    import timm

    if timm.is_model(arch):
        try:
            timm.get_pretrained_cfg(arch)
        except RuntimeError as error:  # "resnet18.TAG" where no weights have that tag
            raise UsageError(f"{arch!r} is no network of timm: {error}") from error
        return "timm"
    hint = did_you_mean(arch, [*ours, *timm.list_models()])
    if not hint.startswith("; did you mean"):  # a list of a thousand names helps nobody
        hint = "; resnet18, wide_resnet50_2 and mobilenet_v2 are such names."
    raise UsageError(f"Neither torchvision nor timm has a network called {arch!r}{hint}")


def build(arch: str, classes: int | None = None) -> nn.Module:
    """Build an architecture with random weights, in eval mode, with its own number of classes or another.

    Raises:
        UsageError: No such architecture.
    """
    wanted: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if library_of(arch) == "torchvision":
        import torchvision

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how random weights will be drawn one day
            network: nn.Module = torchvision.models.get_model(arch, weights=None, **wanted)
        return network.eval()

    import timm

    made: nn.Module = timm.create_model(arch, pretrained=False, **wanted)
    return made.eval()


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that weights must bring (what only counts batches need not come)."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}


def blueprint(arch: str) -> Blueprint:
    """Return the names and shapes of an architecture's tensors.

    Raises:
        UsageError: No such architecture.
    """
    network = build(arch)
    state = network.state_dict()
    return Blueprint(
        arch,
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        whole=frozenset(name for name, tensor in state.items() if not tensor.is_floating_point()),
        modules=tuple(name for name, _ in network.named_children()),
    )


def address_of(arch: str) -> str | None:
    """Return where the pretrained weights of an architecture are published; None where there are none.

    Raises:
        UsageError: No such architecture.
    """
    if library_of(arch) == "torchvision":
        import torchvision

        weights = torchvision.models.get_model_weights(arch)
        return str(next(iter(weights)).url) if len(weights) else None

    import timm

    cfg = timm.get_pretrained_cfg(arch)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        return None
    return f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else str(cfg.url)  # in timm's own order


def download(arch: str) -> tuple[Arrays, WeightsFacts]:
    """Fetch the published weights of an architecture over the network (the first, where there are several).

    What torchvision or timm keep in a cache of their own is taken from there. Says nothing: say aloud what is going to
    happen before you call it.

    Returns:
        The tensors as the network of `build` names them, and what is known of them.

    Raises:
        UsageError: No such architecture, or none of its weights are published.
        MissingError: The network cannot be reached, or what came is damaged.
        ModelError: What torch keeps of it is damaged.
    """
    address = address_of(arch)
    if address is None:
        raise UsageError(f"No pretrained weights of {arch!r} are published: import your own, or choose another.")
    fetch = _from_torchvision if library_of(arch) == "torchvision" else _from_timm
    try:
        with _quietly():
            state, mean, std, sha256 = fetch(arch)
    except ModelError:
        raise
    except Exception as error:  # of urllib, of the hub's own client, of an unpickler that refuses what is no tensor
        reason = str(getattr(error, "reason", None) or error).strip().partition("\n")[0].rstrip(".")
        raise MissingError(
            f"The weights of {arch} could not be fetched from {address} ({reason or type(error).__name__}): where that "
            f"can be reached run `anomaly weights fetch {arch}` and `anomaly weights export DIR`, then `anomaly "
            f"weights import DIR/{arch}.safetensors` here."
        ) from error
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.items()}
    return tensors, WeightsFacts(arch, address, mean, std, sha256)


Fetched = tuple[dict[str, torch.Tensor], Triple, Triple, str | None]
"""Tensors by name, mean and std of the input they want, the sha256 of the file they came in where there is one."""


def _from_torchvision(arch: str) -> Fetched:
    import torchvision

    weights = next(iter(torchvision.models.get_model_weights(arch)))
    kept = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)
    try:
        # weights_only: by default torchvision would run whatever code the pickle holds
        state = dict(weights.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True))
    except Exception as error:  # of the network when nothing is kept, else of reading what is
        if kept.is_file():
            raise ModelError(
                f"torch's own copy of these weights, {kept}, is damaged: remove it and try again."
            ) from error
        raise
    wants = weights.transforms()
    mean, std = (_HALVES, _HALVES) if arch in _FROM_TENSORFLOW else (_triple(wants.mean), _triple(wants.std))
    return state, mean, std, sha256_of(kept)


def _from_timm(arch: str) -> Fetched:
    import timm

    cfg = timm.get_pretrained_cfg(arch)
    assert cfg is not None  # else there was no address
    if cfg.hf_hub_id:
        _reach_hub(cfg.hf_hub_id)
    network = timm.create_model(arch, pretrained=True)
    return dict(network.state_dict()), _triple(cfg.mean), _triple(cfg.std), None


def _reach_hub(repository: str) -> None:
    """Fail at once where the hub cannot be reached and its cache has nothing: its own client tries for a minute."""
    from huggingface_hub import constants, get_session, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    if not any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back what libraries print, warn and log while they download, and do not let a silent server hang them."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    timeout = socket.getdefaulttimeout()
    nowhere = io.StringIO()
    try:
        socket.setdefaulttimeout(_PATIENCE)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(timeout)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _triple(values: Sequence[float]) -> Triple:
    a, b, c = (float(value) for value in values)
    return a, b, c
