from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from anomaly.records import Float32, ScanFile, UInt8
from anomaly.scans.duplicates import (
    HASH_RADIUS,
    Pair,
    aligned,
    exact_copies,
    near_copies,
    perceptual_hash,
    pixel_digest,
    thumbnail,
)
from anomaly.scans.phantom import make_phantom
from anomaly.scans.read import read_scan

FILMS = 14


@pytest.fixture(scope="module")
def films() -> list[Float32]:
    return [make_phantom(index, seed=3).pixels for index in range(FILMS)]


@pytest.fixture(scope="module")
def thumbs(films: list[Float32]) -> UInt8:
    return np.stack([thumbnail(film) for film in films])


def warped(film: Float32, matrix: list[list[float]]) -> Float32:
    return np.asarray(cv2.warpAffine(film, np.array(matrix, dtype=np.float32), film.shape[::-1]))


def jpeg(film: Float32) -> Float32:
    stream = cv2.imencode(".jpg", np.rint(film * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_GRAYSCALE) / np.float32(255), dtype=np.float32)


def windowed(film: Float32) -> Float32:
    low, high = np.quantile(film, [0.1, 0.98])
    return np.clip((film - low) / (high - low), 0, 1).astype(np.float32)


DISTORTIONS: dict[str, Callable[[Float32], Float32]] = {
    "jpeg": jpeg,
    "half size": lambda film: np.asarray(cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "larger": lambda film: np.asarray(cv2.resize(film, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_LINEAR)),
    "darker": lambda film: film ** np.float32(1.4),
    "brighter": lambda film: film * np.float32(0.7) + np.float32(0.2),
    "window": windowed,
    "crop": lambda film: film[9:-9, 9:-9],
    "shift": lambda film: warped(film, [[1, 0, 8], [0, 1, 8]]),
    "turn": lambda film: warped(film, cv2.getRotationMatrix2D((240, 230), 1, 1).tolist()),
}


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_distorted_film_is_found_and_no_other(films: list[Float32], thumbs: UInt8, name: str) -> None:
    others = np.stack([thumbnail(DISTORTIONS[name](film)) for film in films])
    pairs = near_copies(thumbs, others)
    assert [(pair.first, pair.second) for pair in pairs] == [(i, i) for i in range(FILMS)]
    assert all(0.995 < pair.correlation <= 1 for pair in pairs)


def test_different_films_are_told_apart_though_their_hashes_are_near(thumbs: UInt8) -> None:
    hashes = perceptual_hash(thumbs)
    distances = np.bitwise_count(hashes[:, None] ^ hashes)[np.triu_indices(FILMS, 1)]
    assert np.mean(distances <= HASH_RADIUS) > 0.3, "the hash alone would call these copies"
    assert near_copies(thumbs) == []


def test_films_alike_but_for_their_details_are_no_copies(thumbs: UInt8) -> None:
    soft = [cv2.GaussianBlur(thumb.astype(np.float32), (0, 0), 3) for thumb in thumbs[:2]]
    details = [thumb - blurred for thumb, blurred in zip(thumbs, soft, strict=False)]
    one, other = (np.rint(soft[0] + 0.2 * detail).clip(0, 255).astype(np.uint8)[None] for detail in details)
    assert near_copies(one, other) == []
    found = near_copies(one, other, detail=0.0)
    assert len(found) == 1
    assert found[0].correlation > 0.995 > 0.97 > found[0].detail


def test_pairs_within_a_list_come_once_and_exact_copies_too(thumbs: UInt8) -> None:
    again = np.concatenate([thumbs, thumbs[[4, 2]]])
    assert near_copies(again) == [Pair(2, FILMS + 1, 1.0, 1.0), Pair(4, FILMS, 1.0, 1.0)]
    assert near_copies(again, thumbs[:3]) == [*(Pair(i, i, 1.0, 1.0) for i in range(3)), Pair(FILMS + 1, 2, 1.0, 1.0)]


def test_alignment_is_the_same_either_way_round(thumbs: UInt8) -> None:
    moved = thumbnail(np.roll(thumbs[0] / np.float32(255), 1, axis=1))
    assert aligned(thumbs[0], moved) == aligned(moved, thumbs[0]) > (0.99, 0.9)


def test_blank_thumbs_and_empty_lists_match_nothing(thumbs: UInt8) -> None:
    blank = np.full((3, 64, 64), 7, dtype=np.uint8)
    assert near_copies(blank) == near_copies(blank, thumbs) == near_copies(thumbs[:0]) == near_copies(thumbs[:1]) == []
    assert aligned(blank[0], thumbs[0]) == aligned(thumbs[0], blank[0]) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [np.zeros((2, 32, 32), np.uint8), np.zeros((2, 64, 64), np.float32)])
def test_refuses_other_arrays(bad: UInt8) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(N, 64, 64\)"):
        near_copies(bad)


def test_exact_copies() -> None:
    assert exact_copies(["c", "a", "b", "a", "c", "a"]) == [(0, 4), (1, 3, 5)]
    assert exact_copies([]) == exact_copies(["a", "b"]) == []


def test_digest_is_of_the_picture_and_nothing_else() -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (300, 450))  # more than one block
    film = (levels / 65535).astype(np.float32)
    assert pixel_digest(film) == pixel_digest(np.asfortranarray(film)) == pixel_digest(np.repeat(film, 2, 1)[:, ::2])
    touched = film.copy()
    touched[-1, -1] = (levels[-1, -1] ^ 1) / 65535
    different = [film, touched, film.T, film.reshape(450, 300), film[..., None]]
    assert len({pixel_digest(other) for other in different}) == len(different)


def test_eight_bits_stored_as_sixteen_are_the_same_picture() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30))
    eight, sixteen = (
        (levels / np.float32(255)).astype(np.float32),
        (levels * 257 / np.float32(65535)).astype(np.float32),
    )
    assert pixel_digest(eight) == pixel_digest(sixteen)


def test_thumbnail_is_grey_and_stretched() -> None:
    film = np.zeros((200, 100, 3), dtype=np.float32)
    film[:100] = [0.0, 0.3, 0.6]
    thumb = thumbnail(film)
    assert (thumb.shape, thumb.dtype) == ((64, 64), np.uint8)
    assert set(thumb[:32].ravel()) == {76}
    assert set(thumb[32:].ravel()) == {0}


@pytest.mark.real
def test_full_resolution_films_are_found_among_their_small_copies(shared_data) -> None:
    data = shared_data / "data"
    full = sorted((data / "kermany_fullres").rglob("*.jpeg"))
    small = sorted((data / "kermany/train").rglob("*.jpeg"))
    wanted = {path.stem: i for i, path in enumerate(small)}
    chosen = sorted({wanted[path.stem] for path in full if path.stem in wanted} | set(range(0, len(small), 10)))

    def thumb(path) -> UInt8:
        return thumbnail(read_scan(ScanFile(path.stem, path, path.name)).pixels)

    pairs = near_copies(np.stack([thumb(path) for path in full]), np.stack([thumb(small[i]) for i in chosen]))
    found = [(full[pair.first].stem, small[chosen[pair.second]].stem) for pair in pairs]
    assert found == [(path.stem, path.stem) for path in full if path.stem in wanted]
    assert found


@pytest.mark.real
def test_real_films_shifted_by_a_broken_number_of_pixels_are_confirmed_with_room_to_spare(shared_data) -> None:
    paths = sorted((shared_data / "data/rsna_adult/train/normal").glob("*.jpg"))[::40]
    for path in paths:
        film = read_scan(ScanFile(path.stem, path, path.name)).pixels
        moved = warped(film, [[1, 0, 4.5], [0, 1, 4.5]])
        whole, detail = aligned(thumbnail(film), thumbnail(moved))
        assert whole > 0.998, path.name
        assert detail > 0.985, path.name
