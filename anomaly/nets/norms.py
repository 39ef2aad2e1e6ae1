"""Batch norms that came folded into their convolutions, given back what training needs of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_FOLDED = 1e-3
"""How far a running variance may be from 1 where a batch norm has been folded into its convolution."""


@torch.no_grad()
def unfold_norms(
    network: nn.Module, taken: Collection[str], run: Callable[[Tensor], Tensor], batches: Iterable[Tensor]
) -> None:
    """Give batch norms that came folded statistics to normalise by; no output changes.

    A folded norm has mean 0 and variance 1 whatever comes in, so training would throw its input off the scale that
    the layers behind it know.

    Args:
        network: In eval mode.
        taken: Names of its tensors that were pretrained; a norm drawn at random also has mean 0 and variance 1.
        run: Sends a batch through the network, as training will.
        batches: Images as `run` takes them; their statistics are taken.
    """
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and f"{name}.running_mean" in taken and _folded(module)
    }
    if not norms:
        return
    sums = {name: _Moments() for name in norms}
    hooks = [module.register_forward_pre_hook(sums[name].add) for name, module in norms.items()]
    try:
        for images in batches:
            run(images)
    finally:
        for hook in hooks:
            hook.remove()
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = sums[name].mean_and_variance()
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(gain * (mean - norm.running_mean))
        norm.weight.copy_(gain * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _folded(norm: nn.BatchNorm2d) -> bool:
    if norm.running_mean is None or norm.running_var is None:
        return False
    return bool((norm.running_mean == 0).all() and ((norm.running_var - 1).abs() < _FOLDED).all())


@dataclass
class _Moments:
    """Mean and variance by channel of what goes into a norm."""

    count: int = 0
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].double()
        self.count += values.numel() // values.shape[1]
        self.total = self.total + values.sum(dim=(0, 2, 3))
        self.squares = self.squares + values.square().sum(dim=(0, 2, 3))

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean = torch.as_tensor(self.total) / self.count
        return mean.float(), (torch.as_tensor(self.squares) / self.count - mean.square()).clamp(min=0.0).float()
