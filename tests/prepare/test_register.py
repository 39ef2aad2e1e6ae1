"""Registration: films come back onto the mean chest, what is no chest is refused, and the way back is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from anomaly.config import PrepareConfig
from anomaly.errors import DataError, UsageError
from anomaly.prepare.geometry import to_film, to_film_points, to_prepared_points
from anomaly.prepare.prepare import Preparation, pack_prepared, unpack_prepared
from anomaly.prepare.register import (
    NOT_REGISTERED,
    SIDE,
    Alignment,
    Template,
    align,
    fit_template,
    small_copy,
    template_sample,
    warp,
)
from anomaly.prepare.resize import resize
from anomaly.records import Float32, Float64, Scan
from anomaly.scans.phantom import make_phantom

FILMS = 24


def affine(turn: float, scale: tuple[float, float], shift: tuple[float, float]) -> Float64:
    """Return a map of the unit square about its centre: turned by degrees, scaled, shifted."""
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    linear = np.array([[c, -s], [s, c]]) @ np.diag(scale)
    return np.vstack([np.column_stack([linear, 0.5 + np.array(shift) - linear @ (0.5, 0.5)]), [0, 0, 1]])


def jitter(seed: int) -> Float64:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.85, 1.15, 2)
    shift = rng.uniform(-0.07, 0.07, 2)
    return affine(rng.uniform(-6, 6), (scale[0], scale[1]), (shift[0], shift[1]))


@pytest.fixture(scope="module")
def squares() -> list[Float32]:
    """Return phantoms as float32 (256, 256) in [0, 1], each shown through an affine map of its own."""
    films = [resize(make_phantom(i, seed=5).pixels, 256) for i in range(FILMS)]
    return [warp(film, jitter(i)).astype(np.float32) for i, film in enumerate(films)]


@pytest.fixture(scope="module")
def copies(squares: list[Float32]) -> Float32:
    return np.stack([small_copy(square) for square in squares])


@pytest.fixture(scope="module")
def template(copies: Float32) -> Template:
    return fit_template(copies[:16])


def placed(matrix: Float64) -> Float64:
    """Return where a map brings five points of the middle of the square."""
    points = np.array([[0.5, 0.5], [0.3, 0.3], [0.7, 0.3], [0.3, 0.7], [0.7, 0.7]])
    return np.asarray((np.column_stack([points, np.ones(5)]) @ matrix.T)[:, :2])


@pytest.mark.parametrize(
    ("turn", "scale", "shift"),
    [(0, (1, 1), (0.1, -0.05)), (8, (1, 1), (0, 0)), (0, (1.2, 0.9), (0, 0)), (-5, (0.9, 0.85), (-0.06, 0.08))],
)
def test_a_known_map_is_found(
    turn: float, scale: tuple[float, float], shift: tuple[float, float], squares: list[Float32], template: Template
) -> None:
    told = affine(turn, scale, shift)
    for film in (resize(make_phantom(i, seed=9).pixels, 256) for i in range(4)):
        before, after = (align(small_copy(view), template) for view in (film, warp(film, told)))
        assert (before.refused, after.refused) == (None, None)
        off = placed(told @ after.matrix) - placed(before.matrix)
        assert np.abs(off).mean() < 0.75 / SIDE
        assert np.abs(off).max() < 2.5 / SIDE  # CLAHE and what the shifted view cuts off move it a little


def test_aligned_normals_differ_less_and_the_frame_stays(copies: Float32, template: Template) -> None:
    found = [align(copy, template) for copy in copies]
    assert not any(alignment.refused for alignment in found)
    aligned = np.stack([warp(copy, alignment.matrix) for copy, alignment in zip(copies, found, strict=True)])
    middle = (slice(None), slice(8, 56), slice(8, 56))
    assert aligned[middle].std(axis=0).mean() < 0.75 * copies[middle].std(axis=0).mean()
    mean = np.mean([alignment.matrix for alignment in found[:16]], axis=0)
    assert np.abs(mean - np.eye(3)).max() < 0.03


def test_brightness_and_contrast_move_nothing_far(squares: list[Float32], template: Template) -> None:
    for square in squares[:4]:
        plain = align(small_copy(square), template)
        for other in (0.4 * square + 0.3, square**1.5):
            found = align(small_copy(other.astype(np.float32)), template)
            assert found.refused is None
            assert np.abs(placed(found.matrix) - placed(plain.matrix)).max() < 1.5 / SIDE


def noise(sigma: float) -> Float32:
    grain = np.random.default_rng(3).normal(size=(256, 256)).astype(np.float32)
    smooth = cv2.GaussianBlur(grain, (0, 0), sigma) if sigma else grain
    return np.asarray((smooth - smooth.min()) / np.ptp(smooth), dtype=np.float32)


STRANGE: dict[str, Callable[[Float32], NDArray[Any]]] = {
    "a quarter turned": lambda film: np.rot90(film).copy(),
    "upside down": lambda film: film[::-1].copy(),
    "half turned": lambda film: np.rot90(film, 2).copy(),
    "a negative": lambda film: 1 - film,
    "an arm's length off": lambda film: warp(film, affine(0, (1, 1), (0.45, 0))),
    "a corner of it": lambda film: warp(film, affine(0, (0.35, 0.35), (-0.3, 0.3))),
    "noise": lambda _: noise(0),
    "clouds": lambda _: noise(25),
    "nothing": lambda film: np.full_like(film, 0.4),
    "a man": lambda _: cv2.resize(data.camera(), (256, 256)),
    "coins": lambda _: cv2.resize(data.coins(), (256, 256)),
    "a page": lambda _: cv2.resize(data.page(), (256, 256)),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_upright_chest_is_refused_and_left_as_it_is(
    strange: str, squares: list[Float32], template: Template
) -> None:
    for square in squares[:3]:
        found = align(small_copy(STRANGE[strange](square)), template)
        assert found.refused
        np.testing.assert_array_equal(found.matrix, np.eye(3))


def test_a_lesion_is_not_refused(squares: list[Float32], template: Template) -> None:
    y, x = np.mgrid[:256, :256]
    blob = 0.5 * np.exp(-((x - 80) ** 2 + (y - 130) ** 2) / (2 * 30**2))
    for square in squares[16:]:
        assert align(small_copy(np.clip(square + blob, 0, 1).astype(np.float32)), template).refused is None


def test_the_same_films_give_the_same_bits(copies: Float32, template: Template) -> None:
    again = fit_template(copies[:16].copy())
    assert again.least == template.least
    np.testing.assert_array_equal(again.image, template.image)
    alone = align(copies[20], template)
    for copy in copies[:3]:
        align(copy, template)
    after = align(copies[20].copy(), again)
    assert (alone.correlation, alone.refused) == (after.correlation, after.refused)
    np.testing.assert_array_equal(alone.matrix, after.matrix)


def test_films_unlike_one_another_make_no_template() -> None:
    grains = np.random.default_rng(1).random((20, SIDE, SIDE), dtype=np.float32)
    with pytest.raises(DataError, match=r"of 20 normals.*prepare\.register=none"):
        fit_template(grains)


def test_a_template_is_kept_whole(template: Template) -> None:
    arrays, meta = template.to_entry()
    kept = Template.from_entry(arrays, meta)
    assert kept.least == template.least
    np.testing.assert_array_equal(kept.image, template.image)
    for broken in (arrays["template"][:32], arrays["template"].astype(np.float64)):
        with pytest.raises(ValueError, match="template"):
            Template.from_entry({"template": broken}, meta)


@pytest.mark.parametrize("count", [1, 16, 2000, 2001, 54321])
def test_a_template_needs_no_more_than_some_films(count: int) -> None:
    index = template_sample(count)
    assert len(index) == min(count, 2000)
    assert (index[0], index[-1]) == (0, count - 1)
    assert (np.diff(index) > 0).all()


def test_small_copies_of_every_depth_agree(squares: list[Float32]) -> None:
    square = squares[0]
    eight, deep = np.rint(square * 255).astype(np.uint8), np.rint(square * 65535).astype(np.uint16)
    wanted = small_copy(square)
    assert wanted.shape == (SIDE, SIDE)
    assert wanted.dtype == np.float32
    for other in (eight, deep, np.dstack([square] * 3), np.dstack([eight] * 3), np.dstack([deep] * 3)):
        assert np.abs(small_copy(other) - wanted).mean() < 0.005
    assert small_copy(eight[:32, :32]).shape == (SIDE, SIDE)


# ---- within the preparation --------------------------------------------------------------------------------------


def preparation(template: Template | None, size: int = 96, **settings: Any) -> Preparation:
    return Preparation(PrepareConfig(register="affine", **settings), size, template)


def scan(square: Float32, shape: tuple[int, int] = (300, 260), bits: int = 16) -> Scan:
    pixels = cv2.resize(square, shape[::-1], interpolation=cv2.INTER_LINEAR)
    levels = 2**bits - 1
    return Scan("a", (np.rint(pixels * levels) / levels).astype(np.float32), bits)


def test_without_a_template_it_says_what_is_missing(squares: list[Float32]) -> None:
    unfitted = preparation(None)
    assert not unfitted.fitted
    with pytest.raises(UsageError, match="anomaly fit"):
        unfitted(scan(squares[0]))
    assert Preparation(PrepareConfig(), 32).fitted


@pytest.mark.parametrize("clahe", [True, False])
@pytest.mark.parametrize("bits", [8, 12])
def test_the_depth_of_a_film_hardly_shows(clahe: bool, bits: int, squares: list[Float32], template: Template) -> None:
    prepare = preparation(template, 64, clahe=clahe)
    for square in squares[16:19]:
        deep, shallow = (prepare(scan(square, bits=depth)) for depth in (16, bits))
        assert deep.warnings == ()
        assert np.abs(deep.image - shallow.image).mean() / 2 < 0.005


@pytest.mark.parametrize("seed", range(4))
def test_what_is_planted_on_a_film_is_found_where_it_was(seed: int, squares: list[Float32], template: Template) -> None:
    """A white square on a darkened film, found on the prepared image: its centre, its map and its box lead back."""
    film = 0.8 * scan(squares[16 + seed], (400, 360)).pixels
    film[180:220, 100:140] = 1.0
    prepared, equalised = (preparation(template, clahe=clahe)(Scan("a", film, 16)) for clahe in (False, True))
    assert prepared.warnings == ()
    assert np.abs(prepared.geometry.matrix - np.array([[360 / 96, 0, 1.4], [0, 400 / 96, 1.6], [0, 0, 1]])).max() > 3
    white = prepared.image[0] > 0.8
    (x, y), middle = np.nonzero(white)[::-1], np.array([119.5, 199.5])
    on_film = to_film_points(np.array([[x.mean(), y.mean()]]), prepared.geometry)
    assert np.abs(on_film - middle).max() < 2
    rows, columns = np.nonzero(to_film(white.astype(np.float32), prepared.geometry) > 0.5)
    assert np.abs([columns.mean() - middle[0], rows.mean() - middle[1]]).max() < 2
    assert 0.8 * 40**2 < len(rows) < 1.2 * 40**2
    corners = np.array([[99.5, 179.5], [139.5, 179.5], [139.5, 219.5], [99.5, 219.5]])
    box = to_prepared_points(corners, prepared.geometry)
    assert np.abs(box.mean(axis=0) - (x.mean(), y.mean())).max() < 0.5
    np.testing.assert_allclose(to_film_points(box, prepared.geometry), corners, atol=1e-9)
    assert np.abs(to_film_points(box, equalised.geometry) - corners).max() < 4, "CLAHE's own copy is aligned alike"


def test_inside_is_what_lies_on_the_film(squares: list[Float32], template: Template) -> None:
    prepare = preparation(template)
    met = set()
    for square in squares[16:]:
        prepared = prepare(scan(square))
        x, y = np.meshgrid(np.arange(96.0), np.arange(96.0))
        places = to_film_points(np.column_stack([x.ravel(), y.ravel()]), prepared.geometry).reshape(96, 96, 2)
        height, width = prepared.geometry.film_shape
        on_film = np.all((places >= -0.5) & (places <= (width - 0.5, height - 0.5)), axis=2)
        met.add(prepared.inside is None)
        if prepared.inside is None:
            assert on_film.all()
        else:
            assert prepared.inside.dtype == np.bool_
            assert not prepared.inside.all()
            np.testing.assert_array_equal(prepared.inside, on_film)
            np.testing.assert_array_equal(unpack_prepared(*pack_prepared(prepared)).inside, prepared.inside)
    assert False in met


def test_a_map_is_nothing_where_the_square_does_not_reach(squares: list[Float32], template: Template) -> None:
    for square in squares[16:20]:
        geometry = preparation(template)(scan(square)).geometry
        height, width = geometry.film_shape
        x, y = np.meshgrid(np.arange(float(width)), np.arange(float(height)))
        on_square = to_prepared_points(np.column_stack([x.ravel(), y.ravel()]), geometry).reshape(height, width, 2)
        reached = np.all((on_square >= -0.5) & (on_square <= 95.5), axis=2)
        assert not reached.all()
        heat = to_film(np.ones((96, 96), np.float32), geometry)
        np.testing.assert_array_equal(heat > 0, reached)


def test_a_refused_film_is_prepared_as_it_is_with_a_word_of_it(squares: list[Float32], template: Template) -> None:
    upside_down = scan(squares[0][::-1].copy())
    found = preparation(template, clahe=True)(upside_down)
    plain = Preparation(PrepareConfig(), 96)(upside_down)
    (warning,) = found.warnings
    assert warning.startswith(f"{NOT_REGISTERED}: ")
    assert found.inside is None
    np.testing.assert_array_equal(found.image, plain.image)
    np.testing.assert_array_equal(found.geometry.matrix, plain.geometry.matrix)


@pytest.mark.parametrize("clahe", [True, False])
def test_colour_films_are_registered_by_their_lightness(
    clahe: bool, squares: list[Float32], template: Template
) -> None:
    grey = scan(squares[17]).pixels
    rose = np.dstack([grey, 0.8 * grey, 0.7 * grey]).astype(np.float32)
    prepare = preparation(template, channels=3, clahe=clahe)
    colour, plain = (prepare(Scan("a", pixels, 16)) for pixels in (rose, grey))
    assert colour.image.shape == plain.image.shape == (3, 96, 96)
    assert np.abs(colour.geometry.matrix - plain.geometry.matrix).max() < 3
    assert colour.image[0].mean() > colour.image[2].mean()


def test_after_a_crop_the_way_still_leads_to_the_whole_film(squares: list[Float32], template: Template) -> None:
    film = np.zeros((500, 400), np.float32)
    film[80:440, 30:380] = cv2.resize(squares[18], (350, 360)).clip(0.25, 1)
    prepared = preparation(template, crop="auto")(Scan("a", film, 16))
    assert prepared.warnings == ()
    alone = preparation(template)(Scan("a", film[80:440, 30:380].copy(), 16))
    moved = alone.geometry.matrix.copy()
    moved[:2, 2] += (30, 80)
    np.testing.assert_allclose(prepared.geometry.matrix, moved, atol=1e-9)
    np.testing.assert_array_equal(prepared.image, alone.image)


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_of_a_registered_film_the_middle_of_the_square_is_kept(
    share: float, squares: list[Float32], template: Template
) -> None:
    large = round(96 / share)
    cut = (large - 96) // 2
    into = np.array([[1, 0, cut], [0, 1, cut], [0, 0, 1]])
    for square in squares[16:20]:
        film = Scan("a", 0.8 * scan(square, (400, 360)).pixels, 16)
        film.pixels[180:220, 160:200] = 1.0
        middle, around = preparation(template, central_crop=share)(film), preparation(template, large)(film)
        assert middle.warnings == ()
        np.testing.assert_allclose(middle.geometry.matrix, around.geometry.matrix @ into, atol=1e-9)
        seen = np.ones((large, large), np.bool_) if around.inside is None else around.inside
        seen = seen[cut:-cut, cut:-cut]
        np.testing.assert_array_equal(np.ones_like(seen) if middle.inside is None else middle.inside, seen)
        plain = preparation(template, clahe=False, central_crop=share)(film)
        white = plain.image[0] > 0.8
        rows, columns = np.nonzero(white)
        on_film = to_film_points(np.array([[columns.mean(), rows.mean()]]), plain.geometry)
        assert np.abs(on_film - (179.5, 199.5)).max() < 2
        heat = to_film(white.astype(np.float32), plain.geometry) > 0.5
        assert 0.8 * 40**2 < heat.sum() < 1.2 * 40**2
        assert np.abs(np.mean(np.nonzero(heat), axis=1) - (199.5, 179.5)).max() < 2


def test_of_a_refused_film_the_middle_is_kept_all_the_same(squares: list[Float32], template: Template) -> None:
    upside_down = scan(squares[0][::-1].copy())
    found = preparation(template, central_crop=0.8)(upside_down)
    plain = Preparation(PrepareConfig(central_crop=0.8), 96)(upside_down)
    assert found.warnings[0].startswith(NOT_REGISTERED)
    assert found.inside is None
    np.testing.assert_array_equal(found.image, plain.image)
    np.testing.assert_array_equal(found.geometry.matrix, plain.geometry.matrix)


# ---- on real films -----------------------------------------------------------------------------------------------


def real_copies(folder: Path, step: int = 1) -> Float32:
    films = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.iterdir())[::step]]
    return np.stack([small_copy(cv2.resize(film, (224, 224), interpolation=cv2.INTER_AREA)) for film in films])


def refused(copies: Float32, template: Template) -> list[Alignment]:
    return [found for found in (align(copy, template) for copy in copies) if found.refused]


@pytest.mark.real
@pytest.mark.parametrize(
    ("normals", "dev"),
    [
        ("kermany/train/NORMAL", ["kermany/dev/NORMAL", "kermany/dev/PNEUMONIA"]),
        ("rsna_adult/train/normal", [f"rsna_adult/dev/{kind}" for kind in ("normal", "lung_opacity")]),
    ],
)
def test_real_films_are_registered_and_turned_ones_refused(normals: str, dev: list[str], shared_data: Path) -> None:
    folder = shared_data / "data"
    template = fit_template(real_copies(folder / normals, 5))
    films = np.concatenate([real_copies(folder / part) for part in dev])
    assert len(refused(films, template)) <= 0.005 * len(films)
    some = films[::7]
    for turn in (lambda x: np.rot90(x, 1), lambda x: np.rot90(x, 2), lambda x: x[::-1], lambda x: 1 - x):
        wrong = np.stack([np.ascontiguousarray(turn(copy)) for copy in some])
        assert len(refused(wrong, template)) >= 0.97 * len(wrong)
