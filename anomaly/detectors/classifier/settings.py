"""Settings of `classifier`: the network, and how it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anomaly.detectors.backbone import Precision, WeightsChoice
from anomaly.detectors.base import SupervisedConfig


class ClassifierConfig(SupervisedConfig):
    """Settings of `classifier`."""

    arch: str = "resnet18"
    """A classification network of torchvision or timm."""
    backbone_weights: WeightsChoice = "pretrained"
    """From the weights folder (`anomaly weights`), all but the last layer; or random ones, drawn by the seed."""

    epochs: int = Field(default=12, ge=1)
    """Passes over the films at most."""
    batch: int = Field(default=32, ge=2)
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the last layer."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd and rmsprop."""
    weight_decay: float = Field(default=0.0, ge=0)
    step_epochs: int = Field(default=6, ge=1)
    """StepLR: after so many epochs every rate is multiplied by `step_gamma`."""
    step_gamma: float = Field(default=0.3, gt=0, le=1)

    frozen_epochs: int = Field(default=1, ge=0)
    """Epochs in which the last layer alone learns."""
    stages: int = Field(default=1, ge=1)
    """Groups of equally many layers that the rest of the network is unfrozen in, the deepest last."""
    stage_epochs: int = Field(default=1, ge=0)
    """Epochs from one group to the next."""
    backbone_rate: float = Field(default=0.3, gt=0, le=1)
    """Learning rate of the first group beside the last layer's; each deeper group's beside the one before is
    `stage_rate`."""
    stage_rate: float = Field(default=0.5, gt=0, le=1)

    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the patients of every class that is not trained on: they stop the training, choose its best epoch, and
    set temperature and cut."""
    patience: int = Field(default=4, ge=1)
    """Epochs without a lower validation loss after which the training stops; the best epoch's weights are kept."""
    class_weights: bool = True
    """Weigh films so that every class counts the same."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Before the last layer, beside what the network drops anyway."""

    augment: bool = True
    """Show films turned, shifted, sheared, scaled, flipped and dimmed at random, by up to what follows."""
    rotation: float = Field(default=10.0, ge=0, le=180)
    """Degrees."""
    shift: float = Field(default=0.05, ge=0, lt=1)
    """Share of the side."""
    shear: float = Field(default=5.0, ge=0, lt=90)
    """Degrees."""
    scale: float = Field(default=0.1, ge=0, lt=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    brightness: float = Field(default=0.1, ge=0, lt=1)

    precision: Precision = "auto"
    """Number format of the training; auto takes bf16 where the processor computes it. Scores are always fp32."""
    score_batch: int = Field(default=8, ge=1)
    """Images per chunk when scoring; kept in the model, because the chunk's shape is part of the answer's last bits."""
