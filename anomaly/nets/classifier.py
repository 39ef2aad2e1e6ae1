"""A classification network of any kind with a head for our classes, and the place where its Grad-CAM is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly.errors import UsageError
from anomaly.nets.norms import unfold_norms
from anomaly.nets.zoo import COUNTER, build
from anomaly.runs import Arrays
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple


class Classifier(nn.Module):
    """A network with `classes` outputs, random weights, in eval mode.

    Args:
        arch: A name torchvision or timm knows.
        classes: Outputs.
        size: Side of the images it will see.
        dropout: Share of the last layer's input dropped in training, beside what the network drops anyway.

    Raises:
        UsageError: No such network; or images of this size do not go through it; or it has no maps of places for
            Grad-CAM, as transformers of tokens have none.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, arch: str, classes: int, *, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.arch = arch
        self.network = build(arch, classes)
        seen = _look(self.network, arch, size)
        self.head_name, self.target_name = seen.head(arch, classes), seen.target(arch)
        self.activations = seen.activations
        """Numbers that an image leaves behind on its way through the network."""
        self._order = seen.order
        self._taken: set[str] = set()
        self.dropout = dropout
        self.head.register_forward_pre_hook(self._drop)
        self.set_input(IMAGENET_MEAN, IMAGENET_STD)

    @property
    def head(self) -> nn.Module:
        """The last layer, whose outputs are the classes."""
        return self.network.get_submodule(self.head_name)

    @property
    def target(self) -> nn.Module:
        """The module whose maps Grad-CAM weighs: the last that still tells places apart."""
        return self.network.get_submodule(self.target_name)

    def _drop(self, head: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (functional.dropout(given[0], self.dropout, head.training), *given[1:])

    def set_input(self, mean: Triple, std: Triple) -> None:
        """Say what input the weights want: (picture in [0, 1] - mean) / std, by channel."""
        gain = [1 / (2 * s) for s in std]  # an image in [-1, 1] is 2 * picture - 1
        offset = [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("gain", torch.tensor(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)

    def take(self, tensors: Arrays) -> list[str]:
        """Take pretrained weights, all but the head's; what they lack stays random.

        Returns:
            Names of the parts of the network that stay random, beside the head.

        Raises:
            ValueError: A tensor has another shape than the network's.
        """
        state = self.network.state_dict()
        lacking: dict[str, None] = {}
        for name, tensor in state.items():
            if self._is_head(name) or name.endswith(COUNTER):
                continue
            if name not in tensors:
                lacking.setdefault(name.split(".")[0])
            elif tensors[name].shape != tuple(tensor.shape):
                raise ValueError(f"{name} has shape {tensors[name].shape}, {self.arch} needs {tuple(tensor.shape)}")
            else:
                tensor.copy_(torch.tensor(tensors[name]))
                self._taken.add(name)
        return list(lacking)

    def _is_head(self, name: str) -> bool:
        return name.rpartition(".")[0] == self.head_name

    def unfold_norms(self, batches: Iterable[Tensor]) -> None:
        """Give batch norms that came folded into their convolutions statistics to normalise by; no output changes.

        Args:
            batches: Images as `forward` takes them; their statistics are taken.
        """
        unfold_norms(self.network, self._taken, self, batches)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images float32 (N, 1 or 3, S, S) in [-1, 1]; grey goes into all channels."""
        wanted = (images * self.gain + self.offset).to(memory_format=torch.channels_last)
        given = self.network(wanted)
        return given if isinstance(given, Tensor) else given[0]  # some add auxiliary heads in training

    def depths(self, count: int) -> list[list[nn.Module]]:
        """Return the layers with weights beside the head in so many groups of equal length, the deepest last."""
        size = -(-len(self._order) // count)
        backwards = [self.network.get_submodule(name) for name in reversed(self._order) if name != self.head_name]
        return [backwards[start : start + size] for start in range(0, len(backwards), size)]


@dataclass
class _Seen:
    """What one image showed on its way: modules as they finished, and the shapes of what they gave."""

    finished: list[tuple[str, nn.Module, tuple[int, ...], bool]] = field(default_factory=list)
    """Name, module, shape of its output, whether a pooling gave that."""
    order: list[str] = field(default_factory=list)
    """Layers with weights of their own, as they were reached."""
    activations: int = 0
    pooled: bool = False

    def head(self, arch: str, classes: int) -> str:
        last = next((s for s in reversed(self.finished) if isinstance(s[1], nn.Linear | nn.Conv2d)), None)
        if last is None or last[2][1] != classes:
            raise UsageError(f"{arch!r} does not end in one layer with an output a class: choose another network.")
        return last[0]

    def target(self, arch: str) -> str:
        """Return the last module before the head whose output tells places apart and is no pooling's.

        Raises:
            UsageError: Tokens come after the last such map, or none at all.
        """
        before = next(i for i in reversed(range(len(self.finished))) if self._is_layer(i))
        for name, module, shape, pooled in reversed(self.finished[:before]):
            if isinstance(module, nn.Dropout | nn.Identity):
                continue
            if len(shape) == 3:  # tokens: what a map says was mixed since
                break
            if len(shape) == 4 and shape[2] * shape[3] > 1 and not pooled:
                if shape[2] == shape[3] or shape[1] != shape[2]:
                    return name
                break  # channels last, as some transformers keep them
        raise UsageError(
            f"{arch!r} keeps no map of places up to its end, so Grad-CAM has nothing to weigh: choose a convolutional "
            "network, or a larger `size`."
        )

    def _is_layer(self, index: int) -> bool:
        return isinstance(self.finished[index][1], nn.Linear | nn.Conv2d)


def _look(network: nn.Module, arch: str, size: int) -> _Seen:
    """Send one empty image through a network and note what happens."""
    seen = _Seen()
    with _watched(network, seen), torch.no_grad():
        try:
            network(torch.zeros(1, 3, size, size))
        except Exception as error:  # of any network's own code
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"Images of side {size} do not go through {arch!r} ({reason}): set another `size`."
            ) from error
    return seen


@contextmanager
def _watched(network: nn.Module, seen: _Seen) -> Iterator[None]:
    def note(name: str) -> Any:
        def finished(module: nn.Module, _: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            if not any(True for _ in module.children()):
                seen.pooled = "Pool" in type(module).__name__
                seen.activations += output.numel()
                if any(True for _ in module.parameters(recurse=False)) and name not in seen.order:
                    seen.order.append(name)
            seen.finished.append((name, module, tuple(output.shape), seen.pooled))

        return finished

    hooks = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
