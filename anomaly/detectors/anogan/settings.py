"""Settings of `anogan`, and what each part of the method takes of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from anomaly.detectors.anogan.augment import Augmentation
from anomaly.detectors.anogan.descent import DescentSettings
from anomaly.detectors.anogan.objectives import OBJECTIVES, ObjectiveName
from anomaly.detectors.anogan.scoring.scoring import ordered
from anomaly.detectors.anogan.scoring.settings import Direction, TermSettings
from anomaly.detectors.anogan.search import SearchSettings
from anomaly.detectors.anogan.training import TrainingSettings
from anomaly.detectors.base import DetectorConfig
from anomaly.detectors.pooling import Pooling
from anomaly.nets.dcgan import Norm


class AnoGanConfig(DetectorConfig):
    """Settings of `anogan`: of the generator, of its encoder, of the search, of the score."""

    objective: ObjectiveName = "hinge"
    """What generator and discriminator play for; each comes with its normalisation and Adam's betas."""
    latent: int = Field(default=16, ge=1)
    """Length of z; 100 in Radford et al."""
    width: int = Field(default=16, ge=1)
    """Channels of the widest feature map's neighbour of the image (ngf = ndf); 64 in Radford et al."""
    steps: int = Field(default=4000, ge=1)
    """Training steps, one generator update each."""
    batch: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=2e-4, gt=0)
    critic_steps: int = Field(default=1, ge=1)
    """Discriminator updates a step; 5 in Gulrajani et al."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Real films are labelled 1 minus this (Salimans et al. 2016); for the objective dcgan."""
    shift: float = Field(default=0.04, ge=0, lt=0.5)
    """Augmentation of real and drawn films alike: at most this share of the width."""
    scale: float = Field(default=0.04, ge=0, lt=0.5)
    """At most this much larger or smaller."""
    exposure: float = Field(default=0.1, ge=0, lt=1)
    """At most this much gain and offset."""
    redraw: float = Field(default=20.0, ge=0)
    """Weight of redrawing training films through an encoder trained with the generator; 0 trains it by the game alone,
    as the papers do."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged generator that scores."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints, sample grids and looks at the generator's health."""
    holdout: float = Field(default=0.25, gt=0, lt=1)
    """Share of the training patients the networks do not see: they choose the checkpoint and scale the terms."""

    encoder_steps: int = Field(default=1000, ge=0)
    """izi_f steps of the encoder beside the finished generator; 0 keeps the encoder of `redraw`, or, without one, every
    search starts from z = 0."""
    encoder_rate: float = Field(default=2e-4, gt=0)
    kappa: float = Field(default=1.0, ge=0)
    """Weight of the feature term in izi_f."""
    variance_steps: int = Field(default=500, ge=1)
    """Steps of the variance head, trained where the term `uncertainty` is listed."""

    search_steps: int = Field(default=30, ge=0)
    """Most Adam steps on z a start; 0 takes the encoder's z as it is, and needs one; 500 in Schlegl et al."""
    search_rate: float = Field(default=0.1, gt=0)
    search_residual: Literal["l1", "l2"] = "l2"
    weight: float = Field(default=0.0, ge=0, le=1)
    """lambda: the share of the discriminator-feature term in the search's loss."""
    shell: float = Field(default=0.1, ge=0)
    """Weight of the prior in the search's loss."""
    radius: float = Field(default=0.0, ge=0)
    """Where the prior holds z: 0 at the mean chest (the most probable z), 1 on the shell that it draws from."""
    restarts: int = Field(default=0, ge=0)
    """Starts a scan has beside the first."""
    patience: int = Field(default=0, ge=0)
    """Steps without progress after which a start has converged; 0 takes every step."""
    tolerance: float = Field(default=1e-3, ge=0, lt=1)
    slots: int = Field(default=32, ge=1)
    """Starts searched at once; a converged one makes room for the next."""

    terms: dict[str, float] = Field(default={"residual_pca": 1.0, "contrast_structure": 0.3, "structure_deficit": 0.3})
    """Score terms and their weights; one of weight 0 is reported only."""
    residual_sigma: float = Field(default=0.06, ge=0, lt=0.5)
    """Blur of the signed difference to the twin, as a fraction of the width."""
    components: int = Field(default=6, ge=1)
    """Principal components of the normals' own residuals that `residual_pca` takes out."""
    direction: Direction = "squared_positive"
    """Which side of the signed difference counts."""
    window: float = Field(default=0.05, gt=0, lt=0.5)
    """Gaussian width of local contrast and SSIM, as a fraction of the width."""
    floor: float = Field(default=0.25, ge=0)
    """Added to each pixel's spread over normals, in units of its mean."""
    exposure_limit: float = Field(default=2.5, ge=0)
    """Films are compared with normals exposed alike, up to so many standard deviations; 0 takes no notice."""
    pooling: Pooling = "mean"
    top_share: float = Field(default=0.1, gt=0, le=1)
    """Share of the pixels that pooling `top` takes."""
    standardise: bool = True
    """Put each term in standard deviations of held-out normals; false adds them as they are, as the papers do."""
    folds: int = Field(default=5, ge=2)
    elsewhere: float = Field(default=0.2, ge=0, le=1)
    """How much of the heat the map shows where normal chests hold no air."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the processor computes it, else fp32. The comparison itself is always fp32."""
    score_batch: int = Field(default=32, ge=1)
    """Images per chunk when scoring; kept in the model, because the chunk's shape is part of the answer's last bits."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        ordered(self.terms)
        if not (self.search_steps or self.restarts or self.redraw or self.encoder_steps):
            raise ValueError(
                "search_steps is 0 and there is no encoder, so every scan would have the same twin: search some steps, "
                "or train an encoder (encoder_steps or redraw above 0)."
            )
        return self

    @property
    def plain_norm(self) -> Norm:
        """How the finished discriminator is normalised: spectral norms are baked into its weights."""
        norm = OBJECTIVES[self.objective].norm
        return "none" if norm == "spectral" else norm

    def training(self) -> TrainingSettings:
        """Return how the GAN is trained."""
        augmentation = Augmentation(self.shift, self.scale, self.exposure)
        return TrainingSettings(
            objective=self.objective,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            critic_steps=self.critic_steps,
            label_smoothing=self.label_smoothing,
            augmentation=augmentation,
            redraw=self.redraw,
            ema=self.ema,
            checkpoint_every=self.checkpoint_every,
        )

    def encoding(self) -> DescentSettings:
        """Return how the encoder is trained beside the finished generator."""
        return DescentSettings(self.encoder_steps, self.batch, self.encoder_rate, self.checkpoint_every)

    def variance(self) -> DescentSettings:
        """Return how the variance head is trained."""
        return DescentSettings(self.variance_steps, self.batch, self.encoder_rate, self.checkpoint_every)

    def searching(self) -> SearchSettings:
        """Return how latents are searched for."""
        return SearchSettings(
            steps=self.search_steps,
            rate=self.search_rate,
            weight=self.weight,
            residual=self.search_residual,
            shell=self.shell,
            radius=self.radius,
            restarts=self.restarts,
            patience=self.patience,
            tolerance=self.tolerance,
            slots=self.slots,
        )

    def term_settings(self) -> TermSettings:
        """Return what the terms go by."""
        return TermSettings(
            residual_sigma=self.residual_sigma,
            components=self.components,
            direction=self.direction,
            window=self.window,
            floor=self.floor,
            exposure_limit=self.exposure_limit,
        )
