"""`evaluate`: labels as found or as given, and what cannot be computed is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import anomaly, table

from anomaly.workflows.evaluate import EVALUATION, evaluate


def labels_file(results: Path, key: str, path: Path) -> Path:
    rows = table(results).values()
    path.write_text(f"{key},label\n" + "".join(f"{row[key]},{row['label']}\n" for row in rows))
    return path


def test_the_labels_of_the_folder_are_used(results: Path) -> None:
    ran = anomaly("evaluate", results)
    assert ran.code == 0
    assert "AUROC" in ran.out
    assert "40 normals" in ran.out
    assert (results / "evaluation.md").read_text().strip() in ran.out
    score, *trivial = json.loads((results / EVALUATION).read_text())["rows"]
    assert (score["name"], score["n_normal"], score["n_abnormal"]) == ("score", 40, 8)
    assert {"mean", "std", "file_size"} <= {row["name"] for row in trivial}


def test_json_is_all_there_is_on_stdout(results: Path) -> None:
    ran = anomaly("evaluate", results, "--json")
    assert json.loads(ran.out) == json.loads((results / EVALUATION).read_text())


@pytest.mark.parametrize("key", ["path", "scan_id"])
def test_labels_from_a_file_are_as_good_as_those_found(key: str, results: Path, tmp_path: Path) -> None:
    found = evaluate(results, n_boot=50)
    given = evaluate(results, labels=labels_file(results, key, tmp_path / "labels.csv"), n_boot=50)
    assert given == found


def test_scans_the_file_does_not_name_are_unknown(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    labels_file(results, "path", file)
    file.write_text("\n".join(file.read_text().splitlines()[:31]) + "\nelsewhere.png,1\n")
    assert evaluate(results, labels=file, n_boot=50).unknown == 18


def test_false_alarms_are_counted_at_alpha(results: Path) -> None:
    normals = [row for row in table(results).values() if row["label"] == "0"]
    for alpha in (0.05, 0.5, 1.0):
        alarms = evaluate(results, alpha=alpha, n_boot=50).alarms
        assert alarms is not None
        assert alarms["flagged"] == sum(float(row["p_value"]) <= alpha + 1e-9 for row in normals)
        assert alarms["low"] <= alarms["rate"] <= alarms["high"]


def test_without_labels_it_says_not_computable(few: Path, model: Path, tmp_path: Path) -> None:
    assert anomaly("score", few, "-m", model, "-o", tmp_path / "out").code == 0
    ran = anomaly("evaluate", tmp_path / "out")
    assert ran.code == 0
    assert "Not computable" in ran.out
    assert "--labels" in ran.out
    assert json.loads(anomaly("evaluate", tmp_path / "out", "--json").out)["rows"] == []


def test_one_class_alone_is_not_a_crash(phantoms: Path, model: Path, tmp_path: Path) -> None:
    args = ("-m", model, "-o", tmp_path / "out", "--panels", "none")
    assert anomaly("score", phantoms / "abnormal", *args).code == 0
    ran = anomaly("evaluate", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert "NaN" not in ran.out
    assert json.loads(ran.out)["rows"][0]["auroc"] is None
    assert anomaly("report", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "Cannot read"),
        ("", "needs the columns"),
        ("file,label\na,1\n", "needs the columns"),
        ("path\na\n", "needs the columns"),
        ("path,label\nnowhere.png,1\n", "nowhere.png"),
        ("path,label\nnowhere.png\n", "nowhere.png"),
        ("path,label\nnowhere.png,sick\n", "line 2: unknown label 'sick'"),
    ],
)
def test_a_wrong_label_file_is_refused(text: str | None, said: str, results: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    if text is not None:
        file.write_text(text)
    ran = anomaly("evaluate", results, "--labels", file)
    assert ran.code == 4
    assert said in ran.err
    assert "labels.csv" in ran.err
    assert "Errno" not in ran.err


def test_not_a_results_folder(tmp_path: Path, model: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", model):
        ran = anomaly("evaluate", folder)
        assert ran.code == 4
        assert "anomaly score" in ran.err


def test_a_damaged_table_is_refused(results: Path) -> None:
    text = (results / "scores.csv").read_text()
    for damaged in ("a,b\n1,2\n", text[: len(text) // 2], text.replace(",scored,", ",scored,x", 1)):
        (results / "scores.csv").write_text(damaged)
        ran = anomaly("evaluate", results)
        assert ran.code == 4, damaged[:80]
        assert "scores.csv" in ran.err
