"""`anogan` as a Detector: train on normals, search, compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomaly.detectors.anogan.invert import EncoderTraining
from anomaly.detectors.anogan.scoring.match import Match, join
from anomaly.detectors.anogan.scoring.scoring import Scoring
from anomaly.detectors.anogan.search import search
from anomaly.detectors.anogan.settings import AnoGanConfig
from anomaly.detectors.anogan.stages import Stages
from anomaly.detectors.anogan.training import train
from anomaly.detectors.anogan.uncertainty import VarianceTraining
from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.features import FeatureSpace
from anomaly.detectors.lungs import FEWEST, air_of, doubt_of
from anomaly.errors import DataError, UsageError
from anomaly.nets.dcgan import Discriminator, Generator, levels, plain
from anomaly.nets.device import freeze, open_fabric, resolve_device, seeded, uses_bf16
from anomaly.nets.encoder import Encoder
from anomaly.nets.variance import VarianceHead
from anomaly.records import DetectorOutput, Float32, ImageSource, Int64, Target
from anomaly.runs import Arrays, Recorder, under

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Net = TypeVar("Net", bound=nn.Module)


class AnoGan(Detector):
    """A generator of normal chests; a scan's score is how it differs from the most similar chest that it can draw.

    Of the training patients a share is kept from the networks (`holdout`): their normals choose the checkpoint and
    tell the score terms what differs between any normal and its twin.
    """

    name: ClassVar[str] = "anogan"
    Config: ClassVar[type[DetectorConfig]] = AnoGanConfig
    config: AnoGanConfig

    _generator: Generator
    _discriminator: Discriminator
    _encoder: Encoder | None
    _head: VarianceHead | None
    _scoring: Scoring
    _space: FeatureSpace
    _air: Float32

    def __init__(self, config: AnoGanConfig | None = None, *, size: int, device: str = "auto", seed: int = 0) -> None:
        super().__init__(config, size=size, device=resolve_device(device), seed=seed)
        try:
            levels(size)
            if size < FEWEST:
                raise ValueError(f"lungs are not told from what surrounds them on fewer than {FEWEST} pixels a side")
        except ValueError as error:
            raise UsageError(f"anogan cannot work at size {size}: {error}. Use --set size=64.") from error

    @cached_property
    def _fabric(self) -> Fabric:
        return open_fabric(self.device, self.config.precision)

    def runs_on(self) -> str:
        """Return the device and the search's number format, as resolved here."""
        return f"{self.device} {'bf16' if uses_bf16(self.device, self.config.precision) else 'fp32'}"

    @property
    def raw_squared_error(self) -> bool:
        """Whether the plain squared residual is part of the score."""
        return self.config.terms.get("l2", 0.0) > 0

    @property
    def heat_unit(self) -> str:
        """What one unit of heat is: "σ" or "σ²" if the first term with a weight is in it, the others scaled to it.

        Terms that are not `standardise`d are not scaled: they have a unit only where all with a weight are in the same.
        """
        return self._scoring.heat_unit

    def mapped(self) -> NDArray[np.bool_]:
        """Return where the map shows all that was found, or nearly: where normal chests show air, bool (S, S)."""
        return self._dimmed() >= (1.0 + self.config.elsewhere) / 2.0

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        held = _held_out(images.groups, self.config.holdout, self.seed)
        self._enough(images.groups, held)
        films, kept = _parted(images, held)
        stages = Stages(recorder)
        self._train(films, kept, stages)
        self._air = self._breathed(films, recorder)
        self._encoder = self._invert(films, stages)
        self._head = self._expect(films, stages)
        normals = join(self._matches(kept))
        self._space = FeatureSpace.fit(normals.scan_features[-1])
        try:
            self._scoring = Scoring.fit(
                normals,
                images.groups[held],
                weights=self.config.terms,
                settings=self.config.term_settings(),
                pooling=self.config.pooling,
                top_share=self.config.top_share,
                standardise=self.config.standardise,
                folds=self.config.folds,
                seed=self.seed,
            )
        except ValueError as error:
            raise DataError(f"anogan cannot scale its terms on {len(normals)} held-out normals: {error}") from error

    def _enough(self, groups: Int64, held: NDArray[np.bool_]) -> None:
        """Refuse before the training what the terms cannot be scaled on after it.

        Raises:
            DataError: Too few normals are held out, with how many it takes.
        """
        config = self.config
        weights, settings, standardise, folds = config.terms, config.term_settings(), config.standardise, config.folds
        try:
            Scoring.check(
                groups[held], weights=weights, settings=settings, standardise=standardise, folds=folds, seed=self.seed
            )
        except ValueError as error:
            needed = Scoring.least(weights=weights, settings=settings, standardise=standardise, folds=folds)
            raise DataError(
                f"anogan scales its terms on normals that its networks do not see, and holds {held.sum()} of these "
                f"{len(held)} out: {error} It takes {needed} held out, about {math.ceil(needed / config.holdout)} to "
                f"train on in all at detector.holdout={config.holdout:g}: give more normals, or change "
                "detector.components, detector.holdout or detector.folds."
            ) from error

    def _breathed(self, films: Float32, recorder: Recorder) -> Float32:
        """Return where films (N, C, S, S) hold air, float32 (S, S); 0 everywhere, and a warning, if in doubt."""
        air = air_of((films.mean(axis=(0, 1)) + 1.0) / 2.0)
        doubt = doubt_of(air)
        if doubt is None or self.config.elsewhere == 1.0:
            return air
        recorder.warn(f"{doubt}: maps show heat outside the lungs as strongly as inside (detector.elsewhere is unused)")
        return np.zeros_like(air)

    def _train(self, films: Float32, held_out: Float32, stages: Stages) -> None:
        """Train generator, discriminator and, with `redraw`, a first encoder; or take what a stage before left."""
        channels = films.shape[1]
        left = stages.result("gan")
        if left is None:
            trained = train(
                films,
                held_out,
                self._shape(channels) | {"latent": self.config.latent},
                self._shape(channels),
                self.config.training(),
                seed=self.seed,
                fabric=open_fabric(self.device, self.config.precision, every=True),
                recorder=stages.stage("gan"),
            )
            nets = {"generator": trained.generator, "discriminator": plain(trained.discriminator)}
            left = _arrays(nets if trained.encoder is None else nets | {"encoder": trained.encoder})
            stages.finish("gan", left)
        self._build(left, channels)

    def _invert(self, films: Float32, stages: Stages) -> Encoder | None:
        """Train the encoder on beside the finished generator."""
        if not self.config.encoder_steps:
            return self._encoder
        left = stages.result("encoder")
        if left is None:
            encoder = self._encoder or self._new_encoder(films.shape[1])
            encoder.requires_grad_(True)
            training = EncoderTraining(
                encoder,
                self._generator,
                self._discriminator,
                self.config.encoding(),
                kappa=self.config.kappa,
                seed=self.seed,
                fabric=self._fabric,
                augment=self.config.training().augmentation,
            )
            training.run(films, stages.stage("encoder"))
            left = _arrays({"encoder": encoder})
            stages.finish("encoder", left)
        return self._settle(_filled(self._new_encoder(films.shape[1]), left, "encoder"))

    def _expect(self, films: Float32, stages: Stages) -> VarianceHead | None:
        """Train the variance head, where a term needs it."""
        if "uncertainty" not in self.config.terms:
            return None
        left = stages.result("variance")
        if left is None:
            head = self._new_head()
            latents = torch.cat([self._search(chunk)[:count] for chunk, count in self._chunks(films)])
            training = VarianceTraining(
                head, self._generator, self.config.variance(), seed=self.seed, fabric=self._fabric
            )
            training.run(films, latents, stages.stage("variance"))
            left = _arrays({"head": head})
            stages.finish("variance", left)
        return self._settle(_filled(self._new_head(), left, "head"))

    def _shape(self, channels: int) -> dict[str, int]:
        return {"channels": channels, "size": self.size, "width": self.config.width}

    def _new_encoder(self, channels: int) -> Encoder:
        with seeded(self.seed):
            encoder = Encoder(latent=self.config.latent, **self._shape(channels))
        self._fabric.to_device(encoder.to(memory_format=torch.channels_last))
        return encoder

    def _new_head(self) -> VarianceHead:
        with seeded(self.seed):
            head = VarianceHead(self.config.width)
        self._fabric.to_device(head.to(memory_format=torch.channels_last))
        return head

    def _settle(self, net: Net) -> Net:
        """Return a network frozen, on the device, in the memory layout of the training.

        Kernels differ by the layout, so a loaded model would else score other last bits.
        """
        freeze(net)
        self._fabric.to_device(net)
        net.to(memory_format=torch.channels_last)
        return net

    def _build(self, arrays: Arrays, channels: int) -> None:
        """Build generator, discriminator and, where there is one, the encoder from arrays."""
        with seeded(self.seed):  # what they start from is overwritten, but must not draw on the caller's randomness
            generator = Generator(latent=self.config.latent, **self._shape(channels))
            discriminator = Discriminator(**self._shape(channels), norm=self.config.plain_norm)
        self._generator = self._settle(_filled(generator, arrays, "generator"))
        self._discriminator = self._settle(_filled(discriminator, arrays, "discriminator"))
        self._encoder = None
        if any(name.startswith("encoder/") for name in arrays):
            self._encoder = self._settle(_filled(self._new_encoder(channels), arrays, "encoder"))

    def _chunks(self, films: Float32) -> Iterator[tuple[Float32, int]]:
        """Yield films in chunks of `score_batch`, the last filled up with its last film, and how many are films."""
        batch = self.config.score_batch
        for start in range(0, len(films), batch):
            chunk = films[start : start + batch]
            filling = np.repeat(chunk[-1:], batch - len(chunk), axis=0)
            yield np.concatenate([chunk, filling]), len(chunk)

    def _matches(self, films: Float32) -> list[Match]:
        """Return held-out normals beside their twins, chunk by chunk, all of each square taken for film."""
        whole = np.ones((self.config.score_batch, self.size, self.size), np.bool_)
        return [self._match(chunk, whole).of(np.arange(count)) for chunk, count in self._chunks(films)]

    def _search(self, images: Float32) -> Tensor:
        """Return the latent of each image of a chunk, float32 (B, latent)."""
        scans = self._fabric.to_device(torch.from_numpy(images))
        with torch.no_grad(), self._fabric.autocast():
            if self._encoder is None:
                first = torch.zeros(len(scans), self.config.latent, device=scans.device)
            else:
                first = self._encoder(scans).float()
        found = search(
            self._generator,
            self._discriminator,
            scans,
            first,
            self.config.searching(),
            seed=self.seed,
            autocast=self._fabric.autocast,
        )
        return found.z

    def _match(self, images: Float32, inside: NDArray[np.bool_]) -> Match:
        """Put a chunk of images beside their twins."""
        z = self._search(images)
        scans = self._fabric.to_device(torch.from_numpy(images))
        with torch.no_grad():
            twins = self._generator(z)
            of_scans, of_twins = self._discriminator.last_maps(scans), self._discriminator.last_maps(twins)
            expected = None if self._head is None else _numpy(self._head(self._generator.hidden(z)))
        told = [tuple(_numpy(level) for level in maps) for maps in (of_scans, of_twins)]
        return Match(images, _numpy(twins), inside, told[0], told[1], expected)

    def _dimmed(self) -> Float32:
        """Return how much of the heat the map shows at each place, float32 (S, S); all of it where no air was found."""
        if not self._air.any():
            return np.ones((self.size, self.size), np.float32)
        elsewhere = np.float32(self.config.elsewhere)
        return elsewhere + (np.float32(1.0) - elsewhere) * self._air

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        match = self._match(images, inside)
        scored = self._scoring.score(match)
        features = self._space.place(match.scan_features[-1])
        if not heatmaps:
            return DetectorOutput(scored.scores, terms=scored.terms, features=features)
        dimmed = self._dimmed()
        added = {name: heat * dimmed for name, heat in scored.term_maps.items()}
        return DetectorOutput(
            scored.scores, scored.heatmaps * dimmed, match.twin, scored.terms, added, features=features
        )

    def _state(self) -> Arrays:
        nets: dict[str, nn.Module] = {"generator": self._generator, "discriminator": self._discriminator}
        if self._encoder is not None:
            nets["encoder"] = self._encoder
        if self._head is not None:
            nets["head"] = self._head
        arrays = _arrays(nets) | {"air": self._air}
        arrays |= {f"scoring/{name}": array for name, array in self._scoring.to_arrays().items()}
        return arrays | {f"space/{name}": array for name, array in self._space.to_arrays().items()}

    def _restore(self, arrays: Arrays, channels: int) -> None:
        self._build(arrays, channels)
        self._head = None
        if any(name.startswith("head/") for name in arrays):
            self._head = self._settle(_filled(self._new_head(), arrays, "head"))
        self._air = arrays["air"]
        if self._air.shape != (self.size, self.size):
            raise ValueError(f"air of shape {self._air.shape}")
        self._space = FeatureSpace.from_arrays(under(arrays, "space"))
        self._scoring = Scoring.from_arrays(
            under(arrays, "scoring"),
            weights=self.config.terms,
            settings=self.config.term_settings(),
            pooling=self.config.pooling,
            top_share=self.config.top_share,
            standardise=self.config.standardise,
            size=self.size,
        )


def _held_out(groups: Int64, share: float, seed: int) -> NDArray[np.bool_]:
    """Draw whole patients that the networks do not see, bool (N,).

    Raises:
        DataError: The scans are of fewer than four patients.
    """
    patients = np.unique(groups)
    if len(patients) < 4:
        raise DataError(
            f"anogan keeps some patients from its networks, and these scans are of {len(patients)}: give normals of at "
            "least 4 patients."
        )
    count = min(max(2, round(share * len(patients))), len(patients) - 2)
    drawn = np.random.default_rng((seed, 1)).permutation(patients)[:count]
    return np.isin(groups, drawn)


def _parted(images: ImageSource, held: NDArray[np.bool_]) -> tuple[Float32, Float32]:
    """Return the films the networks see and those held out, float32 (N, C, S, S) each, no film in memory twice."""
    shape = next(images.batches(1)).shape[1:]
    films, kept = (np.empty((int(own.sum()), *shape), np.float32) for own in (~held, held))
    done = 0
    for batch in images.batches():
        out = held[done : done + len(batch)]
        before = int(held[:done].sum())
        kept[before : before + int(out.sum())] = batch[out]
        films[done - before : done - before + int((~out).sum())] = batch[~out]
        done += len(batch)
    return films, kept


def _arrays(nets: dict[str, nn.Module]) -> Arrays:
    return {f"{part}/{k}": _numpy(v) for part, net in nets.items() for k, v in net.state_dict().items()}


def _filled(net: Net, arrays: Arrays, part: str) -> Net:
    net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in under(arrays, part).items()})
    return net


def _numpy(tensor: Tensor) -> Float32:
    array: Float32 = tensor.detach().cpu().numpy()
    return array
