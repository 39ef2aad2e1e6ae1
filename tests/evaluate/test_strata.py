from __future__ import annotations

import cv2
import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.baselines import softness
from anomaly.evaluate.metrics import auroc
from anomaly.evaluate.strata import (
    equal_strata,
    residualised_auroc,
    stratified_auroc,
    stratified_difference,
)


def films(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a nuisance the abnormal films have more of, and an effect of the disease alone."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(int)
    return labels, rng.normal(labels * 1.2, 1.0), rng.normal(labels * 0.8, 1.0)


def by_hand(labels: np.ndarray, scores: np.ndarray, where: np.ndarray) -> float:
    won = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero((labels == 0) & (where == where[i])):
            won += float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j])
            pairs += 1
    return won / pairs


@pytest.mark.parametrize("strata", [1, 3, 5, 40])
@pytest.mark.parametrize("digits", [0, 8])
def test_it_counts_the_pairs_of_each_stratum(strata: int, digits: int) -> None:
    labels, nuisance, disease = films(150)
    scores = np.round(disease + nuisance, digits)  # at 0 digits full of ties
    nuisance = np.round(nuisance, 1)
    found = stratified_auroc(labels, scores, nuisance, np.arange(150), strata=strata, n_boot=20)
    where = equal_strata(nuisance, strata)
    assert found.auroc == pytest.approx(by_hand(labels, scores, where), abs=1e-12)
    assert found.dropped == sum(len(set(labels[where == k])) == 1 for k in set(where))
    assert sum(s.normal + s.abnormal for s in found.strata) == 150
    for stratum in found.strata:
        inside = (nuisance >= stratum.low) & (nuisance <= stratum.high)
        assert (inside.sum(), labels[inside].sum()) == (stratum.normal + stratum.abnormal, stratum.abnormal)
        both = stratum.normal and stratum.abnormal
        assert stratum.auroc == (pytest.approx(auroc(labels[inside], scores[inside])) if both else None)


def test_strata_are_equally_filled_and_keep_ties_together() -> None:
    assert np.bincount(equal_strata(np.arange(23.0), 5)).tolist() == [5, 4, 5, 4, 5]
    assert equal_strata(np.repeat([3.0, 1.0, 2.0], [2, 7, 1]), 5).tolist() == [4, 4, *[1] * 7, 3]
    assert set(equal_strata(np.full(9, 7.0), 5)) == {2}


def test_a_score_that_reads_the_nuisance_falls_to_chance_and_one_that_does_not_stays() -> None:
    labels, nuisance, disease = films(4000)
    patients = np.arange(4000)
    assert auroc(labels, nuisance) > 0.75
    shortcut = stratified_auroc(labels, nuisance, nuisance, patients, strata=100, n_boot=100)
    assert shortcut.interval.low < 0.5 < shortcut.interval.high + 0.02
    assert shortcut.leftover == max(shortcut.auroc, 1 - shortcut.auroc) == pytest.approx(0.5, abs=0.03)
    wide = stratified_auroc(labels, -nuisance, nuisance, patients, strata=3, n_boot=20)
    assert wide.leftover == pytest.approx(1 - wide.auroc)
    assert wide.leftover > 0.6
    honest = stratified_auroc(labels, disease, nuisance, patients, n_boot=100)
    assert honest.auroc == pytest.approx(auroc(labels, disease), abs=0.02)
    assert honest.interval.low < honest.auroc < honest.interval.high
    one = stratified_auroc(labels, disease, nuisance, patients, strata=1, n_boot=100)
    assert one.auroc == auroc(labels, disease)


def test_the_difference_is_taken_in_the_same_strata() -> None:
    labels, nuisance, disease = films(1200)
    patients = np.arange(1200) // 2
    found = stratified_difference(labels, disease, nuisance, nuisance, patients, n_boot=200)
    alone = [stratified_auroc(labels, s, nuisance, patients, n_boot=200) for s in (disease, nuisance)]
    assert found.difference == pytest.approx(alone[0].auroc - alone[1].auroc, abs=1e-12)
    assert found.interval.low > 0
    assert found.p_value < 0.02
    assert stratified_difference(labels, disease, disease, nuisance, patients, n_boot=50).difference == 0


def test_the_trend_of_normals_is_removed() -> None:
    labels, log_size, disease = films(3000)
    normals = np.random.default_rng(1).normal(0, 1, (2, 500))
    found = residualised_auroc(
        labels,
        disease - 2.0 * log_size,
        np.exp(log_size),
        np.arange(3000),
        normal_scores=3.0 + normals[0] - 2.0 * normals[1],
        normal_nuisance=np.exp(normals[1]),
        n_boot=50,
    )
    assert (found.slope, found.intercept) == (pytest.approx(-2, abs=0.15), pytest.approx(3, abs=0.15))
    assert auroc(labels, disease - 2.0 * log_size) < 0.4
    assert found.auroc == pytest.approx(auroc(labels, disease), abs=0.02)
    assert found.interval.low < found.auroc < found.interval.high


def test_a_byte_of_a_soft_film_holds_more() -> None:
    film = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    soft = np.clip(cv2.GaussianBlur(film, (0, 0), 1.0), 0, 1)
    assert softness(soft) > 1.5 * softness(film) > 0
    assert softness(film) == softness(film.copy())
    for bad in (film * 2, film * np.nan, film - 0.5, np.stack([film] * 3)):
        with pytest.raises(DataError, match="prepared image"):
            softness(bad)


def test_refuses() -> None:
    labels, nuisance, disease = films(40)
    patients = np.arange(40)
    with pytest.raises(UsageError, match="strata"):
        stratified_auroc(labels, disease, nuisance, patients, strata=0)
    with pytest.raises(DataError, match="no stratum"):
        stratified_auroc(labels, disease, labels, patients, strata=2)
    with pytest.raises(DataError, match="nuisance"):
        stratified_auroc(labels, disease, nuisance * np.nan, patients)
    with pytest.raises(DataError, match="logarithm"):
        residualised_auroc(labels, disease, nuisance, patients, normal_scores=disease, normal_nuisance=nuisance)
    with pytest.raises(DataError, match="three held-out normals"):
        residualised_auroc(
            labels, disease, np.exp(nuisance), patients, normal_scores=disease, normal_nuisance=np.ones(40)
        )


def test_strata_too_thin_to_be_resampled_say_so() -> None:
    """One pair in one stratum: most resamples of the patients miss one of the two films."""
    labels = np.array([0] * 20 + [1] * 20)
    nuisance = np.arange(40.0)
    with pytest.raises(DataError, match="use fewer strata"):
        stratified_auroc(labels, np.arange(40.0), nuisance, np.arange(40), strata=13, n_boot=50)


def test_of_several_columns_the_mean_is_told() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 40)
    scores = rng.normal(size=(80, 2)) + labels[:, None] * np.array([0.5, 1.5])
    nuisance, groups = rng.normal(size=80), np.arange(80)
    one, other = (stratified_auroc(labels, scores[:, k], nuisance, groups, n_boot=200) for k in range(2))
    both = stratified_auroc(labels, scores, nuisance, groups, n_boot=200)
    assert both.auroc == pytest.approx((one.auroc + other.auroc) / 2)
    assert both.interval.low < both.auroc < both.interval.high
    assert both.leftover == one.leftover
    with pytest.raises(DataError, match=r"\(N, K\)"):
        stratified_auroc(labels, scores[None], nuisance, groups)
