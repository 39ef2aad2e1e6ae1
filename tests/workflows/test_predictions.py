"""predictions.csv: what a classifier says of every scan, written and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly.errors import DataError
from anomaly.records import ResultRow
from anomaly.workflows.predictions import COLUMNS, PREDICTIONS, Prediction, read_predictions, write_predictions

CLASSES = ("normal", 'odd, "class"')
ODD = 'a "quoted", name;\nwith\ra line\r\nbreak \N{LUNGS} caf\udce9.png'


def row(scan_id: str, normal: float, class_name: str | None = None, path: str | None = None) -> ResultRow:
    terms = {"P(normal)": normal, 'P(odd, "class")': 1.0 - normal, "other": 3.0}
    return ResultRow(
        scan_id,
        path or f"{scan_id}.png",
        "scored",
        "0123" if class_name else None,
        None,
        class_name,
        1.0 - normal,
        terms=terms,
    )


def test_what_is_written_is_read_back_most_abnormal_first(tmp_path: Path) -> None:
    rows = [
        row("a", 0.75, "normal"),
        row("b", 0.25, path=ODD),
        ResultRow("c", "c.png", "failed", error="is empty"),
        row("d", 0.5, CLASSES[1]),
    ]
    write_predictions(tmp_path, rows, CLASSES)
    assert read_predictions(tmp_path) == [
        Prediction("b", ODD, None, None, CLASSES[1], {"normal": 0.25, CLASSES[1]: 0.75}),
        Prediction("d", "d.png", "0123", CLASSES[1], "normal", {"normal": 0.5, CLASSES[1]: 0.5}),
        Prediction("a", "a.png", "0123", "normal", "normal", {"normal": 0.75, CLASSES[1]: 0.25}),
    ]
    first = (tmp_path / PREDICTIONS).read_bytes()
    head = first.splitlines()[0].decode()
    assert head == ",".join((*COLUMNS, "P(normal)", '"P(odd, ""class"")"'))
    write_predictions(tmp_path, rows[::-1], CLASSES)
    assert (tmp_path / PREDICTIONS).read_bytes() == first


def test_no_scored_row_is_a_table_too(tmp_path: Path) -> None:
    write_predictions(tmp_path, [ResultRow("c", "c.png", "failed")], CLASSES)
    assert read_predictions(tmp_path) == []


def test_a_missing_table_says_where_to_get_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"predictions\.csv: give a folder that a classifier scored"):
            read_predictions(folder)


HEAD = ",".join((*COLUMNS, "P(a)", "P(b)"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "damaged"),
        ("a,b\n", "columns"),
        (",".join(COLUMNS) + "\n", "columns"),
        (f"{HEAD},more\n", "columns"),
        (f"{HEAD},P(a)\n", "columns"),
        (f"{HEAD}\nx,x.png,,,a,0.5,0.5", "cut short"),
        (f"{HEAD}\nx,x.png,,,a,0.5\n", "damaged"),
        (f"{HEAD}\nx,x.png\n", "damaged"),
        (f"{HEAD}\nx,x.png,,,a,0.5,0.5,0.5\n", "damaged"),
        (f"{HEAD}\nx,x.png,,,a,0.5,half\n", "damaged"),
        (f"{HEAD}\nx,x.png,,,a,0.5,nan\n", r"outside \[0, 1\]"),
        (f"{HEAD}\nx,x.png,,,a,-0.5,1.5\n", r"outside \[0, 1\]"),
        (f"{HEAD}\nx,x.png,,,c,0.5,0.5\n", "no column"),
    ],
)
def test_a_damaged_table_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / PREDICTIONS).write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_predictions(tmp_path)
    assert PREDICTIONS in str(caught.value)
