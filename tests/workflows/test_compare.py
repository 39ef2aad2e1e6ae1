"""`anomaly compare` on phantoms: three recipes, one of which cannot be fitted here."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import Ran, anomaly

from anomaly.errors import DataError, UsageError
from anomaly.scans.walk import list_scans
from anomaly.workflows.compare import figures, summary, table
from anomaly.workflows.compare.entrants import entrants
from anomaly.workflows.compare.results import read_results
from anomaly.workflows.compare.roles import choose_test, read_split
from anomaly.workflows.compare.run import compare
from anomaly.workflows.compare.work import Job, do
from anomaly.workflows.gallery import BLUE
from anomaly.workflows.splits import read_splits, with_splits

HALF = ("--test", 0.5)
SMALL = ("--set", "size=32", "--set", "detector.score_batch=4")
RECIPES = "pixel-stats,OWN,patchcore"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def own_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe file of one's own."""
    path = tmp_path_factory.mktemp("recipes") / "own.yaml"
    path.write_text("method: pixel-stats\nsize: 32\nprepare: {clahe: false}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def few_replicates() -> Iterator[None]:
    """Resample less often: what is tested here is not how exact intervals are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_REPLICATES", 200)
        patch.setattr(summary, "_REPLICATES", 100)
        patch.setattr(figures, "_REPLICATES", 50)
        yield


@pytest.fixture(scope="module")
def compared(phantoms: Path, own_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """Return a finished comparison, never written to, and what the command said."""
    out = tmp_path_factory.mktemp("comparisons") / "out"
    weights = tmp_path_factory.mktemp("no") / "weights"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_WEIGHTS", str(weights))
        named = RECIPES.replace("OWN", str(own_recipe))
        return out, anomaly("compare", phantoms, "--detectors", named, "-o", out, "--offline", *HALF, *SMALL)


def test_says_the_table_and_fails_softly(compared: tuple[Path, Ran]) -> None:
    out, ran = compared
    assert ran.code == 3  # a recipe failed, the others stand
    assert ran.out.startswith((out / "table.md").read_text(encoding="utf-8").rstrip()[:200])
    assert "[2/3] own, seed 0" in ran.err
    assert "failed: The weights of resnet18" in ran.err
    assert "| **patchcore** | normals only | 0 | failed: patchcore-seed0: The weights of resnet18" in ran.out
    assert "Research software, never a diagnosis." in ran.out


def test_every_column_is_filled(compared: tuple[Path, Ran]) -> None:
    out, _ = compared
    lines = {line["name"]: line for line in rows_of(out / "table.csv")}
    assert list(lines)[:2] == ["pixel-stats", "own"]
    for name in ("pixel-stats", "own"):
        empty = {column for column, value in lines[name].items() if not value}
        assert empty <= {"direction", "failed", *(column for column in lines[name] if column.endswith("_sd"))} | {
            "f1_max_oracle_low",
            "f1_max_oracle_high",
        }
        assert int(lines[name]["peak_bytes"]) > 50 * 2**20
        assert float(lines[name]["fit_seconds"]) > 0
    assert lines["softness"]["kind"] == "trivial baseline"
    assert lines["softness"]["direction"] in ("higher", "lower")
    assert lines["patchcore"]["failed"].startswith("patchcore-seed0: The weights of resnet18")
    assert len(rows_of(out / "pairs.csv")) == 3  # two recipes and the best trivial number


def test_one_split_for_all_and_patients_on_one_side(compared: tuple[Path, Ran]) -> None:
    out, _ = compared
    table = read_splits(out / "splits.csv")
    roles: dict[str, set[str]] = {}
    for row in table:
        roles.setdefault(row["patient"], set()).add(row["role"] == "test")
    assert all(len(sides) == 1 for sides in roles.values())
    tested = {row["scan_id"] for row in table if row["role"] == "test"}
    assert {row["scan_id"] for row in rows_of(out / "scores.csv")} == tested
    for cell in ("pixel-stats-seed0", "own-seed0"):
        own = {row["scan_id"]: row["role"] for row in read_splits(out / "cells" / cell / "run" / "splits.csv")}
        learnt = {row["scan_id"] for row in table if row["role"] == "train" and row["label"] == "0"}
        assert {scan_id for scan_id, role in own.items() if role == "train"} == learnt
        assert {scan_id for scan_id, role in own.items() if role == "test"} == tested
        assert {row["scan_id"] for row in rows_of(out / "cells" / cell / "out" / "scores.csv")} == tested


def test_figures_and_page_are_there_and_whole(compared: tuple[Path, Ran]) -> None:
    from PIL import Image

    out, _ = compared
    names = {path.name for path in (out / "figures").iterdir()}
    wanted = {"roc.png", "densities.png", "false_alarms.png", "p_values.png", "side_by_side.png"}
    assert names == wanted | {"worst_pixel-stats.png", "worst_own.png"}
    with Image.open(out / "figures" / "side_by_side.png") as page:
        assert page.width > 4 * 168
        assert page.height > 10 * 168  # six normal films, and the four abnormal ones there are
        blue = (np.asarray(page.convert("RGB"), np.int64)[:, :, :3] - BLUE == 0).all(axis=2)
        assert blue[100 : 100 + 4 * 194, :180].any()  # the lesions, which the phantoms come with, on the film itself
        assert not blue[:, 180:].any()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert html.count("<img ") == len(names)
    assert "http" not in html.replace("http-equiv", "")
    assert "failed: The weights of resnet18" in html
    told = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in told["entries"]] == ["pixel-stats", "own", "patchcore"]
    assert set(told["entries"][0]["subgroups"]) >= {"class"}


def test_resume_keeps_what_is_done_and_takes_more(compared: tuple[Path, Ran], phantoms: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(compared[0], tmp_path / "out"))
    run = out / "cells" / "pixel-stats-seed0" / "run" / "receipt.json"
    before = run.read_bytes()
    ran = anomaly("compare", phantoms, "--detectors", "pixel-stats", "--seeds", 2, "-o", out, "--resume", *HALF, *SMALL)
    assert ran.code == 0
    assert run.read_bytes() == before
    assert "[1/2]" not in ran.err
    assert "[2/2] pixel-stats, seed 1" in ran.err
    first = rows_of(out / "table.csv")[0]
    assert (first["seeds"], first["auroc_sd"]) == ("2", "0")  # nothing of this method is drawn by lot


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "is not empty"),
        ({"resume": True, "seed": 1}, "another choice of --seed"),
        ({"resume": True, "test": 0.3}, "another choice of --test"),
        ({"resume": True, "changes": ["size=64"]}, "was fitted with other settings of pixel-stats"),
        ({"resume": True, "detectors": ["pixel-stats", "pixel-stats"]}, "twice"),
        ({"resume": True, "detectors": ["pixl-stats"]}, "did you mean 'pixel-stats'"),
        ({"resume": True, "detectors": ["unet"]}, "draws masks and gives no score"),
        ({"resume": True, "detectors": []}, "names no recipe"),
    ],
)
def test_refuses_before_anything_is_fitted(
    compared: tuple[Path, Ran], phantoms: Path, options: dict[str, object], message: str
) -> None:
    asked: dict[str, object] = {
        "detectors": ["pixel-stats"],
        "test": 0.5,
        "changes": [SMALL[i] for i in (1, 3)],
        **options,
    }
    with pytest.raises(UsageError, match=message):
        compare(phantoms, compared[0], **asked)  # type: ignore[arg-type]


def test_dry_run_reads_and_writes_nothing(phantoms: Path, tmp_path: Path) -> None:
    ran = anomaly("compare", phantoms, "--detectors", "pixel-stats,atlas", "-o", tmp_path / "out", "--dry-run")
    assert ran.code == 0
    assert "about 28 normal and 6 abnormal films to learn from, 14 to test on (0.3 of the patients, drawn)" in ran.out
    assert "pixel-stats: learns from normals alone, seed 0" in ran.out
    assert not (tmp_path / "out").exists()


def test_different_scans_are_not_compared(compared: tuple[Path, Ran], phantoms: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(compared[0], tmp_path / "out"))
    listing, published = choose_test(list_scans(phantoms))
    split = read_split(out / "splits.csv", listing, published)
    taking = entrants(["pixel-stats"]) + entrants(["pixel-stats"], seed=1)
    shutil.copytree(out / "cells" / "pixel-stats-seed0", out / "cells" / "pixel-stats-seed1")
    cells = [(entrant.cells[0], out / "cells" / entrant.cells[0].name) for entrant in taking]
    assert len(read_results(split.films, cells).films) == len(split.films) > 12
    scores = cells[1][1] / "out" / "scores.csv"
    lines = scores.read_text(encoding="utf-8").splitlines(keepends=True)
    scores.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match=r"pixel-stats-seed1 has no score of 1 scans that others scored \("):
        read_results(split.films, cells)
    scores.write_text("".join([*lines, lines[-1]]), encoding="utf-8")
    with pytest.raises(DataError, match="two rows of"):
        read_results(split.films, cells)


def test_a_killed_cell_is_a_reason(compared: tuple[Path, Ran], phantoms: Path, tmp_path: Path) -> None:
    cell = entrants(["pixel-stats"])[0].cells[0]
    folder = tmp_path / "cell"
    folder.mkdir()

    def kill() -> None:
        while not (born := multiprocessing.active_children()):
            time.sleep(0.01)
        born[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    reason = do(Job(cell, folder, phantoms, compared[0] / "splits.csv", 0, True, "cpu", 1), lambda *_: None)
    killer.join()
    assert reason is not None
    assert "its process was killed (SIGKILL)" in reason
    assert (folder / "failed.txt").read_text(encoding="utf-8").startswith("its process was killed")


def test_files_that_cannot_be_read_are_said_and_stop_nothing(phantoms: Path, tmp_path: Path) -> None:
    scans = Path(shutil.copytree(phantoms, tmp_path / "scans"))
    (scans / "manifest.csv").unlink()
    (scans / "normal" / "broken.png").write_text("no film")
    words = ("--detectors", "pixel-stats", *HALF, *SMALL, "--allow-image-split")
    ran = anomaly("compare", scans, *words, "-o", tmp_path / "out")
    assert ran.code == 3
    assert "Not read, and in no figure: normal/broken.png: is not a DICOM" in ran.out
    assert "Not read, and in no figure: normal/broken.png" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_one_class_alone_is_refused(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a comparison needs both"):
        compare(phantoms / "normal", tmp_path / "out", ["pixel-stats"], allow_image_split=True)


def test_of_published_splits_one_is_tested_on(phantoms: Path, tmp_path: Path) -> None:
    paths = sorted((phantoms / "normal").iterdir())[:6]
    rows = [f"{path},0,{split}" for path, split in zip(paths, ("train", "", "val", "dev", "test", "dev"), strict=True)]
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(["path,label,split", *rows]) + "\n", encoding="utf-8")
    listing, published = choose_test(list_scans(manifest))
    assert published == "test"
    assert [file.set_aside for file in listing.files if file.set_aside] == [
        *(f"of the published split {name}, test is tested on" for name in ("val", "dev", "dev"))
    ]
    manifest.write_text("\n".join(["path,label,split", *rows[:4]]) + "\n", encoding="utf-8")
    assert choose_test(list_scans(manifest))[1] == "dev"


def test_a_split_given_to_a_fit_must_be_of_its_scans(compared: tuple[Path, Ran], unlabelled: Path) -> None:
    with pytest.raises(DataError, match="speaks of other scans"):
        with_splits(list_scans(unlabelled), compared[0] / "splits.csv")
    with pytest.raises(DataError, match="lacks the columns"):
        read_splits(compared[0] / "pairs.csv")
    labels = np.array([int(row["label"]) for row in rows_of(compared[0] / "scores.csv")])
    assert set(labels.tolist()) == {0, 1}


def test_the_memory_of_a_process_is_its_own_and_not_of_the_one_that_started_it() -> None:
    ballast = np.ones(600 * 2**20, np.uint8)
    code = "from anomaly.workflows.compare.work import _peak; print(_peak())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 10 * 2**20 < int(told) < len(ballast)
