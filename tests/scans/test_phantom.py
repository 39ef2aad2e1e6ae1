import csv
from collections import Counter

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anomaly.errors import DataError, UsageError
from anomaly.scans.phantom import BOX_COLUMNS, COLUMNS, find_boxes, make_phantom, write_phantoms
from anomaly.scans.phantom_lesions import LESIONS
from anomaly.scans.walk import list_scans


@pytest.fixture(scope="module")
def population():
    """50 normal and 50 abnormal films of different patients: enough to see a shortcut of 0.75."""
    return [make_phantom(i, seed=3, abnormal=i % 2 == 1) for i in range(100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "set"
    seen = []
    rows = write_phantoms(out, n=16, abnormal=6, seed=1, on_film=seen.append)
    return out, rows, seen


def contrast(film, normal):
    """Mean brightening inside the lesion, as a share of mediastinum minus lung on the normal film."""
    lung = film.lung_mask
    rows, columns = (np.flatnonzero(lung.any(axis)) for axis in (1, 0))
    top, bottom = np.quantile(rows, [0.2, 0.9]).astype(int)
    middle, reach = (columns[0] + columns[-1]) // 2, int(15 / film.spacing_mm)
    centre = np.median(normal.pixels[top:bottom, middle - reach : middle + reach])
    inside = film.lesion_mask & lung
    change = (film.pixels - normal.pixels)[inside].mean()
    return float(change / (centre - np.median(normal.pixels[lung])))


def test_film_is_what_its_record_says(population):
    shapes = set()
    for film in population[:20]:
        assert film.pixels.dtype == np.float32
        assert film.pixels.min() >= 0
        assert film.pixels.max() <= 1
        assert film.pixels.max() - film.pixels.min() > 0.8
        assert 420 <= film.pixels.shape[0] <= 560
        assert film.lung_mask.dtype == film.lesion_mask.dtype == np.bool_
        assert film.lung_mask.shape == film.lesion_mask.shape == film.pixels.shape
        assert 0.12 < film.lung_mask.mean() < 0.5
        assert 0.5 < film.spacing_mm < 1.2
        assert film.view == "PA"
        shapes.add(film.pixels.shape)
    assert len(shapes) > 15


def test_bone_is_bright_and_lung_dark(population):
    for film in population[:20:2]:
        below = film.pixels[-20:, film.pixels.shape[1] // 3 : -film.pixels.shape[1] // 3]
        assert np.median(film.pixels[film.lung_mask]) < np.median(below) - 0.2


def test_same_seed_and_index_give_the_same_film():
    first, again = (make_phantom(5, seed=2, abnormal=True) for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.lesion_mask, again.lesion_mask)
    assert first.lesion == again.lesion
    for other in (make_phantom(6, seed=2), make_phantom(5, seed=3)):
        assert other.pixels.shape != first.pixels.shape or not np.array_equal(other.pixels, first.pixels)


def test_masks_only_on_abnormals_and_by_the_lungs(population):
    for i, film in enumerate(population):
        assert film.lesion_mask.any() == (i % 2 == 1)
        assert (film.lesion is not None) == (i % 2 == 1)
        if film.lesion is None:
            continue
        near = cv2.dilate(film.lung_mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        # An effusion and the lung it fills also lie behind the dome, below the lung a reader outlines.
        assert (film.lesion_mask & near).sum() > (0.3 if film.lesion == "effusion" else 0.6) * film.lesion_mask.sum()


def test_kinds_come_in_their_shares(population):
    kinds = Counter(film.lesion for film in population if film.lesion)
    assert set(kinds) == set(LESIONS)
    assert 20 <= kinds["consolidation"] <= 40


@pytest.mark.parametrize("kind", LESIONS)
def test_abnormal_is_the_normal_film_plus_its_lesion(kind):
    for index in range(2):
        normal, film = make_phantom(index), make_phantom(index, abnormal=True, lesion=kind)
        assert film.lesion == kind
        assert film.pixels.shape == normal.pixels.shape
        assert film.spacing_mm == normal.spacing_mm
        assert np.array_equal(film.lung_mask, normal.lung_mask)
        change = film.pixels - normal.pixels
        reach = np.ones((81, 81), np.uint8)
        far = cv2.dilate(film.lesion_mask.astype(np.uint8), reach) == 0
        assert np.abs(change[far]).mean() < 0.003
        assert change[film.lesion_mask].mean() > 0.015


def test_nodule_has_its_size():
    for index in range(6):
        film = make_phantom(index, abnormal=True, lesion="nodule")
        across = 2 * np.sqrt(film.lesion_mask.sum() / np.pi) * film.spacing_mm
        assert 7 < across < 34


def test_consolidation_contrast_is_10_to_25_percent_of_lung_to_mediastinum():
    found = []
    for index in range(8):
        film = make_phantom(index, seed=9, abnormal=True, lesion="consolidation")
        found.append(contrast(film, make_phantom(index, seed=9)))
    assert 0.10 < np.mean(found) < 0.25
    assert min(found) > 0.06
    assert max(found) < 0.32


def test_no_trivial_number_separates_the_classes(population):
    labels = [film.lesion is not None for film in population]
    numbers = {
        "mean": lambda p: p.mean(),
        "std": lambda p: p.std(),
        "median": np.median,
        "5th percentile": lambda p: np.quantile(p, 0.05),
        "95th percentile": lambda p: np.quantile(p, 0.95),
        "sharpness": lambda p: cv2.Laplacian(p, cv2.CV_32F).var(),
        "black share": lambda p: (p < 0.04).mean(),
        "PNG size": lambda p: len(cv2.imencode(".png", np.rint(p * 255).astype(np.uint8))[1]),
        "height": lambda p: p.shape[0],
        "width": lambda p: p.shape[1],
    }
    for name, number in numbers.items():
        auroc = roc_auc_score(labels, [float(number(film.pixels)) for film in population])
        assert 0.25 <= auroc <= 0.75, name


def test_refuses_what_it_cannot_draw():
    with pytest.raises(UsageError, match="Choose one of consolidation, nodule, effusion"):
        make_phantom(0, abnormal=True, lesion="fracture")
    with pytest.raises(UsageError, match="Pass abnormal=True"):
        make_phantom(0, lesion="nodule")
    with pytest.raises(UsageError, match="Pass 0 or more"):
        make_phantom(-1)


def test_files_and_manifest(folder):
    out, rows, seen = folder
    assert seen == list(range(16))
    names = ["abnormal", "boxes.csv", "lung_masks", "manifest.csv", "masks", "normal"]
    assert sorted(p.name for p in out.iterdir()) == names
    with (out / "manifest.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert tuple(rows[0]) == COLUMNS
    films = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p.parent != out]
    lungs = [f"lung_masks/{r['path'].rpartition('.')[0]}.png" for r in rows]
    assert sorted(films) == sorted([r["path"] for r in rows] + [r["mask"] for r in rows if r["mask"]] + lungs)
    assert [r["label"] for r in rows].count("1") == 6
    assert len({r["patient"] for r in rows}) == 16
    for i, row in enumerate(rows):
        sick = row["label"] == "1"
        assert row["path"].startswith(f"{'abnormal' if sick else 'normal'}/phantom-{i:04d}.")
        assert row["mask"] == (f"masks/phantom-{i:04d}.png" if sick else "")
        assert row["boxes"] == ("boxes.csv" if sick else "")
        assert row["class"] in LESIONS if sick else row["class"] == "normal"
        assert (row["view"], row["split"]) == ("PA", "")


def test_written_films_are_the_drawn_ones(folder):
    out, rows, _ = folder
    depths = set()
    for i, row in enumerate(rows):
        film = make_phantom(i, seed=1, abnormal=row["label"] == "1")
        if row["path"].endswith(".png"):
            stored = cv2.imread(str(out / row["path"]), cv2.IMREAD_UNCHANGED)
            depths.add(stored.dtype)
            assert np.allclose(stored / np.iinfo(stored.dtype).max, film.pixels, atol=0.003)
        if row["mask"]:
            assert np.array_equal(cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED), 255 * film.lesion_mask)
        lungs = out / "lung_masks" / f"{row['path'].rpartition('.')[0]}.png"
        assert np.array_equal(cv2.imread(str(lungs), cv2.IMREAD_UNCHANGED), 255 * film.lung_mask)
    assert depths == {np.dtype(np.uint8), np.dtype(np.uint16)}


def test_boxes_are_tight_round_every_region_of_the_lesion(folder):
    out, rows, _ = folder
    with (out / "boxes.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        boxes = [(line["path"], *(int(line[name]) for name in "xywh")) for line in reader]
    assert tuple(reader.fieldnames) == BOX_COLUMNS
    expected = []
    for i, row in enumerate(rows):
        if row["label"] == "1":
            mask = make_phantom(i, seed=1, abnormal=True).lesion_mask
            count, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            for region in range(1, count):
                y, x = np.nonzero(regions == region)
                expected.append((row["path"], x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1))
            for x, y, w, h in (box[1:] for box in boxes if box[0] == row["path"]):
                assert x >= 0 < w
                assert y >= 0 < h
                assert x + w <= mask.shape[1]
                assert y + h <= mask.shape[0]
    assert sorted(boxes) == sorted(expected)


def test_boxes_of_a_mask():
    mask = np.zeros((6, 8), bool)
    assert find_boxes(mask).shape == (0, 4)
    mask[4, 5] = mask[1, 0] = mask[2, 1] = True
    assert find_boxes(mask).tolist() == [[0, 1, 2, 2], [5, 4, 1, 1]]


def test_lung_masks_are_neither_films_nor_masks_of_lesions(folder, tmp_path):
    out, rows, _ = folder
    listing = list_scans(out)
    lesions = {row["path"]: out / row["mask"] if row["mask"] else None for row in rows}
    assert {file.relative: file.mask for file in listing.files} == lesions
    assert {file.boxes for file in listing.files if file.mask} == {out / "boxes.csv"}
    assert not any(file.boxes for file in listing.files if file.label == 0)
    assert listing.others == 1
    assert listing.layout == "class folders"
    assert "2 folders of masks not taken for scans" in listing.notes
    for name in ("normal", "abnormal", "masks", "lung_masks", "boxes.csv"):  # without the manifest
        (tmp_path / name).symlink_to(out / name)
    bare = list_scans(tmp_path)
    assert sorted(file.relative for file in bare.files) == sorted(lesions)
    assert not any("lung_masks" in str(file.mask) for file in bare.files)


def test_dicom_films_read_back_bone_bright(folder):
    from anomaly.scans.dicom import read_dicom

    out, rows, _ = folder
    found = Counter()
    for i, row in enumerate(rows):
        if row["path"].endswith(".dcm"):
            picture = read_dicom((out / row["path"]).read_bytes())
            film = make_phantom(i, seed=1, abnormal=row["label"] == "1")
            assert np.corrcoef(np.ravel(picture.pixels), film.pixels.ravel())[0, 1] > 0.999
            found[b"MONOCHROME1" in (out / row["path"]).read_bytes()] += 1
    assert set(found) == {True, False}


def test_films_do_not_depend_on_how_many_or_which_are_abnormal(folder, tmp_path):
    out, rows, _ = folder
    fewer = write_phantoms(tmp_path / "few", n=4, abnormal=0, seed=1)
    assert {r["label"] for r in fewer} == {"0"}
    for few, row in zip(fewer, rows, strict=False):
        assert (
            few["path"].rpartition(".")[2] == row["path"].rpartition(".")[2]
        )  # the format is the film's, not the class's
        if row["label"] == "0":
            assert (tmp_path / "few" / few["path"]).read_bytes() == (out / row["path"]).read_bytes()


def test_abnormal_films_are_spread(folder):
    _, rows, _ = folder
    sick = [i for i, row in enumerate(rows) if row["label"] == "1"]
    assert min(sick) < 8
    assert sick != list(range(10, 16))


@pytest.mark.parametrize(("n", "abnormal"), [(0, 0), (-2, 0), (4, 5), (4, -1)])
def test_refuses_counts_that_make_no_sense(tmp_path, n, abnormal):
    with pytest.raises(UsageError, match="Ask for"):
        write_phantoms(tmp_path / "out", n=n, abnormal=abnormal)
    assert not (tmp_path / "out").exists()


def test_refuses_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="Name a new folder"):
        write_phantoms(tmp_path, n=1, abnormal=0)
    with pytest.raises(DataError, match="Name a new folder"):
        write_phantoms(tmp_path / "mine.txt", n=1, abnormal=0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
