from __future__ import annotations

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.evaluate.pixels import (
    FIGURES,
    FLAT,
    MAP,
    USUAL,
    aupro,
    best_dice,
    location_priors,
    pixel_average_precision,
    pixel_table,
)

Films = tuple[list[np.ndarray], list[np.ndarray]]


def films(seed: int, n: int = 6, side: int = 12, levels: int | None = None, lead: float = 1.0) -> Films:
    """Return maps and masks, the last half of them empty; with `levels` many pixels are tied."""
    rng = np.random.default_rng(seed)
    masks = []
    for film in range(n):
        mask = np.zeros((side, side), bool)
        for _ in range(0 if film >= (n + 1) // 2 else rng.integers(1, 4)):
            (y, x), (h, w) = rng.integers(0, side - 2, 2), rng.integers(1, side // 2, 2)
            mask[y : y + h, x : x + w] = True
        masks.append(mask)
    heats = [(rng.normal(size=mask.shape) + lead * mask).astype(np.float32) for mask in masks]
    return [np.round(heat * levels) / levels if levels else heat for heat in heats], masks


def curves(heats: list[np.ndarray], masks: list[np.ndarray]) -> np.ndarray:
    """Return precision, recall, Dice, false positive rate and mean overlap at every threshold, (T, 5), in a loop."""
    from scipy.ndimage import label

    heat, lesion = np.stack(heats), np.stack(masks).astype(bool)
    regions = []
    for film, mask in enumerate(masks):
        numbers, count = label(mask, structure=np.ones((3, 3)))
        for number in range(1, count + 1):
            region = np.zeros_like(lesion)
            region[film] = numbers == number
            regions.append(region)
    rows = []
    for threshold in np.unique(heat)[::-1]:
        hot = heat >= threshold
        hits = np.sum(hot & lesion)
        rows.append(
            [
                hits / hot.sum(),
                hits / lesion.sum(),
                2 * hits / (hot.sum() + lesion.sum()),
                np.mean(hot[~lesion]),
                np.mean([hot[region].mean() for region in regions]),
            ]
        )
    return np.array(rows)


def area(rate: np.ndarray, overlap: np.ndarray, limit: float) -> float:
    rate, overlap = np.append(0, rate), np.append(0, overlap)
    at = np.interp(limit, rate, overlap)
    kept = rate < limit
    return float(np.trapezoid(np.append(overlap[kept], at), np.append(rate[kept], limit)) / limit)


@pytest.mark.parametrize("levels", [None, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_a_loop_over_all_thresholds(seed: int, levels: int | None) -> None:
    heats, masks = films(seed, levels=levels)
    precision, recall, dice, rate, overlap = curves(heats, masks).T
    assert pixel_average_precision(heats, masks) == pytest.approx(np.diff(recall, prepend=0) @ precision, abs=1e-12)
    assert best_dice(heats, masks) == pytest.approx(dice.max(), abs=1e-12)
    for limit in (0.05, 0.3, 1.0):
        assert aupro(heats, masks, limit) == pytest.approx(area(rate, overlap, limit), abs=1e-12)


def test_a_map_that_is_the_mask_is_perfect_and_one_that_is_its_inverse_is_not() -> None:
    _, masks = films(0)
    heats = [mask.astype(np.float32) for mask in masks]
    assert pixel_average_precision(heats, masks) == best_dice(heats, masks) == 1.0
    assert aupro(heats, masks) == pytest.approx(1.0, abs=1e-12)
    assert aupro([1 - heat for heat in heats], masks) == 0.0


def test_a_flat_map_is_at_chance() -> None:
    _, masks = films(0)
    heats, share = [np.full(mask.shape, 3.0) for mask in masks], np.mean(masks)
    assert pixel_average_precision(heats, masks) == pytest.approx(share)
    assert best_dice(heats, masks) == pytest.approx(2 * share / (1 + share))
    assert aupro(heats, masks, 0.3) == pytest.approx(0.15)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0:4, 0:4] = mask[9, 9] = True
    heat = np.where(mask, 1.0, 0.5)
    assert aupro([heat], [mask]) == pytest.approx(1.0)
    heat[9, 9] = 0.0  # one of the two, though one pixel of seventeen
    assert aupro([heat], [mask]) == pytest.approx(0.5)
    mask[8, 8], mask[7, 7], mask[6, 6], mask[5, 5], mask[4, 4] = [True] * 5  # they touch at corners: one region
    assert aupro([np.where(mask, heat, 0.5)], [mask]) == pytest.approx(1 - 6 / 22, abs=0.1)


def test_hot_normal_films_cost_all_three() -> None:
    heats, masks = films(0, lead=2.0)
    for film in (-1, -2):
        assert not masks[film].any()
    warm = [*heats[:-2], heats[-2] + 3, heats[-1] + 3]
    for figure in (pixel_average_precision, best_dice, aupro):
        assert figure(warm, masks) < figure(heats, masks) - 0.05


def test_order_sizes_and_a_common_shift_do_not_matter() -> None:
    heats, masks = films(1)
    heats[0], masks[0] = heats[0][:9], masks[0][:9]
    for figure in (pixel_average_precision, best_dice, aupro):
        value = figure(heats, masks)
        assert figure(heats[::-1], masks[::-1]) == pytest.approx(value, abs=1e-12)
        assert figure([2 * heat for heat in heats], [mask.astype(np.uint8) for mask in masks]) == value


def test_the_prior_of_a_film_is_what_other_patients_have() -> None:
    masks = [np.zeros((4, 4), bool) for _ in range(5)]
    masks[0][0, 0] = masks[1][1, 1] = masks[2][2, 2] = True
    first, second, third, same, normal = location_priors(masks, ["a", "a", "b", "a", "c"])
    assert np.argwhere(first).tolist() == [[2, 2]]
    assert np.array_equal(first, second)
    assert np.argwhere(third).tolist() == [[0, 0], [1, 1]]
    assert np.array_equal(same, first), "a normal film of a patient with lesions does not see them"
    assert np.array_equal(normal, np.mean(masks[:3], axis=0).astype(np.float32))
    with pytest.raises(DataError, match="at least two patients"):
        location_priors(masks, ["a", "a", "a", "b", "c"])


def test_the_table_holds_the_figures_beside_the_prior_and_chance() -> None:
    heats, masks = films(3, n=40, side=20)
    rows = pixel_table(heats, masks, np.arange(40), n_boot=200)
    assert [(row.figure, row.name) for row in rows] == [(f, name) for f in FIGURES for name in (MAP, USUAL, FLAT)]
    values = {(row.figure, row.name): row for row in rows}
    priors = location_priors(masks, np.arange(40))
    flat = [np.zeros((20, 20)) for _ in masks]
    for figure, of in zip(FIGURES, (pixel_average_precision, best_dice, aupro), strict=True):
        for name, maps in ((MAP, heats), (USUAL, priors), (FLAT, flat)):
            assert values[figure, name].value == pytest.approx(of(maps, masks), abs=1e-12)
        for name in (MAP, USUAL):
            row = values[figure, name]
            assert row.interval is not None
            assert row.interval.low < row.value < row.interval.high
            assert row.interval.n_boot == 200
        assert values[figure, FLAT].interval is None
    again = pixel_table(heats, masks, np.arange(40), n_boot=200)
    assert again == rows


def test_films_of_one_patient_are_drawn_together() -> None:
    """Every film twice says no more than every film once, where both are of one patient."""
    heats, masks = films(4, n=20)
    once = pixel_table(heats, masks, np.arange(20), n_boot=300)[0].interval
    twice = pixel_table(heats * 2, masks * 2, np.tile(np.arange(20), 2), n_boot=300)[0].interval
    apart = pixel_table(heats * 2, masks * 2, np.arange(40), n_boot=300)[0].interval
    assert once is not None
    assert twice is not None
    assert apart is not None
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.05)
    assert apart.high - apart.low < 0.9 * (once.high - once.low)


def test_replicates_on_bins_are_those_of_all_pixels() -> None:
    """More distinct values than bins: the interval moves by little against one of maps that fit the bins."""
    heats, masks = films(5, n=24, side=40)
    fine = pixel_table(heats, masks, np.arange(24), n_boot=300)
    coarse = pixel_table([np.round(heat * 60) / 60 for heat in heats], masks, np.arange(24), n_boot=300)
    for one, other in zip(fine, coarse, strict=True):
        assert one.value == pytest.approx(other.value, abs=0.005)
        if one.interval is not None and other.interval is not None:
            assert one.interval.low == pytest.approx(other.interval.low, abs=0.006)
            assert one.interval.high == pytest.approx(other.interval.high, abs=0.006)


def test_with_one_patient_of_a_kind_there_are_figures_without_intervals() -> None:
    heats, masks = films(6, n=6)
    for groups in (["a", "b", "c", "n", "n", "n"], ["a", "b", "c", "a", "b", "c"]):
        rows = pixel_table(heats, masks, groups, n_boot=20)
        assert all(np.isfinite(row.value) for row in rows)
        assert (rows[0].interval is None) == (groups[3] == "n")
    assert pixel_table(heats[:3], masks[:3], ["a", "b", "c"])[0].interval is None, "no normal film"


def test_wrong_input_is_refused() -> None:
    heats, masks = films(0)
    wrong = {
        "5 maps and 6 masks": (heats[:5], masks),
        "map 0 .* on its mask's grid": ([heats[0][:5], *heats[1:]], masks),
        "map 1 .* must be finite": ([heats[0], heats[1] * np.nan, *heats[2:]], masks),
        "mask 0 .* of 0 and 1": (heats, [masks[0] * 2, *masks[1:]]),
        "no film has a lesion": (heats[3:], masks[3:]),
        "cover all films": (heats[:1], [np.ones_like(masks[0])]),
    }
    for said, given in wrong.items():
        for figure in (pixel_average_precision, best_dice, aupro):
            with pytest.raises(DataError, match=said):
                figure(*given)
    for limit in (0.0, 1.1):
        with pytest.raises(UsageError, match=r"must lie in \(0, 1\]"):
            aupro(heats, masks, limit)


@pytest.mark.slow
def test_aupro_is_anomalibs() -> None:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    for seed in range(20):
        heats, masks = films(seed, n=8, side=48, levels=(None, 50, 2, 1)[seed % 4])
        limit = (0.3, 0.1, 1.0)[seed % 3]
        metric = _AUPRO(fpr_limit=limit)
        metric.update(torch.from_numpy(np.stack(heats)), torch.from_numpy(np.stack(masks)).int())
        assert aupro(heats, masks, limit) == pytest.approx(float(metric.compute()), abs=1e-6)
