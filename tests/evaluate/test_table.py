from __future__ import annotations

import json

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate import metrics
from anomaly.evaluate.intervals import bootstrap
from anomaly.evaluate.table import NO_INTERVAL, evaluate_scores, to_dicts, to_markdown

RNG = np.random.default_rng(0)
Y = np.arange(200) % 2
S = RNG.normal(size=200) + Y
DARK = RNG.normal(size=200) - 0.5 * Y
PATIENTS = np.array([f"p{i // 4}-{i % 2}" for i in range(200)])


def test_method_first_then_baselines_on_the_same_resamples() -> None:
    rows = evaluate_scores(Y, S, PATIENTS, baselines={"file_size": np.full(200, 7), "mean": DARK}, n_boot=200, seed=5)
    assert [row.name for row in rows] == ["score", "file_size", "mean"]
    assert [row.direction for row in rows] == ["higher", "higher", "lower"]
    method, flat, dark = rows
    assert (method.n_normal, method.n_abnormal, method.n_patients, method.prevalence) == (100, 100, 100, 0.5)
    assert method.auroc == metrics.auroc(Y, S)
    assert method.average_precision == metrics.average_precision(Y, S)
    assert method.sensitivity_at_95_specificity == metrics.sensitivity_at_specificity(Y, S)
    assert method.fpr_at_95_sensitivity == metrics.fpr_at_sensitivity(Y, S)
    assert method.f1_max_oracle == metrics.f1_max(Y, S)
    fpr = bootstrap(metrics.fpr_at_sensitivity_of, Y, S, PATIENTS, n=200, seed=5)
    assert method.fpr_at_95_sensitivity_interval == fpr
    assert method.auroc_interval == bootstrap(metrics.auroc_of, Y, S, PATIENTS, n=200, seed=5)
    assert dark.auroc_interval == bootstrap(metrics.auroc_of, Y, -DARK, PATIENTS, n=200, seed=5)
    assert dark.auroc == pytest.approx(1 - metrics.auroc(Y, DARK), abs=1e-12)
    assert flat.auroc == 0.5
    assert all(row.note is None for row in rows)


def test_a_method_that_points_the_wrong_way_is_not_turned_round() -> None:
    row = evaluate_scores(Y, -S, PATIENTS, n_boot=50)[0]
    assert row.auroc is not None
    assert row.auroc < 0.5
    assert row.direction == "higher"


@pytest.mark.parametrize(("label", "note"), [(0, "no abnormal labels"), (1, "no normal labels")])
def test_one_class_gives_rows_that_say_so(label: int, note: str) -> None:
    rows = evaluate_scores(np.full(200, label), S, PATIENTS, baselines={"mean": DARK})
    assert len(rows) == 2
    for row in rows:
        assert row.auroc is row.auroc_interval is row.average_precision is row.f1_max_oracle is row.direction is None
        assert row.note == f"not computable: {note}"
        assert row.n_normal + row.n_abnormal == 200
    assert f"not computable: {note}" in to_markdown(rows)


def test_one_patient_a_class_gives_numbers_without_intervals() -> None:
    row = evaluate_scores([0, 0, 0, 1, 1], [1, 2, 4, 3, 5], ["a", "b", "c", "x", "x"])[0]
    assert row.auroc == pytest.approx(5 / 6)
    assert row.auroc_interval is None
    assert row.note == NO_INTERVAL


def test_markdown_is_one_table_whatever_the_names() -> None:
    rows = evaluate_scores(Y, S, PATIENTS, baselines={"a|b\nc": DARK}, n_boot=20, name="anogan")
    lines = to_markdown(rows).split("\n")
    assert len(lines) == 4
    assert {line.replace(r"\|", "").count("|") for line in lines} == {13}
    assert lines[2].startswith("| anogan | 100 | 100 | 100 | 0.500 | 0.")
    assert r"| a\|b c |" in lines[3]
    assert "| FPR at 95 % sensitivity | F1-max (oracle) |" in lines[0]
    assert f"| {rows[0].f1_max_oracle:.3f} | higher |" in lines[2]


def test_dicts_go_to_json_and_back() -> None:
    rows = evaluate_scores(Y, S, PATIENTS, n_boot=20)
    back = json.loads(json.dumps(to_dicts(rows), allow_nan=False))[0]
    assert back["auroc"] == rows[0].auroc
    assert set(back["auroc_interval"]) == {"low", "high", "level", "n_boot"}


def test_inputs_are_left_alone_and_integers_are_fine() -> None:
    labels, size = Y.copy(), np.arange(200)[::-1].copy()
    evaluate_scores(labels, S, PATIENTS, baselines={"file_size": size}, n_boot=5)
    np.testing.assert_array_equal(labels, Y)
    np.testing.assert_array_equal(size, np.arange(200)[::-1])


def test_refuses() -> None:
    with pytest.raises(DataError, match="labels"):
        evaluate_scores([], [], [])
    with pytest.raises(DataError, match="labels"):
        evaluate_scores([0, 1, -1], [1.0, 2, 3], [0, 1, 2])
    with pytest.raises(DataError, match="score"):
        evaluate_scores([0, 1], [1.0, np.nan], [0, 1])
    with pytest.raises(DataError, match="mean"):
        evaluate_scores([0, 1], [1.0, 2.0], [0, 1], baselines={"mean": [1.0]})
    with pytest.raises(DataError, match="groups"):
        evaluate_scores([0, 1], [1.0, 2.0], [0])
