"""scores.csv: one row for every file that claims to be an image, worst first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import DataError
from anomaly.records import ResultRow
from anomaly.runs import write_table
from anomaly.workflows.journal import JOURNAL

SCORES = "scores.csv"
SCORED, FAILED = "scored", "failed"
EXTRA = "extra."
"""Before the name of a manifest's own column."""
COLUMNS = (
    "scan_id",
    "path",
    "patient",
    "label",
    "status",
    "score",
    "p_value",
    "rank",
    "flagged",
    "warnings",
    "error",
    "heatmap",
)


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A line of scores.csv as read back."""

    row: ResultRow
    rank: int | None
    flagged: bool | None
    heatmap: str | None


def flags(p_value: float, alpha: float) -> bool:
    """Return whether a p-value is flagged at `alpha` (the tolerance absorbs the last bit of k / (n + 1))."""
    return p_value <= alpha + 1e-12


def ranked(rows: Sequence[ResultRow]) -> list[tuple[ResultRow, int | None]]:
    """Return the rows worst first with their ranks; equal scores share a rank, failed rows come last without one."""
    scored = sorted((row for row in rows if row.score is not None), key=lambda row: (-(row.score or 0.0), row.scan_id))
    lines: list[tuple[ResultRow, int | None]] = []
    rank, previous = 0, None
    for place, row in enumerate(scored, start=1):
        if row.score != previous:
            rank, previous = place, row.score
        lines.append((row, rank))
    failed = sorted((row for row in rows if row.score is None), key=lambda row: row.path)
    return lines + [(row, None) for row in failed]


def write_scores(out: Path, rows: Sequence[ResultRow], *, alpha: float) -> None:
    """Write scores.csv. The same rows and pictures give the same bytes."""
    terms = list(dict.fromkeys(name for row in rows for name in row.terms))
    extra = list(dict.fromkeys(name for row in rows for name in row.extra))
    table: list[list[object]] = [[*COLUMNS, *terms, *(f"{EXTRA}{name}" for name in extra)]]
    for row, rank in ranked(rows):
        heatmap = f"heatmaps/{row.scan_id}.png"
        table.append(
            [
                row.scan_id,
                row.path,
                row.patient or "",
                "" if row.label is None else row.label,
                row.status,
                "" if row.score is None else f"{row.score:.9g}",
                "" if row.p_value is None else f"{row.p_value:.6g}",
                "" if rank is None else rank,
                "" if row.p_value is None else int(flags(row.p_value, alpha)),
                "; ".join(row.warnings),
                row.error or "",
                heatmap if (out / heatmap).is_file() else "",
                *(f"{row.terms[name]:.9g}" if name in row.terms else "" for name in terms),
                *(row.extra.get(name, "") for name in extra),
            ]
        )
    write_table(out / SCORES, table)


def read_scores(out: Path) -> list[ScoreLine]:
    """Read scores.csv back, in its order.

    Raises:
        DataError: Missing, or not written by `anomaly score`.
    """
    path = out / SCORES
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
            if not text.endswith("\n"):
                raise ValueError("its last line is cut short")
            table = csv.DictReader(io.StringIO(text, newline=""))
            if tuple(table.fieldnames or ())[: len(COLUMNS)] != COLUMNS:
                raise DataError(f"{path} is not a table of `anomaly score`: its columns are not the expected ones.")
            return [_line(record) for record in table]
    except OSError as error:
        begun = (out / JOURNAL).is_file()
        fix = "finish it with `anomaly score … --resume`" if begun else "give a folder written by `anomaly score`"
        raise DataError(f"{out} holds no {SCORES}: {fix}.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # the last two: lines with too few cells
        raise DataError(f"{path} is damaged ({error}): score again.") from error


def _line(record: dict[str, str]) -> ScoreLine:
    row = ResultRow(
        scan_id=record["scan_id"],
        path=record["path"],
        status=record["status"],
        patient=record["patient"] or None,
        label=int(record["label"]) if record["label"] else None,
        score=float(record["score"]) if record["score"] else None,
        p_value=float(record["p_value"]) if record["p_value"] else None,
        warnings=tuple(w for w in record["warnings"].split("; ") if w),
        error=record["error"] or None,
        terms={k: float(v) for k, v in record.items() if k not in COLUMNS and v and not k.startswith(EXTRA)},
        extra={k.removeprefix(EXTRA): v for k, v in record.items() if k.startswith(EXTRA) and v},
    )
    return ScoreLine(
        row,
        int(record["rank"]) if record["rank"] else None,
        bool(int(record["flagged"])) if record["flagged"] else None,
        record["heatmap"] or None,
    )
