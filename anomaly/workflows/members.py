"""The members of an ensemble: saved models found in a folder, and what their scores and maps say together.

A member's score becomes z = (score - mean) / sd of its held-out normals, and the ensemble's score is the mean of z.
Where the members have held-out normals in common, these give conformal p-values, as for one method; exact but for the
members' weights, 1 / sd, which fit the held-out normals a little better than a fresh one: of three members, 0.055 to
0.059 of fresh normals had p <= 0.05 with 19 in common, 0.050 to 0.053 with 99 (simulated). Where they have not,
p = min(1, 2 x the mean of the members' p-values): twice the mean of p-values is one, however these hang together
(Rüschendorf, *Random variables with maximum sums*, Adv. Appl. Probab. 14, 1982; Vovk & Wang, *Combining p-values via
averaging*, Biometrika 107, 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.calibrate import PIXEL_QUANTILES, Calibration
from anomaly.errors import ModelError, UsageError
from anomaly.prepare.geometry import on_shape, resize_geometry, to_film
from anomaly.records import Float64, UInt8
from anomaly.runs import owner, sha256_of
from anomaly.workflows.model import MODEL_JSON, find_model, load_model
from anomaly.workflows.panels import FILM_SIDE, Panel
from anomaly.workflows.results import COLUMNS, EXTRA

FEWEST_IN_COMMON = 16
_MAKERS = ("fit", "calibrate")
"""Commands that write run folders."""


@dataclass(frozen=True, slots=True)
class Member:
    """A saved model by the name of its folder; `mean` and `sd` are those of its held-out normals' scores."""

    name: str
    folder: Path
    method: str
    model_sha256: str
    scored_on: str
    alpha: float
    calibration: Calibration
    mean: float
    sd: float
    heat_range: tuple[float, float] | None = None
    """Of a method whose maps say next to nothing on normals: see `Detector.heat_range`."""

    def z(self, score: float) -> float:
        """Return a raw score as z."""
        return (score - self.mean) / self.sd

    @property
    def heat(self) -> float:
        """The heat that counts as 1 in the mean map: the 0.99 quantile of what maps say of held-out normals.

        Where a method's maps are 0 almost everywhere, the next higher quantile that is not; where the method gives its
        maps a scale of its own, the middle of that.
        """
        if self.heat_range is not None:
            return sum(self.heat_range) / 2.0
        levels = [self.calibration.pixel_quantiles.get(level, 0.0) for level in ("0.99", "0.999", "1.0")]
        return next((heat for heat in levels if heat > 0), 1.0)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members scored together.

    `calibration` holds the ensemble's score of the held-out normals that all members have in common, and no score where
    they are too few; `bound` then says why p-values are bounds and no conformal ones, and is None otherwise. Its pixel
    quantiles are the mean of the members', in units of `Member.heat`: those of the mean map where the members agree on
    which pixels are hot, mostly higher than those where they do not, so that colour is seldom given too soon.
    """

    members: tuple[Member, ...]
    calibration: Calibration
    bound: str | None

    @classmethod
    def of(cls, members: Sequence[Member]) -> Ensemble:
        """Put members together."""
        quantiles = {
            level: float(np.mean([member.calibration.pixel_quantiles[level] / member.heat for member in members]))
            for level in map(str, PIXEL_QUANTILES)
        }
        films, scores = _in_common(members)
        bound = None
        if len(films) < FEWEST_IN_COMMON:
            bound = _why_bound(members, len(films))
            films, scores = films[:0], scores[:0]
        means = np.array([_mean_z(members, row) for row in scores.tolist()], np.float64)
        order = np.argsort(means, kind="stable")
        return cls(tuple(members), Calibration(means[order], quantiles, None, films[order]), bound)

    def z(self, scores: Sequence[float]) -> dict[str, float]:
        """Return the z of each member, by name, given its raw score of one scan."""
        return {member.name: member.z(score) for member, score in zip(self.members, scores, strict=True)}

    def score(self, scores: Sequence[float]) -> float:
        """Return the mean of z of one scan, given the members' raw scores of it."""
        return _mean_z(self.members, scores)

    def p_value(self, scores: Sequence[float]) -> float:
        """Return the p-value of one scan, given the members' raw scores of it."""
        if self.bound is None:
            return self.calibration.p_value(self.score(scores))
        own = [member.calibration.p_value(score) for member, score in zip(self.members, scores, strict=True)]
        return min(1.0, 2.0 * float(np.mean(own)))

    @property
    def smallest_alpha(self) -> float:
        """The least p-value there can be; no smaller alpha can flag anything."""
        if self.bound is None:
            return self.calibration.smallest_alpha
        return min(1.0, 2.0 * float(np.mean([member.calibration.smallest_alpha for member in self.members])))

    @property
    def p_values(self) -> str:
        """What a p-value is, in words for the receipt and the report."""
        if self.bound is None:
            return (
                f"The p-value of a scan is the share of the {len(self.calibration.scores)} held-out normals that all "
                "members have in common whose mean z is at least as high (with one added to both counts). None of the "
                "members was trained on them."
            )
        return (
            "The p-value of a scan is twice the mean of the members' own p-values, at most 1: valid, but conservative. "
            f"{self.bound} So there is no one score above which scans are flagged, and no held-out normals are shown."
        )

    def panel(self, panels: Sequence[Panel]) -> Panel:
        """Return one panel of a scan from the members' panels of it, on a plain stretch of the film.

        Its heat is the mean over members of heat / `Member.heat`; the map of a term is what the member adds to that.
        """
        side = max(_side(panel) for panel in panels)
        square = (side, side)
        parts = {}
        for member, panel in zip(self.members, panels, strict=True):
            heat = to_film(panel.heatmap, on_shape(panel.geometry, square))
            parts[member.name] = heat / np.float32(member.heat * len(panels))
        film = panels[0].film
        heatmap = np.stack(list(parts.values())).sum(axis=0)
        return Panel(film, _stretched(film, side), None, heatmap, resize_geometry(film.shape[:2], side), parts)


def find_members(models: Path, *, device: str = "auto") -> list[Member]:
    """Return the models in the sub-folders of a folder, sorted by name; other sub-folders are passed over.

    Raises:
        ModelError: There is none, a run is not finished, a model cannot be used, or its normals all score alike.
        UsageError: There is one alone, one is called like a column of scores.csv, or one scores by plain squared error.
    """
    runs = []
    for folder in sorted(_folders(models), key=lambda folder: folder.name):
        try:
            find_model(folder)
        except ModelError:
            if owner(folder) in _MAKERS:
                command = owner(folder)
                finish = "--resume" if command == "fit" else "--overwrite"
                raise ModelError(
                    f"{folder} holds an unfinished run: finish it with `anomaly {command} … -o {folder} {finish}`, or "
                    f"move it out of {models}."
                ) from None
            continue
        runs.append(folder)
    if not runs:
        raise ModelError(f"{models} holds no model: give a folder whose sub-folders were written by `anomaly fit`.")
    if len(runs) < 2:
        raise UsageError(
            f"{models} holds one model ({runs[0].name}), and an ensemble takes 2 at least: fit another beside it, or "
            f"give the folder that holds your run folders; `anomaly score -m {runs[0]}` scores with one."
        )
    for folder in runs:
        if folder.name in COLUMNS or folder.name.startswith(EXTRA):
            raise UsageError(f"{folder} is called like a column of scores.csv, where members are columns: rename it.")
    return [_load(folder, device) for folder in runs]


def _folders(models: Path) -> list[Path]:
    try:
        return [path for path in models.iterdir() if path.is_dir()]
    except OSError as error:
        raise ModelError(
            f"Cannot look into {models}: {error.strerror}; give a folder whose sub-folders `anomaly fit` wrote."
        ) from error


def _load(folder: Path, device: str) -> Member:
    """Load a model to see that it can be scored with; only what is light of it is kept."""
    model = load_model(folder, device=device)
    if model.detector.raw_squared_error:
        raise UsageError(
            f"{folder} ({model.facts.method}) cannot be a member: its score is a plain squared error, which rib and "
            "diaphragm edges dominate: put among others with equal weight it lowers the AUROC (80 against 86 in the "
            "literature we follow, MedIAnomaly): leave it out, or fit it without that term."
        )
    scores = model.calibration.scores
    if np.ptp(scores) == 0:
        raise ModelError(
            f"{folder} cannot be a member: its {len(scores)} held-out normals all score {scores[0]:.4g}, and their "
            "spread is what scores are measured by: leave it out, or calibrate it on other normals."
        )
    return Member(
        name=folder.name,
        folder=folder,
        method=model.facts.method,
        model_sha256=sha256_of(find_model(folder) / MODEL_JSON),
        scored_on=model.detector.runs_on(),
        alpha=model.facts.alpha,
        calibration=model.calibration,
        mean=float(scores.mean()),
        sd=float(scores.std()),
        heat_range=model.detector.heat_range,
    )


def _mean_z(members: Sequence[Member], scores: Sequence[float]) -> float:
    return sum(member.z(score) for member, score in zip(members, scores, strict=True)) / len(members)


def _in_common(members: Sequence[Member]) -> tuple[UInt8, Float64]:
    """Return the held-out normals of all members, uint8 (n, 8), and each member's score of them, float64 (n, members).

    A film that a calibration holds twice counts once.
    """
    known = []
    for member in members:
        scans = member.calibration.scans
        keys = [] if scans is None else [key.tobytes() for key in scans]
        known.append(dict(zip(keys, member.calibration.scores.tolist(), strict=scans is not None)))
    films = sorted(set.intersection(*(set(scores) for scores in known)))
    which = np.frombuffer(b"".join(films), np.uint8).reshape(len(films), 8)
    scores = np.array([[scores[film] for scores in known] for film in films], np.float64)
    return which, scores.reshape(len(films), len(members))


def _why_bound(members: Sequence[Member], common: int) -> str:
    """Say why p-values are bounds."""
    old = [member.name for member in members if member.calibration.scans is None]
    if old:
        verb = "were" if len(old) > 1 else "was"
        return f"{', '.join(old)} {verb} calibrated by an older version, which did not keep which normals it held out."
    return f"The members have {common} held-out normals in common; p-values of their own take {FEWEST_IN_COMMON}."


def _side(panel: Panel) -> int:
    """Return how many pixels of a panel's map the film is across, at most 512: for a plain stretch, the map's size."""
    height, width = panel.geometry.film_shape
    across, down = np.linalg.norm(panel.geometry.matrix[:2, :2], axis=0).tolist()
    pixels: float = max(width / across, height / down)
    return min(FILM_SIDE, max(1, round(pixels)))


def _stretched(film: UInt8, side: int) -> UInt8:
    import cv2

    return np.asarray(cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)
