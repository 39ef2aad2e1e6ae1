"""Letters near the edge are found at any size; anatomy is not taken for them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anomaly.scans.markers import find_markers
from anomaly.scans.phantom import make_phantom

Place = tuple[float, float]


def chest(height: int, width: int) -> np.ndarray:
    """A bright trunk with two dark lungs, and no mark on it."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    body = 0.55 / (1 + np.exp((np.abs(x) - 0.42) * 60))
    lungs = sum(np.exp(-(((x - side) / 0.11) ** 2) - ((y + 0.05) / 0.28) ** 2) for side in (-0.2, 0.2))
    return np.clip(body - 0.35 * lungs + 0.02, 0, 1).astype(np.float32)


def with_letter(film: np.ndarray, letter: str, at: Place, level: float = 0.95, tall: float = 0.045) -> np.ndarray:
    """Draw a letter whose centre is at (x, y), shares of the sides; return where it was drawn."""
    height, width = film.shape
    scale = tall * max(height, width) / 22  # OpenCV's plain capitals are 22 px tall
    thick = max(1, round(3 * scale))
    (w, h), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    drawn = np.zeros(film.shape, np.uint8)
    place = (round(at[0] * width - w / 2), round(at[1] * height + h / 2))
    cv2.putText(drawn, letter, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    film[...] = np.maximum(film, drawn.astype(np.float32) / 255 * level)
    return drawn > 64


@pytest.mark.parametrize("shape", [(224, 224), (512, 430), (1400, 2000)])
@pytest.mark.parametrize(
    ("letter", "at"), [("R", (0.04, 0.4)), ("L", (0.93, 0.1)), ("R", (0.3, 0.06)), ("AP", (0.2, 0.08))]
)
def test_a_letter_is_covered_whole_and_little_else(shape: tuple[int, int], letter: str, at: Place) -> None:
    film = chest(*shape)
    drawn = with_letter(film, letter, at)
    mask = find_markers(film)
    assert (mask.shape, mask.dtype) == (shape, np.bool_)
    assert mask[drawn].mean() > 0.99
    around = cv2.dilate(drawn.astype(np.uint8), np.ones((max(shape) // 20,) * 2, np.uint8)) > 0
    assert not mask[~around].any()


@pytest.mark.parametrize("shape", [(224, 224), (900, 760)])
def test_a_film_without_marks_has_none(shape: tuple[int, int]) -> None:
    assert not find_markers(chest(*shape)).any()


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.35, 0.4)])
def test_what_lies_in_the_middle_is_left_alone(at: Place) -> None:
    film = chest(400, 400)
    with_letter(film, "R", at)
    assert not find_markers(film).any()


def test_a_blurred_bright_spot_is_bone() -> None:
    film = chest(256, 256)
    y, x = np.mgrid[:256, :256]
    for row in (90, 120, 150):
        film += 0.4 * np.exp(-0.5 * (((x - 40) / 5) ** 2 + ((y - row) / 5) ** 2)).astype(np.float32)
    assert not find_markers(np.clip(film, 0, 1)).any()


def test_a_bright_frame_is_no_mark() -> None:
    film = chest(256, 256)
    film[:, :6] = film[:4] = 1
    assert not find_markers(film).any()


def test_phantoms_wear_their_marker_where_it_was_drawn() -> None:
    for index in range(4):
        mask = find_markers(make_phantom(index).pixels)
        rows, columns = np.nonzero(mask)
        assert rows.size
        assert np.median(rows) < 0.2 * mask.shape[0]
        assert abs(np.median(columns) / mask.shape[1] - 0.5) > 0.3


def test_colour_films_are_looked_at_in_grey() -> None:
    film = chest(300, 300)
    with_letter(film, "R", (0.05, 0.3))
    np.testing.assert_array_equal(find_markers(np.dstack([film] * 3)), find_markers(film))
