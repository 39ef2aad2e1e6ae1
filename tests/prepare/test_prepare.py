"""Film -> square: the same film at any depth gives the same square, in range, every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.config import PrepareConfig
from anomaly.prepare.prepare import Preparation, Shrunk
from anomaly.prepare.resize import resize
from anomaly.records import Scan, ScanFile
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.phantom import make_phantom
from anomaly.scans.read import read_scan

RNG = np.random.default_rng(0)


def read(path: Path, channels: int = 1) -> Scan:
    return read_scan(ScanFile(path.name, path, path.name), channels=channels)


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


def copies(folder: Path, pixels: np.ndarray) -> list[Path]:
    """The same film as 8-bit PNG, 12-bit DICOM (both photometric interpretations) and 16-bit PNG."""
    twelve = np.rint(pixels * 4095).astype(np.uint16)
    paths = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        paths.append(folder / f"{photometric}.dcm")
        write_dicom(paths[-1], twelve, bits=12, photometric=photometric, patient="P1", spacing_mm=0.8)
    paths.append(write_png(folder / "8.png", np.rint(pixels * 255).astype(np.uint8)))
    paths.append(write_png(folder / "16.png", np.rint(pixels * 65535).astype(np.uint16)))
    return paths


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("index", [0, 1])
def test_8_12_and_16_bit_copies_of_a_film_come_out_alike(tmp_path: Path, index: int, size: int) -> None:
    scans = [read(path) for path in copies(tmp_path, make_phantom(index).pixels)]
    assert sorted({scan.bits for scan in scans}) == [8, 12, 16]
    prepare = Preparation(PrepareConfig(), size)
    images = [prepare(scan).image for scan in scans]
    for image in images:
        assert np.abs(image - images[-1]).mean() < 0.005
    if size == 64:
        assert max(np.abs(image - images[-1]).max() for image in images) < 0.05


def test_without_clahe_the_copies_differ_by_their_rounding_only(tmp_path: Path) -> None:
    prepare = Preparation(PrepareConfig(clahe=False), 64)
    images = [prepare(read(path)).image for path in copies(tmp_path, make_phantom(0).pixels)]
    for image in images:
        assert np.abs(image - images[-1]).max() < 0.005


def test_the_same_film_gives_the_same_bytes_twice() -> None:
    pixels = make_phantom(2).pixels
    a, b = (Preparation(PrepareConfig(), 64)(Scan("a", pixels.copy(), 16)).image.tobytes() for _ in range(2))
    assert a == b


GREY = [(300, 400), (1000, 700), (16, 16), (20, 900), (40, 33)]


@pytest.mark.parametrize("clahe", [True, False])
@pytest.mark.parametrize(("shape", "channels"), [*((s, c) for s in GREY for c in (1, 3)), ((300, 400, 3), 3)])
def test_any_film_becomes_a_square_in_range(shape: tuple[int, ...], channels: int, clahe: bool) -> None:
    pixels = RNG.random(shape).astype(np.float32)
    prepared = Preparation(PrepareConfig(clahe=clahe, channels=channels), 64)(Scan("a", pixels, 16))
    image = prepared.image
    assert image.shape == (channels, 64, 64)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert -1 <= image.min() < image.max() <= 1
    assert (prepared.geometry.film_shape, prepared.geometry.size) == (shape[:2], 64)


def test_black_and_white_reach_the_ends_of_the_range() -> None:
    pixels = np.zeros((256, 256), np.float32)
    pixels[:, 128:] = 1
    image = Preparation(PrepareConfig(clahe=False), 64)(Scan("a", pixels, 16)).image
    assert (image.min(), image.max()) == (-1, 1)


def test_without_clahe_a_film_is_area_averaged() -> None:
    pixels = RNG.random((128, 192)).astype(np.float32)
    image = Preparation(PrepareConfig(clahe=False), 32)(Scan("a", pixels, 16)).image[0]
    averaged = pixels.reshape(32, 4, 32, 6).mean(axis=(1, 3))
    np.testing.assert_allclose((image + 1) / 2, averaged, atol=1e-5)


def test_clahe_changes_the_picture_and_its_settings_matter() -> None:
    scan = Scan("a", make_phantom(0).pixels, 16)
    images = [
        Preparation(config, 64)(scan).image
        for config in (
            PrepareConfig(clahe=False),
            PrepareConfig(),
            PrepareConfig(clahe_clip=4.0),
            PrepareConfig(clahe_tiles=2),
            PrepareConfig(clahe_size=128),
        )
    ]
    for i, image in enumerate(images):
        for other in images[i + 1 :]:
            assert np.abs(image - other).mean() > 0.005


def test_a_small_film_grows_smoothly() -> None:
    pixels = np.repeat(np.linspace(0, 1, 20, dtype=np.float32)[None], 20, axis=0)
    image = Preparation(PrepareConfig(clahe=False), 64)(Scan("a", pixels, 8)).image[0]
    assert (np.diff(image, axis=1) >= 0).all()
    assert np.diff(image, axis=1).max() < 2 / 19


def test_preparing_leaves_the_scan_alone() -> None:
    pixels = RNG.random((100, 90)).astype(np.float32)
    pixels.setflags(write=False)
    Preparation(PrepareConfig(), 64)(Scan("a", pixels, 16))
    Preparation(PrepareConfig(clahe=False), 64)(Scan("a", pixels, 16))


def test_warnings_of_the_reader_stay_with_the_film() -> None:
    scan = Scan("a", RNG.random((50, 50)).astype(np.float32), 8, warnings=("odd",))
    assert Preparation(PrepareConfig(), 32)(scan).warnings == ("odd",)


def test_real_colour_keeps_its_channels_in_order_through_a_file(tmp_path: Path) -> None:
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 200, 120, 40
    rgb[:5, :5] = 0
    path = write_png(tmp_path / "colour.png", np.ascontiguousarray(rgb[..., ::-1]))
    image = Preparation(PrepareConfig(channels=3, clahe=False), 32)(read(path, channels=3)).image
    np.testing.assert_allclose((image[:, 20, 20] + 1) * 127.5, [200, 120, 40], atol=0.5)


def test_a_grey_film_asked_for_in_colour_is_three_times_itself() -> None:
    scan = Scan("a", make_phantom(0).pixels, 16)
    grey, colour = (Preparation(PrepareConfig(channels=c), 32)(scan).image for c in (1, 3))
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=0))


def test_resizing_is_no_copy_of_the_wrong_way_round() -> None:
    pixels = np.zeros((100, 200), np.float32)
    pixels[10:30, 150:190] = 1
    small = resize(pixels, 20)
    assert np.unravel_index(small.argmax(), small.shape) in [(y, x) for y in range(2, 6) for x in range(15, 19)]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("clahe", [False, True])
def test_the_shrunk_film_serves_every_size_that_shares_it(clahe: bool, colour: bool) -> None:
    noise = np.random.default_rng(0).random((150, 120, 3) if colour else (150, 120)).astype(np.float32)
    scan = Scan("film", noise, 16, warnings=("odd",))
    config = PrepareConfig(clahe=clahe, clahe_size=96, crop="auto", channels=3 if colour else 1)
    small, large = Preparation(config, 32), Preparation(config, 48)
    assert (small.shrinks_by == large.shrinks_by) is clahe
    shrunk = Shrunk.from_entry(*small.shrink(scan).to_entry())
    for preparation in (small, large) if clahe else (small,):
        found, direct = preparation.finish(shrunk), preparation(scan)
        assert found.image.tobytes() == direct.image.tobytes()
        assert found.geometry.matrix.tobytes() == direct.geometry.matrix.tobytes()
        assert (found.geometry.film_shape, found.warnings) == (direct.geometry.film_shape, direct.warnings)
