"""Every flag on a film that has the fault, and no flag on films that have none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.records import Scan, ScanFile
from anomaly.scans.phantom import make_phantom
from anomaly.scans.quality import _CHEST, EXCLUDING, MEANINGS, Flag, quality_flags
from anomaly.scans.read import read_scan

Change = Callable[[np.ndarray], np.ndarray]


@cache
def phantom(index: int, abnormal: bool = False) -> np.ndarray:
    pixels = make_phantom(index, abnormal=abnormal).pixels
    pixels.setflags(write=False)
    return pixels


def flags(pixels: np.ndarray, **facts: object) -> list[str]:
    return [flag.name for flag in quality_flags(Scan("a", np.asarray(pixels, np.float32), 16, **facts))]  # type: ignore[arg-type]


def colour(film: np.ndarray) -> np.ndarray:
    return np.dstack([film, film * 0.6, film * 0.4])


def plate(film: np.ndarray) -> np.ndarray:
    out = film.copy()
    height, width = out.shape
    out[height // 2 : height * 5 // 8, width // 8 : width // 4] = 1
    return out


def shrunk(height: int, width: int) -> Change:
    return lambda film: cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)


FAULTS: dict[str, tuple[Change, str]] = {
    "nearly black": (lambda film: 0.02 * film, "blank"),
    "black but for a name": (lambda film: np.where(np.indices(film.shape).max(axis=0) < 40, 1.0, 0.0), "blank"),
    "burnt out": (lambda film: np.clip(3 * film, 0, 1), "saturated"),
    "lost in black": (lambda film: np.clip(3 * film - 1.8, 0, 1), "saturated"),
    "negative": (lambda film: 1 - film, "inverted"),
    "on its side": (np.rot90, "rotated"),
    "on its other side": (lambda film: np.rot90(film, 3), "rotated"),
    "on its head": (lambda film: film[::-1], "rotated"),
    "grey all over": (lambda film: 0.4 + 0.25 * film, "low_contrast"),
    "a strip": (shrunk(200, 500), "extreme_aspect"),
    "an icon": (shrunk(60, 58), "too_small"),
    "a photograph": (colour, "colour"),
    "a plate": (plate, "foreign"),
}


@pytest.mark.parametrize(("change", "name"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("index", [0, 5])
def test_a_fault_is_flagged(index: int, change: Change, name: str) -> None:
    assert name in flags(change(phantom(index)))


def test_every_flag_is_tested_and_all_but_the_marker_exclude() -> None:
    assert {name for _, name in FAULTS.values()} | {"marker"} == set(MEANINGS)
    assert set(MEANINGS) - {"marker"} == EXCLUDING


@pytest.mark.parametrize("abnormal", [False, True])
def test_phantoms_have_no_fault_but_their_letter(abnormal: bool) -> None:
    for index in range(5):
        assert flags(phantom(index, abnormal)) == ["marker"]


def test_a_turned_film_says_how_it_is_turned() -> None:
    film = np.ascontiguousarray(np.rot90(phantom(0)))
    found = [flag for flag in quality_flags(Scan("a", film, 16)) if flag.name == "rotated"]
    assert found == [Flag("rotated", "the chest is turned by 90 degrees, counter-clockwise")]


@pytest.mark.parametrize("gamma", [0.6, 1.6])
@pytest.mark.parametrize("side", [128, 1500])
def test_a_flag_hangs_on_content_not_on_size_or_tone(side: int, gamma: float) -> None:
    film = cv2.resize(phantom(3), (side, side), interpolation=cv2.INTER_LINEAR) ** gamma
    assert set(flags(film)) <= {"marker"}
    assert "inverted" in flags(1 - film)


def test_collimation_is_no_fault() -> None:
    film = np.pad(phantom(2)[60:, 60:-60], ((20, 90), (90, 20)))
    assert set(flags(film)) <= {"marker"}
    assert "inverted" in flags(np.pad(1 - phantom(2)[60:, 60:-60], ((20, 90), (90, 20))))


def test_a_stain_is_no_colour_photograph() -> None:
    film = np.dstack([phantom(0)] * 3)
    film[:40, :40, 0] = 1
    assert "colour" not in flags(film)


def test_a_colour_picture_read_as_grey_is_still_known_for_one(tmp_path: Path) -> None:
    path = tmp_path / "skin.png"
    cv2.imwrite(str(path), np.rint(colour(phantom(0))[..., ::-1] * 255).astype(np.uint8))
    scan = read_scan(ScanFile("skin", path, "skin.png"))
    assert scan.pixels.ndim == 2
    assert "colour" in [flag.name for flag in quality_flags(scan)]


def test_the_scan_is_left_alone_and_the_answer_repeats() -> None:
    pixels = phantom(4).copy()
    before = pixels.copy()
    assert quality_flags(Scan("a", pixels, 16)) == quality_flags(Scan("a", pixels, 16))
    np.testing.assert_array_equal(pixels, before)


def test_the_mean_chest_is_that_of_the_phantoms() -> None:
    side = len(_CHEST)
    films = [cv2.resize(phantom(i), (side, side), interpolation=cv2.INTER_AREA) for i in range(8)]
    mean = np.mean(films, axis=0)
    assert np.corrcoef(mean.ravel(), _CHEST.ravel())[0, 1] > 0.99


@pytest.mark.real
@pytest.mark.parametrize("folder", ["kermany/train/NORMAL", "rsna_adult/train/normal", "montgomery/images"])
def test_real_films_are_upright_and_their_negatives_are_found(shared_data: Path, folder: str) -> None:
    paths = sorted(
        path for path in (shared_data / "data" / folder).iterdir() if path.suffix in (".jpeg", ".jpg", ".png")
    )
    films = [read_scan(ScanFile(path.name, path, path.name)).pixels for path in paths[:: len(paths) // 40]]
    excluded = [name for film in films for name in flags(film) if name in EXCLUDING]
    assert len(excluded) <= 2
    assert sum("inverted" in flags(1 - film) for film in films) >= 0.95 * len(films)
