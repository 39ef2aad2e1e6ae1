from __future__ import annotations

import numpy as np
import pytest

from anomaly.scans.duplicates import thumbnail
from anomaly.scans.leaks import Item, Leaks, check_leaks
from anomaly.scans.phantom import make_phantom


@pytest.fixture(scope="module")
def films():
    return [make_phantom(index, seed=5).pixels for index in range(8)]


@pytest.fixture(scope="module")
def item(films):
    def make(name: str, film: int, patient: str | None = None, *, resaved: bool = False) -> Item:
        pixels = films[film][7:, 7:] ** np.float32(1.2) if resaved else films[film]
        return Item(name, patient, f"digest {film} {resaved}", thumbnail(pixels))

    return make


def test_nothing_shared(item) -> None:
    leaks = check_leaks([item("a", 0, "p"), item("b", 1)], [item("c", 2, "q"), item("d", 3)])
    assert leaks == Leaks()
    assert leaks.stop() is None
    assert leaks.warn() is None


def test_shared_patients_stop_and_unknown_patients_match_nobody(item) -> None:
    train = [item("t2", 0, "p"), item("t1", 1, "p"), item("t3", 2, None), item("t4", 3, "q")]
    leaks = check_leaks(train, [item("x1", 4, "p"), item("x2", 5, "p"), item("x3", 6, None), item("x4", 7, "r")])
    assert leaks == Leaks(patients=(("t1", "x1"),))
    stop = leaks.stop()
    assert stop is not None
    assert "1 patient is in both (t1 and x1)" in stop
    assert "split column" in stop
    assert leaks.warn() is None


def test_exact_copies_stop_and_are_not_near_ones_too(item) -> None:
    leaks = check_leaks([item("t1", 0), item("t0", 0), item("t2", 1)], [item("x1", 0), item("x0", 0), item("x2", 2)])
    assert leaks == Leaks(exact=(("t0", "x0"), ("t0", "x1")))
    assert "2 test films have the same pixels as a training film (t0 and x0; t0 and x1)" in str(leaks.stop())


def test_near_copies_only_warn(item) -> None:
    leaks = check_leaks([item("t0", 0), item("t1", 1)], [item("x0", 1, resaved=True), item("x1", 2, resaved=True)])
    assert leaks == Leaks(near=(("t1", "x0"),))
    assert leaks.stop() is None
    assert "1 test film looks like" in str(leaks.warn())
    assert "(t1 and x0)" in str(leaks.warn())


def test_order_of_films_does_not_matter(item) -> None:
    train = [item("t0", 0, "p"), item("t1", 0, "p"), item("t2", 1, resaved=True), item("t3", 1)]
    test = [item("x0", 0, "q"), item("x1", 4, "p"), item("x2", 1, resaved=True), item("x3", 2, "p")]
    assert check_leaks(train, test) == check_leaks(train[::-1], test[::-1]) != Leaks()


def test_messages_show_three_names_that_cannot_break_a_line() -> None:
    pairs = tuple((f"t{i}\n", f"x{i}") for i in range(5))
    leaks = Leaks(patients=pairs, exact=pairs[:1], near=pairs[:2])
    stop, warn = str(leaks.stop()), str(leaks.warn())
    assert r"5 patients are in both (t0\n and x0; t1\n and x1; t2\n and x2; …)" in stop
    assert r"1 test film has the same pixels as a training film (t0\n and x0)" in stop
    assert "2 test films look" in warn
    assert "\n" not in stop + warn


def test_empty_sides(item) -> None:
    assert check_leaks([], [item("a", 0, "p")]) == check_leaks([item("a", 0, "p")], []) == Leaks()
