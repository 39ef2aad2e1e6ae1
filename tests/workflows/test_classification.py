"""Tables and pictures of a classifier's run: in files, in `evaluate`, on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from running import anomaly

from anomaly.errors import DataError
from anomaly.evaluate.classify import UnknownClassError
from anomaly.records import ResultRow
from anomaly.runs import read_json, write_json
from anomaly.workflows.classification import (
    CLASSIFICATION,
    CLASSIFIED,
    TABLES,
    classify,
    to_dict,
    to_markdown,
)
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.predictions import PREDICTIONS, write_predictions
from anomaly.workflows.results import read_scores

TWO = ("normal", "abnormal")
MANY = (
    "No Finding",
    "_under $\\frac score$",
    "Enlarged Cardiomediastinum with a very long name indeed | left",
    "Enlarged Cardiomediastinum with a very long name indeed | right",
    *(f"class {n}" for n in range(7)),
)


def a_run(out: Path, classes: Sequence[str] = TWO, *, n: int = 80, known: int | None = None) -> Path:
    """Write predictions of `n` scans, the first `known` of known class, and the receipt they go with."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % len(classes)
    chances = rng.dirichlet(np.ones(len(classes)), n)
    chances[np.arange(n), truth] += 0.4
    chances /= chances.sum(axis=1, keepdims=True)
    rows = [
        ResultRow(
            *(f"s{i:03}", f"s{i:03}.png", "scored", f"p{i // 2}" if i % 3 else None, None),
            classes[truth[i]] if known is None or i < known else None,
            float(chances[i, 1:].sum()),
            terms={f"P({name})": float(value) for name, value in zip(classes, chances[i], strict=True)},
        )
        for i in range(n)
    ]
    out.mkdir(exist_ok=True)
    write_predictions(out, rows, classes)
    write_json(out / "receipt.json", {"classes": list(classes), "cut": 0.4})
    return out


def as_classified(results: Path, names: Sequence[str] = TWO) -> Path:
    """Make a run of another method look like a classifier's: its scores as P(abnormal), labels as true classes."""
    rows = []
    for line in read_scores(results):
        chance = 0.0 if line.row.score is None else 1.0 - 1.0 / (1.0 + line.row.score)
        terms = {"P(normal)": 1.0 - chance, "P(abnormal)": chance}
        name = None if line.row.label is None else names[line.row.label]
        rows.append(ResultRow(line.row.scan_id, line.row.path, "scored", None, None, name, chance, terms=terms))
    write_predictions(results, rows, TWO)
    write_json(results / "receipt.json", {**read_json(results / "receipt.json"), "classes": list(TWO), "cut": None})
    return results


@pytest.mark.parametrize("classes", [TWO, ("NORMAL", "bacterial", "viral"), MANY], ids=len)
def test_files_and_what_is_returned_agree(classes: tuple[str, ...], tmp_path: Path) -> None:
    out = a_run(tmp_path / "out", classes, known=70)
    found = classify(out, n_boot=50)
    assert found is not None
    assert (found.table.n, found.without_class, found.table.classes) == (70, 10, classes)
    assert json.loads((out / CLASSIFICATION).read_text()) == json.loads(json.dumps(to_dict(found), allow_nan=False))
    assert (out / TABLES).read_text() == to_markdown(found) + "\n"
    assert all((out / name).is_file() for name in CLASSIFIED)
    before = [(out / name).read_bytes() for name in CLASSIFIED]
    assert classify(out, n_boot=50) == found
    assert [(out / name).read_bytes() for name in CLASSIFIED] == before


def test_the_tables_hold_the_numbers_and_the_baseline(tmp_path: Path) -> None:
    found = classify(a_run(tmp_path, MANY, known=77), n_boot=50)
    assert found is not None
    text = to_markdown(found)
    tables = [part.split("\n") for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for lines in tables:
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert f"| classifier | {found.table.accuracy:.3f} [" in text
    assert "| trivial baseline: always No Finding | 0.091 | 0.091 |" in text
    assert "| one half | 0.5 |" in text
    assert "| chosen on validation films | 0.4 |" in text
    assert r"very long name indeed \| left" in text
    assert text.endswith("3 scans of unknown class left out.")


def test_nothing_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    out = a_run(tmp_path, known=10)
    assert classify(out, n_boot=20) is not None
    a_run(out, known=0)
    assert classify(out) is None
    assert not any((out / name).exists() for name in CLASSIFIED)
    (out / PREDICTIONS).unlink()
    assert classify(out) is None


def test_one_class_alone_is_drawn_too(tmp_path: Path) -> None:
    found = classify(a_run(tmp_path, known=1), n_boot=20)
    assert found is not None
    assert found.table.macro_auroc is None
    assert all((tmp_path / name).is_file() for name in CLASSIFIED)
    assert "n/a" in (tmp_path / TABLES).read_text()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"classes": ["normal", "other"], "cut": None}, "different classes"),
        ({"classes": None, "cut": None}, "does not say which classes"),
        ({"classes": ["normal", "abnormal"], "cut": "high"}, "does not say which classes"),
        ({}, "does not say which classes"),
    ],
)
def test_a_receipt_of_something_else_is_refused(facts: dict[str, object], said: str, tmp_path: Path) -> None:
    write_json(a_run(tmp_path) / "receipt.json", facts)
    with pytest.raises(DataError, match=said):
        classify(tmp_path)


def test_classes_the_model_does_not_know_leave_no_old_table(tmp_path: Path) -> None:
    classify(a_run(tmp_path), n_boot=20)
    text = (tmp_path / PREDICTIONS).read_text()
    (tmp_path / PREDICTIONS).write_text(re.sub(r"^(s001,.*?),abnormal,", r"\1,hernia,", text, flags=re.MULTILINE))
    with pytest.raises(UnknownClassError, match=r"hernia; it knows normal, abnormal"):
        classify(tmp_path)
    assert not (tmp_path / CLASSIFICATION).exists()


def test_evaluate_prints_and_keeps_the_tables(results: Path) -> None:
    as_classified(results)
    ran = anomaly("evaluate", results)
    assert ran.code == 0, ran.err
    assert (results / TABLES).read_text().strip() in ran.out
    assert ran.out.index("AUROC") < ran.out.index("true \\ predicted")
    whole = json.loads(anomaly("evaluate", results, "--json").out)
    assert whole["classification"] == read_json(results / CLASSIFICATION)
    assert whole["classification"]["n"] == 48


def test_labels_from_a_file_leave_the_classes_as_they_were(results: Path, tmp_path: Path) -> None:
    as_classified(results)
    file = tmp_path / "labels.csv"
    lines = read_scores(results)
    file.write_text("scan_id,label\n" + "".join(f"{line.row.scan_id},{n % 2}\n" for n, line in enumerate(lines)))
    turned, found = evaluate(results, labels=file, n_boot=20), evaluate(results, n_boot=20)
    assert turned.rows != found.rows
    assert turned.classification == found.classification
    assert found.classification is not None


def test_evaluate_goes_on_without_tables_of_foreign_classes(results: Path) -> None:
    found = evaluate(as_classified(results, ("healthy", "tuberculosis")), n_boot=20)
    assert found.classification is None
    assert found.rows[0].auroc is not None
    assert "healthy, tuberculosis; it knows normal, abnormal" in " ".join(found.notes)
    assert read_json(results / "evaluation.json")["classification"] is None


def test_the_page_shows_classes_only_where_there_are_some(results: Path) -> None:
    assert anomaly("evaluate", results).code == 0
    assert anomaly("report", results, "--top", 0).code == 0
    assert "<h2>Classes</h2>" not in (results / "report.html").read_text(encoding="utf-8")
    as_classified(results)
    assert anomaly("evaluate", results).code == 0
    assert anomaly("report", results, "--top", 0).code == 0
    page = (results / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    part = page.split("<h2>Classes</h2>")[1].split("<h2>")[0]
    assert part.count('src="data:image/png;base64,') == 3
    assert "always normal" in part
    assert "against the rest" in part
    table = read_json(results / CLASSIFICATION)
    assert f"{table['accuracy']:.3f} [" in part
