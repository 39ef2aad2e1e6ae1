"""Panels: what a picture is drawn from, and how many are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import DataError, UsageError
from anomaly.prepare.geometry import crop_geometry, on_shape, resize_geometry
from anomaly.records import DetectorOutput, Geometry, Prepared
from anomaly.scans.borders import Box
from anomaly.workflows.panels import Panel, PanelShelf, load_panel, make_panel, parse_limit, save_panel


def panel(value: int = 7, twin: bool = True) -> Panel:
    square = np.full((8, 8), value, np.uint8)
    heat = np.linspace(0, 1e6, 64, dtype=np.float32).reshape(8, 8)
    film = np.full((20, 10), value, np.uint8)
    terms = {"opacity": heat / 2, "a/b": heat} if twin else {}
    return Panel(film, square, square if twin else None, heat, resize_geometry((20, 10), 8), terms)


@pytest.mark.parametrize("twin", [True, False])
def test_a_panel_is_read_back(twin: bool, tmp_path: Path) -> None:
    kept = panel(twin=twin)
    save_panel(tmp_path / "a.npz", kept)
    read = load_panel(tmp_path / "a.npz")
    assert np.array_equal(read.film, kept.film)
    assert np.array_equal(read.prepared, kept.prepared)
    assert (read.twin is None) == (not twin)
    assert np.isfinite(read.heatmap).all()
    assert np.allclose(read.heatmap, np.minimum(kept.heatmap, 65504), rtol=1e-3)
    assert np.array_equal(read.geometry.matrix, kept.geometry.matrix)
    assert read.heat_on_film().shape == (20, 10)
    assert read.term_maps.keys() == kept.term_maps.keys()
    for name, heat in read.term_maps.items():
        assert heat.dtype == np.float32
        assert np.allclose(heat, np.minimum(kept.term_maps[name], 65504), rtol=1e-3)


def test_a_panel_knows_whether_it_was_registered() -> None:
    plain = panel().geometry
    turned = Geometry(plain.matrix @ np.array([[0.99, 0.02, 0], [-0.02, 0.99, 0], [0, 0, 1]]), plain.film_shape, 8)
    for geometry, registered in ((plain, False), (crop_geometry((20, 10), Box(2, 18, 1, 9), 8), False), (turned, True)):
        seen = replace(panel(), geometry=on_shape(on_shape(geometry, (300, 170)), (20, 10)))
        assert seen.registered == registered


def test_a_panel_is_made_of_one_scans_output() -> None:
    maps = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    image = np.zeros((1, 8, 8), np.float32)
    output = DetectorOutput(np.zeros(3, np.float32), maps, None, {}, {"opacity": maps[::-1]})
    made = make_panel(np.zeros((20, 10), np.uint8), Prepared(image, resize_geometry((40, 20), 8)), output, 2)
    assert np.array_equal(made.heatmap, maps[2])
    assert np.array_equal(made.term_maps["opacity"], maps[0])
    assert made.geometry.film_shape == (20, 10)


def test_a_damaged_panel_is_refused(tmp_path: Path) -> None:
    save_panel(tmp_path / "a.npz", panel())
    data = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", data[: len(data) // 2]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.npz"):
            load_panel(tmp_path / "a.npz")


@pytest.mark.parametrize("limit", [0, 1, 3, None])
def test_the_shelf_keeps_the_highest(limit: int | None, tmp_path: Path) -> None:
    shelf = PanelShelf(tmp_path, limit)
    scores = np.random.default_rng(0).permutation(8).astype(float)
    for score in scores:
        if shelf.wants(score):
            shelf.put(score, f"scan-{score:g}", panel())
    kept = {path.stem for path in tmp_path.glob("*.npz")}
    highest = sorted(scores)[8 - (8 if limit is None else limit) :]
    assert kept == {f"scan-{score:g}" for score in highest}


def test_the_shelf_goes_on_from_what_is_there(tmp_path: Path) -> None:
    first = PanelShelf(tmp_path, 2)
    for score in (5.0, 1.0):
        first.put(score, f"scan-{score:g}", panel())
    shelf = PanelShelf(tmp_path, 2)
    for score in (5.0, 1.0, 0.5):
        shelf.already_kept(score, f"scan-{score:g}")
    assert not shelf.wants(0.9)
    shelf.put(3.0, "scan-3", panel())
    assert {path.stem for path in tmp_path.glob("*.npz")} == {"scan-5", "scan-3"}


def test_limits() -> None:
    assert [parse_limit(text) for text in ("all", "none", "top:200")] == [None, 0, 200]
    with pytest.raises(UsageError, match="top:N"):
        parse_limit("200")
