"""The atlas: its components, its terms and their directions, where it looks, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from anomaly.config import validate
from anomaly.detectors.atlas.detector import Atlas, AtlasConfig
from anomaly.detectors.atlas.looks import AIR, Look, grey, put_back
from anomaly.detectors.atlas.page import TERMS
from anomaly.detectors.atlas.twin import LowRank, Moments, out_of_fold
from anomaly.detectors.base import WEIGHTS
from anomaly.detectors.normality import patient_folds
from anomaly.errors import DataError, MissingError, UsageError
from anomaly.prepare.source import ArraySource
from anomaly.records import DetectorOutput, Float32
from anomaly.scans.phantom import make_phantom

SIZE = 64
ONE_LOOK = {"crops": (0.8,), "tiles": (4,), "clips": (2.0,), "elsewhere": 1.0}
"""A single look whose map is shown undimmed, so that scores can be worked out from maps."""


@pytest.fixture(scope="module")
def films(phantom_images: Callable[..., Float32]) -> Float32:
    return phantom_images(60, SIZE)


@pytest.fixture(scope="module")
def atlas(films: Float32) -> Atlas:
    return fit(films[:40])


def fit(train: Float32, groups: Any = None, **settings: Any) -> Atlas:
    return Atlas(AtlasConfig(**{"side": 16, **settings}), size=SIZE).fit(ArraySource(train, groups))


def blob(strength: float, *, sigma: float = 0.06, at: tuple[float, float] = (0.35, 0.45)) -> Float32:
    """Return a smooth bump to add to films, float32 (SIZE, SIZE)."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    bump: Float32 = (strength * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))).astype(np.float32)
    return bump


def clipped(films: Float32) -> Float32:
    return np.clip(films, -1, 1).astype(np.float32)


def test_components_are_those_of_the_singular_value_decomposition(films: Float32) -> None:
    flat = films[:40, 0, 20:36, 20:36].reshape(40, -1)
    folds = np.arange(40) % 4
    moments = Moments(flat, folds)
    for without in (None, 2):
        kept = flat if without is None else flat[folds != without]
        centred = kept - kept.mean(axis=0)
        rebuilt = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:5]
        ours = moments.low_rank(5, without=without)
        np.testing.assert_allclose(ours.mean, kept.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(ours.components.T @ ours.components, rebuilt.T @ rebuilt, atol=1e-4)


def test_residuals_are_orthogonal_to_the_components_and_add_up_with_the_twin() -> None:
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.normal(size=(30, 4)))[0].T.astype(np.float32)
    low_rank = LowRank(rng.normal(size=30).astype(np.float32), components)
    films = rng.normal(size=(6, 30)).astype(np.float32)
    for rank in (2, 4):
        residual = low_rank.residual(films, rank)
        twin = low_rank.mean + low_rank.coordinates(films, rank) @ components[:rank]
        np.testing.assert_allclose(residual @ components[:rank].T, 0, atol=1e-5)
        np.testing.assert_allclose(twin + residual, films, atol=1e-5)


def test_a_film_has_no_part_in_its_own_out_of_fold_components(films: Float32) -> None:
    flat = films[:30, 0, ::4, ::4].reshape(30, -1)
    folds = np.arange(30) % 3
    _, residuals = out_of_fold(flat, folds, (2, 4))
    for fold in range(3):
        others = Moments(flat[folds != fold], np.zeros((folds != fold).sum(), np.int64)).low_rank(4)
        for rank in (2, 4):
            np.testing.assert_allclose(
                residuals[rank][folds == fold], others.residual(flat[folds == fold], rank), atol=1e-4
            )


def test_patients_are_dealt_whole_and_evenly() -> None:
    groups = np.repeat(np.arange(23), 3)
    folds = patient_folds(groups, 5, seed=3)
    assert {len(set(folds[groups == patient])) for patient in range(23)} == {1}
    assert np.ptp(np.bincount(folds)) <= 3
    assert (folds == patient_folds(groups, 5, seed=3)).all()
    assert (folds != patient_folds(groups, 5, seed=4)).any()


def test_two_films_of_one_patient_do_not_vouch_for_each_other(films: Float32) -> None:
    """Every film twice: as one patient's their residuals stay large, as two patients' they would rebuild each other."""
    twice = np.repeat(films[:20], 2, axis=0)
    apart = fit(twice, np.arange(40), components=(8,))
    together = fit(twice, np.repeat(np.arange(20), 2), components=(8,))
    spreads = [np.mean([page.blurs[0][-1].mean() for page in one._pages]) for one in (together, apart)]
    assert spreads[0] > 1.1 * spreads[1]


def directions(atlas: Atlas, films: Float32, changed: Float32) -> dict[str, float]:
    """Return for each term, and the score, in what share of films the change raised it."""
    before, after = atlas.score(films), atlas.score(changed)
    told = {term: float((after.terms[term] > before.terms[term]).mean()) for term in TERMS}
    return told | {"score": float((after.scores > before.scores).mean())}


def test_each_term_answers_its_own_change(atlas: Atlas, films: Float32) -> None:
    held_out = films[40:]
    brighter = directions(atlas, held_out, clipped(held_out + blob(0.8)))
    darker = directions(atlas, held_out, clipped(held_out - blob(0.8)))
    softer = directions(atlas, held_out, np.stack([cv2.GaussianBlur(f[0], (0, 0), 5.0)[None] for f in held_out]))
    assert brighter["opacity"] >= 0.9
    assert brighter["score"] >= 0.9
    assert darker["darker"] >= 0.9
    assert softer["deficit"] >= 0.9


def test_fine_texture_cancels_under_the_blur_and_a_diffuse_opacity_does_not(atlas: Atlas, films: Float32) -> None:
    held_out = films[40:]
    bump = blob(0.5)
    checks = (np.indices((SIZE, SIZE)).sum(axis=0) % 2 * 2 - 1).astype(np.float32)
    ripple = checks * np.sqrt((bump**2).mean())  # as much energy
    plain, diffuse, fine = (atlas.score(clipped(held_out + c)).terms["opacity"] for c in (0 * bump, bump, ripple))
    assert (diffuse > plain).mean() >= 0.8
    assert np.median(fine - plain) < 0.2 * np.median(diffuse - plain)


def by_hand(normals: Float32, settings: AtlasConfig) -> tuple[Any, Any]:
    """Work out mean and sd of each term over normals out of fold, without the page's own code: float64 (3,) each."""
    folds = patient_folds(np.arange(len(normals)), settings.folds, seed=0)
    told = []
    for number, (crop, tiles) in enumerate((c, t) for c in settings.crops for t in settings.tiles):
        clip = settings.clips[(number // 3 + number % 3) % 3]
        look = Look(crop, tiles, clip, settings.side)
        seen, cut = look.see(grey(normals)), round(SIZE * (1 - crop) / 2)
        middle = (normals[:, 0, cut : SIZE - cut, cut : SIZE - cut] + 1) / 2
        at = np.stack([middle.mean(axis=(1, 2)), middle.std(axis=(1, 2))], axis=1)
        at = np.clip((at - at.mean(axis=0)) / at.std(axis=0), -2.5, 2.5)
        _, residuals = out_of_fold(seen.reshape(len(seen), -1), folds, settings.components)
        soft = [blurred(residuals[rank].reshape(seen.shape), settings.sigma) for rank in settings.components]
        z = [by_others(values, at, folds, settings.floor) for values in soft]
        local = []
        for window in settings.windows:
            mean = blurred(seen, window)
            local.append(np.sqrt(np.maximum(blurred(seen**2, window) - mean**2, 0)))
        lack = [-by_others(values, at, folds, settings.floor) for values in local]
        maps = [np.mean([np.maximum(v, 0) for v in part], axis=0) for part in (z, lack, [-v for v in z])]
        told.append([part.mean(axis=(1, 2)) for part in maps])
    values = np.mean(told, axis=0)
    return values.mean(axis=1), values.std(axis=1)


def blurred(films: Float32, share: float) -> Float32:
    return np.stack([cv2.GaussianBlur(film, (0, 0), share * films.shape[-1]) for film in films])


def by_others(values: Float32, at: Any, folds: Any, floor: float) -> Float32:
    """Return z of each film by the line over exposure that the other folds' films follow."""
    z, design = np.empty_like(values), np.column_stack([np.ones(len(at)), at])
    for fold in np.unique(folds):
        own, flat = folds == fold, values.reshape(len(values), -1)
        line = np.linalg.lstsq(design[~own], flat[~own], rcond=None)[0]
        sd = (flat[~own] - design[~own] @ line).std(axis=0)
        z[own] = ((flat[own] - design[own] @ line) / (sd + floor * sd.mean())).reshape(values[own].shape)
    return z


def test_the_score_is_its_terms_in_the_spread_of_held_out_normals(films: Float32) -> None:
    weights = {"deficit_weight": 0.7, "darker_weight": 0.4}
    out = fit(films[:40], **weights).score(films[40:])
    one = fit(films[:40], deficit_weight=0.0).score(films[40:])
    looks, shares = AtlasConfig(side=16), np.array([1.0, 0.7, 0.4])
    mean, sd = by_hand(films[:40], looks)
    values = np.stack([out.terms[term] for term in TERMS])
    np.testing.assert_allclose(out.scores, (shares / sd) @ (values - mean[:, None]), atol=1e-3)
    assert np.corrcoef(one.scores, one.terms["opacity"])[0, 1] > 0.99999
    assert all((out.terms[term] == one.terms[term]).all() for term in TERMS)


def test_the_map_is_what_the_score_is_the_mean_of(films: Float32) -> None:
    """With one look, undimmed: the mean heat of the look's part of the square orders films as the score does.

    All but: at the edge of the look the map fades.
    """
    out = fit(films[:40], **ONE_LOOK, side=32).score(films[40:])
    assert out.heatmaps is not None
    cut = round(SIZE * 0.1)
    heat = out.heatmaps[:, cut : SIZE - cut, cut : SIZE - cut].mean(axis=(1, 2))
    assert np.corrcoef(heat, out.scores)[0, 1] > 0.95
    around = np.ones((SIZE, SIZE), np.bool_)
    around[cut : SIZE - cut, cut : SIZE - cut] = False
    assert not out.heatmaps[:, around].any(), "what no look shows has no heat"
    assert set(out.terms) == set(TERMS)
    assert set(out.term_maps) == {"opacity", "deficit"}, "darker has no part in the score by default"
    np.testing.assert_allclose(sum(out.term_maps.values()), out.heatmaps, atol=1e-5)


def test_elsewhere_dims_the_map_but_not_the_score(films: Float32) -> None:
    dim, full = (fit(films[:40], elsewhere=share).score(films[40:]) for share in (0.0, 1.0))
    assert dim.heatmaps is not None
    assert full.heatmaps is not None
    np.testing.assert_array_equal(dim.scores, full.scores)
    assert (dim.heatmaps <= full.heatmaps + 1e-6).all()
    assert dim.heatmaps.mean() < 0.7 * full.heatmaps.mean()


def test_what_lies_outside_the_film_counts_for_nothing(atlas: Atlas, films: Float32) -> None:
    """A quarter of the square that is no film, bright as the densest opacity, next to the same taken for film."""
    held_out, inside = films[40:].copy(), np.ones((20, SIZE, SIZE), np.bool_)
    inside[:, :, : SIZE // 4] = False
    held_out[:, :, :, : SIZE // 4] = 1.0
    masked, taken = atlas.score(held_out, inside=inside), atlas.score(held_out)
    assert masked.heatmaps is not None
    assert not masked.heatmaps[~inside].any()
    assert np.median(masked.terms["opacity"]) < 0.7 * np.median(taken.terms["opacity"])


def test_no_heat_comes_from_a_border_that_repeats_itself_outside_the_film(films: Float32) -> None:
    """The residual outside is nothing before it is blurred, so it does not bleed back over the film's edge."""
    one = fit(films[:40], **ONE_LOOK, deficit_weight=0.0)
    inside = np.ones((20, SIZE, SIZE), np.bool_)
    inside[:, :, : SIZE // 4] = False
    held_out = np.where(inside[:, None], films[40:], np.float32(1.0))
    rim = np.zeros((SIZE, SIZE), np.bool_)
    rim[:, SIZE // 4 : SIZE // 4 + 4] = True
    masked, taken = one.score(held_out, inside=inside).heatmaps, one.score(held_out).heatmaps
    assert masked is not None
    assert taken is not None
    assert np.median(masked[:, rim].mean(axis=1)) < 0.7 * np.median(taken[:, rim].mean(axis=1))


def test_an_image_without_film_in_its_middle_is_refused(atlas: Atlas, films: Float32) -> None:
    inside = np.ones((2, SIZE, SIZE), np.bool_)
    inside[1] = False
    inside[1, :3, :3] = True
    with pytest.raises(DataError, match="no film in its middle"):
        atlas.score(films[40:42], inside=inside)


def test_features_place_a_film_by_its_strongest_components(atlas: Atlas, films: Float32) -> None:
    out = atlas.score(films[40:])
    assert out.features is not None
    assert out.features.shape == (20, 8)
    assert (np.diff(atlas.score(films[:40]).features.std(axis=0)) < 0).all()
    few, one = (fit(films[:40], components=ranks).score(films[40:]).features for ranks in ((2, 3), (1,)))
    np.testing.assert_allclose(np.abs(few), np.abs(out.features[:, :3]), atol=1e-3)
    assert one is None


def test_where_no_air_is_found_nothing_is_dimmed(films: Float32) -> None:
    flat = np.clip(films * 0.02, -1, 1).astype(np.float32)  # CLAHE cannot make basins of this
    slope = np.linspace(-0.8, 0.8, SIZE, dtype=np.float32)
    one, full = (fit(flat[:40] + slope, elsewhere=share) for share in (0.2, 1.0))
    assert not one._air.any()
    out, same = one.score(flat[40:] + slope), full.score(flat[40:] + slope)
    assert out.heatmaps is not None
    np.testing.assert_array_equal(out.heatmaps, same.heatmaps)
    assert one.mapped().mean() > 0.5


def test_maps_speak_of_the_lungs(atlas: Atlas) -> None:
    seen = atlas.mapped()
    assert seen.dtype == np.bool_
    assert 0.05 < seen.mean() < 0.5
    assert not seen[:4].any()


def test_films_that_do_not_vary_give_finite_scores(films: Float32) -> None:
    same = np.repeat(films[:1], 20, axis=0)
    assert np.isfinite(fit(same).score(films[40:]).scores).all()


def test_a_film_is_compared_with_normal_films_exposed_like_it(films: Float32) -> None:
    """Normals of two exposures, half and half, that differ where one is brighter: the line takes that away."""
    rng = np.random.default_rng(0)
    light = rng.uniform(-0.3, 0.3, size=(60, 1, 1, 1)).astype(np.float32)
    tilt = np.linspace(-1, 1, SIZE, dtype=np.float32)
    lit = clipped(0.6 * films + light + np.abs(light) * tilt)
    knowing, blind = (fit(lit[:40], exposure_limit=limit) for limit in (2.5, 0.0))
    spread = [np.mean([page.blurs[0][-1].mean() for page in one._pages]) for one in (knowing, blind)]
    assert spread[0] < spread[1]
    out = [
        np.corrcoef(one.score(lit[40:]).terms["deficit"], np.abs(light[40:, 0, 0, 0]))[0, 1] for one in (knowing, blind)
    ]
    assert abs(out[0]) < abs(out[1]) + 0.2
    assert not blind._pages[0].blurs[0][1:3].any(), "no slopes without exposure"


def test_exposure_far_from_any_normals_is_taken_for_the_limit(atlas: Atlas, films: Float32) -> None:
    page = atlas._pages[0]
    seen, shown = page.look.see(grey(films[40:42])), np.ones((2, 16, 16), np.bool_)
    far, further = (
        page.read(seen, (page.exposure[0] + times * page.exposure[1] * np.ones((2, 2))).astype(np.float32), shown)
        for times in (3.0, 30.0)
    )
    np.testing.assert_array_equal(far, further)


def test_the_twin_is_a_normal_film_without_the_opacity(atlas: Atlas, films: Float32) -> None:
    bump = blob(1.0)
    out = atlas.score(clipped(films[40:] + bump))
    assert out.twin is not None
    where = bump > 0.5
    excess = clipped(films[40:] + bump)[:, 0, where].mean(axis=1) - out.twin[:, 0, where].mean(axis=1)
    assert np.median(excess) > 0.4
    mean_error = np.abs(films[40:] - films[:40].mean(axis=0)).mean()
    assert np.abs(films[40:] - (atlas.score(films[40:]).twin)).mean() < mean_error


def test_air_found_on_phantoms_lies_in_their_lungs(atlas: Atlas) -> None:
    masks = [make_phantom(index).lung_mask.astype(np.float32) for index in range(12)]
    lungs = np.mean([cv2.resize(mask, (AIR.side, AIR.side), interpolation=cv2.INTER_AREA) for mask in masks], axis=0)
    air = atlas._air
    assert air.max() > 0.9
    assert (air * lungs).sum() / air.sum() > 0.5, "mostly where phantoms have lungs, which move from film to film"
    assert np.average(air, weights=lungs) > 3 * np.average(air, weights=1 - lungs)


@pytest.mark.parametrize("crop", [0.5, 0.8, 1.0])
def test_a_map_goes_back_to_where_the_look_took_it_from(crop: float) -> None:
    square = np.full((1, 1, SIZE, SIZE), -1, np.float32)
    square[0, 0, 30:38, 26:34] = 1
    seen = Look(crop, 1, 1e6, 32).see(grey(square))
    back = put_back(seen[0], crop, SIZE)
    y, x = np.mgrid[:SIZE, :SIZE]
    bright = np.maximum(back - np.median(back[back > 0]), 0)
    centre = [float((bright * axis).sum() / bright.sum()) for axis in (y, x)]
    np.testing.assert_allclose(centre, (33.5, 29.5), atol=0.6)


@pytest.mark.parametrize("name", ["crops", "tiles", "components", "windows"])
def test_a_setting_given_twice_is_refused(name: str) -> None:
    value = getattr(AtlasConfig(), name)[0]
    with pytest.raises(UsageError, match=f"{name} must differ"):
        validate(AtlasConfig, {name: (value, value)}, "recipe")


WRONG = {
    "crops": (0.1,),
    "tiles": (0,),
    "clips": (0.0,),
    "components": (0, 3),
    "windows": (0.9,),
    "sigma": 0.0,
    "folds": 1,
    "deficit_weight": -0.1,
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_out_of_range_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        validate(AtlasConfig, {name: WRONG[name]}, "recipe")


@pytest.mark.parametrize(("films_of", "patients"), [(9, 9), (40, 1), (40, 2)])
def test_too_few_films_or_patients_say_so(films: Float32, films_of: int, patients: int) -> None:
    groups = np.minimum(np.arange(films_of), patients - 1)  # all but the first few films are the last patient's
    with pytest.raises(DataError, match=r"atlas fits 8 components .* too few: give more normals"):
        fit(films[:films_of], groups)


def test_a_loaded_atlas_is_small_and_scores_without_torch(atlas: Atlas, films: Float32, tmp_path: Path) -> None:
    atlas.save(tmp_path)
    np.save(tmp_path / "films.npy", films[40:])
    assert (tmp_path / WEIGHTS).stat().st_size < 3 * 2**20
    script = (
        "import sys, pathlib, numpy as np; from anomaly.detectors.atlas.detector import Atlas;"
        "folder = pathlib.Path(sys.argv[1]); atlas = Atlas.load(folder);"
        "np.save(folder / 'scores.npy', atlas.score(np.load(folder / 'films.npy')).scores);"
        "assert not {'torch', 'sklearn', 'anomalib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), atlas.score(films[40:]).scores)


def test_one_component_more_or_less_changes_little(films: Float32) -> None:
    """The default averages over ranks; a single film's score must not hang on one of them."""
    out: list[DetectorOutput] = [
        fit(films[:40], components=ranks).score(films[40:]) for ranks in ((3, 4, 6), (3, 5, 7))
    ]
    assert np.corrcoef(out[0].scores, out[1].scores)[0, 1] > 0.9


SEEN = {"features_weight": 0.5, "backbone_weights": "none", "layers": ("layer1",), "precision": "fp32"}


def test_features_of_a_backbone_add_to_the_score_in_sigma_of_normals_out_of_fold(
    films: Float32, atlas: Atlas, tmp_path: Path
) -> None:
    seeing = fit(films[:40], **SEEN)
    plain, out = atlas.score(films[40:]), seeing.score(films[40:])
    sight = seeing._sight
    assert sight is not None
    assert atlas._sight is None
    assert "features" not in plain.terms
    mean, sd = sight.scale
    above = (out.terms["features"] - mean) / sd
    np.testing.assert_allclose(out.scores, plain.scores + 0.5 * above, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out.heatmaps, plain.heatmaps)  # a number of the whole film points nowhere
    own, _ = sight.look(films[:40], np.ones((40, SIZE, SIZE), np.bool_))
    assert own.mean() < mean, "normals lie nearer to a Gaussian that knows them"
    seeing.save(tmp_path)
    loaded = Atlas.load(tmp_path)
    np.testing.assert_array_equal(loaded.score(films[40:]).scores, out.scores)
    assert loaded.made_of() == {"backbone": "resnet18", "backbone_sha256": "none: random weights"}
    assert atlas.made_of() == {}


def test_the_backbone_of_the_atlas_is_asked_for_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path))
    assert Atlas(size=SIZE).backbone is None
    wanting = Atlas(AtlasConfig(features_weight=1.0), size=SIZE)
    assert wanting.backbone == "resnet18"
    with pytest.raises(MissingError, match="weights fetch resnet18"):
        wanting.memory(40, 1)
