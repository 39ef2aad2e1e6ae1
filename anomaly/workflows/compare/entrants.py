"""Who takes part in a comparison: recipes, each fitted once a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.config import Recipe, load_recipe
from anomaly.errors import UsageError
from anomaly.registry import SUPERVISED
from anomaly.workflows.fit import resolve
from anomaly.workflows.models import recipe_times

_FILES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Cell:
    """One fit of a recipe, every setting written out; `name` is that of its folder."""

    entrant: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """Return the folder's name, which tells recipe and seed."""
        return f"{self.entrant.replace(':', '-')}-seed{self.recipe.seed}"

    @property
    def supervised(self) -> bool:
        """Whether it learns from labels."""
        return self.recipe.method in SUPERVISED


@dataclass(frozen=True, slots=True)
class Entrant:
    """A recipe by the name it was asked for, with a cell a seed."""

    name: str
    cells: tuple[Cell, ...]

    @property
    def supervised(self) -> bool:
        """Whether it learns from labels."""
        return self.cells[0].supervised

    def seconds(self, films: int, scans: int) -> float | None:
        """Estimate how long fitting on so many films and scoring so many scans takes, all seeds; None: not known.

        From what the recipe took in the committed comparison, on 2 cores. A training of a fixed number of steps takes
        as long whatever the number of films.
        """
        took = recipe_times().get(self.name)
        if took is None:
            return None
        share = 1.0 if "steps" in self.cells[0].recipe.detector else films / took["trained_on"]
        return len(self.cells) * (took["fit_seconds"] * share + took["seconds_per_image"] * scans)


def entrants(
    detectors: Sequence[str], *, seeds: int = 1, seed: int = 0, changes: Sequence[str] = ()
) -> tuple[Entrant, ...]:
    """Return the recipes to compare, all of their settings checked.

    Args:
        detectors: Names of recipes, or recipe files (.yaml), which go by their stem.
        seeds: Fits of each, with the seeds `seed`, `seed` + 1, …
        seed: The first.
        changes: `a.b=value` for all of them.

    Raises:
        UsageError: No recipe, one twice, one that does not exist or gives no score, or wrong settings.
    """
    if not detectors:
        raise UsageError("--detectors names no recipe; give some, such as --detectors anogan,atlas,padim.")
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {seeds}.")
    found: dict[str, Entrant] = {}
    for text in detectors:
        own = Path(text) if text.endswith(_FILES) else None
        name = text if own is None else own.stem
        if name in found:
            raise UsageError(f"--detectors names {name!r} twice.")
        cells = []
        for number in range(seed, seed + seeds):
            recipe = load_recipe(None if own else text, own, [*changes, f"seed={number}"])
            cells.append(Cell(name, resolve(recipe)[0]))
        found[name] = Entrant(name, tuple(cells))
    folders = [cell.name for entrant in found.values() for cell in entrant.cells]
    if len(set(folders)) < len(folders):
        raise UsageError("--detectors names recipes whose folders would have one name; rename a recipe file.")
    return tuple(found.values())
