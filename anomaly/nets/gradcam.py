"""Grad-CAM (Selvaraju et al., ICCV 2017) of the odds that a scan is not normal, by captum: raw values, no scaling."""

from __future__ import annotations

import torch
from torch import Tensor

from anomaly.nets.classifier import Classifier


def log_odds(logits: Tensor) -> Tensor:
    """Return log(P(any other class) / P(the first class)) of each row of logits (N, K): (N,)."""
    return torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]


def grad_cam(net: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of images, and how much each place speaks for a class other than the first.

    Equations 1 and 2 of the paper, with the log-odds of "not normal" in place of one class's logit, so that the map
    goes with the score whatever the number of classes; of two classes it is the difference of their logits.

    Args:
        net: In eval mode, no parameter of which wants a gradient.
        images: float32 (N, C, S, S) in [-1, 1].

    Returns:
        Logits (N, K); maps (N, S, S) >= 0, in units of log-odds.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    kept: list[Tensor] = []

    def odds(batch: Tensor) -> Tensor:
        kept.append(net(batch))
        return log_odds(kept[-1])

    with torch.enable_grad():
        raw = LayerGradCam(odds, net.target).attribute(images, relu_attributions=True)
    assert isinstance(raw, Tensor)
    maps = LayerAttribution.interpolate(raw.detach().float(), tuple(images.shape[2:]), "bilinear")
    return kept[-1].detach(), maps[:, 0]
