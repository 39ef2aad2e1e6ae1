"""`evaluate`: labels as found or as given, and what cannot be computed is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import anomaly, table

from anomaly.calibrate import load_calibration
from anomaly.errors import DataError
from anomaly.evaluate.label_free import aucp
from anomaly.evaluate.metrics import auroc
from anomaly.evaluate.strata import stratified_auroc
from anomaly.runs import RECEIPT, read_json, write_json
from anomaly.workflows.evaluate import EVALUATION, evaluate
from anomaly.workflows.journal import JOURNAL, read_journal


def labels_file(results: Path, key: str, path: Path) -> Path:
    rows = table(results).values()
    path.write_text(f"{key},label\n" + "".join(f"{row[key]},{row['label']}\n" for row in rows))
    return path


def rewrite(results: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """Change every line of scores.csv."""
    rows = [change(row) for row in table(results).values()]
    with (results / "scores.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


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
        ("path,label\nnowhere.png,nan\n", "line 2: unknown label 'nan'"),
        ("path,label\n,1\n", "line 2: the path is empty"),
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


def test_films_of_like_softness_and_what_needs_no_label(results: Path) -> None:
    found = evaluate(results, n_boot=50)
    journal = read_journal(results)
    rows = list(table(results).values())
    truth = [int(row["label"]) for row in rows]
    own = [journal[row["scan_id"]] for row in rows]
    soft = stratified_auroc(
        truth,
        np.array([float(row["score"]) for row in rows]),
        [entry["trivial"]["softness"] for entry in own],
        [row["patient"] for row in rows],
        n_boot=50,
    )
    within = found.within_softness
    assert within is not None
    assert (within.auroc, within.low, within.high) == (soft.auroc, soft.interval.low, soft.interval.high)
    assert (within.leftover, within.dropped) == (soft.leftover, soft.dropped)
    held_out = load_calibration(results).scores
    assert found.label_free.aucp == aucp(held_out, [entry["score"] for entry in own])
    p_values = found.label_free.p_values
    assert p_values is not None
    assert (p_values.n, sum(p_values.counts), found.label_free.held_out) == (40, 40, 20)
    assert found.alarms is not None
    assert [one.flagged for one in p_values.flagged if one.alpha == 0.05] == [found.alarms["flagged"]]
    told = json.loads((results / EVALUATION).read_text())
    assert told["within_softness"]["leftover"] == within.leftover
    assert told["label_free"]["aucp"] == found.label_free.aucp
    text = (results / "evaluation.md").read_text()
    assert f"* AUROC among films of like softness: {within.auroc:.3f} [" in text
    assert f"AUCp: {found.label_free.aucp:.3f} (48 scans against 20 held-out normals)" in text
    assert anomaly("report", results, "--top", 1).code == 0
    page = (results / "report.html").read_text()
    for said in ("among films of like softness", "AUCp", "F1-max (oracle)", "40 normals flagged at alpha"):
        assert said in page


def test_subgroups_are_those_of_journal_and_manifest(results: Path) -> None:
    journal = read_journal(results)
    assert {entry["view"] for entry in journal.values()} == {"PA"}  # as the manifest says
    others = [entry | {"view": "AP"} for entry in journal.values() if entry["label"] == 0][:15]
    with (results / JOURNAL).open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in others)

    def know_more(row: dict[str, str]) -> dict[str, str]:
        number = int(row["path"].split("-")[1].split(".")[0])
        age = {0: "017Y", 1: "45", 2: "unknown"}[number % 3]
        return row | {"extra.Sex": "FM"[number % 2], "extra.Patient Age": age, "extra.ward": "A"}

    rewrite(results, know_more)
    found = evaluate(results, n_boot=50)
    assert list(found.subgroups) == ["class", "view", "sex", "age"]
    ap, pa = found.subgroups["view"]
    assert (ap.value, ap.n_normal, ap.n_abnormal, ap.auroc) == ("AP", 15, 0, None)
    assert "no abnormal labels" in (ap.note or "")
    assert (pa.value, pa.n_normal, pa.n_abnormal) == ("PA", 25, 8)
    kinds = {row.value: row for row in found.subgroups["class"]}
    rows = list(table(results).values())
    for kind, row in kinds.items():
        films = [r for r in rows if r["label"] == "0" or journal[r["scan_id"]]["class_name"] == kind]
        expected = auroc([int(r["label"]) for r in films], [float(r["score"]) for r in films])
        assert (row.n_normal, row.n_normal + row.n_abnormal, row.auroc) == (40, len(films), pytest.approx(expected))
    assert sum(row.n_normal + row.n_abnormal for row in found.subgroups["sex"]) == 48
    assert [row.value for row in found.subgroups["age"]] == ["0-17", "40-59"]
    assert f"| sex: F | {found.subgroups['sex'][0].n_normal} |" in (results / "evaluation.md").read_text()
    told = json.loads((results / EVALUATION).read_text())["subgroups"]
    assert {row["value"] for row in told["class"]} == set(kinds)
    assert anomaly("report", results, "--top", 1).code == 0
    assert "sex: F" in (results / "report.html").read_text()


def test_a_run_of_an_older_version_says_what_it_lacks(results: Path) -> None:
    entries = read_journal(results).values()
    for entry in entries:
        del entry["trivial"]["softness"], entry["view"]
    (results / JOURNAL).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (results / "calibration.safetensors").unlink()
    found = evaluate(results, n_boot=50)
    assert found.within_softness is found.label_free.aucp is None
    assert [note for note in found.notes if "softness" in note] == [
        "No AUROC among films of like softness: this run did not keep their softness; score again."
    ]


def test_labels_that_fit_no_scan_and_scans_without_label_are_listed(results: Path, tmp_path: Path) -> None:
    file = labels_file(results, "path", tmp_path / "labels.csv")
    lines = file.read_text().splitlines()
    gone = [line.split(",")[0] for line in lines[-7:]]
    file.write_text("\n".join([*lines[:-7], f"{gone[0]},", "a.png,1", "b.png,0", "a.png,1"]) + "\n")
    found = evaluate(results, labels=file, n_boot=50)
    assert "2 labels given are of scans that were not scored: a.png, b.png." in found.notes
    assert f"7 scored scans have no label (first: {', '.join(gone[:5])})." in found.notes
    assert "1 scans are labelled more than once, each time alike: a.png." in found.notes
    assert found.unknown == 7
    write_json(results / RECEIPT, read_json(results / RECEIPT) | {"hashed_paths": True})
    told = evaluate(results, labels=file, n_boot=50).notes
    assert "2 labels given are of scans that were not scored." in told
    assert not any(".png" in note or ".dcm" in note for note in told)


def test_two_labels_of_one_scan_are_refused(results: Path, tmp_path: Path) -> None:
    file = labels_file(results, "path", tmp_path / "labels.csv")
    path = next(row["path"] for row in table(results).values() if row["label"] == "0")
    line = file.read_text().splitlines().index(f"{path},0") + 1
    for other, said in (("1", "abnormal"), ("", "unknown")):
        labels = tmp_path / f"labels-{said}.csv"
        labels.write_text(file.read_text() + f"{path},{other}\n")
        with pytest.raises(DataError, match=f"'{path}' is normal on line {line} and {said} on line 50; remove one"):
            evaluate(results, labels=labels, n_boot=50)


@pytest.mark.parametrize(("label", "lacking"), [("0", "abnormal"), ("1", "normal")])
def test_labels_of_one_class_say_what_is_missing(label: str, lacking: str, results: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{path},{label}\n" for path in table(results)))
    ran = anomaly("evaluate", results, "--labels", file)
    assert ran.code == 0, ran.err
    assert f"no scan is labelled {lacking}" in ran.err
    assert f"not computable: no {lacking} labels" in ran.out
    found = json.loads((results / EVALUATION).read_text())
    assert found["within_softness"] is None
    assert found["subgroups"] == {}
    assert found["label_free"]["aucp"] is not None
    assert (found["false_alarms"] is None) == (found["label_free"]["p_values"] is None) == (label == "1")
    assert anomaly("report", results, "--top", 1).code == 0


def test_scores_that_are_all_equal_are_said_to_be(results: Path) -> None:
    rewrite(results, lambda row: row | {"score": "0.5"})
    ran = anomaly("evaluate", results)
    assert ran.code == 0, ran.err
    assert "All 48 scores are equal" in ran.err
    first = json.loads((results / EVALUATION).read_text())["rows"][0]
    assert (first["auroc"], first["auroc_interval"]["low"], first["auroc_interval"]["high"]) == (0.5, 0.5, 0.5)
    rewrite(results, lambda row: row | {"score": row["label"]})
    found = evaluate(results, n_boot=50)
    assert "Only 2 distinct scores among 48 scans: ties count one half." in found.notes
    assert found.rows[0].auroc == 1.0
    assert anomaly("report", results, "--top", 1).code == 0
