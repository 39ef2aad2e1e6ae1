"""What the atlas sees under one look, taken apart: z maps of every rank and window, for train (out of fold) and dev.

The detector averages these maps and keeps no single one; benchmarks that ask what a part is worth put them together
again in other ways. `combined` does it as the detector does, and `check_against` holds that against the detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from registered import Films

from anomaly.detectors.atlas.detector import Atlas, AtlasConfig
from anomaly.detectors.atlas.looks import AIR, Look, margin
from anomaly.detectors.atlas.twin import LowRank, out_of_fold
from anomaly.detectors.lungs import air_of
from anomaly.prepare.resize import resize
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32, Float64, Int64, UInt8

SETTINGS = AtlasConfig()
DEFAULT = Atlas(SETTINGS, size=224)


@dataclass(frozen=True, slots=True)
class Maps:
    """z maps: `train` float32 (N, side, side), each film against the other folds; `dev` float32 (M, side, side)."""

    train: Float32
    dev: Float32


@dataclass(frozen=True, slots=True)
class Seen:
    """One look's z maps: of the blurred residual by rank, of the local contrast by window; `shown` bool (M, s, s)."""

    look: Look
    residual: dict[int, Maps]
    contrast: tuple[Maps, ...]
    shown: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Values:
    """One number a film: `train` float64 (N,), out of fold; `dev` float64 (M,)."""

    train: Float64
    dev: Float64

    def __add__(self, other: Values) -> Values:
        return Values(self.train + other.train, self.dev + other.dev)

    def times(self, factor: float) -> Values:
        """Return them multiplied."""
        return Values(self.train * factor, self.dev * factor)

    @property
    def scaled(self) -> Values:
        """Return them in standard deviations of the train normals out of fold."""
        mean, sd = self.train.mean(), self.train.std()
        return Values((self.train - mean) / sd, (self.dev - mean) / sd)


def mean_of(values: Sequence[Values]) -> Values:
    """Return the mean of several values, film by film."""
    return Values(*(np.mean([getattr(v, part) for v in values], axis=0) for part in ("train", "dev")))


def standardised(train: Float32, dev: Float32, folds: Int64, covariates: tuple[Float64, Float64] | None = None) -> Maps:
    """Return values (N, s, s) and (M, s, s) in standard deviations of train, as `Page` does.

    Args:
        train: Of train normals; each is compared with the films of the other folds.
        dev: Compared with all train films.
        folds: int64 (N,).
        covariates: Of train (N, Q) and dev (M, Q): what each pixel's mean follows linearly; None for a constant mean.
    """
    design, asked = (np.ones((len(part), 1), np.float32) for part in (train, dev))
    if covariates is not None:
        design, asked = (
            np.hstack([one, c]).astype(np.float32) for one, c in zip((design, asked), covariates, strict=True)
        )

    def compared(known: NDArray[np.bool_], values: Float32, rows: Float32) -> Float32:
        flat = train[known].reshape(int(known.sum()), -1)
        slopes = np.linalg.pinv(design[known]) @ flat
        sd = (flat - design[known] @ slopes).std(axis=0, dtype=np.float64)
        sd += SETTINGS.floor * sd.mean()
        z = (values.reshape(len(values), -1) - rows @ slopes) / sd.astype(np.float32)
        return np.asarray(z.reshape(values.shape), dtype=np.float32)

    own = np.empty_like(train)
    for fold in range(int(folds.max()) + 1):
        mine = folds == fold
        own[mine] = compared(~mine, train[mine], design[mine])
    return Maps(own, compared(np.ones(len(train), np.bool_), dev, asked))


def exposure(look: Look, train: UInt8, dev: UInt8) -> tuple[Float64, Float64]:
    """Return a look's exposure of films, uint8 (N, S, S), as the detector takes notice of it: float64 (N, 2) each."""
    known, asked = (look.exposure(films).astype(np.float64) for films in (train, dev))
    mean, sd, limit = known.mean(axis=0), known.std(axis=0), SETTINGS.exposure_limit
    first, second = (np.clip((part - mean) / sd, -limit, limit) for part in (known, asked))
    return first, second


def see(
    look: Look,
    train: UInt8,
    dev: UInt8,
    inside: NDArray[np.bool_],
    folds: Int64,
    *,
    ranks: Sequence[int] = SETTINGS.components,
    covariates: tuple[Float64, Float64] | None = None,
) -> Seen:
    """Learn one look from the train normals and read both them (out of fold) and dev.

    Args:
        look: That takes the films.
        train: uint8 (N, S, S), normal, of `looks.grey`.
        dev: uint8 (M, S, S), as `train`.
        inside: bool (M, S, S), which pixels of dev show film.
        folds: int64 (N,), patients whole.
        ranks: Components of the twins.
        covariates: As in `standardised`; None for the recipe's, `exposure`.
    """
    films, asked, shown = look.see(train), look.see(dev), look.film(inside)
    if covariates is None:
        covariates = exposure(look, train, dev)
    rebuild = out_of_fold if look.side <= 32 else _out_of_fold_by_films
    low_rank, residuals = rebuild(films.reshape(len(films), -1), folds, ranks)
    flat = asked.reshape(len(asked), -1)
    residual = {}
    for rank in ranks:
        left = np.where(shown, low_rank.residual(flat, rank).reshape(asked.shape), np.float32(0.0))
        own = residuals[rank].reshape(films.shape)
        blurred = (_blur(part, SETTINGS.sigma) for part in (own, left))
        residual[rank] = standardised(*blurred, folds, covariates)
    return Seen(look, residual, contrasts(films, asked, shown, folds, covariates), shown)


def contrasts(
    train: Float32,
    dev: Float32,
    shown: NDArray[np.bool_],
    folds: Int64,
    covariates: tuple[Float64, Float64] | None = None,
) -> tuple[Maps, ...]:
    """Return the z maps of the local contrast, one a window, of films (N, s, s) and (M, s, s) as a look sees them."""
    every = np.ones(train.shape, np.bool_)
    return tuple(
        standardised(_local_contrast(train, every, w), _local_contrast(dev, shown, w), folds, covariates)
        for w in SETTINGS.windows
    )


def positive(
    maps: Maps, shown: NDArray[np.bool_], *, sign: int = 1, power: int = 1, weights: Float32 | None = None
) -> Values:
    """Return each film's mean of the positive part of `sign` x z, to a power, over the pixels that show film.

    `weights` float32 (s, s) >= 0 says how much each pixel counts; None for all alike.
    """
    every = np.ones(shown.shape[1:], np.float32) if weights is None else weights
    return positive_where(maps, np.broadcast_to(every, maps.train.shape), shown * every, sign=sign, power=power)


def positive_where(maps: Maps, train: NDArray[Any], dev: NDArray[Any], *, sign: int = 1, power: int = 1) -> Values:
    """Return the same over pixels that count by film: `train` (N, s, s) and `dev` (M, s, s), bool or >= 0."""
    means = []
    for z, counted in ((maps.train, train), (maps.dev, dev)):
        heat = np.maximum(sign * z, np.float32(0.0)) ** power * counted
        pixels = np.maximum(counted.sum(axis=(1, 2), dtype=np.float64), 1e-9)
        means.append(heat.sum(axis=(1, 2), dtype=np.float64) / pixels)
    return Values(*means)


def combined(opacity: Values, deficit: Values, weight: float = SETTINGS.deficit_weight) -> Values:
    """Return the detector's score of two terms."""
    return opacity.scaled + deficit.scaled.times(weight)


def air_seen(look: Look, films: UInt8) -> Float32:
    """Return where normal films, uint8 (N, S, S), hold air, as a look sees it: float32 (side, side) in [0, 1]."""
    total, size = np.zeros((AIR.side, AIR.side)), films.shape[1]
    for film in films:
        total += AIR.see(film[None])[0]
    square, cut = resize(air_of((total / len(films)).astype(np.float32)), size), margin(look.crop, size)
    return resize(np.ascontiguousarray(square[cut : size - cut, cut : size - cut]), look.side)


def detector_scores(train: Films, dev: Films) -> Float32:
    """Fit the detector as shipped on train normals and return its scores of dev, float32 (M,)."""
    detector = Atlas(SETTINGS, size=DEFAULT.size).fit(ArraySource(train.images, train.groups))
    return detector.score(dev.images, inside=dev.inside, heatmaps=False).scores


def check_against(score: Float64, detector: Float32 | Float64) -> None:
    """Stop where what was put together here is not what the detector says.

    Raises:
        SystemExit: They differ by more than rounding.
    """
    if not np.allclose(score, detector, rtol=1e-3, atol=1e-3):
        off = np.abs(score - detector).max()
        raise SystemExit(f"not the detector's scores, off by up to {off:.4f}: remove what is kept in build/benchmarks")


def _blur(films: Float32, share: float) -> Float32:
    import cv2

    return np.stack([cv2.GaussianBlur(film, (0, 0), share * films.shape[-1]) for film in films])


def _local_contrast(films: Float32, shown: NDArray[np.bool_], share: float) -> Float32:
    weight = shown.astype(np.float32)
    total = np.maximum(_blur(weight, share), np.float32(1e-3))
    mean, square = (_blur(values * weight, share) / total for values in (films, films * films))
    return np.sqrt(np.maximum(square - mean * mean, np.float32(0.0)))


def _out_of_fold_by_films(films: Float32, folds: Int64, ranks: Sequence[int]) -> tuple[LowRank, dict[int, Float32]]:
    """As `out_of_fold`, by the products of films, which are fewer than the products of pixels above 32 px a side."""
    residuals = {rank: np.empty_like(films) for rank in ranks}
    for fold in range(int(folds.max()) + 1):
        own = folds == fold
        others = _low_rank_by_films(films[~own], max(ranks))
        for rank in ranks:
            residuals[rank][own] = others.residual(films[own], rank)
    return _low_rank_by_films(films, max(ranks)), residuals


def _low_rank_by_films(films: Float32, rank: int) -> LowRank:
    from scipy.linalg import eigh

    mean = films.mean(axis=0, dtype=np.float64)
    centred = films - mean
    last = len(films) - 1
    strength, vectors = eigh(centred @ centred.T, subset_by_index=[last - rank + 1, last])
    components = (vectors.T @ centred) / np.sqrt(strength)[:, None]
    return LowRank(mean.astype(np.float32), np.ascontiguousarray(components[::-1], dtype=np.float32))
