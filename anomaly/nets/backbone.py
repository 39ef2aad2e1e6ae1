"""The first layers of a classification network as a frozen extractor of feature maps."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from anomaly.config import did_you_mean
from anomaly.errors import UsageError
from anomaly.nets.device import freeze
from anomaly.nets.zoo import build, shapes_of
from anomaly.runs import Arrays
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple


class Backbone(nn.Module):
    """A network cut off behind the last layer asked for, in eval mode, without gradients; weights are random at first.

    Args:
        arch: A name torchvision or timm knows.
        layers: Names of its modules whose output is wanted ("layer2", "features.6"), in this order.

    Raises:
        UsageError: No such network or layer, or one that cannot be cut.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, arch: str, layers: Sequence[str]) -> None:
        super().__init__()
        self.arch = arch
        self.layers = tuple(layers)
        network = build(arch)
        try:
            known = get_graph_node_names(network, suppress_diff_warning=True)[1]
        except Exception as error:  # whatever a network's own code raises when it is traced symbolically
            raise UsageError(f"{arch!r} cannot be cut into layers ({type(error).__name__}): choose another.") from error
        modules = {name for name, _ in network.named_modules() if name}
        for layer in layers:
            if layer not in modules or not any(node == layer or node.startswith(f"{layer}.") for node in known):
                raise UsageError(f"{arch!r} has no layer {layer!r}{did_you_mean(layer, _tops(modules))}")
        cut = create_feature_extractor(
            network, return_nodes={layer: layer for layer in layers}, suppress_diff_warning=True
        )
        self.network = _pruned(torch.fx.symbolic_trace(cut.eval()))
        freeze(self.network)
        self.set_input(IMAGENET_MEAN, IMAGENET_STD)
        self._fast: nn.Module | None = None
        self._dtype = torch.float32

    def set_input(self, mean: Triple, std: Triple) -> None:
        """Say what input the weights want: (picture in [0, 1] - mean) / std, by channel."""
        # an image in [-1, 1] is 2 * picture - 1, so (picture - mean) / std = image / (2 std) + (1/2 - mean) / std
        gain = [1 / (2 * s) for s in std]
        offset = [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("gain", torch.tensor(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)

    def take(self, tensors: Arrays) -> None:
        """Take weights; more than these layers need may come along.

        Args:
            tensors: Of the architecture, by name, in any floating type.

        Raises:
            ValueError: A tensor is missing, or has another shape.
        """
        wanted = shapes_of(self.network)
        missing = [name for name in wanted if name not in tensors]
        if missing:
            raise ValueError(f"they lack {len(missing)} of {len(wanted)} tensors of {self._what()}, {missing[0]} first")
        for name, shape in wanted.items():
            if tensors[name].shape != shape:
                raise ValueError(f"{name} has shape {tensors[name].shape}, {self.arch} needs {shape}")
        state = {name: torch.tensor(tensors[name], dtype=torch.float32) for name in wanted}
        self.network.load_state_dict(state, strict=False)
        self._fast = None

    def _what(self) -> str:
        return f"{self.arch} up to {self.layers[-1]}"

    def tensors(self) -> Arrays:
        """Return the weights of these layers, float32, by name."""
        state = self.network.state_dict()
        return {name: state[name].cpu().numpy() for name in shapes_of(self.network)}

    def place(self, device: str, *, bf16: bool) -> None:
        """Get ready to run: batch norms folded into convolutions, channels last, on a device, in a number format."""
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        fast = fuse(self.network, no_trace=True)
        assert isinstance(fast, torch.fx.GraphModule)
        _overwrite(fast)
        self._fast = fast.to(device=device, dtype=self._dtype).to(memory_format=torch.channels_last)
        self.gain, self.offset = self.gain.to(device), self.offset.to(device)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of each layer, (N, C_l, h_l, w_l) in the number format it runs in.

        Args:
            images: float32 (N, 1 or 3, S, S) in [-1, 1]; grey goes into all three channels.
        """
        if self._fast is None:
            self.place("cpu", bf16=False)
        assert self._fast is not None
        wanted = (images * self.gain + self.offset).to(dtype=self._dtype, memory_format=torch.channels_last)
        maps: dict[str, Tensor] = self._fast.forward(wanted)  # called itself, it prints what goes wrong in it
        return [maps[layer] for layer in self.layers]

    def largest(self, size: int) -> int:
        """Return how many numbers the largest map of an image of side `size` holds, on the way to the last layer."""
        return largest_map(self.network, torch.zeros(1, 3, size, size))

    def shapes(self, size: int) -> list[tuple[int, int, int]]:
        """Return the (C, h, w) of each layer's maps of images of side `size`.

        Raises:
            UsageError: A layer gives no maps (a transformer's tokens), or images of this size do not go through it.
        """
        try:
            with torch.inference_mode():
                maps = self(torch.zeros(1, 1, size, size, device=self.gain.device))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise UsageError(f"Images of {size} pixels a side do not suit {self._what()}: {reason}.") from error
        for layer, found in zip(self.layers, maps, strict=True):
            # maps of a square are square; some transformers give (N, h, w, C), which are not
            if found.ndim != 4 or found.shape[2] != found.shape[3]:
                raise UsageError(f"Layer {layer!r} of {self.arch!r} gives no maps of features: choose another.")
        return [(found.shape[1], found.shape[2], found.shape[3]) for found in maps]


def largest_map(network: nn.Module, images: Tensor) -> int:
    """Return how many numbers the largest of all maps on the way through a network holds."""
    sizes: list[int] = []

    def note(_module: nn.Module, _given: object, found: object) -> None:
        if isinstance(found, Tensor):
            sizes.append(found.numel())

    hooks = [module.register_forward_hook(note) for module in network.modules() if not list(module.children())]
    try:
        with torch.inference_mode():
            network.forward(images)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


def _pruned(network: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Drop what only feeds assertions, and let nothing write into a map that is asked for.

    Assertions keep all layers of a network alive that asserts what it is given. An activation in place overwrites what
    the layer before it gave.
    """
    for node in reversed(list(network.graph.nodes)):
        if node.target is torch._assert:
            network.graph.erase_node(node)
        elif node.kwargs.get("inplace"):
            node.update_kwarg("inplace", False)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _overwrite(network: torch.fx.GraphModule) -> None:
    """Let activations overwrite sums and convolutions that nothing else looks at: memory is what they wait for."""
    alone: dict[str, bool] = {}
    for node in network.graph.nodes:
        if node.op == "call_module" and hasattr(network.get_submodule(node.target), "inplace"):
            given = node.args[0]
            fresh = given.target is operator.add or (
                given.op == "call_module" and isinstance(network.get_submodule(given.target), nn.Conv2d)
            )
            alone[node.target] = alone.get(node.target, True) and fresh and len(given.users) == 1
    for name, may in alone.items():  # a module may stand in several places
        network.get_submodule(name).inplace = may  # type: ignore[assignment]


def _tops(modules: set[str]) -> list[str]:
    """Return the modules at the top, and those just below where there are few: what people name as layers."""
    return [name for name in modules if name.count(".") <= 1]
