"""scores.csv: ranks, ties, and reading back what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.errors import DataError
from anomaly.records import ResultRow
from anomaly.workflows.results import COLUMNS, flags, ranked, read_scores, write_scores

ODD = 'a "quoted", name;\nwith\ra line\r\nbreak \N{LUNGS} caf\udce9.png'


def scored(name: str, score: float, p: float = 0.5, **more: object) -> ResultRow:
    return ResultRow(name, f"{name}.png", "scored", score=score, p_value=p, **more)  # type: ignore[arg-type]


def failed(name: str) -> ResultRow:
    return ResultRow(name, f"{name}.png", "failed", error="is empty")


def test_worst_first_and_failed_last() -> None:
    rows = [failed("z"), scored("a", 1.0), scored("c", 3.0), scored("b", 3.0), failed("y"), scored("d", -1.0)]
    assert [(row.scan_id, rank) for row, rank in ranked(rows)] == [
        ("b", 1),
        ("c", 1),
        ("a", 3),
        ("d", 4),
        ("y", None),
        ("z", None),
    ]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [
        ResultRow("a", ODD, "scored", "0123", 1, None, 0.25, 0.05, ("one", "two"), None, {"x": 0.5, "y": 0.0}),
        scored("b", 0.125, label=0),
        failed("c"),
    ]
    write_scores(tmp_path, rows, alpha=0.05)
    lines = read_scores(tmp_path)
    assert [line.row for line in lines] == rows
    assert [(line.rank, line.flagged, line.heatmap) for line in lines] == [
        (1, True, None),
        (2, False, None),
        (None, None, None),
    ]
    first = (tmp_path / "scores.csv").read_bytes()
    assert first.splitlines()[0].decode() == ",".join((*COLUMNS, "x", "y"))
    write_scores(tmp_path, rows[::-1], alpha=0.05)
    assert (tmp_path / "scores.csv").read_bytes() == first


def test_no_rows_is_a_table_too(tmp_path: Path) -> None:
    write_scores(tmp_path, [], alpha=0.05)
    assert read_scores(tmp_path) == []


def test_flags_at_the_very_alpha() -> None:
    assert flags(1 / 20, 0.05)
    assert flags(3 / 30, 0.1)
    assert not flags(2 / 21, 0.05)


@pytest.mark.parametrize("text", ["", "a,b\n", ",".join(COLUMNS) + "\nonly one cell\n"])
def test_another_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(DataError, match=r"scores\.csv"):
        read_scores(tmp_path)
