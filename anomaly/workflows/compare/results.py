"""What the cells of a comparison found, read back from their folders onto one common order of films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomaly.calibrate import Calibration, load_calibration
from anomaly.errors import DataError
from anomaly.records import Float64
from anomaly.workflows.compare.entrants import Cell
from anomaly.workflows.compare.roles import Film, same_scans
from anomaly.workflows.compare.work import OUT, Took, read_took
from anomaly.workflows.journal import read_journal
from anomaly.workflows.results import ScoreLine, read_scores


@dataclass(frozen=True, slots=True)
class Found:
    """A finished cell: float64 (N,) scores and p-values on the films of `Results`, and what it took."""

    cell: Cell
    out: Path
    scores: Float64
    p_values: Float64
    lines: tuple[ScoreLine, ...]
    calibration: Calibration
    took: Took


@dataclass(frozen=True, slots=True)
class Results:
    """All finished cells on the same N films, and `trivial` numbers of these films, float64 (N,) each."""

    films: tuple[Film, ...]
    cells: tuple[Found, ...]
    trivial: dict[str, Float64]
    unscored: tuple[Film, ...]
    """Test films that no cell could score."""


def read_results(films: Sequence[Film], cells: Sequence[tuple[Cell, Path]]) -> Results:
    """Read finished cells, each with its folder.

    Raises:
        DataError: They were scored on different scans, a score is not finite, or a table is damaged.
    """
    lines = {cell.name: _lines(folder / OUT) for cell, folder in cells}
    same_scans(films, {name: list(found) for name, found in lines.items()})
    common = [film for film in films if all(film.scan_id in found for found in lines.values())]
    found = []
    for cell, folder in cells:
        own = [lines[cell.name][film.scan_id] for film in common]
        journal = read_journal(folder / OUT)  # scores.csv rounds, and would break ties with the held-out normals
        scores = np.array([journal[film.scan_id]["score"] for film in common], np.float64)
        p_values = np.array([line.row.p_value for line in own], np.float64)
        if not np.isfinite(scores).all():
            raise DataError(f"{folder / OUT}: {np.sum(~np.isfinite(scores))} scores are not finite; fit it again.")
        calibration = load_calibration(folder / OUT)
        found.append(Found(cell, folder / OUT, scores, p_values, tuple(own), calibration, read_took(folder)))
    unscored = tuple(film for film in films if film not in common)
    return Results(tuple(common), tuple(found), _trivial(common, cells[0][1] / OUT), unscored)


def _lines(out: Path) -> dict[str, ScoreLine]:
    found: dict[str, ScoreLine] = {}
    for line in read_scores(out):
        if line.row.scan_id in found:
            raise DataError(f"{out} has two rows of {line.row.scan_id}: score again.")
        if line.row.score is not None:
            found[line.row.scan_id] = line
    return found


def _trivial(films: Sequence[Film], out: Path) -> dict[str, Float64]:
    """Return the trivial numbers of the films: of the file and its pixels, so any cell's journal has the same."""
    journal = read_journal(out)
    rows = [dict(journal[film.scan_id]["trivial"]) for film in films]
    return {name: np.array([row[name] for row in rows], np.float64) for name in (rows[0] if rows else ())}
