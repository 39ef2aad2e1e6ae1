"""Maps beside known lesions: the truth that a scoring run keeps, and the figures that `evaluate` makes of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from running import anomaly, table

from anomaly.calibrate import calibrate
from anomaly.errors import DataError
from anomaly.evaluate.boxes import box_mask
from anomaly.heatmaps import write_png
from anomaly.prepare.geometry import resize_geometry
from anomaly.records import ResultRow
from anomaly.scans.walk import list_scans
from anomaly.workflows import localisation
from anomaly.workflows.box_tables import SHAPE, TRUE, read_true_boxes, write_true_boxes
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.journal import Journal, read_journal
from anomaly.workflows.localisation import HIT, POINTING, Localisation, known_lesions, localise
from anomaly.workflows.panels import Panel, load_panel, save_panel, small_film
from anomaly.workflows.results import ScoreLine
from anomaly.workflows.truth_masks import TRUTH, lesion_masks, read_true_mask, small_shape, true_mask_path

BOX = np.array([[64.0, 128.0, 96.0, 64.0]])
SQUARE = box_mask(BOX, (256, 256))
OTHER = box_mask(np.array([[16.0, 32.0, 64.0, 96.0]]), (256, 256))
NOTHING = np.zeros((256, 256), bool)


@dataclass
class Made:
    """A scored film made up: its map (S, S), and its lesions as a mask on its small copy or as boxes on the film."""

    heat: np.ndarray
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    label: int | None = 1
    patient: str | None = None
    small: tuple[int, int] = (256, 256)
    shape: tuple[int, int] = (256, 256)


def made(out: Path, films: Sequence[Made], **options: int) -> Localisation | None:
    """Write a results folder as `score` would, and localise."""
    rows = [
        ResultRow(f"s{i}", f"s{i}.png", "scored", film.patient, film.label, score=float(film.heat.max()), p_value=0.5)
        for i, film in enumerate(films)
    ]
    entries = {row.scan_id: {**asdict(row), SHAPE: list(film.shape)} for row, film in zip(rows, films, strict=True)}
    out.mkdir()
    Journal(out).append(list(entries.values()))
    known = {row.scan_id: film.boxes for row, film in zip(rows, films, strict=True) if film.boxes is not None}
    assert write_true_boxes(out, rows, known, entries) == []
    for row, film in zip(rows, films, strict=True):
        side, picture = len(film.heat), np.zeros(film.small, np.uint8)
        heat = film.heat.astype(np.float32)
        panel = Panel(picture, np.zeros((side, side), np.uint8), None, heat, resize_geometry(film.small, side))
        save_panel(out / "panels" / f"{row.scan_id}.npz", panel)
        if film.mask is not None:
            write_png(true_mask_path(out, row.scan_id), film.mask.astype(np.uint8) * np.uint8(255))
    calibrate(np.zeros(3, np.float32), np.zeros(9, np.float32)).save(out)
    return localise(out, [ScoreLine(row, 1, False, None) for row in rows], **{"n_boot": 50, **options})


def figures(found: Localisation | None) -> dict[str, localisation.Figure]:
    assert found is not None
    return {figure.name.split(",")[0]: figure for figure in found.figures}


def some(heat: Callable[[np.ndarray], np.ndarray]) -> list[Made]:
    """Return four films with lesions at two places, and three without."""
    sick = [Made(heat(mask), mask) for mask in (SQUARE, OTHER, SQUARE, OTHER)]
    return [*sick, *(Made(heat(NOTHING), label=0) for _ in range(3))]


def test_a_map_that_is_the_mask_is_perfect(tmp_path: Path) -> None:
    found = made(tmp_path / "out", some(lambda mask: 4.0 * mask))
    told = figures(found)
    assert len(told) == 5
    for figure in told.values():
        assert figure.value == pytest.approx(1.0, abs=1e-9)
        assert figure.usual < 0.99, "the usual place has two lesions, one of them wrong"
        assert figure.chance < 0.2
    assert found is not None
    assert (found.lesioned, found.measured, found.outlined, found.normal) == (4, 4, 4, 3)
    assert found.precision[0].average_precision == 1.0
    assert found.threshold == 0.0
    assert found.boxes_a_film == pytest.approx(4 / 7)
    assert found.notes == ()


def test_a_flat_map_is_at_chance(tmp_path: Path) -> None:
    told = figures(made(tmp_path / "out", some(lambda mask: np.full(mask.shape, 2.0))))
    for name, figure in told.items():
        assert figure.value == pytest.approx(0.0 if name == HIT else figure.chance, abs=1e-9)


@pytest.mark.parametrize("boxed", [True, False])
def test_films_of_any_shape_are_stretched(boxed: bool, tmp_path: Path) -> None:
    """A film of 1024 x 384, its small copy 512 x 192, and a map of 64 x 64: the same place on each."""
    heat, low = (cv2.resize(4.0 * mask, (64, 64), interpolation=cv2.INTER_AREA) for mask in (SQUARE, NOTHING))
    sides = {"small": (512, 192), "shape": (1024, 384)}
    outline = cv2.resize(SQUARE.astype(np.uint8), (192, 512), interpolation=cv2.INTER_NEAREST).astype(bool)
    boxes = BOX * [1.5, 4, 1.5, 4]
    assert np.array_equal(box_mask(boxes / 2, (512, 192)), outline)
    truth = {"boxes": boxes} if boxed else {"mask": outline}
    films = [Made(heat, **truth, **sides) for _ in range(3)] + [Made(low, label=0, **sides) for _ in range(2)]
    found = made(tmp_path / "out", films)
    assert found is not None
    assert found.outlined == (0 if boxed else 3)
    told = figures(found)
    assert told[POINTING].value == told[HIT].value == 1.0
    assert told["pixel average precision"].value > 0.97
    assert told["AUPRO"].value > 0.97


def test_masks_go_before_boxes_and_films_without_truth_are_left_out(tmp_path: Path) -> None:
    elsewhere = np.array([[200.0, 200.0, 20.0, 20.0]])
    films = some(lambda mask: 4.0 * mask)
    films[0].boxes = elsewhere
    films += [Made(4.0 * OTHER), Made(4.0 * OTHER, label=None)]  # nothing known of them
    films += [Made(4.0 * OTHER, boxes=np.zeros((0, 4)), label=None)]  # known to have none
    found = made(tmp_path / "out", films)
    told = figures(found)
    assert told["pixel average precision"].films == 8
    assert told[POINTING].value == 1.0
    assert told[HIT].value == pytest.approx(3 / 4), "the boxes given are the lesions' boxes"
    assert 0.5 < told["pixel average precision"].value < 0.9, "the hot film without a lesion counts"
    assert found is not None
    assert (found.lesioned, found.normal) == (4, 4)
    assert found.notes == ("1 abnormal films have no known lesion and count in no figure of localisation.",)


def test_maps_that_were_not_kept_are_counted(tmp_path: Path) -> None:
    films = some(lambda mask: 4.0 * mask)
    made(tmp_path / "out", films)
    lines = [ScoreLine(ResultRow(f"s{i}", "", "scored", None, film.label, score=1.0), 1, False, None)
             for i, film in enumerate(films)]  # fmt: skip
    for name in ("s0", "s5", "s6"):
        (tmp_path / "out" / "panels" / f"{name}.npz").unlink()
    found = localise(tmp_path / "out", lines, n_boot=50)
    assert found is not None
    assert (found.lesioned, found.measured, found.normal) == (4, 3, 1)
    assert "3 films" in found.notes[0]
    assert "--panels all" in found.notes[0]
    assert "No precision of boxes" in found.notes[1], "one normal patient"
    assert found.precision == ()
    assert figures(found)["AUPRO"].interval is None
    (tmp_path / "out" / "calibration.safetensors").unlink()
    found = localise(tmp_path / "out", lines, n_boot=50)
    assert found is not None
    assert HIT not in figures(found)
    assert found.threshold is found.boxes_a_film is None
    shutil.rmtree(tmp_path / "out" / "panels")
    found = localise(tmp_path / "out", lines, n_boot=50)
    assert found is not None
    assert (found.measured, found.figures) == (0, ())
    assert "two patients" in found.notes[-1]
    assert "no map" not in localisation.to_markdown(found)


def test_lesions_of_one_patient_or_too_small_make_no_figures(tmp_path: Path) -> None:
    films = [replace(film, patient="p") if film.mask is not None else film for film in some(lambda mask: 4.0 * mask)]
    found = made(tmp_path / "one", films)
    assert found is not None
    assert found.figures == found.precision == ()
    assert "two patients or more" in found.notes[0]
    speck = np.zeros((512, 512), bool)
    speck[7, 7] = True
    films = [*some(lambda mask: 4.0 * mask), Made(4.0 * SQUARE, speck, small=(512, 512))]
    found = made(tmp_path / "speck", films)
    assert found is not None
    assert (found.lesioned, found.measured) == (5, 4)
    assert "too small to be seen at 256 x 256" in found.notes[0]


def test_many_films_are_compared_on_a_smaller_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localisation, "_MOST_PIXELS", 7 * 128 * 128)
    found = made(tmp_path / "out", some(lambda mask: 4.0 * mask))
    assert figures(found)["pixel average precision"].value == pytest.approx(1.0)
    assert found is not None
    assert "128 x 128" in found.notes[0]


def test_known_lesions_lie_on_the_small_copy_the_mask_before_the_boxes(tmp_path: Path) -> None:
    wide = {"boxes": BOX * 4, "shape": (1024, 2048), "small": (256, 512)}
    films = [Made(SQUARE, mask=OTHER, boxes=BOX), Made(SQUARE, **wide), Made(SQUARE, boxes=np.zeros((0, 4)))]
    made(tmp_path / "out", films)
    found = known_lesions(tmp_path / "out", ["s0", "s1", "s2"])
    assert set(found) == {"s0", "s1"}
    np.testing.assert_array_equal(found["s0"], OTHER)
    np.testing.assert_array_equal(found["s1"], box_mask(BOX, (256, 512)))


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    assert made(tmp_path / "out", [Made(4.0 * SQUARE), Made(4.0 * NOTHING, label=0)]) is None


def test_a_damaged_mask_is_an_error(tmp_path: Path) -> None:
    films = some(lambda mask: 4.0 * mask)
    made(tmp_path / "out", films)
    true_mask_path(tmp_path / "out", "s0").write_bytes(b"no picture")
    lines = [ScoreLine(ResultRow("s0", "", "scored", score=1.0), 1, False, None)]
    with pytest.raises(DataError, match="Score again"):
        localise(tmp_path / "out", lines)


def test_a_scoring_run_keeps_the_truth_whatever_the_method(scored: Path, phantoms: Path) -> None:
    rows = table(scored)
    sick = {row["scan_id"]: path for path, row in rows.items() if row["label"] == "1"}
    assert {path.stem for path in (scored / TRUTH).iterdir()} == set(sick)
    boxes = read_true_boxes(scored)
    assert boxes is not None
    assert boxes.keys() == sick.keys()
    for scan_id, path in sick.items():
        given = cv2.imread(str(phantoms / "masks" / f"{Path(path).stem}.png"), cv2.IMREAD_GRAYSCALE)
        kept = read_true_mask(scored, scan_id)
        panel = load_panel(scored / "panels" / f"{scan_id}.npz")
        assert kept is not None
        assert kept.shape == panel.film.shape
        assert kept.mean() == pytest.approx((given > 0).mean(), rel=0.05)
        assert not kept.all()
    shapes = {scan_id: tuple(entry[SHAPE]) for scan_id, entry in read_journal(scored).items()}
    assert len(shapes) == 48
    assert all(max(shape) > 300 for shape in shapes.values())


def test_evaluate_and_report_tell_how_maps_lie_on_lesions(results: Path) -> None:
    found = evaluate(results, n_boot=50).localisation
    assert found is not None
    assert (found.lesioned, found.measured, found.outlined, found.normal) == (8, 8, 8, 40)
    told = figures(found)
    assert told[POINTING].value > told[POINTING].chance
    assert told["AUPRO"].value > told["AUPRO"].chance
    assert all(figure.chance < 0.16 for figure in told.values())
    kept = json.loads((results / "evaluation.json").read_text(encoding="utf-8"))["localisation"]
    assert kept["figures"][0]["usual"] == told[POINTING].usual
    assert len(kept["precision"]) == 4
    text = (results / "evaluation.md").read_text(encoding="utf-8")
    assert "| pointing game | 8 |" in text
    assert "where lesions usually lie" in text
    assert anomaly("report", results, "--top", "0").code == 0
    page = (results / "report.html").read_text(encoding="utf-8")
    assert "Do its maps lie on the lesions?" in page
    assert "best Dice (oracle)" in page


def test_labels_given_say_which_films_are_normal(results: Path, tmp_path: Path) -> None:
    rows = table(results).values()
    labels = tmp_path / "labels.csv"
    text = "".join(f"{row['scan_id']},{row['label']}\n" for row in list(rows)[:24])
    labels.write_text("scan_id,label\n" + text, encoding="utf-8")
    found = evaluate(results, labels=labels, n_boot=10).localisation
    assert found is not None
    assert found.normal == text.count(",0\n")


@pytest.fixture
def four(phantoms: Path, tmp_path: Path) -> Path:
    """Return a folder of 4 abnormal films and 2 normal ones, with masks, boxes and a manifest."""
    folder = tmp_path / "four"
    with (phantoms / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["label"] == "1"][:4] + [row for row in rows if row["label"] == "0"][:2]
    for row in kept:
        for name in filter(None, (row["path"], row["mask"])):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(phantoms / name, folder / name)
    shutil.copy(phantoms / "boxes.csv", folder)
    written(folder, kept)
    return folder


def written(folder: Path, rows: list[dict[str, str]]) -> None:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_masks_that_do_not_fit_are_passed_over_with_a_remark(four: Path, model: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted((four / "masks").iterdir())
    mask = cv2.imread(str(first), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(first), mask[:-3])
    cv2.imwrite(str(second), np.zeros_like(cv2.imread(str(second), cv2.IMREAD_GRAYSCALE)))
    out = tmp_path / "out"
    ran = anomaly("score", four, "-m", model, "-o", out)
    assert ran.code == 0
    assert "2 masks of lesions were passed over" in ran.err
    assert len(list((out / TRUTH).iterdir())) == 2
    found = evaluate(out, n_boot=10).localisation
    assert found is not None
    assert (found.measured, found.outlined) == (4, 2), "for the other two their boxes stand"
    # What is no longer said of the films is no longer kept; nor is what belongs to no film that is there.
    with (four / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [{**row, "mask": "", "boxes": ""} for row in csv.DictReader(file)]
    written(four, rows)
    shutil.rmtree(four / "masks")
    (four / "boxes.csv").unlink()
    ran = anomaly("score", four, "-m", model, "-o", out, "--resume")
    assert ran.code == 0, ran.err
    assert not (out / TRUTH).exists()
    assert not (out / TRUE).exists()
    assert evaluate(out, n_boot=10).localisation is None


@pytest.mark.parametrize("shape", [(40, 60), (513, 300), (2500, 2048), (3, 4000), (512, 512)])
def test_the_grid_of_a_mask_is_that_of_the_small_film(shape: tuple[int, int]) -> None:
    assert small_shape(shape) == small_film(np.zeros(shape, np.float32)).shape


def put(root: Path, *names: str, drawn: bool = True) -> Path:
    """Write pictures of 32 x 32, half of each bright or all of it dark."""
    picture = np.zeros((32, 32), np.uint8)
    picture[:, :16] = 255 * drawn
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), picture)
    return root


def taken(scans: Path) -> tuple[list[str], list[str]]:
    """Return which films have a mask of lesions, and the remarks."""
    listing = list_scans(scans)
    masks, remarks = lesion_masks(listing, listing.files)
    return [file.path.name for file, mask in zip(listing.files, masks, strict=True) if mask is not None], remarks


def manifest(root: Path, *lines: str) -> Path:
    (root / "films.csv").write_text("path,label,mask\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return root / "films.csv"


def test_masks_of_lungs_are_never_taken_for_lesions(tmp_path: Path) -> None:
    kinds = [("COVID", "COVID"), ("Normal", "Normal"), ("Viral Pneumonia", "Viral Pneumonia")]
    names = [f"{kind}/images/{stem}-{i}.png" for kind, stem in kinds for i in (1, 2)]
    covid = put(tmp_path / "covid", *names, *(name.replace("images", "masks") for name in names))
    assert all(file.mask is not None for file in list_scans(covid).files)
    assert taken(covid) == ([], [])
    assert taken(covid / "COVID") == ([], []), "nor where the part that was given has no normal film"
    only = put(tmp_path / "only", "normal/a.png", "sick/b.png", "lung_masks/sick/b.png")
    assert taken(only) == ([], []), "though the normal films have none"
    plain = put(tmp_path / "plain", "normal/a.png", "effusion/b.png", "masks/effusion/b.png")
    names, remarks = taken(plain)
    assert names == []
    assert "1 masks were not taken" in remarks[0]
    assert "nothing says" in remarks[0]
    table = manifest(plain, "normal/a.png,0,masks/effusion/b.png", "effusion/b.png,1,masks/effusion/b.png")
    names, remarks = taken(table)
    assert names == []
    assert "normal films have such masks too" in remarks[0]
    names, remarks = taken(manifest(plain, "effusion/b.png,1,masks/effusion/b.png"))
    assert names == []
    assert "without a normal film" in remarks[0]
    put(plain, "lung_masks/b.png")
    assert taken(manifest(plain, "normal/a.png,0,", "effusion/b.png,1,lung_masks/b.png")) == ([], [])


def test_masks_of_lesions_are_taken_where_something_says_so(tmp_path: Path) -> None:
    said = put(tmp_path / "said", "normal/a.png", "effusion/b.png", "drawn/b.png")
    put(said, "drawn/a.png", drawn=False)
    assert taken(manifest(said, "normal/a.png,0,drawn/a.png", "effusion/b.png,1,drawn/b.png")) == (["b.png"], [])
    beside = put(
        tmp_path / "beside", "normal/a.png", "effusion/b.png", "masks/effusion/b.png", "lung_masks/normal/a.png"
    )
    assert taken(beside) == (["b.png"], [])
    named = put(tmp_path / "named", "normal/img/a.png", "effusion/img/b.png", "effusion/anomaly_mask/b.png")
    assert taken(named) == (["b.png"], [])
    films = [f"{split}/{kind}/img/{i}.png" for split in ("valid", "test") for i, kind in enumerate(("good", "Ungood"))]
    bmad = put(tmp_path / "bmad", "train/good/9.png", *films, "test/Ungood/label/1.png")
    put(bmad, "test/good/label/0.png", drawn=False)
    assert list_scans(bmad).layout == "BMAD"
    assert taken(bmad) == (["1.png"], [])


def test_of_ham10000_the_masks_of_what_is_no_naevus_are_taken(tmp_path: Path) -> None:
    ham = put(tmp_path / "ham", "HAM10000_images_part_1/ISIC_1.png", "HAM10000_images_part_1/ISIC_2.png")
    put(ham, *(f"HAM10000_segmentations_lesion_tschandl/ISIC_{i}_segmentation.png" for i in (1, 2)))
    text = "lesion_id,image_id,dx\nHAM_1,ISIC_1,nv\nHAM_2,ISIC_2,mel\n"
    (ham / "HAM10000_metadata.csv").write_text(text, encoding="utf-8")
    for scans in (ham, ham / "HAM10000_images_part_1"):
        assert list_scans(scans).layout == "HAM10000"
        assert taken(scans) == (["ISIC_2.png"], [])
