from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import AnomalyError, DataError, ModelError
from anomaly.heatmaps import FOOTNOTE, HeatScale, fit_text, font, overlay, with_boxes, with_legend, write_png

QUANTILES = {"0.5": 0.2, "0.95": 1.0, "0.99": 1.5, "0.999": 2.0, "1.0": 3.0}
SCALE = HeatScale.from_quantiles(QUANTILES)


def film(height: int = 96, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 200, (height, width)).astype(np.uint8)


def blob(height: int = 96, width: int = 80, top: float = 5.0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (top * np.exp(-((y - 40) ** 2 + (x - 30) ** 2) / 200)).astype(np.float32)


def colourfulness(picture: np.ndarray) -> np.ndarray:
    return np.ptp(picture.astype(int), axis=2)


def test_scale_comes_from_the_quantiles_of_normals() -> None:
    assert (SCALE.low, SCALE.high, SCALE.outline) == (1.0, 4.0, 2.0)
    assert [value for value, _ in SCALE.ticks] == [1.0, 1.5, 2.0, 3.0, 4.0]
    assert [label for _, label in SCALE.ticks][:3] == ["95 %", "99 %", "99.9 %"]
    np.testing.assert_allclose(SCALE.level(np.float32([0, 1, 2.5, 4, 9])), [0, 0, 0.5, 1, 1])


def test_a_unit_is_named_at_every_tick() -> None:
    scale = HeatScale.from_quantiles(QUANTILES, "σ")
    assert (scale.low, scale.high, scale.outline, scale.unit) == (1.0, 4.0, 2.0, "σ")
    labels = ["1 σ (95 %)", "1.5 σ (99 %)", "2 σ (99.9 %)", "3 σ (hottest normal)", "≥ 4 σ"]
    assert [label for _, label in scale.ticks] == labels
    for label in labels:  # drawn whole: the font has every character, and there is room
        assert fit_text(label, font(13), 172) == label
    plain, named = (with_legend(overlay(film(), blob(), s), s, caption="") for s in (SCALE, scale))
    assert (plain != named).any()
    lined = [with_legend(overlay(film(), blob(), s), s, caption="", contour=True) for s in (SCALE, scale)]
    assert (lined[0] != lined[1]).any()


def test_an_outlier_among_normals_is_not_on_the_scale() -> None:
    scale = HeatScale.from_quantiles(QUANTILES | {"1.0": 50.0})
    assert scale.high == 4.0
    assert [value for value, _ in scale.ticks] == [1.0, 1.5, 2.0, 4.0]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-12, 1e9])
def test_flat_normals_give_a_scale_all_the_same(value: float) -> None:
    scale = HeatScale.from_quantiles(dict.fromkeys(QUANTILES, value))
    assert scale.high > scale.low
    level = scale.level(np.full((4, 4), value, dtype=np.float32))
    assert np.isfinite(level).all()
    picture = overlay(film(), np.full((96, 80), value * 3 + 1, dtype=np.float32), scale)
    assert colourfulness(picture).min() > 30
    assert with_legend(picture, scale, caption="x").ndim == 3


@pytest.mark.parametrize(
    "quantiles",
    [{}, {k: v for k, v in QUANTILES.items() if k != "0.99"}, QUANTILES | {"0.99": 0.1}, QUANTILES | {"1.0": np.nan}],
)
def test_damaged_quantiles_are_the_models_fault(quantiles: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="calibrate"):
        HeatScale.from_quantiles(quantiles)


def test_below_the_scale_the_film_is_untouched() -> None:
    grey, heat = film(), blob()
    picture = overlay(grey, heat, SCALE)
    assert (picture.shape, picture.dtype) == ((96, 80, 3), np.uint8)
    cool = heat <= SCALE.low
    assert cool.any()
    assert (picture[cool] == grey[cool][:, None]).all()
    assert (overlay(grey, np.minimum(heat, 1.0), SCALE) == grey[:, :, None]).all()


def test_the_same_heat_looks_the_same_on_every_film() -> None:
    mild = overlay(film(), blob(top=1.3), SCALE)
    strong = overlay(film(), blob(top=5.0), SCALE)
    assert colourfulness(mild).max() < 0.5 * colourfulness(strong).max()  # nothing is stretched to its own maximum
    one, other = blob(top=2.0), blob(top=2.0)
    other[80:, 60:] = 100.0  # a hot corner changes nothing elsewhere
    assert (overlay(film(), one, SCALE)[:80] == overlay(film(), other, SCALE)[:80]).all()
    assert (overlay(film(), 10 * other, SCALE)[85, 70] == overlay(film(), other, SCALE)[85, 70]).all()  # saturated


def test_colour_grows_with_heat_and_the_film_shows_through() -> None:
    grey = np.full((1, 61), 90, dtype=np.uint8)
    picture = overlay(grey, np.linspace(1, 4, 61, dtype=np.float32)[None], SCALE)[0].astype(float)
    away = np.linalg.norm(picture - 90, axis=1)
    assert away[0] == 0
    assert (np.diff(away) > -1.5).all()
    assert np.abs(np.diff(picture, axis=0)).max() < 16  # no sudden step
    dark, light = (overlay(np.full((1, 1), g, np.uint8), np.full((1, 1), 99, np.float32), SCALE) for g in (40, 140))
    assert (light.astype(int) - dark > 40).all()


def test_contour_draws_lines_and_leaves_the_inside() -> None:
    grey, heat = film(400, 400), blob(400, 400)
    picture = overlay(grey, heat, SCALE, contour=True)
    changed = (picture != grey[:, :, None]).any(axis=2)
    assert changed.any()
    assert not changed[40, 30]  # the hottest place itself
    y, x = np.nonzero(changed)  # a line of about 7 pixels, ragged as the pixels it follows
    radius = np.sqrt(200 * np.log(5.0 / SCALE.outline))  # where the blob falls to the outline's level
    assert np.abs(np.hypot(y - 40, x - 30) - radius).max() < 5
    assert (overlay(grey, np.full((400, 400), 2.0, np.float32), SCALE, contour=True) == grey[:, :, None]).all()


def test_inputs_are_left_alone() -> None:
    grey, heat = film(), blob()
    colour = np.stack([grey] * 3, axis=2)
    copies = grey.copy(), heat.copy(), colour.copy()
    for contour in (False, True):
        assert (overlay(grey, heat, SCALE, contour=contour) == overlay(colour, heat, SCALE, contour=contour)).all()
        with_legend(colour, SCALE, caption="x", contour=contour)
    for now, before in zip((grey, heat, colour), copies, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize(
    ("picture", "heat"),
    [
        (film(), blob()[:50]),
        (film().astype(np.float32), blob()),
        (film(), blob() * np.nan),
        (film()[:, :, None], blob()),
        (np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.float32)),
    ],
)
def test_overlay_refuses(picture: np.ndarray, heat: np.ndarray) -> None:
    with pytest.raises(DataError):
        overlay(picture, heat, SCALE)


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (40, 900), (900, 30), (700, 800), (2000, 1500)])
def test_page_keeps_the_film_readable_at_any_size(shape: tuple[int, int]) -> None:
    picture = overlay(film(*shape), blob(*shape), SCALE)
    page = with_legend(picture, SCALE, caption="scan-1 · score 3.2 · p 0.004")
    assert page.dtype == np.uint8
    assert 400 <= page.shape[0] <= 1150
    assert 450 <= page.shape[1] <= 1300
    if shape == (700, 800):  # within bounds: pasted pixel by pixel
        assert (page[44:744, 16:816] == picture).all()


def test_text_is_the_same_size_on_every_film() -> None:
    small = with_legend(overlay(film(64, 64), blob(64, 64), SCALE), SCALE, caption="scan-1")
    large = with_legend(overlay(film(1024, 1024), blob(1024, 1024), SCALE), SCALE, caption="scan-1")
    assert (small[:44, :200] == large[:44, :200]).all()
    assert (small[-36:, :200] == large[-36:, :200]).all()
    assert (small[:44, :200].max(axis=(0, 1)) > 200).all()  # there is a caption at all


def test_legend_is_the_models_not_the_films() -> None:
    pages = [with_legend(overlay(film(), heat, SCALE), SCALE, caption="") for heat in (blob(), 0 * blob())]
    right = [page[:, -220:] for page in pages]
    assert (right[0] == right[1]).all()
    assert (right[0] != with_legend(overlay(film(), blob(), SCALE), SCALE, caption="", contour=True)[:, -220:]).any()
    other = HeatScale.from_quantiles(QUANTILES | {"0.99": 1.9})
    assert (right[0] != with_legend(overlay(film(), blob(), other), other, caption="")[:, -220:]).any()


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "😀 \U0001f9d1‍⚕️ 肺炎",
        "one\ntwo\r\n\tthree\x00\x1b[31m",
        "<script>alert('x')</script>",
        "\udcff\ud800 undecodable",
        "\u202eright-to-left عربى",
        "W" * 100_000,
        "é" * 300,
    ],
)
def test_odd_captions_stay_inside_the_page(caption: str) -> None:
    plain = with_legend(overlay(film(), blob(), SCALE), SCALE, caption="x")
    page = with_legend(overlay(film(), blob(), SCALE), SCALE, caption=caption, footnote=caption)
    assert page.shape == plain.shape
    assert (page[:44, -14:] == page[0, 0]).all()  # the margin is clear
    assert (page[44:-36] == plain[44:-36]).all()


def test_long_captions_keep_both_ends() -> None:
    def page(caption: str) -> np.ndarray:
        return with_legend(overlay(film(), blob(), SCALE), SCALE, caption=caption)[:44]

    long = page("scan-1 " + "x" * 300 + " p 0.004")
    assert (long[:, :60] == page("scan-1")[:, :60]).all()
    assert (long[:, -120:] != page("scan-1 " + "x" * 300 + " p 0.500")[:, -120:]).any()


def test_png_comes_back_as_it_was(tmp_path: Path) -> None:
    picture = overlay(film(), blob(), SCALE)
    write_png(tmp_path / "a.png", picture)
    first = (tmp_path / "a.png").read_bytes()
    write_png(tmp_path / "a.png", picture)
    assert (tmp_path / "a.png").read_bytes() == first
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_write_leaves_nothing_new_and_the_old_picture(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", film())
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(DataError):
        write_png(tmp_path / "a.png", film().astype(np.float32))
    (tmp_path / "taken.png").mkdir()
    with pytest.raises((AnomalyError, OSError)):
        write_png(tmp_path / "taken.png", film())
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "taken.png"]


def test_boxes_are_outlined_with_their_confidence_and_leave_the_rest_alone() -> None:
    picture = np.full((200, 300, 3), 90, np.uint8)
    corners = np.array(
        [[[40, 60], [120, 60], [120, 150], [40, 150]], [[200, 5], [290, 5], [290, 90], [200, 90]]], float
    )
    drawn = with_boxes(picture, corners, np.array([0.93, 0.2], np.float32))
    assert drawn.shape == picture.shape
    assert (picture == 90).all()
    assert (drawn[60, 45:115] == drawn[60, 80]).all(), "an edge in one colour"
    assert drawn[60, 80].max() > 200
    for x, y in ((80, 100), (240, 50), (160, 100), (10, 190)):
        np.testing.assert_array_equal(drawn[y, x], (90, 90, 90))
    assert (drawn[44:58, 40:70] == 0).any(), "its number stands above it"
    np.testing.assert_array_equal(with_boxes(picture, corners[:0], np.zeros(0, np.float32)), picture)
    with pytest.raises(DataError, match="must be uint8"):
        with_boxes(picture[..., 0], corners, np.array([0.93, 0.2], np.float32))


def test_drawing_needs_no_pyplot_and_importing_needs_nothing_heavy() -> None:
    code = """
import sys, numpy as np
import anomaly.heatmaps as h, anomaly.evaluate.table, anomaly.evaluate.localise
assert not {"matplotlib", "cv2", "PIL", "scipy", "sklearn", "skimage", "torch"} & set(sys.modules)
scale = h.HeatScale.from_quantiles({"0.5": 0, "0.95": 1, "0.99": 2, "0.999": 3, "1.0": 4})
h.with_legend(h.overlay(np.zeros((9, 9), np.uint8), np.full((9, 9), 5, np.float32), scale), scale, caption=FOOT)
assert "matplotlib.pyplot" not in sys.modules
""".replace("FOOT", repr(FOOTNOTE))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
