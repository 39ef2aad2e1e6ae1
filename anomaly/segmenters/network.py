"""The U-Net of segmentation_models_pytorch: one of its encoders, with weights of ours, and its decoder."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from anomaly.config import did_you_mean
from anomaly.errors import UsageError
from anomaly.nets.norms import unfold_norms
from anomaly.runs import Arrays
from anomaly.segmenters.settings import UNetConfig
from anomaly.weights import IMAGENET_MEAN, IMAGENET_STD, Triple

_COUNTER = "num_batches_tracked"  # of a batch norm; weights need not bring it


class Network(nn.Module):
    """A U-Net with one output a pixel, random weights, in eval mode.

    Args:
        config: Which encoder, and how wide the decoder.
        size: Side of the images it will see.

    Raises:
        UsageError: No such encoder, or one that images of this size do not go through.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, config: UNetConfig, *, size: int) -> None:
        super().__init__()
        self.network = _build(config)
        self.encoder_name = config.encoder
        self._taken: set[str] = set()
        self.set_input(IMAGENET_MEAN, IMAGENET_STD)
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(1, 1, size, size))
        except Exception as error:  # of any encoder's own code
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"Images of side {size} do not go through a U-Net on {config.encoder!r} ({reason}): set another `size`."
            ) from error

    def set_input(self, mean: Triple, std: Triple) -> None:
        """Say what input the weights want: (picture in [0, 1] - mean) / std, by channel."""
        gain = [1 / (2 * s) for s in std]  # an image in [-1, 1] is 2 * picture - 1
        offset = [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]
        self.register_buffer("gain", torch.tensor(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset).view(1, 3, 1, 1), persistent=False)

    def take(self, tensors: Arrays) -> list[str]:
        """Take pretrained weights for the encoder; what they lack stays random.

        Returns:
            Names of the parts of the encoder that stay random.

        Raises:
            ValueError: A tensor has another shape than the encoder's, or none fits it.
        """
        encoder = self.network.get_submodule("encoder")
        lacking: dict[str, None] = {}
        for name, tensor in encoder.state_dict().items():
            if name.endswith(_COUNTER):
                continue
            if name not in tensors:
                lacking.setdefault(name.split(".")[0])
            elif tensors[name].shape != tuple(tensor.shape):
                raise ValueError(
                    f"{name} has shape {tensors[name].shape}, {self.encoder_name} needs {tuple(tensor.shape)}"
                )
            else:
                tensor.copy_(torch.tensor(tensors[name]))
                self._taken.add(f"encoder.{name}")
        if not self._taken:
            raise ValueError("none of its tensors is called as the encoder's")
        return list(lacking)

    def unfold_norms(self, batches: Iterable[Tensor]) -> None:
        """Give batch norms that came folded into their convolutions statistics to normalise by; no output changes."""
        unfold_norms(self.network, self._taken, self, batches)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, S, S) of images float32 (N, 1 or 3, S, S) in [-1, 1]; grey goes into all channels."""
        wanted = (images * self.gain + self.offset).to(memory_format=torch.channels_last)
        logits: Tensor = self.network(wanted)[:, 0]
        return logits


def _build(config: UNetConfig) -> nn.Module:
    import segmentation_models_pytorch as smp

    name = config.encoder
    known = smp.encoders.get_encoder_names()
    if name not in known or name.startswith("timm-"):  # those are on their way out of the library, and it warns so
        raise UsageError(f"No encoder of segmentation_models_pytorch is called {name!r}{_hint(name, known)}")
    built: nn.Module = smp.Unet(
        name, encoder_weights=None, in_channels=3, classes=1, decoder_channels=config.decoder_channels
    )
    return built


def _hint(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, [each for each in known if not each.startswith("timm-")])
    return hint if hint.startswith("; did you mean") else "; mobilenet_v2, resnet18 and efficientnet-b0 are such names."
