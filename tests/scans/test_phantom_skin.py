import csv
from collections import defaultdict

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomaly.errors import DataError, UsageError
from anomaly.scans.phantom_skin import COLUMNS, TABLE, draw_sick, lesion_of, make_skin, write_skin_phantoms
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans


@pytest.fixture(scope="module")
def population():
    """20 naevi and 20 melanomas of different pictures."""
    return [make_skin(i, seed=3, abnormal=i % 8 >= 4) for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("skin") / "set"
    seen = []
    rows = write_skin_phantoms(out, n=16, abnormal=6, seed=1, on_film=seen.append)
    return out, rows, seen


def ring(mask):
    """The skin close around a mask, without its soft edge."""
    near, far = (cv2.dilate(mask.astype(np.uint8), np.ones((k, k), np.uint8)) > 0 for k in (13, 41))
    return far & ~near


def test_picture_is_what_its_record_says(population):
    shapes = set()
    for i, film in enumerate(population):
        h, w = film.lesion_mask.shape
        assert film.pixels.shape == (h, w, 3)
        assert film.pixels.dtype == np.float32
        assert film.pixels.min() >= 0
        assert film.pixels.max() <= 1
        assert 300 <= w <= 380
        assert h == round(0.75 * w)
        assert film.hair_mask.shape == (h, w)
        assert film.lesion_mask.dtype == film.hair_mask.dtype == np.bool_
        assert film.lesion == ("melanoma" if i % 8 >= 4 else "naevus")
        assert 0.02 < film.lesion_mask.mean() < 0.4
        assert 0 < film.hair_mask.mean() < 0.5
        shapes.add((h, w))
    assert len(shapes) > 15


def test_same_seed_and_index_give_the_same_picture():
    first, again = (make_skin(5, seed=2, abnormal=True) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.lesion_mask, again.lesion_mask)
    for other in (make_skin(6, seed=2, abnormal=True), make_skin(5, seed=3, abnormal=True)):
        assert other.pixels.shape != first.pixels.shape or not np.array_equal(other.pixels, first.pixels)


def test_the_lesion_is_darker_than_the_skin_around_it(population):
    for film in population:
        grey = film.pixels.mean(axis=-1)
        inside = grey[film.lesion_mask & ~film.hair_mask].mean()
        assert inside < grey[ring(film.lesion_mask) & ~film.hair_mask].mean() - 0.05


def test_masks_end_where_the_pigment_ends():
    """Against the other class on the same skin: all the change lies in the two masks and the fading of their edges."""
    for index in range(4):
        naevus, melanoma = make_skin(index), make_skin(index, abnormal=True)
        change = np.abs(naevus.pixels - melanoma.pixels).max(axis=-1)
        either = (naevus.lesion_mask | melanoma.lesion_mask).astype(np.uint8)
        far = cv2.dilate(either, np.ones((61, 61), np.uint8)) == 0
        assert change[far].max() < 0.01
        inside = naevus.lesion_mask & ~cv2.dilate(melanoma.lesion_mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
        inside |= melanoma.lesion_mask & ~cv2.dilate(naevus.lesion_mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
        around = ring(either > 0)
        assert change[inside & ~naevus.hair_mask].mean() > 10 * change[around & ~naevus.hair_mask].mean()
        assert np.array_equal(naevus.hair_mask, melanoma.hair_mask)


def test_a_melanoma_is_larger_less_round_and_of_more_colours(population):
    found = defaultdict(list)
    for film in population:
        mask = film.lesion_mask.astype(np.uint8)
        outline = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
        hull = cv2.contourArea(cv2.convexHull(outline))
        hue = film.pixels[film.lesion_mask & ~film.hair_mask]
        found["area"].append(film.lesion_mask.mean())
        found["dents"].append(1 - cv2.contourArea(outline) / hull)
        found["colours"].append((hue / hue.sum(axis=-1, keepdims=True)).std(axis=0).sum())
    labels = [film.lesion == "melanoma" for film in population]
    for name, values in found.items():
        assert roc_auc_score(labels, values) > 0.75, name


def test_two_pictures_of_one_lesion():
    assert [lesion_of(i) for i in range(8)] == [0, 1, 2, 2, 4, 5, 6, 6]
    first, second, other = (make_skin(i, seed=4, abnormal=True) for i in (2, 3, 5))
    assert (first.lesion_index, second.lesion_index) == (2, 2)
    assert first.pixels.shape != second.pixels.shape or not np.allclose(first.pixels, second.pixels)

    def form(film):
        moments = cv2.moments(max(cv2.findContours(film.lesion_mask.astype(np.uint8), 0, 1)[0], key=cv2.contourArea))
        return np.log(cv2.HuMoments(moments)[:2, 0])  # whichever way it is turned

    assert np.abs(form(first) - form(second)).max() < 0.1 < np.abs(form(first) - form(other)).max()


def test_files_and_table(folder):
    out, rows, seen = folder
    assert seen == list(range(16))
    with (out / TABLE).open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert tuple(rows[0]) == COLUMNS
    assert [row["dx"] for row in rows].count("mel") == 6
    assert len({row["image_id"] for row in rows}) == 16
    assert len({row["lesion_id"] for row in rows}) == 12
    of_lesion = defaultdict(set)
    for i, row in enumerate(rows):
        of_lesion[row["lesion_id"]].add(row["dx"])
        film = make_skin(i, seed=1, abnormal=row["dx"] == "mel")
        stored = cv2.imread(str(out / "HAM10000_images_part_1" / f"{row['image_id']}.jpg"))[..., ::-1] / 255
        assert np.abs(stored - film.pixels).mean() < 0.02
        name = f"{row['image_id']}_segmentation.png"
        mask = cv2.imread(str(out / "HAM10000_segmentations_lesion_tschandl" / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, 255 * film.lesion_mask)
    assert all(len(classes) == 1 for classes in of_lesion.values())


def test_sets_of_two_seeds_share_no_lesion(folder, tmp_path):
    _, rows, _ = folder
    others = write_skin_phantoms(tmp_path / "other", n=1, abnormal=0, seed=2)
    assert not {row["lesion_id"] for row in others} & {row["lesion_id"] for row in rows}


@pytest.mark.parametrize("part", [".", "HAM10000_images_part_1"])
def test_the_layout_is_recognised_with_masks_and_lesions(folder, part):
    out, rows, _ = folder
    listing = list_scans(out / part)
    assert listing.layout == "HAM10000"
    assert len(listing.files) == 16
    by_id = {row["image_id"]: row for row in rows}
    groups = defaultdict(set)
    for file in listing.files:
        row = by_id[file.path.stem]
        assert (file.class_name, file.label) == (row["dx"], int(row["dx"] == "mel"))
        name = f"HAM10000_segmentations_lesion_tschandl/{file.path.stem}_segmentation.png"
        assert file.mask is not None
        assert file.mask.samefile(out / name)
        groups[file.patient].add(row["lesion_id"])
    assert len(groups) == 12
    assert all(len(lesions) == 1 for lesions in groups.values())


def test_colour_is_read_as_colour(folder):
    out, rows, _ = folder
    file = list_scans(out).files[0]
    scan = read_scan(file, channels=3)
    film = make_skin(0, seed=1, abnormal=rows[0]["dx"] == "mel")
    assert scan.pixels.shape == film.pixels.shape
    assert np.abs(scan.pixels - film.pixels).mean() < 0.02


@pytest.mark.parametrize(("n", "abnormal"), [(1, 1), (4, 1), (4, 3), (4, 4), (8, 7), (9, 0), (11, 5)])
def test_exactly_so_many_are_abnormal(n, abnormal):
    for seed in range(5):
        sick = draw_sick(n, abnormal, np.random.default_rng(seed))
        assert len(sick) == abnormal
        assert all((i in sick) == (lesion_of(i) in sick) for i in range(n))


def test_refuses_what_makes_no_sense(tmp_path):
    with pytest.raises(UsageError, match="Pass 0 or more"):
        make_skin(-1)
    with pytest.raises(UsageError, match="3 of 2"):
        write_skin_phantoms(tmp_path / "out", n=2, abnormal=3)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="Name a new folder"):
        write_skin_phantoms(tmp_path, n=1, abnormal=0)


def test_the_command(tmp_path, capsys):
    from anomaly.cli import app

    app(
        ["phantom", str(tmp_path / "skin"), "--kind", "skin", "--n", "2", "--abnormal", "1", "-q"],
        standalone_mode=False,
    )
    assert capsys.readouterr().out.endswith("2 phantoms, 1 with a melanoma\n")
    assert len(list_scans(tmp_path / "skin").files) == 2
