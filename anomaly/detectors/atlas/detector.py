"""`atlas`: a statistical atlas of the normal chest. Closed form, no training, no torch, a model of about a megabyte.

Films come registered (`prepare.register: affine`). Each is rebuilt from a few principal components of normal films and
compared with that normal twin, under several crops and equalisations whose answers are averaged; see `page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from anomaly.detectors.atlas.looks import AIR, Look, grey, margin, put_back
from anomaly.detectors.atlas.page import TERMS, Page
from anomaly.detectors.atlas.portrait import Portrait
from anomaly.detectors.atlas.sight import Sight
from anomaly.detectors.base import Detector, DetectorConfig
from anomaly.detectors.lungs import air_of
from anomaly.detectors.normality import patient_folds
from anomaly.errors import DataError
from anomaly.prepare.resize import resize
from anomaly.records import DetectorOutput, Float32, Float64, ImageSource, Target
from anomaly.runs import Arrays, NullRecorder, Recorder, under

_FEATURES = 8  # coordinates of the twin that place a film among normals


class AtlasConfig(DetectorConfig):
    """Settings of `atlas`. What is a tuple is averaged over; see docs/results.md for what each does alone."""

    crops: tuple[float, ...] = Field(default=(0.75, 0.8, 0.85), min_length=1)
    """Middle shares of the side to look at."""
    tiles: tuple[int, ...] = Field(default=(4, 8, 12), min_length=1)
    """CLAHE's tiles a side."""
    clips: tuple[float, ...] = Field(default=(1.5, 2.0, 2.5), min_length=1)
    """CLAHE's clip limits, multiples of the mean bin. Each pair of crop and tiles takes one of them: see `looks`."""
    side: int = Field(default=32, ge=16, le=64)
    """Pixels a side on which films are compared."""
    components: tuple[int, ...] = Field(default=(3, 4, 6, 8), min_length=1)
    """Principal components of the normal twins."""
    sigma: float = Field(default=0.0625, gt=0, le=0.5)
    """Blur of the difference to the twin, a share of the side."""
    windows: tuple[float, ...] = Field(default=(0.0625, 0.125), min_length=1)
    """Gaussian windows of the local contrast, shares of the side."""
    floor: float = Field(default=0.25, ge=0)
    """Added to each pixel's standard deviation, in units of their mean."""
    exposure_limit: float = Field(default=2.5, ge=0)
    """A film is compared with normal films exposed like it, up to so many standard deviations; 0: with all alike."""
    folds: int = Field(default=5, ge=2)
    """Parts of the normals, patients whole, that take turns in being held out."""
    elsewhere: float = Field(default=0.2, ge=0, le=1)
    """How much of the heat the map shows where normal films hold no air, beside all of it where they do."""
    deficit_weight: float = Field(default=0.3, ge=0)
    """Of the contrast deficit beside the opacity term, both in standard deviations of held-out normals."""
    darker_weight: float = Field(default=0.0, ge=0)
    """Of the other direction (pneumothorax, emphysema, but also films exposed otherwise): reported, not scored."""
    features_weight: float = Field(default=0.0, ge=0)
    """Of how unusual a frozen backbone finds the whole film (see `feature-gaussian`), in standard deviations of
    normals. 0 does without the backbone; else its weights are needed, and torch."""
    backbone: str = "resnet18"
    """A network of torchvision or timm."""
    layers: tuple[str, ...] = Field(default=("layer3",), min_length=1)
    """Modules of the backbone whose mean features are taken, the largest maps first."""
    backbone_weights: Literal["pretrained", "none"] = "pretrained"
    """From the weights folder (`anomaly weights`), or random ones."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the backbone."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        ranges = {"crops": (0.3, 1.0), "tiles": (1, 64), "clips": (0.1, 100.0)}
        ranges |= {"components": (1, self.side**2 // 2), "windows": (0.01, 0.5)}
        for name, (low, high) in ranges.items():
            values = getattr(self, name)
            if not all(low <= value <= high for value in values):
                raise ValueError(f"{name} must lie in {low} .. {high}")
            if name != "clips" and len(set(values)) < len(values):
                raise ValueError(f"{name} must differ from one another")
        return self


class Atlas(Detector):
    """Score = opacity + deficit_weight * deficit (+ darker_weight * darker + features_weight * features).

    Each term is (value - mean) / sd of normals.

    A term's value is its mean over looks and pixels, in standard deviations of normal variation (each pixel's own,
    raised by `floor` of their mean); mean and sd of a term are those of the training normals out of fold, patients
    whole. The heatmap is the sum of what each term adds to the score, opacity counting 1, but dimmed to `elsewhere`
    where a normal chest shows no air. The score takes all of it: what surrounds the lungs tells films apart, but not
    where to look.

    What lies outside a film has no heat and is not averaged over, but as it repeats the border it has a little say in
    CLAHE and in the coordinates of the twin. `fit` takes it for film, which moves a term's mean and sd little: on two
    real sets, masked held-out normals lie within 0.14 sd of the mean.
    """

    name: ClassVar[str] = "atlas"
    Config: ClassVar[type[DetectorConfig]] = AtlasConfig
    config: AtlasConfig

    _pages: list[Page]
    _air: Float32
    _scale: Float64
    _portrait: Portrait
    _sight: Sight | None

    @property
    def backbone(self) -> str | None:
        """The backbone of the term `features`, where that counts and is to be a pretrained one."""
        wanted = self.config.features_weight > 0 and self.config.backbone_weights == "pretrained"
        return self.config.backbone if wanted else None

    def memory(self, count: int, channels: int) -> int | None:
        """Make sure of the backbone, where there is one; what a fit takes beside the images is little."""
        if self.config.features_weight > 0:
            from anomaly.detectors.backbone import FrozenBackbone

            FrozenBackbone.for_fit(self.config, device=self.device, seed=self.seed, recorder=NullRecorder())
        return None

    def made_of(self) -> dict[str, str]:
        """Return the backbone and its weights' sha256, where there is one."""
        return {} if self._sight is None else self._sight.frozen.made_of()

    @property
    def looks(self) -> list[Look]:
        """Return every pair of crop and tiles, the clip limits going round: three of each make a Latin square."""
        settings = self.config
        pairs = product(enumerate(settings.crops), enumerate(settings.tiles))
        clips = settings.clips
        return [Look(crop, tiles, clips[(c + t) % len(clips)], settings.side) for (c, crop), (t, tiles) in pairs]

    @property
    def heat_unit(self) -> str:
        """Return what one unit of heat is: a standard deviation of normal variation."""
        return "σ"

    def runs_on(self) -> str:
        """Return where and in which number format scores are computed."""
        if self.config.features_weight == 0:
            return "cpu fp32"

        from anomaly.detectors.backbone import runs_on

        return f"cpu fp32, backbone {runs_on(self.device, self.config)}"

    def _fit(self, images: ImageSource, targets: Sequence[Target] | None, recorder: Recorder) -> None:
        settings, looks = self.config, self.looks
        folds = self._folds(images)
        seen = [np.empty((len(images), settings.side, settings.side), np.float32) for _ in looks]
        exposure = [np.empty((len(images), 2), np.float32) for _ in looks]
        small = Portrait.room(len(images), self.size)
        mean = np.zeros((AIR.side, AIR.side))
        done = 0
        for batch in images.batches():
            films = grey(batch)
            for look, kept, told in zip(looks, seen, exposure, strict=True):
                kept[done : done + len(batch)] = look.see(films)
                told[done : done + len(batch)] = look.exposure(films)
            mean += AIR.see(films).sum(axis=0, dtype=np.float64)
            small[done : done + len(batch)] = Portrait.shrink(batch)
            done += len(batch)
            recorder.progress(done, len(images), "looking")
        self._air = air_of((mean / done).astype(np.float32))
        self._pages = []
        terms: list[Float32] = []
        for look in looks:
            page, told = Page.fit(
                look,
                seen[len(terms)],
                exposure[len(terms)],
                folds,
                ranks=settings.components,
                sigma=settings.sigma,
                windows=settings.windows,
                floor=settings.floor,
                limit=settings.exposure_limit,
            )
            self._pages.append(page)
            terms.append(told)
            recorder.progress(len(terms), len(looks), "fitting")
        values = np.mean(terms, axis=0, dtype=np.float64)
        self._scale = np.stack([values.mean(axis=1), np.maximum(values.std(axis=1), 1e-9)])
        middle = self._pages[self._middle].low_rank
        own = seen[self._middle].reshape(len(images), -1)
        self._portrait = Portrait.fit(middle.coordinates(own, max(settings.components)), small)
        self._sight = None
        if settings.features_weight > 0:
            self._sight = Sight.fit(images, folds, settings, device=self.device, seed=self.seed, recorder=recorder)

    def _folds(self, images: ImageSource) -> NDArray[np.int64]:
        """Deal the patients into folds, each leaving enough films of others to fit the components to.

        Raises:
            DataError: Too few films or patients.
        """
        patients = len(np.unique(images.groups))
        count = min(self.config.folds, patients)
        if count >= 2:
            folds = patient_folds(images.groups, count, self.seed)
            if len(images) - np.bincount(folds).max() > max(self.config.components):
                return folds
        raise DataError(
            f"atlas fits {max(self.config.components)} components to all but a part of the patients at a time, and "
            f"{len(images)} training films of {patients} {'patient' if patients == 1 else 'patients'} are too few: "
            "give more normals, or a smaller detector.components."
        )

    @property
    def _middle(self) -> int:
        """Return which page's twin is shown: that of the middle crop and tiles."""
        crops, tiles = self.config.crops, self.config.tiles
        return len(crops) // 2 * len(tiles) + len(tiles) // 2

    def _dimmed(self) -> Float32:
        """Return how much of the heat the map shows at each place, float32 (S, S); all of it where no air was found."""
        if not self._air.any():
            return np.ones((self.size, self.size), np.float32)
        elsewhere = np.float32(self.config.elsewhere)
        return elsewhere + (np.float32(1.0) - elsewhere) * resize(self._air, self.size)

    def mapped(self) -> NDArray[np.bool_]:
        """Return where the map shows all that was found, or nearly: where normal chests show air, bool (S, S)."""
        cut = margin(max(self.config.crops), self.size)
        looked = np.zeros((self.size, self.size), np.bool_)
        looked[cut : self.size - cut, cut : self.size - cut] = True
        return looked & (self._dimmed() >= (1.0 + self.config.elsewhere) / 2.0)

    def _score(self, images: Float32, inside: NDArray[np.bool_], heatmaps: bool) -> DetectorOutput:
        values = np.zeros((len(TERMS), len(images)), np.float32)
        heat = {crop: np.zeros((*values.shape, *2 * [self.config.side]), np.float32) for crop in self.config.crops}
        films = grey(images)
        seen = [page.look.see(films) for page in self._pages]
        for page, own in zip(self._pages, seen, strict=True):
            shown = page.look.film(inside)
            pixels = shown.sum(axis=(1, 2))
            if not pixels.all():
                raise DataError("An image shows no film in its middle, so it cannot be compared with a chest.")
            read = page.read(own, page.look.exposure(films), shown)
            values += read.sum(axis=(2, 3)) / pixels / np.float32(len(self._pages))
            heat[page.look.crop] += read / np.float32(len(self.config.tiles))
        mean, sd = self._scale
        parts = np.array([1.0, self.config.deficit_weight, self.config.darker_weight]) / sd
        scores = (parts @ (values - mean[:, None])).astype(np.float32)
        terms = dict(zip(TERMS, values, strict=True))
        if self._sight is not None:
            terms["features"], above = self._sight.look(images, inside)
            scores += np.float32(self.config.features_weight) * above
        middle = self._pages[self._middle].low_rank
        placed = middle.coordinates(seen[self._middle].reshape(len(films), -1), max(self.config.components))
        features = placed[:, :_FEATURES] if placed.shape[1] > 1 else None
        if not heatmaps:
            return DetectorOutput(scores, terms=terms, features=features)
        maps = self._on_square(heat) * (parts / parts[0]).astype(np.float32)[:, None, None, None]
        added = {term: heat for term, heat, part in zip(TERMS, maps, parts, strict=True) if part > 0}
        twin = np.repeat(self._portrait.draw(placed, self.size)[:, None], images.shape[1], axis=1)
        return DetectorOutput(scores, maps.sum(axis=0), twin, terms, added, features)

    def _on_square(self, heat: dict[float, Float32]) -> Float32:
        """Bring maps together, crop -> float32 (T, N, side, side), on the prepared square: float32 (T, N, S, S).

        Each place shows the mean of the crops that saw it.
        """
        whole = np.ones((self.config.side, self.config.side), np.float32)
        maps = np.zeros((*next(iter(heat.values())).shape[:2], self.size, self.size), np.float32)
        crops = np.zeros((self.size, self.size), np.float32)
        for crop, seen in heat.items():
            crops += put_back(whole, crop, self.size)
            for t, n in np.ndindex(seen.shape[:2]):
                maps[t, n] += put_back(seen[t, n], crop, self.size)
        maps *= self._dimmed() / np.maximum(crops, np.float32(1.0))
        return maps

    def _state(self) -> Arrays:
        arrays: Arrays = {"scale": self._scale, "air": self._air, **self._portrait.to_arrays()}
        for number, page in enumerate(self._pages):
            arrays |= {f"page{number}.{name}": array for name, array in page.to_arrays().items()}
        if self._sight is not None:
            arrays |= {f"sight/{name}": array for name, array in self._sight.to_arrays().items()}
        return arrays

    def _restore(self, arrays: Arrays, channels: int) -> None:
        settings = self.config
        self._scale = arrays["scale"]
        if self._scale.shape != (2, len(TERMS)):
            raise ValueError(f"scale of shape {self._scale.shape}")
        self._air = arrays["air"]
        if self._air.shape != (AIR.side, AIR.side):
            raise ValueError(f"air of shape {self._air.shape}")
        self._portrait = Portrait.from_arrays(arrays, max(settings.components))
        self._sight = None
        if settings.features_weight > 0:
            self._sight = Sight.from_arrays(under(arrays, "sight"), settings, self.size, device=self.device)
        self._pages = []
        for number, look in enumerate(self.looks):
            own = {name.partition(".")[2]: a for name, a in arrays.items() if name.startswith(f"page{number}.")}
            self._pages.append(
                Page.from_arrays(
                    look,
                    own,
                    sigma=settings.sigma,
                    ranks=settings.components,
                    windows=settings.windows,
                    limit=settings.exposure_limit,
                )
            )
