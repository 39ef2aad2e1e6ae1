"""The score terms of anogan: what each answers to, what each must not, and how they add up to score and map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from anomaly.detectors.anogan.scoring.match import Match, join
from anomaly.detectors.anogan.scoring.residual import _principal
from anomaly.detectors.anogan.scoring.scoring import Scoring
from anomaly.detectors.anogan.scoring.settings import TermSettings
from anomaly.detectors.anogan.scoring.terms import TERMS
from anomaly.detectors.normality import patient_folds
from anomaly.detectors.pooling import pool
from anomaly.records import Float32

SIZE = 32
SETTINGS = TermSettings(
    residual_sigma=0.06, components=3, direction="positive", window=0.08, floor=0.25, exposure_limit=2.5
)
Y, X = np.mgrid[:SIZE, :SIZE] / SIZE
CHEST = 0.4 * np.cos(2 * np.pi * X) + 0.2 * np.sin(20 * Y + 3 * X)
SYSTEMATIC = 0.5 * np.sin(7 * X + 1) * np.cos(5 * Y)
"""What the generator gets wrong on every film, more or less of it."""
LESION = np.exp(-((X - 0.3) ** 2 + (Y - 0.55) ** 2) / (2 * 0.08**2))
LEARNED = ("residual", "structure_deficit", "contrast_deficit", "features", "features_map")
LESION_TERMS = ("residual", "residual_pca", "l1", "l2", "ssim", "uncertainty")


def scans(n: int, seed: int, *, size: int = SIZE, exposed: float = 0.1, followed: float = 0.8) -> Match:
    """Return normal scans, textured and exposed each a little otherwise, and twins in need of statistics.

    `exposed`: how much scans differ in brightness; `followed`: how much of their exposure the twins have too.
    """
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Any:
        return rng.normal(size=(n, *shape))

    def textured() -> Any:
        return 0.3 * np.stack([cv2.GaussianBlur(film, (0, 0), 1.0) for film in drawn(size, size)])

    def sized(picture: Any) -> Any:
        return cv2.resize(picture, (size, size))

    level, gain, error = exposed * drawn(1, 1), 0.1 * drawn(1, 1), rng.uniform(-0.5, 0.5, size=(n, 1, 1))
    scan = (1 + gain) * (sized(CHEST) + textured()) + level
    twin = (1 + followed * gain) * (sized(CHEST) + textured()) + followed * level + error * sized(SYSTEMATIC)
    scales = np.array([0.01, 1.0, 1.0, 30.0])[:, None, None]
    fine, coarse = (tuple((drawn(4, s, s) * scales).astype(np.float32) for _ in range(2)) for s in (8, 4))
    return Match(
        np.clip(scan, -1, 1).astype(np.float32)[:, None],
        np.clip(twin, -1, 1).astype(np.float32)[:, None],
        np.ones((n, size, size), np.bool_),
        (fine[0], coarse[0]),
        (fine[1], coarse[1]),
        (0.5 * drawn(size, size) - 2).astype(np.float32),
    )


def with_film(match: Match, film: Any) -> Match:
    return replace(match, scan=np.clip(film, -1, 1).astype(np.float32))


def masked(match: Match) -> Match:
    """Return the match with the film's edge shown on some scans, differently on each kind."""
    inside = match.inside.copy()
    inside[::2, :5] = False
    inside[::3, :, -4:] = False
    return replace(match, inside=inside)


def values(name: str, normals: Match, match: Match, settings: TermSettings = SETTINGS) -> Float32:
    return pool(TERMS[name].fit(normals, settings).maps(match), match.inside, "mean", 0.1)


def fit(normals: Match, weights: dict[str, float], groups: Any = None, **changed: Any) -> Scoring:
    told: dict[str, Any] = {
        "settings": SETTINGS,
        "pooling": "mean",
        "top_share": 0.1,
        "standardise": True,
        "folds": 4,
        "seed": 0,
    }
    groups = np.arange(len(normals)) if groups is None else groups
    return Scoring.fit(normals, groups, weights=weights, **(told | changed))


NORMALS = scans(80, 0)
HELD_OUT = scans(20, 1)
ALL = dict.fromkeys(TERMS, 1.0)


@pytest.mark.parametrize("name", LESION_TERMS)
def test_an_opacity_is_seen_where_it_lies(name: str) -> None:
    term = TERMS[name].fit(NORMALS, SETTINGS)
    ill = with_film(HELD_OUT, HELD_OUT.scan + 0.8 * LESION)
    assert (values(name, NORMALS, ill) > values(name, NORMALS, HELD_OUT)).mean() >= 0.9
    more = (term.maps(ill) - term.maps(HELD_OUT)).mean(axis=0)
    assert LESION[np.unravel_index(more.argmax(), more.shape)] > 0.2  # what a window compares changes most at an edge
    assert more[LESION > 0.5].mean() > 5 * np.abs(more[LESION < 0.01]).mean()


@pytest.mark.parametrize("name", ["residual", "residual_pca"])
def test_a_direction_says_which_residuals_count(name: str) -> None:
    dark, bright = (with_film(HELD_OUT, HELD_OUT.scan + change * LESION) for change in (-0.8, 0.8))
    there, rises = LESION > 0.5, {}
    for direction in ("positive", "squared_positive", "absolute", "signed"):
        term = TERMS[name].fit(NORMALS, replace(SETTINGS, direction=direction))
        before = term.maps(HELD_OUT)
        rises[direction] = [float((term.maps(ill) - before)[:, there].mean()) for ill in (dark, bright)]
    assert rises["signed"][0] < -1.0
    for direction in ("positive", "squared_positive"):
        assert rises[direction][0] <= 0.0
    assert min(rises["absolute"][0], *(bright for _, bright in rises.values())) > 1.0


def test_a_blur_takes_out_what_lies_out_of_place_but_no_opacity() -> None:
    """Against a blur of 0, which is the residual as it stands."""
    ill, jagged = (with_film(HELD_OUT, HELD_OUT.scan + more) for more in (0.6 * LESION, 0.6 * (-1.0) ** (SIZE * X)))
    gains = []
    for sigma in (0.0, 0.06):
        settings = replace(SETTINGS, residual_sigma=sigma)
        before, *after = (values("residual", NORMALS, match, settings).mean() for match in (HELD_OUT, ill, jagged))
        gains.append([told - before for told in after])
    (opacity_plain, jagged_plain), (opacity, jagged_left) = gains
    assert opacity > 1.5 * opacity_plain
    assert jagged_left < 0.1 * jagged_plain


def test_components_take_the_systematic_error_out() -> None:
    worst = replace(HELD_OUT, twin=np.clip(HELD_OUT.twin - 0.8 * SYSTEMATIC, -1, 1).astype(np.float32))
    ill = with_film(HELD_OUT, HELD_OUT.scan + 0.5 * LESION)
    gains = {name: values(name, NORMALS, worst) - values(name, NORMALS, HELD_OUT) for name in TERMS}
    seen = {name: values(name, NORMALS, ill) - values(name, NORMALS, HELD_OUT) for name in TERMS}
    assert gains["residual"].mean() > seen["residual"].mean()
    assert gains["residual_pca"].mean() < 0.5 * seen["residual_pca"].mean()


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=["fewer films than pixels", "more films than pixels"])
def test_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    centred = (rng.normal(size=shape) * np.linspace(3, 1, shape[1])).astype(np.float32)
    wanted = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:4]
    found = _principal(centred, 4)
    np.testing.assert_allclose(found.T @ found, wanted.T @ wanted, atol=1e-5)
    assert abs(found[0] @ wanted[0]) > 0.999
    two = centred[:, :2] @ rng.normal(size=(2, shape[1]))
    np.testing.assert_allclose((_principal(two.astype(np.float32), 4) ** 2).sum(axis=1), [1, 1, 0, 0], atol=1e-4)


def test_structure_is_missed_where_a_scan_is_smooth() -> None:
    left = X < 0.5
    smooth = np.stack([cv2.GaussianBlur(film, (0, 0), 3.0) for film in HELD_OUT.scan[:, 0]])
    soft = with_film(HELD_OUT, np.where(left, smooth, HELD_OUT.scan[:, 0])[:, None])
    for name in ("structure_deficit", "contrast_deficit"):
        term = TERMS[name].fit(NORMALS, SETTINGS)
        more = (term.maps(soft) - term.maps(HELD_OUT)).mean(axis=0)
        assert more[X < 0.4].mean() > 1.0, name
        assert more[X > 0.8].mean() < 0.1, name


def test_more_structure_than_the_twin_is_no_deficit_and_contrast_alone_knows_no_twin() -> None:
    rich = with_film(HELD_OUT, 0.6 * HELD_OUT.scan + 0.3 * np.random.default_rng(3).normal(size=HELD_OUT.scan.shape))
    flat = replace(HELD_OUT, twin=0.2 * HELD_OUT.twin)
    for match in (rich, flat):
        told = values("structure_deficit", NORMALS, match)
        assert (told < values("structure_deficit", NORMALS, HELD_OUT)).all()
    assert (values("contrast_deficit", NORMALS, flat) == values("contrast_deficit", NORMALS, HELD_OUT)).all()


def test_ssim_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    match, window = scans(3, 5, size=64), 0.06
    told = TERMS["ssim"].fit(match, replace(SETTINGS, window=window)).maps(match)
    for row in range(3):
        _, known = structural_similarity(
            match.scan[row, 0] + 1,
            match.twin[row, 0] + 1,
            gaussian_weights=True,
            sigma=window * 64,
            use_sample_covariance=False,
            data_range=2.0,
            full=True,
        )
        np.testing.assert_allclose(told[row], 1 - known, atol=2e-5)


def test_contrast_structure_is_ssim_blind_to_brightness() -> None:
    brighter = replace(HELD_OUT, scan=0.5 * HELD_OUT.scan + 0.4, twin=0.5 * HELD_OUT.twin)
    level = replace(brighter, scan=brighter.scan - np.float32(0.4))
    told = values("contrast_structure", NORMALS, brighter)
    np.testing.assert_allclose(told, values("contrast_structure", NORMALS, level), atol=1e-5)
    assert (values("ssim", NORMALS, brighter) > values("ssim", NORMALS, level) + 0.03).all()
    unlike = replace(HELD_OUT, twin=-HELD_OUT.twin)
    assert values("contrast_structure", NORMALS, unlike).mean() > values("contrast_structure", NORMALS, HELD_OUT).mean()


@pytest.mark.parametrize("name", ["residual", "residual_pca"])
def test_a_film_is_compared_with_normals_exposed_like_it(name: str) -> None:
    """Twins are all exposed alike here, so that a brighter film differs from its twin, as other bright films did."""
    normals, usual = (scans(n, n, exposed=0.15, followed=0) for n in (80, 20))
    bright = with_film(usual, usual.scan + 0.25)
    settings = replace(SETTINGS, components=1)  # the generator's error: exposure is left in
    for limit, most in ((2.5, 0.25), (0.0, None)):
        told = [
            values(name, normals, match, replace(settings, exposure_limit=limit)).mean() for match in (usual, bright)
        ]
        if most is not None:
            assert told[1] < told[0] + most
        elif name == "residual":
            assert told[1] > told[0] + 0.5


@pytest.mark.parametrize("name", ["structure_deficit", "contrast_deficit"])
def test_a_flatter_exposure_is_no_deficit(name: str) -> None:
    rng = np.random.default_rng(8)
    normals = with_film(NORMALS, NORMALS.scan * rng.uniform(0.5, 1.0, size=(80, 1, 1, 1)))
    flat, usual = (with_film(HELD_OUT, HELD_OUT.scan * gain) for gain in (0.55, 0.75))
    rise = {
        limit: (
            values(name, normals, flat, replace(SETTINGS, exposure_limit=limit))
            - values(name, normals, usual, replace(SETTINGS, exposure_limit=limit))
        ).mean()
        for limit in (0.0, 2.5)
    }
    assert rise[0.0] > 0.3
    assert abs(rise[2.5]) < 0.5 * rise[0.0]


def test_features_count_in_their_own_variation() -> None:
    quiet, loud = (replace(HELD_OUT, scan_features=shifted) for shifted in (_shifted(0, 0.05), _shifted(3, 50.0)))
    for match in (quiet, loud):
        assert (values("features", NORMALS, match) > values("features", NORMALS, HELD_OUT) + 0.5).mean() >= 0.9
    pooled = [(m.scan_features[-1] - m.twin_features[-1]).mean(axis=(2, 3)) for m in (NORMALS, loud)]
    z = np.abs(pooled[1] - pooled[0].mean(axis=0)) / pooled[0].std(axis=0)
    np.testing.assert_allclose(values("features", NORMALS, masked(loud)), z.mean(axis=1), rtol=1e-4)
    raw = np.abs(loud.scan_features[-1] - loud.twin_features[-1]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(values("features_raw", NORMALS, loud), raw, rtol=1e-4)
    at_once = np.abs(quiet.scan_features[-1] - quiet.twin_features[-1])
    assert at_once[:, 0].mean() < 0.01 * at_once.mean()  # which the plain mean does not notice


def _shifted(channel: int, by: float) -> tuple[Float32, ...]:
    """Return the held-out scans' features with one channel of the coarsest moved at all places."""
    coarsest = HELD_OUT.scan_features[-1].copy()
    coarsest[:, channel] += by
    return (*HELD_OUT.scan_features[:-1], coarsest)


def test_maps_of_features_lie_where_features_differ() -> None:
    """Those in sigma notice the channel that hardly varies, the raw one the channel that varies most."""
    for name, side, channel, by in (
        ("features_map", 8, 0, 0.3),
        ("features", 4, 0, 0.3),
        ("features_raw", 4, 3, 100.0),
    ):
        fine, coarse = (level.copy() for level in HELD_OUT.scan_features)
        fine[:, channel, 2, 6] += by
        coarse[:, channel, 1, 3] += by
        match = replace(HELD_OUT, scan_features=(fine, coarse))
        heat = TERMS[name].fit(NORMALS, SETTINGS).maps(match).mean(axis=0)
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert (row * side // SIZE, column * side // SIZE) == {8: (2, 6), 4: (1, 3)}[side]


def test_how_features_lie_in_memory_does_not_matter() -> None:
    def channels_last(levels: tuple[Float32, ...]) -> tuple[Float32, ...]:
        return tuple(np.moveaxis(np.ascontiguousarray(np.moveaxis(level, 1, -1)), -1, 1) for level in levels)

    other = replace(
        HELD_OUT,
        scan_features=channels_last(HELD_OUT.scan_features),
        twin_features=channels_last(HELD_OUT.twin_features),
    )
    for name in ("features", "features_raw", "features_map"):
        term = TERMS[name].fit(NORMALS, SETTINGS)
        assert (term.maps(other) == term.maps(HELD_OUT)).all(), name


def test_a_head_that_expects_more_counts_less() -> None:
    assert HELD_OUT.log_variance is not None
    unsure = replace(HELD_OUT, log_variance=HELD_OUT.log_variance + np.float32(np.log(4)))
    ratio = values("uncertainty", NORMALS, unsure) / values("uncertainty", NORMALS, HELD_OUT)
    np.testing.assert_allclose(ratio, 0.25, rtol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_what_lies_outside_the_film_never_matters(name: str) -> None:
    def scrambled(match: Match) -> Match:
        rng = np.random.default_rng(9)
        noise = rng.uniform(-1, 1, size=(4, *match.inside.shape)).astype(np.float32)
        pictures = [np.where(match.inside, old, new) for old, new in zip(_greys(match), noise, strict=False)]
        return replace(match, scan=pictures[0][:, None], twin=pictures[1][:, None], log_variance=10 * pictures[2])

    def plain(match: Match) -> Match:
        greys = _greys(match)
        return replace(match, log_variance=10 * greys[2])

    normals, match = masked(NORMALS), masked(HELD_OUT)
    maps = TERMS[name].fit(plain(normals), SETTINGS).maps(plain(match))
    assert (TERMS[name].fit(scrambled(normals), SETTINGS).maps(scrambled(match)) == maps).all()
    assert not maps[~match.inside].any()
    assert maps[match.inside].any()


def _greys(match: Match) -> tuple[Float32, Float32, Float32]:
    assert match.log_variance is not None
    return match.scan[:, 0], match.twin[:, 0], match.log_variance


@pytest.mark.parametrize("name", ["residual", "residual_pca", "structure_deficit", "contrast_deficit"])
def test_normals_that_show_no_film_at_a_pixel_have_no_say_there(name: str) -> None:
    """A border that one film in five lacks is as normal as it was, and not a place of no contrast."""
    inside = NORMALS.inside.copy()
    inside[::5, :8] = False
    border = [TERMS[name].fit(n, SETTINGS).maps(HELD_OUT)[:, :6] for n in (NORMALS, replace(NORMALS, inside=inside))]
    assert border[1].mean() == pytest.approx(border[0].mean(), rel=0.12)
    assert np.corrcoef(border[0].ravel(), border[1].ravel())[0, 1] > 0.95
    inside[:, :4] = False
    assert not TERMS[name].fit(replace(NORMALS, inside=inside), SETTINGS).maps(HELD_OUT)[:, :4].any()  # nobody knows


def test_a_film_cut_short_is_as_normal_where_it_shows() -> None:
    """What the generator always gets wrong, and what it got wrong on this film, does not stand out at the cut."""
    normals, cut = (replace(m, twin=(0.7 * m.twin + 0.3).astype(np.float32)) for m in (NORMALS, HELD_OUT))
    term = TERMS["residual_pca"].fit(normals, replace(SETTINGS, direction="signed"))
    inside = cut.inside.copy()
    inside[:, 26:] = False
    whole, short = term.maps(cut)[:, :26], term.maps(replace(cut, inside=inside))[:, :26]
    assert np.abs(short - whole).mean() < 0.15


@pytest.mark.parametrize(
    ("pooling", "share", "wanted"),
    [("mean", 0.1, 4.5), ("top", 0.3, 8.0), ("top", 0.01, 9.0), ("top", 1.0, 4.5), ("max", 0.1, 9.0)],
)
def test_pooling_counts_pixels_inside_the_film(pooling: Any, share: float, wanted: float) -> None:
    heat = np.full((2, 4, 4), 100, np.float32)
    inside = np.zeros(heat.shape, np.bool_)
    inside[:, :2], inside[:, 2, :2] = True, True
    heat[inside] = np.tile(np.random.default_rng(0).permutation(10), 2)
    np.testing.assert_allclose(pool(heat, inside, pooling, share), [wanted, wanted])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pooling", ["mean", "top", "max"])
def test_one_scan_one_answer(channels: int, pooling: str) -> None:
    def coloured(match: Match) -> Match:
        tints = np.linspace(1, 0.8, channels, dtype=np.float32)[:, None, None]
        return replace(match, scan=match.scan * tints, twin=match.twin * tints)

    scoring = fit(coloured(NORMALS), ALL, pooling=pooling)
    match = masked(coloured(scans(7, 4)))
    whole = scoring.score(match)
    for index in (*(slice(n, n + 1) for n in range(7)), slice(6, None, -1), np.array([3, 3, 5])):
        part = scoring.score(match.of(index))
        assert (part.scores == whole.scores[index]).all()
        assert (part.heatmaps == whole.heatmaps[index]).all()
        for name in TERMS:
            assert (part.terms[name] == whole.terms[name][index]).all(), name
            assert (part.term_maps[name] == whole.term_maps[name][index]).all(), name


def test_answers_are_float32_and_maps_not_negative() -> None:
    scored = fit(NORMALS, ALL, settings=replace(SETTINGS, direction="signed")).score(HELD_OUT)
    arrays = [scored.scores, scored.heatmaps, *scored.terms.values(), *scored.term_maps.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert all(np.isfinite(array).all() for array in arrays)
    assert all(heat.min() >= 0 and heat.max() > 0 for heat in (scored.heatmaps, *scored.term_maps.values()))


def test_values_of_new_normals_have_mean_0_and_sd_1() -> None:
    """With few normals and many components, statistics of the films they were fitted to would be far off."""
    few, fresh = scans(60, 6), scans(120, 7)
    scoring = fit(few, ALL, settings=replace(SETTINGS, components=8), pooling="top")
    told = scoring.score(fresh).terms
    for name, (mean, sd) in zip(scoring.weights, scoring.scale, strict=True):
        z = (told[name] - mean) / sd
        assert abs(z.mean()) < 0.6, name
        assert 0.6 < z.std() < 1.5, name
    own = scoring.score(few).terms["residual_pca"]
    mean, sd = scoring.scale[list(scoring.weights).index("residual_pca")]
    assert ((own - mean) / sd).mean() < -0.6


@pytest.mark.parametrize("components", [1, 3, 8])
def test_a_sigma_is_that_of_other_normals_from_the_fewest_on(components: int) -> None:
    """Mean square of z over normals not fitted to is near 1, whatever was fitted to how few."""
    settings = replace(SETTINGS, components=components, direction="squared_positive", floor=0.0, exposure_limit=2.5)
    fresh, found = scans(60, 101), {}
    for name in ("residual", "residual_pca"):
        term = TERMS[name]
        for count in (term.least(settings), 200):
            maps = [
                term.fit(scans(count, seed), replace(settings, direction="absolute")).maps(fresh) for seed in range(4)
            ]
            found[name, count] = float(np.sqrt(np.median([np.square(heat).mean() for heat in maps])))
    assert all(0.8 < rms < 1.77 for rms in found.values()), found


def test_what_the_fewest_normals_are_is_told_before_fitting() -> None:
    for weights, least in (({"l1": 1.0}, 1), ({"l1": 1.0, "features": 0.0}, 8), ({"residual_pca": 1.0}, 12)):
        for folds, together in ((2, 2 * least), (4, -(-4 * least // 3))):
            told: dict[str, Any] = {"weights": weights, "settings": SETTINGS, "folds": folds}
            assert Scoring.least(standardise=False, **told) == least
            assert Scoring.least(standardise=True, **told) == together
            for count, accepted in ((together, True), (together - 1, least == 1 and together > 2)):
                groups = np.arange(count)
                if accepted:
                    Scoring.check(groups, standardise=True, seed=0, **told)
                else:
                    with pytest.raises(ValueError, match=r"too few|more patients"):
                        Scoring.check(groups, standardise=True, seed=0, **told)


def test_features_are_kept_only_for_terms_that_compare_them() -> None:
    without = replace(NORMALS, scan_features=(), twin_features=())
    weights = {name: 1.0 for name in TERMS if not TERMS[name].compares_features}
    np.testing.assert_array_equal(fit(without, weights).scale, fit(NORMALS, weights).scale)
    for name in set(TERMS) - set(weights):
        with pytest.raises(IndexError):
            fit(without, {name: 1.0})


def test_scales_are_of_patients_held_out_whole() -> None:
    groups = np.repeat(np.arange(40), 2)
    scoring = fit(NORMALS, {"residual_pca": 1.0}, groups, folds=2, seed=5)
    dealt = patient_folds(groups, 2, 5)
    held_out = np.empty(80, np.float32)
    for fold in range(2):
        own = dealt == fold
        held_out[own] = values("residual_pca", NORMALS.of(~own), NORMALS.of(own))
    np.testing.assert_allclose(scoring.scale, [[held_out.mean(), held_out.std()]], rtol=1e-5)


def test_score_and_map_are_sums_over_terms() -> None:
    weights = {"ssim": 0.5, "residual_pca": 2.0, "l2": 0.0}
    scoring = fit(NORMALS, weights)
    scored = scoring.score(masked(HELD_OUT))
    scale = dict(zip(scoring.weights, scoring.scale.astype(np.float64), strict=True))
    parts = {name: weights[name] * (scored.terms[name] - scale[name][0]) / scale[name][1] for name in weights}
    np.testing.assert_allclose(scored.scores, parts["ssim"] + parts["residual_pca"], rtol=1e-5)
    assert list(scored.term_maps) == ["residual_pca", "ssim"]
    np.testing.assert_array_equal(scored.heatmaps, scored.term_maps["residual_pca"] + scored.term_maps["ssim"])
    pooled = pool(scored.heatmaps, masked(HELD_OUT).inside, "mean", 0.1) * weights["residual_pca"]
    apart = scored.scores - pooled / scale["residual_pca"][1]
    np.testing.assert_allclose(apart, apart[0], atol=1e-3)  # the map is what the score pools, but for a constant
    assert "l2" in scored.terms
    assert (
        fit(NORMALS, {"ssim": 0.5, "residual_pca": 2.0}).score(HELD_OUT).scores == scoring.score(HELD_OUT).scores
    ).all()


def test_the_sum_of_2017() -> None:
    """Schlegl et al. 2017, eq. 7, with means for sums, and without a look at normals."""
    scoring = fit(NORMALS, {"l1": 0.9, "features_raw": 0.1}, np.zeros(80, np.int64), standardise=False)
    scored = scoring.score(HELD_OUT)
    residual = np.abs(HELD_OUT.scan - HELD_OUT.twin).mean(axis=(1, 2, 3))
    discrimination = np.abs(HELD_OUT.scan_features[-1] - HELD_OUT.twin_features[-1]).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(scored.scores, 0.9 * residual + 0.1 * discrimination, rtol=1e-5)
    np.testing.assert_allclose(scored.heatmaps.mean(axis=(1, 2)), scored.scores, rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "direction", "unit"),
    [
        ({"residual_pca": 1, "structure_deficit": 0.5, "l1": 0}, "positive", "σ"),
        ({"residual": 1, "contrast_deficit": 1, "features": 1, "features_map": 1}, "absolute", "σ"),
        ({"residual": 1}, "squared_positive", "σ²"),
        ({"residual": 1, "ssim": 0.1}, "positive", ""),
        ({"l1": 1}, "positive", ""),
    ],
)
def test_heat_has_a_unit_where_all_that_is_added_has(weights: dict[str, float], direction: Any, unit: str) -> None:
    settings = replace(SETTINGS, direction=direction)
    assert fit(NORMALS, weights, settings=settings, standardise=False).heat_unit == unit
    first = min(weights, key=list(TERMS).index)
    alone = fit(NORMALS, {first: 1.0}, settings=settings).heat_unit
    assert fit(NORMALS, weights, settings=settings).heat_unit == alone, "the others are scaled to the first"


def again(scoring: Scoring, arrays: Any, size: int = SIZE, **changed: Any) -> Scoring:
    told: dict[str, Any] = {"weights": scoring.weights, "settings": SETTINGS, "size": size}
    told |= {"pooling": scoring.pooling, "top_share": scoring.top_share, "standardise": scoring.standardise}
    return Scoring.from_arrays(arrays, **(told | changed))


def test_a_saved_scoring_scores_the_same() -> None:
    scoring = fit(NORMALS, ALL, pooling="top")
    arrays = scoring.to_arrays()
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    listed_otherwise = dict(reversed(scoring.weights.items()))
    one, two = scoring.score(HELD_OUT), again(scoring, arrays, weights=listed_otherwise).score(HELD_OUT)
    assert (one.scores == two.scores).all()
    assert (one.heatmaps == two.heatmaps).all()


@pytest.mark.parametrize(
    ("broken", "settings", "size", "message"),
    [
        ({"scale": np.zeros((3, 2), np.float32)}, SETTINGS, SIZE, "scale"),
        ({"residual_pca.mean": None}, SETTINGS, SIZE, "residual_pca: mean is missing"),
        ({"features.spread": np.zeros(5, np.float32)}, SETTINGS, SIZE, "features: spread"),
        ({"residual.exposure": np.zeros((2, 2))}, SETTINGS, SIZE, "residual: exposure is float64"),
        ({}, replace(SETTINGS, components=4), SIZE, "residual_pca: components"),
        ({}, SETTINGS, 64, "pixels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(broken: Any, settings: TermSettings, size: int, message: str) -> None:
    scoring = fit(NORMALS, ALL, standardise=False)
    arrays = {name: array for name, array in (scoring.to_arrays() | broken).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        again(scoring, arrays, size, settings=settings)


@pytest.mark.parametrize(
    ("normals", "weights", "groups", "message"),
    [
        (NORMALS, {"residual_pac": 1.0}, None, "did you mean 'residual_pca'"),
        (NORMALS, {"l1": -1.0, "l2": 1.0}, None, "weight of l1 is -1"),
        (NORMALS, {"l1": 0.0}, None, "nothing to score by"),
        (NORMALS, {"l1": 1.0}, np.zeros(80, np.int64), "more patients"),
        (
            NORMALS.of(slice(0, 15)),
            {"residual_pca": 1.0},
            None,
            "residual_pca .*at least 12 .* in turn; 11 are too few",
        ),
        *((NORMALS.of(slice(0, 10)), {name: 1.0}, None, f"{name} .*8 .*; 7 are too few") for name in LEARNED),
        (replace(NORMALS, twin=NORMALS.scan), {"l1": 1.0}, None, "l1 is the same for every"),
    ],
)
def test_what_cannot_be_fitted_is_refused(normals: Match, weights: Any, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(normals, weights, groups)


def test_a_missing_variance_head_is_missed_by_fit() -> None:
    with pytest.raises(ValueError, match="variance head"):
        fit(replace(NORMALS, log_variance=None), {"uncertainty": 1.0}, standardise=False)


def test_matches_come_apart_and_together() -> None:
    parts = [HELD_OUT.of(slice(0, 7)), HELD_OUT.of(np.arange(20) >= 7)]
    whole = join(parts)
    assert [len(part) for part in parts] == [7, 13]
    for name in ("scan", "twin", "inside", "log_variance"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(HELD_OUT, name))
    for name in ("scan_features", "twin_features"):
        for level, known in zip(getattr(whole, name), getattr(HELD_OUT, name), strict=True):
            np.testing.assert_array_equal(level, known)
    assert join([replace(part, log_variance=None) for part in parts]).log_variance is None
