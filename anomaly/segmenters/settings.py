"""Settings of `unet`: the network, and how it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anomaly.config import Settings


class UNetConfig(Settings):
    """Settings of `unet`."""

    encoder: str = "mobilenet_v2"
    """The half that sees: an encoder of segmentation_models_pytorch. Those called as in torchvision (mobilenet_v2,
    resnet18, resnet50, vgg16_bn, densenet121, …) take that network's weights."""
    backbone_weights: Literal["pretrained", "none"] = "pretrained"
    """Of the encoder, from the weights folder (`anomaly weights`); or random ones, drawn by the seed."""
    decoder_channels: tuple[int, int, int, int, int] = (128, 64, 32, 16, 16)
    """Maps at each step of the half that draws, from the coarsest up."""

    epochs: int = Field(default=10, ge=1)
    """Passes over the films at most."""
    batch: int = Field(default=16, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam at the start; it falls to nothing along half a cosine over `epochs`."""
    weight_decay: float = Field(default=0.0, ge=0)

    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the patients that is not trained on: they stop the training, choose its best epoch and the threshold."""
    patience: int = Field(default=4, ge=1)
    """Epochs without a higher validation Dice after which the training stops; the best epoch's weights are kept."""

    augment: bool = True
    """Show films turned, shifted, sheared, scaled, flipped and dimmed at random, by up to what follows."""
    rotation: float = Field(default=10.0, ge=0, le=180)
    """Degrees."""
    shift: float = Field(default=0.05, ge=0, lt=1)
    """Share of the side."""
    shear: float = Field(default=5.0, ge=0, lt=90)
    """Degrees."""
    scale: float = Field(default=0.15, ge=0, lt=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    brightness: float = Field(default=0.2, ge=0, lt=1)

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the training; auto takes bf16 where the processor computes it. Masks are always fp32."""
    segment_batch: int = Field(default=8, ge=1)
    """Images per chunk when segmenting; kept in the model: the chunk's shape is part of the answer's last bits."""
