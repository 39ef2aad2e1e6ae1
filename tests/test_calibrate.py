"""Held-out normals -> p-values, thresholds and pixel quantiles."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from anomaly.calibrate import CALIBRATION, PIXEL_QUANTILES, Calibration, calibrate, film_keys, load_calibration
from anomaly.errors import DataError, ModelError
from anomaly.runs import read_tensors, write_tensors

ALPHAS = [0.001, 0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.29, 0.3, 0.5, 0.57, 0.9, 0.99, 1.0]


def of_scores(scores: np.ndarray) -> Calibration:
    return calibrate(np.asarray(scores, np.float32), np.ones((len(scores), 4, 4), np.float32))


def tied(n: int, seed: int) -> np.ndarray:
    """Scores with many ties, n of them."""
    return np.random.default_rng(seed).integers(0, max(2, n // 2), n) / 4


@pytest.mark.parametrize("n", [1, 2, 8, 19, 20, 99])
def test_p_value_is_the_share_of_normals_at_least_as_high_ties_included(n: int) -> None:
    held_out = tied(n, n)
    calibration = of_scores(held_out)
    for score in (*np.unique(held_out), -1.0, 0.1, 1e9):
        brute = (1 + sum(normal >= score for normal in held_out)) / (n + 1)
        assert calibration.p_value(float(score)) == brute


@pytest.mark.parametrize("n", [1, 2, 7, 8, 19, 20, 33, 99, 100, 199])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_flagged_is_exactly_score_above_threshold(n: int, alpha: float) -> None:
    calibration = of_scores(tied(n, n))
    threshold = calibration.threshold(alpha)
    for score in (*calibration.scores, -1.0, 0.1, 1e9):
        assert (calibration.p_value(score) <= alpha + 1e-12) == (score > threshold)


@pytest.mark.parametrize("n", [1, 8, 19, 99])
def test_nothing_is_flagged_below_the_smallest_alpha_and_something_can_be_at_it(n: int) -> None:
    calibration = of_scores(np.arange(n))
    smallest = calibration.smallest_alpha
    assert smallest == calibration.p_value(1e9) == 1 / (n + 1)
    assert calibration.threshold(0.999 * smallest) == np.inf
    assert calibration.threshold(smallest) == n - 1


def test_higher_scores_never_have_higher_p_values() -> None:
    calibration = of_scores(tied(50, 1))
    p = [calibration.p_value(score) for score in np.linspace(-1, 10, 200)]
    assert p == sorted(p, reverse=True)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("coarse", [False, True])
def test_fresh_normals_are_flagged_no_more_often_than_alpha(alpha: float, coarse: bool) -> None:
    """A new calibration set for every fresh normal, as the guarantee is over both."""
    rng = np.random.default_rng(7)
    trials, n = 2000, 39
    draws = rng.gamma(3.0, size=(trials, n + 1))
    draws = np.round(draws) if coarse else draws  # coarse: many ties, which may only make it stricter
    flagged = sum(of_scores(row[:n]).p_value(float(np.float32(row[n]))) <= alpha for row in draws)
    assert flagged <= binom.ppf(0.9999, trials, alpha)
    assert coarse or flagged >= binom.ppf(0.0001, trials, alpha), "and not much less: p-values are uniform"


def test_the_order_of_the_held_out_does_not_matter() -> None:
    scores = tied(20, 3)
    np.testing.assert_array_equal(of_scores(scores).scores, of_scores(scores[::-1]).scores)


def test_pixel_quantiles_are_those_of_all_maps_together() -> None:
    heatmaps = np.random.default_rng(0).random((6, 8, 8)).astype(np.float32)
    quantiles = calibrate(np.arange(6, dtype=np.float32), heatmaps).pixel_quantiles
    assert sorted(map(float, quantiles)) == sorted(PIXEL_QUANTILES)
    assert quantiles["0.5"] == pytest.approx(np.median(heatmaps), abs=1e-6)
    assert quantiles["1.0"] == heatmaps.max()


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    calibration = calibrate(tied(30, 2).astype(np.float32), np.random.default_rng(0).random((30, 4, 4), np.float32))
    calibration.save(tmp_path)
    loaded = load_calibration(tmp_path)
    np.testing.assert_array_equal(loaded.scores, calibration.scores)
    assert loaded.scores.dtype == np.float64
    assert loaded.pixel_quantiles == calibration.pixel_quantiles


def test_features_stay_with_their_scores_and_are_kept(tmp_path: Path) -> None:
    scores = np.array([3, 1, 2, 1], np.float32)
    calibration = calibrate(scores, np.ones((4, 4, 4), np.float32), np.stack([scores, scores**2], axis=1))
    calibration.save(tmp_path)
    features = load_calibration(tmp_path).features
    assert features is not None
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, [[1, 1], [1, 1], [2, 4], [3, 9]])
    of_scores(scores).save(tmp_path)
    assert load_calibration(tmp_path).features is None


def test_films_stay_with_their_scores_and_are_kept(tmp_path: Path) -> None:
    scores = np.array([3, 1, 2, 1], np.float32)
    hashes = [sha256(name.encode()).hexdigest() for name in "abcd"]
    keys = film_keys(hashes)
    assert keys.dtype == np.uint8
    assert [key.tobytes().hex() for key in keys] == [digest[:16] for digest in hashes]
    calibration = calibrate(scores, np.ones((4, 4, 4), np.float32), scans=keys)
    calibration.save(tmp_path)
    scans = load_calibration(tmp_path).scans
    assert scans is not None
    np.testing.assert_array_equal(scans, keys[[1, 3, 2, 0]])
    of_scores(scores).save(tmp_path)
    assert load_calibration(tmp_path).scans is None
    assert film_keys([]).shape == (0, 8)
    Calibration(calibration.scores, calibration.pixel_quantiles, None, keys[:3]).save(tmp_path)
    with pytest.raises(ModelError, match="other films"):
        load_calibration(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "no scores", "no quantiles", "no mapping"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    of_scores(tied(30, 2)).save(tmp_path)
    file = tmp_path / CALIBRATION
    arrays, meta = read_tensors(file)
    if damage == "missing":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "text":
        file.write_text("scores: 1, 2, 3\n" * 20)
    elif damage == "no scores":
        write_tensors(file, {"others": arrays["scores"]}, meta)
    elif damage == "no quantiles":
        write_tensors(file, arrays, {})
    else:
        write_tensors(file, arrays, {"pixel_quantiles": [1, 2]})
    with pytest.raises(ModelError):
        load_calibration(tmp_path)


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf, 0.0]])
def test_no_or_broken_held_out_normals_are_refused(scores: list[float]) -> None:
    with pytest.raises(DataError, match="held-out"):
        of_scores(np.array(scores))
