"""Films beside the twins that a trained run finds, and scores fitted on them: what the benchmarks of anogan compare.

A run is searched and scored as its recipe says now, whatever it said of that when the networks were trained. Reads the
detector's own parts, so that starts, twins and terms can be exchanged one at a time; `check` holds that put together
again they give what the detector gives.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from anogan_films import Films, films
from anogan_runs import Run
from numpy.typing import NDArray
from torch import Tensor

from anomaly.detectors.anogan.detector import AnoGan, _held_out
from anomaly.detectors.anogan.scoring.match import Match, join
from anomaly.detectors.anogan.scoring.scoring import Scoring
from anomaly.detectors.anogan.scoring.terms import TERMS
from anomaly.detectors.anogan.settings import AnoGanConfig
from anomaly.detectors.anogan.stages import Stages
from anomaly.records import Float32, Float64, Int64
from anomaly.runs import NullRecorder

CHUNKS = 4
"""That a search is timed on."""
PARTS = ("calibration", "fresh", "dev")


@dataclass(frozen=True, slots=True)
class Twins:
    """Films of one run beside their twins: of `held`, the normals that its networks did not see, and other parts."""

    held: Match
    groups: Int64
    parts: dict[str, Match]

    def scoring(self, config: AnoGanConfig, seed: int, **changes: Any) -> Scoring:
        """Return a score fitted on the held-out normals, as `AnoGan` fits it; `changes` are of the settings."""
        return fit_scoring(self.held, self.groups, config.model_copy(update=changes), seed)

    def score(self, scoring: Scoring, part: str = "dev") -> Float64:
        """Return the score of each film of a part, float64 (N,)."""
        return scoring.score(self.parts[part]).scores.astype(np.float64)


def fit_scoring(held: Match, groups: Int64, config: AnoGanConfig, seed: int) -> Scoring:
    """Fit a score on normals that the networks did not see."""
    return Scoring.fit(
        held,
        groups,
        weights=config.terms,
        settings=config.term_settings(),
        pooling=config.pooling,
        top_share=config.top_share,
        standardise=config.standardise,
        folds=config.folds,
        seed=seed,
    )


def all_terms(config: AnoGanConfig, *, head: bool) -> dict[str, float]:
    """Return the weights with every other term beside them at 0, `uncertainty` only where there is a variance head."""
    return {name: config.terms.get(name, 0.0) for name in TERMS if head or name != "uncertainty"}


def weighted(run: Run) -> dict[str, float]:
    """Return the terms that have a weight."""
    return {name: weight for name, weight in run.config.terms.items() if weight}


def networks(run: Run, *, encoder: bool = True, **changes: Any) -> AnoGan:
    """Return a run's detector with the recipe's settings as they are now; without the encoder it starts at z = 0."""
    detector = run.load()
    detector.config = run.config.model_copy(update=changes)
    detector.__dict__.pop("_fabric", None)  # it is of the precision that the networks were saved with
    if not encoder:
        detector._encoder = None
    return detector


def held_out(run: Run) -> Films:
    """Return the normals of the part `train` that a run's networks did not see."""
    own = films(run.data_set, "train", run.recipe)
    return own.of(_held_out(own.groups, run.config.holdout, run.seed))


def find(run: Run, detector: AnoGan, parts: tuple[str, ...] = PARTS) -> Twins:
    """Search for the twins of a run's held-out normals and of some other parts of its set."""
    held = held_out(run)
    whole = np.ones_like(held.inside)  # what `fit` is not told
    others = {name: films(run.data_set, name, run.recipe) for name in parts}
    return Twins(
        match(detector, held.images, whole),
        held.groups,
        {name: match(detector, own.images, own.inside) for name, own in others.items()},
    )


def match(detector: AnoGan, images: Float32, inside: NDArray[np.bool_], latents: Float32 | None = None) -> Match:
    """Put films beside their twins, in chunks of `score_batch`; the twins of `latents`, or of those it searches for."""
    batch, found = detector.config.score_batch, []
    for start in range(0, len(images), batch):
        count = min(batch, len(images) - start)
        rows = start + np.minimum(np.arange(batch), count - 1)
        z = detector._search(images[rows]) if latents is None else torch.from_numpy(latents[rows])
        found.append(_beside(detector, images[rows], inside[rows], z).of(np.arange(count)))
    return join(found)


@torch.no_grad()
def _beside(detector: AnoGan, images: Float32, inside: NDArray[np.bool_], z: Tensor) -> Match:
    twins = detector._generator(z)
    maps = [detector._discriminator.last_maps(pictures) for pictures in (torch.from_numpy(images), twins)]
    told = [tuple(level.numpy() for level in levels) for levels in maps]
    head = detector._head
    expected = None if head is None else head(detector._generator.hidden(z)).numpy()
    return Match(images, twins.numpy(), inside, told[0], told[1], expected)


def other_twins(found: Match, groups: Int64, draw: int = 0) -> Match:
    """Return each scan beside the twin of another patient's scan; each draw deals them otherwise.

    Raises:
        SystemExit: The patients are too few.
    """
    rng = np.random.default_rng(draw)
    for _ in range(1000):
        order = rng.permutation(len(found))
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        if not np.any(groups == groups[other]):
            return _exchanged(found, found.twin[other], tuple(level[other] for level in found.twin_features))
    raise SystemExit("no way was found to deal every scan another patient's twin: the patients are too few")


@torch.no_grad()
def mean_twins(detector: AnoGan, found: Match, mean: Float32) -> Match:
    """Return each scan beside the mean film, float32 (C, S, S)."""
    levels = detector._discriminator.last_maps(torch.from_numpy(mean[None]))
    features = tuple(np.repeat(level.numpy(), len(found), axis=0) for level in levels)
    return _exchanged(found, np.repeat(mean[None], len(found), axis=0), features)


def by_mean_film(run: Run, detector: AnoGan, twins: Twins) -> Twins:
    """Return the same films, each beside the mean film of the part `train`."""
    mean = films(run.data_set, "train", run.recipe).images.mean(axis=0)
    parts = {name: mean_twins(detector, found, mean) for name, found in twins.parts.items()}
    return Twins(mean_twins(detector, twins.held, mean), twins.groups, parts)


def expect(run: Run, detector: AnoGan) -> None:
    """Give a detector the variance head of the twins that it finds now, where its terms ask for one.

    The head of the training learned how far the twins of the search of that day miss.
    """
    own = films(run.data_set, "train", run.recipe)
    seen = ~_held_out(own.groups, run.config.holdout, run.seed)
    detector._head = detector._expect(own.images[seen], Stages(NullRecorder()))


def search_seconds(detector: AnoGan, images: Float32) -> dict[str, Any]:
    """Return what the search alone takes a scan: the median over some full chunks, after one to warm up."""
    batch = detector.config.score_batch
    chunks = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)][:CHUNKS]
    detector._search(chunks[0])
    taken = []
    for chunk in chunks:
        started = time.perf_counter()
        detector._search(chunk)
        taken.append((time.perf_counter() - started) / batch)
    return {"median": float(np.median(taken)), "repeats": taken, **where(detector)}


def where(detector: AnoGan) -> dict[str, Any]:
    """Return what a time depends on."""
    return {"threads": torch.get_num_threads(), "runs_on": detector.runs_on()}


def _exchanged(found: Match, twin: Float32, features: tuple[Float32, ...]) -> Match:
    return Match(found.scan, twin, found.inside, found.scan_features, features)


def check(run: Run, detector: AnoGan, twins: Twins, scoring: Scoring, count: int = 40) -> None:
    """Stop unless films scored in parts score as the detector scores them.

    Raises:
        SystemExit: They differ.
    """
    detector._scoring = scoring
    dev = films(run.data_set, "dev", run.recipe).of(np.arange(count))
    found = detector.score(dev.images, inside=dev.inside, heatmaps=False).scores
    if not np.array_equal(found.astype(np.float64), twins.score(scoring)[:count]):
        raise SystemExit("anogan_twins.py no longer scores as the detector does: mend it")


def standing(values: Float64, normals: Float64) -> Float64:
    """Return scores in standard deviations of normals' scores, from their mean."""
    return (values - normals.mean()) / normals.std()
