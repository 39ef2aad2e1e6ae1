"""Prepared images in memory and on disk."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import OutputError
from anomaly.prepare.prepare import Shrunk
from anomaly.prepare.source import ArraySource, FilmSpool, ImageSpool
from anomaly.scans.borders import Box

IMAGES = np.arange(7 * 4, dtype=np.float32).reshape(7, 1, 2, 2)


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_every_image_is_served_once_in_order_each_time(batch: int) -> None:
    source = ArraySource(IMAGES)
    for _ in range(2):
        batches = list(source.batches(batch))
        assert all(0 < len(part) <= batch for part in batches)
        np.testing.assert_array_equal(np.concatenate(batches), IMAGES)


def test_without_groups_every_image_is_its_own_patient() -> None:
    source = ArraySource(IMAGES)
    assert len(source) == 7
    assert source.groups.dtype == np.int64
    assert len(set(source.groups.tolist())) == 7


def test_groups_are_kept() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2, 3])
    np.testing.assert_array_equal(ArraySource(IMAGES, groups).groups, groups)


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="7 images"):
        ArraySource(IMAGES, np.zeros(3, np.int64))


def test_no_images_serve_nothing() -> None:
    assert list(ArraySource(IMAGES[:0]).batches()) == []


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_some_images_are_served_in_the_order_asked_without_a_copy_of_all(batch: int) -> None:
    index = np.array([5, 0, 3])
    source = ArraySource(IMAGES, np.array([1, 1, 2]), index)
    assert len(source) == 3
    np.testing.assert_array_equal(np.concatenate(list(source.batches(batch))), IMAGES[index])
    with pytest.raises(ValueError, match="3 images"):
        ArraySource(IMAGES, np.arange(7), index)


def test_a_spool_gives_back_what_was_put_in_and_is_gone_afterwards(tmp_path: Path) -> None:
    with ImageSpool(tmp_path / "run") as spool:
        assert [spool.append(image) for image in IMAGES[:5]] == list(range(5))
        first = spool.source([4, 1], np.array([7, 7]))
        np.testing.assert_array_equal(np.concatenate(list(first.batches(1))), IMAGES[[4, 1]])
        for image in IMAGES[5:]:
            spool.append(image)
        assert len(spool) == 7
        np.testing.assert_array_equal(spool.take(range(7)), IMAGES)
        assert spool.take([]).shape == (0, 1, 2, 2)
        (source,) = spool.source(range(7)).batches()
        assert source.dtype == np.float32
        for wrong in (IMAGES[0, :, :1], IMAGES[0].astype(np.float64)):
            with pytest.raises(ValueError, match="does not fit"):
                spool.append(wrong)
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(ValueError, match="inside its `with`"):
        spool.append(IMAGES[0])


def test_a_spool_knows_which_pixels_show_film(tmp_path: Path) -> None:
    masks = [None, np.eye(3, dtype=np.bool_), np.zeros((3, 3), np.bool_), None]
    image = np.zeros((1, 3, 3), np.float32)
    with ImageSpool(tmp_path) as spool:
        for mask in masks:
            spool.append(image, mask)
        for wrong in (np.ones((2, 3), np.bool_), np.ones((3, 3), np.uint8)):
            with pytest.raises(ValueError, match="mask"):
                spool.append(image, wrong)
        found = spool.inside([2, 1, 0, 1])
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, [masks[2], masks[1], np.ones((3, 3)), masks[1]])
        assert spool.inside([]).shape == (0, 3, 3)


def test_films_that_wait_come_back_whole_whatever_their_form(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    films = [
        Shrunk(rng.integers(0, 256, (8, 8)).astype(np.uint8), Box(1, 2, 3, 4), (50, 60), ("odd",)),
        Shrunk(rng.integers(0, 65536, (6, 6, 3)).astype(np.uint16), Box(0, 6, 0, 6), (6, 6), ()),
        Shrunk(rng.random((5, 5, 3), dtype=np.float32), Box(0, 5, 0, 5), (5, 5), ()),
    ]
    with FilmSpool(tmp_path) as spool:
        assert [spool.append(film) for film in films] == [0, 1, 2]
        assert len(spool) == 3
        found = [spool[place] for place in (2, 0, 1)]
    assert not list(tmp_path.iterdir())
    for film, kept in zip([films[2], films[0], films[1]], found, strict=True):
        assert (kept.box, kept.film_shape, kept.warnings) == (film.box, film.film_shape, film.warnings)
        assert kept.pixels.dtype == film.pixels.dtype
        np.testing.assert_array_equal(kept.pixels, film.pixels)
    with pytest.raises(ValueError, match="inside its `with`"):
        spool.append(films[0])


def test_a_spool_is_gone_after_a_failure_and_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OutputError, match="Free some space"), ImageSpool(tmp_path) as spool:  # noqa: PT012
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            spool.append(np.zeros((1, 64, 64), np.float32))
            spool.take([0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_film_spool_keeps_no_picture_in_memory(tmp_path: Path) -> None:
    film = Shrunk(np.ones((64, 64), np.uint8), Box(0, 64, 0, 64), (64, 64), ())
    with FilmSpool(tmp_path) as films:
        films.append(film)
        kept = films._films[0][2].pixels
        assert kept.size == 0
        assert kept.base is None, "a view would hold the whole picture"
        np.testing.assert_array_equal(films[0].pixels, film.pixels)
