"""Figures of the benchmarks of anogan, measured once for as long as nothing that they depend on has changed.

They are kept in build/benchmarks/anogan/parts beside what they depend on: the networks, the recipe, the films, the
sources that search, score and measure, and the models of others that they are compared with.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from anogan_films import FOLDER, film_files, films
from anogan_runs import Run
from common import ROOT

from anomaly.runs import read_json, sha256_of, write_json

SHARED = ("anogan_films", "anogan_runs", "anogan_twins", "anogan_cells", "pointing", "registered")
"""What every measurement goes through, beside the module that it stands in itself."""


def kept(name: str, run: Run, measure: Callable[[Run], Any], others: Iterable[Path] = ()) -> Any:
    """Return figures, measured unless that was done with all that they depend on as it is.

    Args:
        name: Of the figures.
        run: Finished.
        measure: Its source is among what they depend on.
        others: Files that it reads besides.
    """
    path = FOLDER / "parts" / f"{run.folder.name}-{name}.json"
    of = {
        "model": sha256_of(run.weights),
        "recipe": run.recipe.model_dump(mode="json"),
        "films": _films(run),
        "sources": sources(measure),
        "others": {str(other.relative_to(ROOT)): sha256_of(other) for other in others},
    }
    if path.is_file() and (told := read_json(path))["of"] == of:
        return told["figures"]
    figures = measure(run)
    write_json(path, {"of": of, "figures": figures})
    print(f"{run.folder.name}: {name} measured", flush=True)
    return figures


def sources(measure: Callable[[Run], Any]) -> str:
    """Return a hash of the sources that a measurement goes through."""
    files = [*(ROOT / "anomaly/detectors/anogan").rglob("*.py"), *(ROOT / "anomaly/nets").glob("*.py")]
    files += [ROOT / f"anomaly/detectors/{name}.py" for name in ("normality", "lungs")]
    files += [ROOT / "benchmarks" / f"{module}.py" for module in SHARED]
    told = hashlib.sha256()
    for file in sorted({*files, Path(inspect.getfile(measure)).resolve()}):
        told.update(f"{file.relative_to(ROOT).as_posix()} {sha256_of(file)}\n".encode())
    return told.hexdigest()


def _films(run: Run) -> dict[str, str]:
    for part in ("train", "dev"):
        films(run.data_set, part, run.recipe)  # there may be none yet
    return {file.name: sha256_of(file) for file in film_files(run.data_set, run.recipe)}
