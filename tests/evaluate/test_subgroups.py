from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.evaluate.intervals import bootstrap
from anomaly.evaluate.metrics import auroc, auroc_of
from anomaly.evaluate.subgroups import AGE_BANDS, FEW_PATIENTS, age_bands, subgroup_aurocs

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1], [60, 40])
S = RNG.normal(size=100) + Y
PATIENTS = np.arange(100) // 2


def test_parts_of_the_films_each_by_itself() -> None:
    views: list[str | None] = ["PA" if i % 2 else "AP" for i in range(98)] + [None, None]
    rows = subgroup_aurocs(views, Y, S, PATIENTS, n_boot=100, seed=3)
    assert [row.value for row in rows] == ["AP", "PA"]
    for row in rows:
        films = np.array([view == row.value for view in views])
        assert (row.n_normal, row.n_abnormal, row.n_patients) == (30, 19, 49)
        assert row.auroc == auroc(Y[films], S[films])
        assert row.interval == bootstrap(auroc_of, Y[films], S[films], PATIENTS[films], n=100, seed=3)
        assert row.note is None


def test_kinds_of_abnormal_films_share_all_normals() -> None:
    kinds = ["normal"] * 60 + ["virus"] * 25 + ["bacteria"] * 15
    rows = subgroup_aurocs(kinds, Y, S, PATIENTS, kinds=True, n_boot=100)
    assert [(row.value, row.n_normal, row.n_abnormal) for row in rows] == [("bacteria", 60, 15), ("virus", 60, 25)]
    films = np.r_[:60, 85:100]
    assert rows[0].auroc == auroc(Y[films], S[films])
    # Pairs of all kinds together are the pairs of each.
    whole = sum((row.auroc or 0.0) * row.n_abnormal for row in rows) / 40
    assert whole == pytest.approx(auroc(Y, S), abs=1e-12)


def test_what_is_not_computable_is_a_row_that_says_so() -> None:
    values = ["well"] * 20 + ["both"] * 40 + ["both"] * 20 + ["ill"] * 20
    rows = {row.value: row for row in subgroup_aurocs(values, Y, S, PATIENTS, n_boot=20)}
    assert rows["both"].auroc is not None
    for value, said in (("well", "no abnormal labels"), ("ill", "no normal labels")):
        assert rows[value].auroc is rows[value].interval is None
        assert said in (rows[value].note or "")
    few = subgroup_aurocs(["a"] * 62 + ["b"] * 38, Y, S, PATIENTS, n_boot=20)[0]
    assert (few.n_normal, few.n_abnormal, few.auroc, few.note) == (60, 2, None, FEW_PATIENTS)


def test_no_values_no_rows_and_one_class_is_not_a_crash() -> None:
    assert subgroup_aurocs([None] * 100, Y, S, PATIENTS) == []
    rows = subgroup_aurocs(["x"] * 40, np.zeros(40), S[:40], PATIENTS[:40])
    assert [row.auroc for row in rows] == [None]
    assert subgroup_aurocs(["x"] * 40, np.zeros(40), S[:40], PATIENTS[:40], kinds=True) == []


def test_ages() -> None:
    told = {
        "0-17": ["0", "17", "017Y", "004M", "4 m", "215M", "002W", "010D", "17.9", "3 months"],
        "18-39": ["18", "018Y", "216M", "39 years"],
        "40-59": ["40", "59.9", "045Y", " 45 "],
        "60-79": ["60", "79y"],
        "80+": ["80", "103Y"],
    }
    assert tuple(told) == AGE_BANDS
    for band, ages in told.items():
        assert age_bands(ages) == [band] * len(ages), band
    unread = [None, "", "unknown", "60+", "-3", "411", "nan", "45-50", "1e3"]
    assert age_bands(unread) == [None] * len(unread)


def test_refuses() -> None:
    with pytest.raises(DataError, match="values"):
        subgroup_aurocs(["a"], Y, S, PATIENTS)
    with pytest.raises(DataError, match="labels"):
        subgroup_aurocs(["a", "b"], [0, 2], [1.0, 2.0], [0, 1])
    with pytest.raises(DataError, match="finite"):
        subgroup_aurocs(["a", "b"], [0, 1], [1.0, np.nan], [0, 1])
    with pytest.raises(DataError, match="groups"):
        subgroup_aurocs(["a", "b"], [0, 1], [1.0, 2.0], [0])
