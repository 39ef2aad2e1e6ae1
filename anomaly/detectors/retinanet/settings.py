"""Settings of `retinanet`: the network, how it is trained, and which boxes it draws."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anomaly.detectors.backbone import Precision, WeightsChoice
from anomaly.detectors.base import SupervisedConfig


class RetinaNetConfig(SupervisedConfig):
    """Settings of `retinanet`."""

    classes: str = "two"
    """Kinds of boxes: "two" makes one of all, else a box is of the kind that its film's class is; see
    `SupervisedConfig`. A film's score is the confidence of its best box, of whichever kind."""

    backbone: str = "mobilenet_v2"
    """A convolutional network of torchvision or timm; maps of 1/8, 1/16 and 1/32 of the side are taken from it."""
    backbone_weights: WeightsChoice = "pretrained"
    """From the weights folder (`anomaly weights`), whose norms keep their statistics; or random ones, by the seed."""
    width: int = Field(default=128, ge=8)
    """Channels of the pyramid and the heads; 256 in the paper, at four times the time."""
    smallest: float = Field(default=0.0625, gt=0, le=0.5)
    """Side of the smallest anchor as a share of the image's; the largest is 25 times that."""

    epochs: int = Field(default=30, ge=1)
    """Passes over the films at most."""
    batch: int = Field(default=8, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(default=3e-4, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=50, ge=0)
    """Steps in which the rate rises to `learning_rate`."""
    step_epochs: int = Field(default=10, ge=1)
    """StepLR: after so many epochs the rate is multiplied by `step_gamma`."""
    step_gamma: float = Field(default=0.3, gt=0, le=1)
    clip: float = Field(default=10.0, gt=0)
    """Largest norm of all gradients together."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the patients, with boxes and without, that is not trained on: they stop the training, choose its best
    epoch, and set the cut."""
    patience: int = Field(default=6, ge=1)
    """Epochs without a lower validation loss after which the training stops; the best epoch's weights are kept."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    scale: float = Field(default=0.1, ge=0, lt=1)
    """Films are shown larger or smaller at random by up to this share."""
    shift: float = Field(default=0.05, ge=0, lt=1)
    """And moved aside by up to this share of the side."""

    score_threshold: float = Field(default=0.05, ge=0, lt=1)
    """Boxes of less confidence are not drawn."""
    nms_threshold: float = Field(default=0.3, gt=0, le=1)
    """Of two boxes of one kind that overlap more (intersection over union) the more confident one stays."""
    max_boxes: int = Field(default=20, ge=1)
    """Boxes a film at most."""

    precision: Precision = "auto"
    """Number format of the training; auto takes bf16 where the processor computes it. Scores are always fp32."""
    score_batch: int = Field(default=8, ge=1)
    """Images per chunk when scoring; kept in the model, because the chunk's shape is part of the answer's last bits."""
