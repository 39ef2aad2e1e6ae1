"""Boxes along the whole road: from a table through crops to the training, and from the square to boxes.csv."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running import anomaly, table

from anomaly.errors import DataError, UsageError
from anomaly.prepare.geometry import crop_geometry, resize_geometry
from anomaly.records import Float64, Geometry, ScanFile
from anomaly.runs import read_json
from anomaly.scans.borders import Box
from anomaly.scans.phantom import write_phantoms
from anomaly.workflows.box_tables import DRAWN, TRUE, read_true_boxes
from anomaly.workflows.boxes import (
    BOXES_HASH,
    WITHOUT,
    boxes_digest,
    boxes_to_learn,
    same_boxes,
    to_film_boxes,
    to_prepared,
)
from anomaly.workflows.journal import JOURNAL, Journal
from anomaly.workflows.panels import load_panel
from anomaly.workflows.selection import Selection

SMALL = tuple(
    word
    for setting in (
        *("size=32", "detector.backbone=test_resnet", "detector.backbone_weights=none", "detector.width=8"),
        *("detector.epochs=1", "detector.score_threshold=0.0", "detector.max_boxes=3", "detector.score_batch=8"),
        "detector.precision=fp32",
    )
    for word in ("--set", setting)
)


PICTURES = ("--panels", "top:4")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 26 normal and 14 abnormal phantoms with boxes."""
    folder = tmp_path_factory.mktemp("films") / "boxed"
    write_phantoms(folder, n=40, abnormal=14)
    return folder


@pytest.fixture(scope="module")
def run(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of a tiny retinanet; never written to."""
    run = tmp_path_factory.mktemp("runs") / "retinanet"
    ran = anomaly("fit", films, "-d", "retinanet", *SMALL, "--test", "0.25", "-o", run)
    assert ran.code == 0, ran.err
    assert "labelled scans with boxes" in ran.out
    return run


@pytest.fixture(scope="module")
def out(films: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder; never written to."""
    out = tmp_path_factory.mktemp("out") / "out"
    ran = anomaly("score", films, "-m", run, "-o", out, *PICTURES)
    assert ran.code == 0, ran.err
    return out


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


WAYS = {
    "resized": resize_geometry((100, 60), 32),
    "cropped": crop_geometry((100, 60), Box(10, 90, 5, 55), 32),
    "larger": resize_geometry((20, 25), 32),
}


@pytest.mark.parametrize("way", WAYS)
def test_boxes_go_to_the_square_and_back(way: str) -> None:
    boxes = np.array([[6.0, 11.0, 10.5, 7.25], [8.0, 12.0, 1.0, 2.0]])
    square = to_prepared(boxes, WAYS[way])
    assert square.dtype == np.float32
    back = to_film_boxes(np.column_stack([square, [0.5, 0.25]]).astype(np.float32), WAYS[way])
    np.testing.assert_allclose(back, np.column_stack([boxes, [0.5, 0.25]]), atol=1e-4)


def test_the_whole_film_is_the_whole_square() -> None:
    whole = to_prepared(np.array([[0.0, 0.0, 60.0, 100.0]]), WAYS["resized"])
    np.testing.assert_allclose(whole, [[0, 0, 32, 32]], atol=1e-5)


def test_what_is_cropped_away_is_cut_off_or_left_out() -> None:
    boxes = np.array([[0.0, 40.0, 10.0, 16.0], [0.0, 0.0, 60.0, 9.0], [0.0, 40.0, 6.0, 16.0]])
    square = to_prepared(boxes, WAYS["cropped"])
    assert len(square) == 1, "the second lies outside, and of the third a sixth is seen"
    np.testing.assert_allclose(square, [[0, 12, 3.2, 18.4]], atol=1e-5)


def test_a_box_that_is_turned_becomes_the_upright_one_around_it() -> None:
    turn = np.array([[0.0, -1.0, 31.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    square = to_prepared(np.array([[2.0, 3.0, 10.0, 4.0]]), Geometry(turn, (32, 32), 32))
    np.testing.assert_allclose(square, [[3, 20, 7, 30]], atol=1e-5)


def scan(name: str, label: int, boxes: Path | None) -> ScanFile:
    return ScanFile(name, Path("/films") / name, name, label, ("normal", "sick")[label], boxes=boxes)


def chosen(boxes: Path, *, boxed: int, unboxed: int = 1) -> tuple[list[ScanFile], Selection]:
    boxes.write_text("path,x,y,w,h\n" + "".join(f"s{i}.png,1,2,3,4\n" for i in range(boxed)), encoding="utf-8")
    files = [scan(f"n{i}.png", 0, None) for i in range(20)]
    files += [scan(f"s{i}.png", 1, boxes if i < boxed else None) for i in range(boxed + unboxed)]
    return files, Selection(tuple(files), (), (), (), "labelled", supervised=True)


def test_abnormal_films_without_a_box_are_left_out(tmp_path: Path) -> None:
    files, selection = chosen(tmp_path / "boxes.csv", boxed=9)
    boxes, kept = boxes_to_learn(files, selection)
    assert len(boxes) == 9
    assert len(kept.chosen) == 29
    assert [(file.scan_id, reason) for file, reason in kept.left_out] == [("s9.png", WITHOUT)]
    assert kept.abnormal == (), "a drawn test set does not give it back to the training"
    assert kept.basis == "labelled; 9 with boxes"


def test_too_few_boxes_and_boxes_on_normal_films_are_refused(tmp_path: Path) -> None:
    files, selection = chosen(tmp_path / "boxes.csv", boxed=7)
    with pytest.raises(DataError, match="7 abnormal films to train on have boxes, and at least 8"):
        boxes_to_learn(files, selection)
    files, selection = chosen(tmp_path / "boxes.csv", boxed=9)
    wrong = [replace(file, label=0) if file.scan_id == "s3.png" else file for file in files]
    with pytest.raises(DataError, match=r"s3.png is labelled normal and has 1 box in .*boxes.csv"):
        boxes_to_learn(wrong, replace(selection, chosen=tuple(wrong)))


def test_other_boxes_are_no_resumption() -> None:
    boxes: dict[str, Float64] = {"a": np.array([[1.0, 2.0, 3.0, 4.0]])}
    before = {BOXES_HASH: boxes_digest(boxes)}
    same_boxes(before, boxes)
    same_boxes({}, boxes)
    with pytest.raises(UsageError, match="--resume: the boxes differ"):
        same_boxes(before, {"a": boxes["a"] + 1})


def refused(films: Path, tmp_path: Path, text: str) -> str:
    data = tmp_path / "data"
    shutil.copytree(films, data, copy_function=shutil.copyfile)
    (data / "boxes.csv").write_text(text, encoding="utf-8")
    ran = anomaly("fit", data, "-d", "retinanet", *SMALL, "-o", tmp_path / "run")
    assert ran.code == 4, ran.err
    assert "Traceback" not in ran.err
    return ran.err


def test_wrong_tables_stop_a_fit_before_anything_is_written(films: Path, tmp_path: Path) -> None:
    good = (films / "boxes.csv").read_text(encoding="utf-8")
    wrong = {
        "no area": good + f"{lines(films / 'boxes.csv')[0]['path']},5,5,0,3\n",
        "that SCANS does not hold (abnormal/nobody.png)": good + "abnormal/nobody.png,1,1,3,3\n",
        "needs the columns": good.replace("x,y,w,h", "a,b,c,d"),
    }
    for i, (said, text) in enumerate(wrong.items()):
        folder = tmp_path / str(i)
        assert said in refused(films, folder, text)
        assert not (folder / "run").exists()


def test_a_box_outside_its_film_stops_a_fit_before_the_training(films: Path, tmp_path: Path) -> None:
    rows = lines(films / "boxes.csv")
    text = "path,x,y,w,h\n" + "".join(f"{row['path']},{row['x']},{row['y']},900,{row['h']}\n" for row in rows)
    assert "reaches out of the film" in refused(films, tmp_path, text)
    assert (tmp_path / "run").is_dir(), "a film's size is known when it is read"
    for made in ("checkpoints", "history.csv", "model"):
        assert not (tmp_path / "run" / made).exists()


def test_a_fit_remembers_its_boxes(run: Path) -> None:
    receipt = read_json(run / "receipt.json")
    assert len(receipt[BOXES_HASH]) == 64
    assert "with boxes" in receipt["normal"]
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "confidence of the best box" in card


def test_boxes_are_written_beside_the_scores(out: Path, films: Path) -> None:
    drawn = lines(out / DRAWN)
    scores = table(out)
    assert {row["path"] for row in drawn} == set(scores)
    first = [row for row in drawn if row["rank"] == "1"]
    for row in first:
        assert float(row["confidence"]) == pytest.approx(float(scores[row["path"]]["score"]), rel=1e-4)
    assert [row["path"] for row in first] == list(scores), "in the order of scores.csv"
    truth = lines(out / TRUE)
    given = lines(films / "boxes.csv")
    assert sorted((row["path"], float(row["x"])) for row in truth) == sorted((r["path"], float(r["x"])) for r in given)
    assert "cut" in read_json(out / "receipt.json")


def test_boxes_are_drawn_on_the_overlays(out: Path) -> None:
    row = next(iter(table(out).values()))
    panel = load_panel(out / "panels" / f"{row['scan_id']}.npz")
    assert panel.boxes is not None
    assert panel.boxes.shape[1] == 5
    picture = np.asarray(Image.open(out / row["heatmap"]))
    assert (picture == (110, 231, 255)).all(axis=2).sum() > 50


def test_a_resumed_scoring_gives_the_same_boxes(out: Path, films: Path, run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(out, again)
    text = (again / JOURNAL).read_text(encoding="utf-8").splitlines(keepends=True)
    (again / JOURNAL).write_text("".join(text[:13]), encoding="utf-8")
    assert anomaly("score", films, "-m", run, "-o", again, *PICTURES, "--resume").code == 0
    for name in (DRAWN, TRUE, "scores.csv"):
        assert (again / name).read_bytes() == (out / name).read_bytes()


def test_hashed_names_stand_in_the_tables_of_boxes_too(films: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--hash-paths", "--split", "test", "--panels", "none")
    assert anomaly("score", films, "-m", run, "-o", out, *words).code == 0
    for name in (DRAWN, TRUE):
        text = (out / name).read_text(encoding="utf-8")
        assert "phantom" not in text
        assert "hashed/" in text


def redrawn(out: Path, folder: Path, *, perfect: bool) -> dict[str, Any]:
    """Return what `evaluate` says of the boxes where those drawn are the true ones, or none are drawn."""
    shutil.copytree(out, folder)
    truth = read_true_boxes(folder)
    assert truth is not None
    journal = Journal(folder)
    empty = np.zeros((0, 4))
    changed = [
        {**entry, "boxes": [[*box, 0.9] for box in truth.get(scan_id, empty).tolist()] if perfect else []}
        for scan_id, entry in journal.entries.items()
    ]
    journal.append(changed)
    ran = anomaly("evaluate", folder)
    assert ran.code == 0, ran.err
    assert "mAP at an overlap of 0.5" in ran.out
    return dict(json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["boxes"])


def test_true_boxes_are_evaluated_as_perfect_and_none_as_nothing(out: Path, tmp_path: Path) -> None:
    found = redrawn(out, tmp_path / "perfect", perfect=True)
    assert found["map_50"] == pytest.approx(1.0)
    assert found["map_50_95"] == pytest.approx(1.0)
    assert (found["films"], found["boxed"]) == (40, 14)
    assert found["precision"][0]["name"] == "boxes drawn"
    assert found["precision"][0]["average_precision"] == pytest.approx(1.0)
    assert found["pointing"][0]["rate"] == pytest.approx(1.0)
    assert anomaly("report", tmp_path / "perfect").code == 0
    page = (tmp_path / "perfect" / "report.html").read_text(encoding="utf-8")
    assert "0.5 to 0.95 1.000 (COCO)" in " ".join(page.split())
    assert re.search(r"<td>boxes drawn</td><td class=.num.>1\.000 \[1\.000, 1\.000\]</td>", page)
    found = redrawn(out, tmp_path / "none", perfect=False)
    assert found["map_50"] == found["map_50_95"] == 0.0
    assert found["pointing"][0]["rate"] < 0.2, "as a blind guess"


def test_without_true_boxes_nothing_is_said_of_them(films: Path, run: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for film in sorted((films / "abnormal").iterdir())[:3]:
        shutil.copy(film, few)
    out = tmp_path / "out"
    assert anomaly("score", few, "-m", run, "-o", out).code == 0
    assert (out / DRAWN).is_file()
    assert not (out / TRUE).exists()
    assert anomaly("evaluate", out).code == 0
    assert json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["boxes"] is None


def test_wrong_boxes_are_no_reason_not_to_score(films: Path, run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "abnormal").mkdir(parents=True)
    for film in sorted((films / "abnormal").iterdir())[:2]:
        shutil.copy(film, data / "abnormal")
    names = [path.name for path in sorted((data / "abnormal").iterdir())]
    (data / "boxes.csv").write_text(f"path,x,y,w,h\nabnormal/{names[0]},1,1,9000,2\n", encoding="utf-8")
    ran = anomaly("score", data, "-m", run, "-o", tmp_path / "out")
    assert ran.code == 0
    assert "reaches out of the film" in ran.err
    (data / "boxes.csv").write_text(f"path,x,y,w,h\nabnormal/{names[0]},1,1,0,2\n", encoding="utf-8")
    ran = anomaly("score", data, "-m", run, "-o", tmp_path / "out2")
    assert ran.code == 0
    assert "passed over" in ran.err


def test_boxes_go_along_where_films_are_registered(films: Path, tmp_path: Path) -> None:
    words = ("--set", "prepare.register=affine", "--set", "prepare.central_crop=0.9")
    ran = anomaly("fit", films, "-d", "retinanet", *SMALL, *words, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err


@pytest.mark.real
@pytest.mark.slow
def test_it_learns_from_the_boxes_of_rsna_adult(shared_data: Path, tmp_path: Path) -> None:
    """A smoke run: the films are few, and their figures mean nothing."""
    dev = shared_data / "data" / "rsna_adult" / "dev"
    boxes = shared_data / "data" / "rsna_adult" / "boxes.csv"
    rows = [f"{film},0,normal," for film in sorted((dev / "normal").iterdir())]
    for name in ("lung_opacity", "abnormal_no_opacity"):
        rows += [f"{film},1,abnormal,{boxes}" for film in sorted((dev / name).iterdir())]
    (tmp_path / "manifest.csv").write_text("path,label,class,boxes\n" + "\n".join(rows) + "\n", encoding="utf-8")
    run, out = tmp_path / "run", tmp_path / "out"
    size = ("--set", "size=128", "--set", "detector.epochs=3", "--test", "0.3", "--allow-image-split")
    ran = anomaly("fit", tmp_path / "manifest.csv", "-d", "retinanet", *SMALL, *size, "-o", run)
    assert ran.code == 0, ran.err
    ran = anomaly("score", tmp_path / "manifest.csv", "-m", run, "-o", out, "--split", "test", "--panels", "none")
    assert ran.code == 0, ran.err
    assert anomaly("evaluate", out).code == 0
    assert json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["boxes"]["boxes"] > 10
