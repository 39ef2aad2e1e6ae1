"""`fit`: which scans it takes, what it refuses, and how it is stopped and gone on with."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from running import FLOOR, anomaly, finish, parts_left, spawn, stop_when, table

from anomaly.runs import read_tensors

TINY_GAN = tuple(
    part
    for setting in (
        *("size=32", "detector.width=4", "detector.latent=8", "detector.batch=8", "detector.precision=fp32"),
        *("detector.steps=40", "detector.checkpoint_every=8", "detector.search_steps=2"),
        *("detector.encoder_steps=8", "detector.components=1", "detector.holdout=0.75", "prepare.register=none"),
        "calibration.minimum=4",
    )
    for part in ("--set", setting)
)


def splits(run: Path) -> list[dict[str, str]]:
    with (run / "splits.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def receipt(run: Path) -> dict[str, object]:
    return dict(json.loads((run / "receipt.json").read_text()))


def test_a_labelled_folder_trains_on_its_normals_and_lists_the_rest(model: Path, phantoms: Path) -> None:
    rows = splits(model)
    assert {row["path"] for row in rows if row["role"] in ("train", "calibration")} == {
        f"normal/{film.name}" for film in (phantoms / "normal").iterdir()
    }
    assert sum(row["role"] == "calibration" for row in rows) == 20
    left_out = [row for row in rows if row["role"] == "left out"]
    assert {row["path"] for row in left_out} == {f"abnormal/{film.name}" for film in (phantoms / "abnormal").iterdir()}
    assert all(row["reason"].startswith("labelled ") for row in left_out)
    assert not any("masks" in row["path"] for row in rows)
    assert receipt(model)["normal"] == "labelled normal (manifest)"
    assert receipt(model)["status"] == "done"


def test_no_patient_is_on_both_sides_and_none_is_named(model: Path, phantoms: Path) -> None:
    rows = splits(model)
    sides = [{row["patient"] for row in rows if row["role"] == role} for role in ("train", "calibration")]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert "P0001" not in (model / "splits.csv").read_text()


def test_a_manifest_is_scans_too(phantoms: Path, model: Path, tmp_path: Path) -> None:
    ran = anomaly("fit", phantoms / "manifest.csv", "--normal-only", *FLOOR, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    same = "model/weights.safetensors"
    assert (tmp_path / "run" / same).read_bytes() == (model / same).read_bytes()


def test_a_folder_named_normal_needs_no_flag(phantoms: Path, tmp_path: Path) -> None:
    ran = anomaly("fit", phantoms / "normal", *FLOOR, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert receipt(tmp_path / "run")["normal"] == "labelled normal (folder)"


@pytest.mark.parametrize("which", ["phantoms", "unlabelled"])
def test_without_the_flag_what_is_not_wholly_normal_is_refused(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ran = anomaly("fit", request.getfixturevalue(which), *FLOOR, "-o", tmp_path / "run")
    assert ran.code == 4
    assert "--normal-only" in ran.err
    assert not (tmp_path / "run").exists()


def test_unlabelled_with_the_flag_is_declared_normal_in_the_receipt(unlabelled: Path, tmp_path: Path) -> None:
    ran = anomaly("fit", unlabelled, "--normal-only", "-d", "pixel-stats", "-o", tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    assert "declared normal" in str(receipt(tmp_path / "run")["normal"])
    summary = json.loads(ran.out)
    assert (summary["trained"], summary["held_out"], summary["left_out"]) == (10, 8, {})


def test_too_few_normals_says_how_many(unlabelled: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for film in sorted(unlabelled.iterdir())[:15]:
        shutil.copy(film, tmp_path / "films")
    ran = anomaly("fit", tmp_path / "films", "--normal-only", *FLOOR, "-o", tmp_path / "run")
    assert ran.code == 4
    assert "15 normal scans" in ran.err
    assert "16" in ran.err


def test_only_abnormal_films_says_so(phantoms: Path, tmp_path: Path) -> None:
    ran = anomaly("fit", phantoms / "abnormal", "--normal-only", *FLOOR, "-o", tmp_path / "run")
    assert ran.code == 4
    assert "0 normal scans" in ran.err
    assert "8 labelled abnormal" in ran.err


def test_an_unreadable_film_is_left_out_by_name(unlabelled: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(unlabelled, tmp_path / "films"))
    (films / "broken.png").write_bytes(b"")
    ran = anomaly("fit", films, "--normal-only", "-d", "pixel-stats", "-o", tmp_path / "run")
    assert ran.code == 3
    assert "broken.png: is empty" in ran.err
    assert [row["role"] for row in splits(tmp_path / "run") if row["path"] == "broken.png"] == ["failed"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("detector.flor=1", "did you mean 'floor'"),
        ("sead=1", "did you mean 'seed'"),
        ("prepare.clahe_clp=1", "did you mean 'clahe_clip'"),
        ("size", "KEY=VALUE"),
        ("size=big", "size"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(setting: str, said: str, unlabelled: Path, tmp_path: Path) -> None:
    args = ("-d", "pixel-stats", "--set", setting, "-o", tmp_path / "run")
    ran = anomaly("fit", unlabelled, "--normal-only", *args)
    assert ran.code == 2
    assert said in ran.err
    assert not (tmp_path / "run").exists()


def test_a_taken_output_folder(model: Path, unlabelled: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    before = (run / "splits.csv").read_bytes()
    fit = ("fit", unlabelled, "--normal-only", "-d", "pixel-stats", "-o", run)
    refused = anomaly(*fit)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert (run / "splits.csv").read_bytes() == before
    other_settings = anomaly(*fit, "--resume")
    assert other_settings.code == 2
    assert "settings differ" in other_settings.err
    assert (run / "splits.csv").read_bytes() == before
    assert anomaly(*fit, "--overwrite").code == 0
    assert (run / "splits.csv").read_bytes() != before
    both = anomaly(*fit, "--overwrite", "--resume")
    assert both.code == 2


def test_the_split_does_not_hang_on_the_salt(
    model: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALY_SALT", "another salt")
    assert anomaly("fit", phantoms, "--normal-only", *FLOOR, "-o", tmp_path / "run").code == 0
    roles = [{row["path"]: row["role"] for row in splits(run)} for run in (model, tmp_path / "run")]
    assert roles[0] == roles[1]


def test_resume_refuses_to_move_films_between_training_and_calibration(phantoms: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(phantoms / "normal", tmp_path / "normal"))
    args = ("fit", films, "--normal-only", *FLOOR, "-o", tmp_path / "run")
    assert anomaly(*args).code == 0
    assert anomaly(*args, "--resume").code == 0
    rows = "\n".join(f"{film.name},one patient" for film in sorted(films.iterdir())[:10])
    (films / "manifest.csv").write_text(f"path,patient\n{rows}\n")
    ran = anomaly(*args, "--resume")
    assert ran.code == 2
    assert "splits.csv" in ran.err


def test_resume_refuses_other_films(model: Path, unlabelled: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    ran = anomaly("fit", unlabelled, "--normal-only", *FLOOR, "-o", run, "--resume")
    assert ran.code == 2
    assert "other scans" in ran.err


@pytest.mark.parametrize("command", ["fit", "calibrate", "demo"])
def test_overwrite_leaves_folders_alone_that_are_not_its_own(
    command: str, model: Path, unlabelled: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.txt").write_text("years of work")
    args = {"fit": [unlabelled, "--normal-only"], "calibrate": [model, unlabelled], "demo": []}[command]
    ran = anomaly(command, *args, "-o", mine, "--overwrite")
    assert ran.code == 2
    assert "left alone" in ran.err
    assert (mine / "chapter.txt").read_text() == "years of work"


def test_a_config_can_be_fed_back(model: Path, phantoms: Path, tmp_path: Path) -> None:
    ran = anomaly("fit", phantoms, "--normal-only", "-c", model / "config.yaml", "-o", tmp_path / "again")
    assert ran.code == 0, ran.err
    for name in ("model/weights.safetensors", "model/calibration.safetensors", "config.yaml", "splits.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes(), name


def test_a_full_disk_names_the_file_and_the_fix(unlabelled: Path, tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    args = ("fit", unlabelled, "--normal-only", "-d", "pixel-stats", "-o", tmp_path / "run")
    ran = finish(spawn(*args, preexec_fn=little_room))
    assert ran.code == 4, ran.err
    assert "Cannot keep prepared images" in ran.err
    assert "Free some space" in ran.err
    assert "Traceback" not in ran.err
    assert receipt(tmp_path / "run")["status"] == "failed"
    assert not parts_left(tmp_path)
    unfinished = anomaly("score", unlabelled, "-m", tmp_path / "run", "-o", tmp_path / "out")
    assert unfinished.code == 5
    assert "--resume" in unfinished.err
    resumed = anomaly(*args, "--resume")
    assert resumed.code == 0, resumed.err
    assert anomaly("score", unlabelled, "-m", tmp_path / "run", "-o", tmp_path / "out").code == 0


@pytest.mark.slow
def test_interrupted_training_goes_on_to_the_same_weights(unlabelled: Path, tmp_path: Path) -> None:
    def args(run: str) -> tuple[object, ...]:
        return ("fit", unlabelled, "--normal-only", *TINY_GAN, "-o", tmp_path / run)

    checkpoint = tmp_path / "stopped/checkpoints/last.safetensors"
    ran = stop_when(spawn(*args("stopped")), checkpoint.is_file, signal.SIGINT)
    assert ran.code == 130, ran.err
    assert "--resume" in ran.err
    assert "Traceback" not in ran.err
    assert receipt(tmp_path / "stopped")["status"] == "interrupted"
    assert not parts_left(tmp_path)
    assert read_tensors(checkpoint)[1]["step"] < 40

    resumed = anomaly(*args("stopped"), "--resume")
    assert resumed.code == 0, resumed.err
    assert anomaly(*args("whole")).code == 0
    for name in ("model/weights.safetensors", "model/calibration.safetensors", "history.csv", "splits.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert receipt(tmp_path / "stopped")["status"] == "done"

    twins = tmp_path / "out"
    assert anomaly("score", unlabelled, "-m", tmp_path / "stopped", "-o", twins).code == 0
    assert anomaly("report", twins).code == 0
    assert "normal twin" in (twins / "report.html").read_text()


def test_a_test_set_is_drawn_by_patient_and_scored_by_its_name(phantoms: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    ran = anomaly("fit", phantoms, "--normal-only", "--test", "0.25", "-d", "pixel-stats", "-o", run)
    assert ran.code == 0, ran.err
    tested = {row["path"]: row for row in splits(run) if row["role"] == "test"}
    assert f"{len(tested)} kept for testing" in ran.out
    labels = [row["label"] for row in tested.values()]
    assert (labels.count("0"), labels.count("1")) == (10, 3)  # a quarter of each class, a patient at the least
    others = {row["patient"] for row in splits(run) if row["role"] in ("train", "calibration")}
    assert not others & {row["patient"] for row in tested.values()}
    assert anomaly("score", phantoms, "-m", run, "-o", out, "--split", "test").code == 0
    assert set(table(out)) == set(tested)
    ran = anomaly("score", phantoms, "-m", run, "-o", tmp_path / "none", "--split", "nothing")
    assert ran.code == 4
    assert not (tmp_path / "none").exists()


def test_no_patient_ids_no_test_set_without_permission(tmp_path: Path) -> None:
    for kind, count in (("normal", 40), ("abnormal", 10)):
        folder = tmp_path / "films" / kind
        folder.mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng([number, count]).integers(0, 256, (64, 64)).astype(np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), noise)
    args = ("fit", tmp_path / "films", "--normal-only", "-d", "pixel-stats", "--test", "0.2", "-o", tmp_path / "run")
    refused = anomaly(*args)
    assert refused.code == 4
    assert "--allow-image-split" in refused.err
    allowed = anomaly(*args, "--allow-image-split", "--overwrite")
    assert allowed.code == 0, allowed.err
    assert "--allow-image-split" in allowed.err
    assert sum(row["role"] == "test" for row in splits(tmp_path / "run")) == 10


@pytest.mark.parametrize("leak", ["picture", "patient"])
def test_what_is_in_training_and_test_set_stops_the_fit(leak: str, phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    films = sorted((phantoms / "normal").iterdir())
    rows = ["path,patient,label,split"]
    for number, film in enumerate(films[:24]):
        folder.mkdir(exist_ok=True)
        shutil.copy(film, folder / film.name)
        rows.append(f"{film.name},p{number},0,{'test' if number >= 20 else 'train'}")
    if leak == "picture":
        shutil.copy(films[3], folder / f"again{films[3].suffix}")
        rows.append(f"again{films[3].suffix},p99,0,test")
    else:
        rows[-1] = rows[-1].replace("p23", "p3")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    ran = anomaly("fit", folder / "manifest.csv", "--normal-only", "-d", "pixel-stats", "-o", tmp_path / "run")
    assert ran.code == 4
    assert films[3].name in ran.err
    assert not (tmp_path / "run" / "model").exists()


def test_flagged_films_are_left_out_on_request_with_the_reason(unlabelled: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    shutil.copytree(unlabelled, folder)
    levels = np.full((256, 256), 120, np.uint8)
    levels[::16, ::16] = 121
    cv2.imwrite(str(folder / "flat.png"), levels)
    args = ("fit", folder, "--normal-only", "-d", "pixel-stats", "--exclude-flagged", "-o", tmp_path / "run")
    assert anomaly(*args).code == 0
    reasons = {row["path"]: row["reason"] for row in splits(tmp_path / "run") if row["role"] == "left out"}
    assert set(reasons) == {"flat.png"}
    assert reasons["flat.png"].startswith("quality, ")
