"""The trainings that the benchmarks of anogan read their figures off; each kept in build/benchmarks/anogan/runs.

A run is fitted to the part `train` of a set's normals (`anogan_films.py`) through `Detector.fit`, goes on from its last
checkpoint when interrupted, and is kept for as long as the recipe asks for the same networks: settings of search and
score may change after it, for they are fitted anew when it is measured (`anogan_twins.py`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anogan_films import FOLDER, films

from anomaly.config import Recipe, load_recipe
from anomaly.detectors.anogan.detector import AnoGan
from anomaly.detectors.anogan.settings import AnoGanConfig
from anomaly.detectors.base import WEIGHTS
from anomaly.errors import UsageError
from anomaly.prepare.source import ArraySource
from anomaly.runs import RunRecorder, read_json, write_json
from anomaly.workflows.progress import PlainTicker

log = logging.getLogger("anomaly")

SETS = ("kermany", "rsna")
CELLS: dict[str, tuple[str, ...]] = {
    "default": ("detector.terms.uncertainty=0",),
    "latent-8": ("detector.latent=8",),
    "latent-64": ("detector.latent=64",),
    "dcgan": ("detector.objective=dcgan",),
    "wgan-gp": ("detector.objective=wgan-gp", "detector.critic_steps=3"),
    "game-alone": ("detector.redraw=0",),
    "unregistered": ("prepare.register=none",),
    "no-clahe": ("prepare.clahe=false",),
    "untrained": ("detector.encoder_steps=0",),
}
"""What each cell changes of the recipe; the middle is cut out of unregistered films too, so that only registration
differs. The default trains a variance head besides, which the term `uncertainty` needs and nothing else takes note of.
`untrained` is no cell of the eight but a control beside them: it stops after ten steps, and shows what the score owes
to the training.
"""
PAPER = "anogan-2017"
"""The recipe of Schlegl et al. as published, a cell by its own name."""
SHORTER = {"wgan-gp": 0.29, "untrained": 0.0025}
"""Share of the steps that a cell takes: a step of wgan-gp costs so much more (processor time of 40 of each)."""
SCORING = (
    *("search_steps", "search_rate", "search_residual", "weight", "shell", "radius", "restarts", "patience"),
    *("tolerance", "slots", "terms", "residual_sigma", "components", "direction", "window", "floor"),
    *("exposure_limit", "pooling", "top_share", "standardise", "folds", "elsewhere", "precision", "score_batch"),
)
"""Settings that do not change the networks."""
_SAVE_EVERY = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Run:
    """One training: a cell on a set. `steps` cuts the recipe's, of every stage in proportion; None leaves them."""

    data_set: str
    cell: str
    seed: int = 0
    steps: int | None = None

    @classmethod
    def parse(cls, name: str, steps: int | None = None) -> Run:
        """Read "kermany-latent-8", "kermany-default-seed1" and the like.

        Raises:
            SystemExit: There is no such set or cell.
        """
        data_set, _, rest = name.partition("-")
        cell, _, seed = rest.partition("-seed")
        if data_set not in SETS or (cell not in CELLS and cell != PAPER) or not (seed or "0").isdigit():
            known = ", ".join([*CELLS, PAPER])
            raise SystemExit(f"{name} is no SET-CELL or SET-CELL-seedN; sets: {', '.join(SETS)}; cells: {known}")
        return cls(data_set, cell, int(seed or 0), steps)

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        cut = "" if self.steps is None else f"-steps{self.steps}"
        return FOLDER / "runs" / f"{self.data_set}-{self.cell}-seed{self.seed}{cut}"

    @property
    def weights(self) -> Path:
        """The file of the fitted detector."""
        return self.folder / "model" / WEIGHTS

    @property
    def recipe(self) -> Recipe:
        """The recipe, changed as the cell says."""
        name, changes = (PAPER, ()) if self.cell == PAPER else ("anogan", CELLS[self.cell])
        recipe = load_recipe(name, overrides=[*changes, f"seed={self.seed}"])
        full = recipe.detector["steps"]
        share = SHORTER.get(self.cell, 1.0)
        cut = 1.0 if self.steps is None else self.steps / full
        lasting = {"steps": max(1, round(share * cut * full))}
        lasting["encoder_steps"] = round(cut * recipe.detector["encoder_steps"])
        lasting["variance_steps"] = max(1, round(cut * recipe.detector["variance_steps"]))
        return recipe.model_copy(update={"detector": recipe.detector | lasting})

    @property
    def config(self) -> AnoGanConfig:
        """The detector's settings."""
        return AnoGanConfig.model_validate(self.recipe.detector)

    @property
    def trained(self) -> bool:
        """Whether there is a finished training with the networks that the recipe asks for now."""
        return self.weights.is_file() and self._networks() == self._told()["networks"]

    @property
    def failed(self) -> str | None:
        """Why the training stopped for good, if it did."""
        found = self._told().get("failed")
        return None if found is None else str(found)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds the training took, `wall` and `processor`."""
        return dict(self._told()["seconds"])

    @property
    def warnings(self) -> list[str]:
        """What the training warned of."""
        return list(self._told()["warnings"])

    def train(self) -> None:
        """Train, or go on, unless it is finished; a training that dies is told in its folder.

        Raises:
            SystemExit: The folder holds a training of other networks.
        """
        before = self._told()
        if before and before["networks"] != self._networks():
            raise SystemExit(f"{self.folder} was trained with other settings: remove it to train as the recipe is now")
        if self.trained:
            log.info("%s is trained already", self.folder.name)
            return
        source = self.normals()
        watch = _Clock(self.folder / "run.json", {"networks": self._networks()}, before)
        recipe = self.recipe
        detector = AnoGan(self.config, size=recipe.size, device="cpu", seed=recipe.seed)
        recorder = RunRecorder(self.folder, resume=True, on_progress=watch)
        watch.warned = recorder.warnings
        try:
            detector.fit(source, recorder=recorder)
        except UsageError as error:
            watch.save({"failed": str(error)})
            log.warning("%s: %s", self.folder.name, error)
            return
        recorder.flush()
        detector.save(self.folder / "model")
        watch.save({"trained_on": len(source)})
        log.info("%s: trained, seconds %s", self.folder.name, watch.seconds)

    def normals(self) -> ArraySource:
        """Return what it is fitted to."""
        own = films(self.data_set, "train", self.recipe)
        return ArraySource(own.images, own.groups)

    def load(self) -> AnoGan:
        """Load the fitted detector."""
        return AnoGan.load(self.folder / "model", device="cpu")

    def _told(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        return read_json(path) if path.is_file() else {}

    def _networks(self) -> dict[str, Any]:
        """Return every setting that the networks depend on, plain JSON."""
        recipe = self.recipe
        own = {key: value for key, value in self.config.model_dump(mode="json").items() if key not in SCORING}
        head = "uncertainty" in self.config.terms
        if self.config.precision != "auto":  # what every run here was trained at
            own["precision"] = self.config.precision
        prepare = recipe.prepare.model_dump(mode="json")
        return {"size": recipe.size, "seed": recipe.seed, "prepare": prepare, "detector": own, "variance_head": head}


@dataclass(slots=True)
class _Clock:
    """Shows progress and keeps, in a file, the seconds that a training took and its warnings, over all its legs."""

    path: Path
    facts: dict[str, Any]
    before: dict[str, Any]
    ticker: PlainTicker = field(default_factory=PlainTicker)
    started: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), time.process_time()))
    saved: float = 0.0
    warned: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> dict[str, float]:
        now = {"wall": time.monotonic() - self.started[0], "processor": time.process_time() - self.started[1]}
        before = self.before.get("seconds", {})
        return {key: round(value + before.get(key, 0.0), 1) for key, value in now.items()}

    @property
    def warnings(self) -> list[str]:
        # what was warned of after the last checkpoint is warned of again
        return list(dict.fromkeys([*self.before.get("warnings", ()), *self.warned]))

    def __call__(self, done: int, total: int, what: str) -> None:
        self.ticker(done, total, what)
        if time.monotonic() - self.saved > _SAVE_EVERY:
            self.save({})

    def save(self, more: dict[str, Any]) -> None:
        self.saved = time.monotonic()
        write_json(self.path, {**self.facts, "seconds": self.seconds, "warnings": self.warnings, **more})
