"""Air on a mean film: the two dark basins of the chest, at any size, cropped or not, and nothing else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.config import PrepareConfig
from anomaly.detectors.lungs import air_of, doubt_of
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import fit_template, small_copy
from anomaly.records import Float32, Scan, ScanFile
from anomaly.scans.phantom import make_phantom
from anomaly.scans.read import read_scan


@pytest.mark.parametrize("side", [32, 64, 112, 224])
def test_air_is_the_two_dark_basins_and_not_the_dark_around_the_body(side: int) -> None:
    y, x = np.mgrid[:side, :side] / side
    film = np.where((abs(x - 0.5) < 0.4) & (y > 0.05), 0.7, 0.0)  # a body that runs out of the film below
    lungs = (((abs(x - 0.5) - 0.18) / 0.12) ** 2 + ((y - 0.5) / 0.3) ** 2) < 1
    film = np.where(lungs, 0.3, film).astype(np.float32)
    air = air_of(film)
    assert (air.shape, air.dtype) == ((side, side), np.float32)
    assert air[lungs].mean() > 0.9
    around = 2 * round(0.09 * side) + 1
    assert air[~cv2.dilate(lungs.astype(np.uint8), np.ones((around, around))).astype(bool)].max() < 0.05
    assert not air_of(np.full((side, side), 0.5, np.float32)).any(), "a flat film holds no air"
    assert not air_of((0.5 + 0.3 * x).astype(np.float32)).any(), "nor does a slope"


@pytest.mark.parametrize(("moved", "doubt"), [(0.0, None), (-0.3, "left half"), (0.3, "right half")])
def test_a_lung_that_reaches_the_frame_is_missed_and_said(moved: float, doubt: str | None) -> None:
    y, x = np.mgrid[:64, :64] / 64
    places = {-0.18: min(moved, 0.0), 0.18: max(moved, 0.0)}
    lungs = sum((((x - 0.5 - at - by) / 0.12) ** 2 + ((y - 0.5) / 0.3) ** 2) < 1 for at, by in places.items())
    air = air_of(np.where(lungs, 0.3, 0.7).astype(np.float32))
    said = doubt_of(air)
    assert air.any()
    assert (said is None) if doubt is None else (said is not None and doubt in said)
    assert "no lungs were found" in str(doubt_of(np.zeros_like(air)))


@pytest.mark.parametrize("shape", [(31, 31), (64, 60), (64, 64, 1)])
def test_a_film_that_is_no_square_or_too_small_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        air_of(np.zeros(shape, np.float32))


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_air_found_on_phantoms_lies_in_their_lungs_cropped_or_not(share: float) -> None:
    prepare, plain = (
        Preparation(PrepareConfig(central_crop=share, clahe=clahe, clahe_size=128), 64) for clahe in (True, False)
    )
    films = [make_phantom(index) for index in range(16)]
    images = [prepare(Scan("a", film.pixels, 16)).image[0] for film in films]
    air = air_of((np.mean(images, axis=0) + 1) / 2)
    masks = [Scan("a", film.lung_mask.astype(np.float32), 16) for film in films]
    lungs = (np.mean([plain(mask).image[0] for mask in masks], axis=0) + 1) / 2
    assert (lungs > 0.9).mean() > 0.1
    assert air[lungs > 0.9].mean() > 0.9
    assert air[lungs < 0.1].mean() < 0.1
    assert np.average(air, weights=lungs) > 3 * np.average(air, weights=1 - lungs)


def registered_mean(folder: Path, share: float) -> Float32:
    files = [ScanFile(path.name, path, path.name) for path in sorted(folder.iterdir())[::15]]
    scans = [read_scan(file) for file in files]
    unfitted = Preparation(PrepareConfig(register="affine", central_crop=share), 64)
    template = fit_template(np.stack([small_copy(unfitted.shrink(scan).pixels) for scan in scans]))
    prepare = unfitted.with_template(template)
    mean: Float32 = (np.mean([prepare(scan).image[0] for scan in scans], axis=0) + 1) / 2
    return mean


@pytest.mark.real
@pytest.mark.parametrize("share", [1.0, 0.8])
@pytest.mark.parametrize("normals", ["kermany/train/NORMAL", "rsna_adult/train/normal"])
def test_real_mean_films_show_a_lung_on_each_side_of_the_spine(normals: str, share: float, shared_data: Path) -> None:
    air = air_of(registered_mean(shared_data / "data" / normals, share))
    assert 0.1 / share**2 < air.mean() < 0.35 / share**2
    left, right = air[:, :28].mean(), air[:, 36:].mean()
    assert 0.5 < left / right < 2.0
    assert air[:, 31:33].mean() < 0.2
    assert air[-6:].mean() < 0.1, "the abdomen"
    assert doubt_of(air) is None
