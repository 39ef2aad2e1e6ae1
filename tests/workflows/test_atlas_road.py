"""The atlas from the command line: its recipe, its columns and pictures, films it cannot register, colour, a kill."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from running import anomaly, parts_left, spawn, stop_when, table

QUICK = ("-d", "atlas", "--set", "detector.side=16", "--set", "calibration.minimum=4")


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "atlas"
    ran = anomaly("fit", phantoms, "--normal-only", *QUICK, "-o", folder)
    assert ran.code == 0, ran.err
    return folder


def test_a_folder_of_films_and_other_things_is_scored_with_terms_maps_and_warnings(
    run: Path, phantoms: Path, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    film = sorted((phantoms / "abnormal").glob("*.png"))[0]
    pixels = cv2.imread(str(film), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(scans / "as it is.png"), pixels)
    cv2.imwrite(str(scans / "sideways.png"), np.rot90(pixels).copy())
    cv2.imwrite(str(scans / "slope.png"), np.tile(np.arange(200, dtype=np.uint8), (160, 1)))
    (scans / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n of nothing")
    ran = anomaly("score", scans, "-m", run, "-o", out)
    assert ran.code == 3, ran.err
    rows = table(out)
    assert rows["broken.png"]["status"] == "failed"
    for name in ("as it is.png", "sideways.png", "slope.png"):
        assert all(np.isfinite(float(rows[name][column])) for column in ("score", "opacity", "deficit", "darker"))
    assert "not registered" not in rows["as it is.png"]["warnings"]
    assert "not registered: it " in rows["sideways.png"]["warnings"]
    assert "not registered" in rows["slope.png"]["warnings"]
    assert json.loads((out / "receipt.json").read_text(encoding="utf-8"))["heat_unit"] == "σ"
    assert anomaly("report", out).code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("Heat in σ", "Registered: moved, turned", "Its normal twin", "not registered: it ", "opacity"):
        assert words in page
    with np.load(next((out / "panels").glob("as-it-is*.npz"))) as panel:
        assert {"term.opacity", "term.deficit", "twin"} <= set(panel.files)
        assert "term.darker" not in panel.files, "it adds nothing to the map"


def test_colour_films_take_the_same_road(phantoms: Path, tmp_path: Path) -> None:
    normals = tmp_path / "normal"
    normals.mkdir()
    for film in sorted((phantoms / "normal").glob("*.png"))[:24]:
        grey = cv2.imread(str(film), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(normals / film.name), np.dstack([grey, (0.8 * grey).astype(np.uint8), grey // 2]))
    tinted = (*QUICK, "--set", "prepare.channels=3", "--set", "size=64")
    ran = anomaly("fit", normals, "--normal-only", *tinted, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert anomaly("score", normals, "-m", tmp_path / "run", "-o", tmp_path / "out").code == 0
    assert all(row["status"] == "scored" for row in table(tmp_path / "out").values())


def test_a_fit_killed_while_registering_goes_on_and_ends_the_same(run: Path, phantoms: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    command = ("fit", phantoms, "--normal-only", *QUICK, "-o", stopped)
    ended = stop_when(spawn(*command), (stopped / "splits.csv").is_file, signal.SIGKILL)
    assert ended.code == -signal.SIGKILL
    assert not (stopped / "model").exists()
    assert anomaly(*command, "--resume").code == 0
    assert not parts_left(stopped)
    for name in ("weights.safetensors", "calibration.safetensors", "preparation.safetensors"):
        assert (stopped / "model" / name).read_bytes() == (run / "model" / name).read_bytes()


def test_too_few_normals_for_its_components_say_so(phantoms: Path, tmp_path: Path) -> None:
    few = tmp_path / "normal"
    few.mkdir()
    for film in sorted((phantoms / "normal").iterdir())[:16]:
        (few / film.name).write_bytes(film.read_bytes())
    ran = anomaly("fit", few, "--normal-only", "-d", "atlas", "-o", tmp_path / "run")
    assert ran.code == 4
    assert "too few: give more normals, or a smaller detector.components" in " ".join(ran.err.split())
