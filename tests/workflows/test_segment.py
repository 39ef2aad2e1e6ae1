"""`anomaly segment` from the command line: fit on masks, apply, evaluate, go on after a stop, and every refusal."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running import anomaly, parts_left

from anomaly.config import load_recipe
from anomaly.errors import ModelError
from anomaly.evaluate.overlap import overlap
from anomaly.runs import RunRecorder, read_json
from anomaly.scans.phantom import write_phantoms
from anomaly.scans.phantom_skin import write_skin_phantoms
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans
from anomaly.workflows.segment_model import load_segmenter
from anomaly.workflows.segment_results import SEEN, chances_on_film, load_chances

CHANGES = (
    *("size=32", "detector.backbone_weights=none", "detector.encoder=resnet18", "detector.batch=4"),
    *("detector.decoder_channels=[32, 16, 16, 8, 8]", "detector.epochs=5", "detector.learning_rate=3e-3"),
    *("detector.precision=fp32", "detector.segment_batch=4"),
)
SMALL = [word for change in CHANGES for word in ("--set", change)]
FILES = ("masks", "overlays", "chances")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 18 phantoms with lung masks, and lesion masks of the 8 that have one."""
    folder = tmp_path_factory.mktemp("segment") / "films"
    write_phantoms(folder, n=18, abnormal=8)
    return folder


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 6 other phantoms, and a file that is none."""
    folder = tmp_path_factory.mktemp("segment") / "unseen"
    write_phantoms(folder, n=6, abnormal=2, seed=1)
    (folder / "normal" / "broken.png").write_bytes(b"\x89PNG cut short")
    return folder


@pytest.fixture(scope="module")
def run(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of a U-Net; never written to."""
    run = tmp_path_factory.mktemp("segment") / "run"
    ran = anomaly("segment", "fit", films, "--masks", films / "lung_masks", *SMALL, "-o", run)
    assert ran.code == 0, ran.err
    assert "trained on 14 films, validated on 4 of other patients" in ran.out
    return run


@pytest.fixture(scope="module")
def applied(run: Path, unseen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder; never written to."""
    out = tmp_path_factory.mktemp("segment") / "out"
    ran = anomaly("segment", "apply", unseen, "-m", run, "-o", out)
    assert ran.code == 3, ran.err
    assert "6 segmented, 1 failed" in ran.out
    return out


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def bytes_of(out: Path) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for kind in FILES for path in sorted((out / kind).iterdir())
    }


def test_a_run_says_what_it_learnt_from(run: Path, films: Path) -> None:
    assert parts_left(run) == []
    rows = rows_of(run / "splits.csv")
    assert sorted({row["role"] for row in rows.values()}) == ["train", "validation"]
    assert len(rows) == 18
    sides = {role: {row["patient"] for row in rows.values() if row["role"] == role} for role in ("train", "validation")}
    assert not sides["train"] & sides["validation"]
    receipt = read_json(run / "receipt.json")
    assert (receipt["command"], receipt["status"]) == ("segment fit", "done")
    assert (receipt["trained"], receipt["validated"], receipt["masks"]) == (14, 4, "given by --masks")
    told = read_json(run / "model" / "model.json")
    assert (told["kind"], told["method"], told["size"], told["schema_version"]) == ("segmenter", "unet", 32, 1)
    assert told["data"]["masks_sha256"] == receipt["masks_sha256"]
    assert "not a" in told["intended_use"].lower()
    assert "held out of the training" in (run / "model" / "README.md").read_text(encoding="utf-8")
    for picture in ("history.png", "iou_curve.png"):
        assert cv2.imread(str(run / picture)) is not None
    assert "val_dice" in (run / "history.csv").read_text(encoding="utf-8")
    config = (run / "config.yaml").read_text(encoding="utf-8")
    assert "calibration" not in config
    assert load_recipe(None, run / "config.yaml").detector["epochs"] == 5


def test_every_file_has_a_row_and_every_film_its_mask(applied: Path, unseen: Path, run: Path) -> None:
    assert parts_left(applied) == []
    rows = rows_of(applied / "masks.csv")
    listed = {file.relative: file for file in list_scans(unseen).files}
    assert rows.keys() == listed.keys()
    broken = rows.pop("normal/broken.png")
    assert (broken["status"], broken["area"], broken["mask"]) == ("failed", "", "")
    assert "broken.png" in broken["error"]
    segmenter = load_segmenter(run)
    for path, row in rows.items():
        scan = read_scan(listed[path])
        mask = cv2.imread(str(applied / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        assert mask.shape == scan.pixels.shape, "the film's own size"
        assert set(np.unique(mask)) == {0, 255}
        assert float(row["area"]) == pytest.approx((mask > 0).mean(), abs=1e-6)
        kept = load_chances(applied / "chances" / f"{row['scan_id']}.npz")
        assert (kept.chances.dtype, kept.chances.shape) == (np.float16, (32, 32))
        on_film = chances_on_film(kept.chances.astype(np.float32), kept.geometry)
        np.testing.assert_array_equal(mask > 0, on_film >= np.float32(segmenter.unet.threshold))
        assert cv2.imread(str(applied / row["overlay"])).shape[0] >= 512 or scan.pixels.shape[1] > 512
        assert row["warnings"] == ""
    own = segmenter.mask_of(scan)
    assert np.mean(own != (mask > 0)) < 1e-3, "but for what float16 rounds"


def test_a_mask_does_not_depend_on_the_other_films(applied: Path, run: Path, unseen: Path, tmp_path: Path) -> None:
    row = rows_of(applied / "masks.csv")["abnormal/" + sorted(p.name for p in (unseen / "abnormal").iterdir())[1]]
    alone = tmp_path / "abnormal"
    alone.mkdir()
    shutil.copy(unseen / row["path"], alone)
    assert anomaly("segment", "apply", tmp_path, "-m", run, "-o", tmp_path / "out", "-q").code == 0
    other = rows_of(tmp_path / "out" / "masks.csv")[row["path"]]
    assert (tmp_path / "out" / other["mask"]).read_bytes() == (applied / row["mask"]).read_bytes()
    assert other["area"] == row["area"]


def test_films_the_model_has_seen_are_named_as_such(run: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = anomaly("segment", "apply", films, "-m", run, "-o", out, "--split", "validation", "--json")
    assert json.loads(ran.out)["segmented"] == 4
    assert {row["warnings"] for row in rows_of(out / "masks.csv").values()} == {SEEN}
    told = anomaly("segment", "evaluate", out, "--masks", films / "lung_masks")
    assert "trained or validated on 4 of these scans" in told.err
    curve = read_json(out / "evaluation.json")["iou_over_thresholds"]
    np.testing.assert_allclose(curve["here"], curve["validation"], atol=0.05, err_msg="square and film agree")


def test_an_evaluation_is_what_the_masks_say(applied: Path, unseen: Path, tmp_path: Path) -> None:
    out = copy(applied, tmp_path / "out")
    masks = copy(unseen / "lung_masks", tmp_path / "masks")
    next((masks / "normal").iterdir()).unlink()
    shutil.copy(next((masks / "abnormal").iterdir()), masks / "stranger.png")
    ran = anomaly("segment", "evaluate", out, "--masks", masks)
    assert ran.code == 0, ran.err
    for said in ("1 scans have no mask", "1 masks fit no scan", "1 files could not be read"):
        assert said in ran.err
    rows = rows_of(out / "dice.csv")
    assert len(rows) == 5
    told = rows_of(out / "masks.csv")
    for path, row in rows.items():
        found = cv2.imread(str(out / told[path]["mask"]), cv2.IMREAD_UNCHANGED) > 0
        truth = cv2.imread(str((masks / path).with_suffix(".png")), cv2.IMREAD_UNCHANGED) > 0
        expected = overlap(found, truth)
        assert float(row["dice"]) == pytest.approx(expected.dice, abs=1e-6)
        assert float(row["iou"]) == pytest.approx(expected.iou, abs=1e-6)
        assert float(row["precision"]) == pytest.approx(expected.precision, abs=1e-6)
        assert float(row["true_area"]) == pytest.approx(truth.mean(), abs=1e-6)
    dices = [float(row["dice"]) for row in rows.values()]
    assert dices == sorted(dices), "worst first"
    assert min(dices) > 0.8
    found = read_json(out / "evaluation.json")
    assert (found["measured"], found["segmented"], found["failed"]) == (5, 6, 1)
    ours, guess = found["rows"].values()
    assert ours[0]["mean"] == pytest.approx(np.mean(dices), abs=1e-6)
    assert ours[0]["interval"]["low"] <= ours[0]["mean"] <= ours[0]["interval"]["high"]
    assert guess[0]["mean"] == pytest.approx(np.mean([float(row["dice_of_the_mean_mask"]) for row in rows.values()]))
    assert found["dice_lead"]["mean"] == pytest.approx(ours[0]["mean"] - guess[0]["mean"])
    at = round(20 * found["threshold"]) - 1
    assert found["iou_over_thresholds"]["here"][at] == pytest.approx(ours[1]["mean"])
    assert "mean training mask" in ran.out
    assert ran.out.strip() == (out / "evaluation.md").read_text(encoding="utf-8").strip()
    for picture in ("worst.png", "figures/iou_curve.png"):
        assert cv2.imread(str(out / picture)) is not None
    page = cv2.imread(str(out / "worst.png"))[..., ::-1].astype(int)
    for colour in ((64, 224, 255), (255, 166, 43)):
        assert (np.abs(page - colour).max(axis=2) < 40).sum() > 200
    assert parts_left(out) == []
    before = {name: (out / name).read_bytes() for name in ("dice.csv", "evaluation.json", "worst.png")}
    assert json.loads(anomaly("segment", "evaluate", out, "--masks", masks, "--json").out) == found
    assert before == {name: (out / name).read_bytes() for name in before}


def test_a_stopped_run_goes_on_where_it_was(applied: Path, run: Path, unseen: Path, tmp_path: Path) -> None:
    out = copy(applied, tmp_path / "out")
    anomaly("segment", "evaluate", out, "--masks", unseen / "lung_masks", "-q")
    whole, table = bytes_of(out), (out / "masks.csv").read_bytes()
    lines = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (out / "journal.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    kept = {json.loads(line)["scan_id"] for line in lines[:3] if json.loads(line)["status"] == "segmented"}
    lost = sorted(kept)[0]
    (out / "masks" / f"{lost}.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir() if path.stem in kept}
    again = ("segment", "apply", unseen, "-m", run, "-o", out)
    assert "--resume to go on" in anomaly(*again).err
    ran = anomaly(*again, "--resume")
    assert ran.code == 3, ran.err
    assert bytes_of(out) == whole
    assert (out / "masks.csv").read_bytes() == table
    assert not (out / "evaluation.json").exists(), "what rested on it is gone"
    assert {path: path.stat().st_mtime_ns for path in times} == times, "what was finished is not done again"
    assert anomaly(*again, "--overwrite", "-q").code == 3
    assert bytes_of(out) == whole


def test_a_changed_film_is_segmented_again(run: Path, unseen: Path, tmp_path: Path) -> None:
    films = copy(unseen / "abnormal", tmp_path / "films")
    out = tmp_path / "out"
    assert anomaly("segment", "apply", films, "-m", run, "-o", out, "-q").code == 0
    first, second = sorted(films.iterdir())
    assert cv2.imwrite(str(films / "new.png"), np.add.outer(np.arange(100), np.arange(120)).astype(np.uint8))
    shutil.move(films / "new.png", first)
    second.unlink()
    before = bytes_of(out)
    assert anomaly("segment", "apply", films, "-m", run, "-o", out, "-q", "--resume").code == 0
    after = bytes_of(out)
    assert len(after) == 3
    assert all(after[name] != before[name] for name in after)
    row = rows_of(out / "masks.csv")[first.name]
    assert row["status"] == "segmented"


def test_a_stopped_fit_ends_where_an_unbroken_one_does(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    words = ("segment", "fit", films, "--masks", films / "lung_masks", *SMALL, "-o", out)
    keep: Callable[..., None] = RunRecorder.checkpoint

    def stop(self: RunRecorder, arrays: Any, meta: Any) -> None:
        keep(self, arrays, meta)
        if meta["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "checkpoint", stop)
        ran = anomaly(*words)
    assert ran.code == 130
    assert "--resume" in ran.err
    assert read_json(out / "receipt.json")["status"] == "interrupted"
    with pytest.raises(ModelError, match=r"segment fit … -o .* --resume"):
        load_segmenter(out)
    assert "other masks" in anomaly(*words[:4], films / "masks", *words[5:], "--resume").err
    assert "settings differ" in anomaly(*words, "--set", "seed=3", "--resume").err
    assert "other scans" in anomaly(*words[:2], films / "normal", *words[3:], "--resume").err
    ran = anomaly(*words, "--resume")
    assert ran.code == 0, ran.err
    name = "model/weights.safetensors"
    assert (out / name).read_bytes() == (run / name).read_bytes()


def test_masks_that_the_set_names_are_learnt_from_and_in_colour(tmp_path: Path) -> None:
    skin = tmp_path / "skin"
    write_skin_phantoms(skin, n=10, abnormal=3)
    colour = ("--set", "prepare.channels=3", "--set", "detector.epochs=2")
    ran = anomaly("segment", "fit", skin, *SMALL, *colour, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert read_json(tmp_path / "run/receipt.json")["masks"] == "named by the set or its manifest"
    segmenter = load_segmenter(tmp_path / "run")
    assert segmenter.unet.channels == 3
    film = read_scan(list_scans(skin).files[0])
    assert segmenter.mask_of(film).shape == film.pixels.shape[:2]


def test_lesions_of_a_manifest_and_what_has_no_mask(films: Path, tmp_path: Path) -> None:
    few = ("--set", "detector.epochs=1")
    ran = anomaly("segment", "fit", films, *SMALL, *few, "-o", tmp_path / "run", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["left_out"] == {"no mask": 10}
    assert told["trained"] + told["validated"] == 8
    assert sum(row["reason"] == "no mask" for row in rows_of(tmp_path / "run/splits.csv").values()) == 10


def test_copies_and_published_test_films_are_not_learnt_from(films: Path, tmp_path: Path) -> None:
    data, masks = tmp_path / "data", films / "lung_masks" / "normal"
    pictures = [path for path in sorted((films / "normal").iterdir()) if path.suffix == ".png"]
    others = [path for path in sorted((films / "normal").iterdir()) if path.suffix != ".png"]
    for split, chosen in (("train", [*pictures, *others[2:]]), ("test", others[:2])):
        (data / split / "NORMAL").mkdir(parents=True)
        for path in chosen:
            shutil.copy(path, data / split / "NORMAL")
    shutil.copy(pictures[0], data / "train" / "NORMAL" / f"zz-{pictures[0].name}")
    every = copy(masks, tmp_path / "masks")
    shutil.copy(masks / f"{pictures[0].stem}.png", every / f"zz-{pictures[0].stem}.png")
    words = ("--masks", every, *SMALL, "--set", "detector.epochs=1", "-o", tmp_path / "run")
    ran = anomaly("segment", "fit", data, *words, "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["left_out"] == {"copy of another film": 1}
    assert told["trained"] + told["validated"] == len(pictures) + len(others) - 2
    roles = [row["role"] for row in rows_of(tmp_path / "run/splits.csv").values()]
    assert roles.count("test") == 2
    shutil.copy(others[2], data / "test" / "NORMAL" / "again.dcm")
    ran = anomaly("segment", "fit", data, *words, "--overwrite")
    assert ran.code == 4
    assert "overlap" in ran.err


def refused(tmp_path: Path, films: Path, *words: Any) -> str:
    out = tmp_path / "run"
    ran = anomaly("segment", "fit", films, *SMALL, *words, "-o", out)
    assert ran.code in (2, 4), ran.err
    assert not out.exists(), "before anything is written"
    return ran.err


def test_what_cannot_be_fitted_is_refused_at_once(films: Path, tmp_path: Path) -> None:
    masks = films / "lung_masks"
    given = ("--masks", masks)
    assert "leave prepare.register" in refused(tmp_path, films, *given, "--set", "prepare.register=affine")
    assert "methods that score" in refused(tmp_path, films, *given, "--set", "calibration.alpha=0.1")
    assert "did you mean 'epochs'" in refused(tmp_path, films, *given, "--set", "detector.epoch=3")
    assert "encoder" in refused(tmp_path, films, *given, "--set", "detector.encoder=resnet17")
    assert "names no mask" in refused(tmp_path, films / "normal")
    assert "is not a folder of masks" in refused(tmp_path, films, "--masks", tmp_path / "nowhere")
    assert "did you mean" in refused(tmp_path, films, *given, "-d", "unot")
    ran = anomaly("segment", "fit", films, "-d", "padim", "-o", tmp_path / "run")
    assert (ran.code, "anomaly fit -d padim" in ran.err) == (2, True)
    ran = anomaly("fit", films, "--normal-only", "-d", "unet", "-o", tmp_path / "run")
    assert (ran.code, "anomaly segment fit -d unet" in ran.err) == (2, True)
    own = copy(masks, tmp_path / "masks")
    for path in sorted((own / "normal").iterdir()):
        path.rename(path.with_name(f"other-{path.name}"))
    shutil.rmtree(own / "abnormal")
    assert "fits a film" in refused(tmp_path, films, "--masks", own)
    few = sorted((masks / "normal").iterdir())[:7]
    for path in few:
        shutil.copy(path, own / "normal")
    assert "gives 7 films with a mask" in refused(tmp_path, films, "--masks", own)
    shutil.rmtree(own)
    copy(masks, own)
    first, second, third = sorted((own / "normal").iterdir())[:3]
    cv2.imwrite(str(first), np.zeros((50, 50), np.uint8))
    said = refused(tmp_path, films, "--masks", own)
    assert f"{first} is empty" in said
    cv2.imwrite(str(second), np.zeros((50, 50), np.uint8))
    third.write_bytes(b"no picture")
    assert "There are 2 more like it" in refused(tmp_path, films, "--masks", own)


def test_masks_of_another_size_are_refused_before_training(films: Path, tmp_path: Path) -> None:
    own = copy(films / "lung_masks", tmp_path / "masks")
    path = sorted((own / "normal").iterdir())[0]
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), mask[::2, ::2])
    ran = anomaly("segment", "fit", films, "--masks", own, *SMALL, "-o", tmp_path / "run")
    assert ran.code == 4
    assert f"{path} is {mask[::2, ::2].shape[1]} x" in ran.err
    assert not (tmp_path / "run/history.csv").exists()
    assert parts_left(tmp_path / "run") == []
    only = np.zeros_like(mask)
    only[100, 100] = 255
    cv2.imwrite(str(path), only)
    ran = anomaly("segment", "fit", films, "--masks", own, *SMALL, "-o", tmp_path / "run", "--overwrite")
    assert "nothing is left on a square of 32" in ran.err


def test_masks_of_another_size_stop_an_evaluation(applied: Path, unseen: Path, tmp_path: Path) -> None:
    out, masks = copy(applied, tmp_path / "out"), copy(unseen / "lung_masks", tmp_path / "masks")
    path = sorted((masks / "normal").iterdir())[0]
    for size in ((40, 50), (60, 40)):
        cv2.imwrite(str(path), np.eye(*size, dtype=np.uint8) * 255)
        ran = anomaly("segment", "evaluate", out, "--masks", masks)
        assert (ran.code, f"{path} is {size[1]} x {size[0]}" in ran.err) == (4, True), ran.err
    assert not (out / "evaluation.json").exists()
    assert not (out / "dice.csv").exists()


def test_models_and_folders_of_the_wrong_kind_are_refused(
    run: Path, applied: Path, unseen: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "out")
    assert "use it with `anomaly segment apply`" in anomaly("score", unseen, "-m", run, *out).err
    fake = copy(run, tmp_path / "fake")
    told = read_json(fake / "model/model.json")
    for changed, said in (
        ({"kind": None}, "draws no masks"),
        ({"schema_version": 9}, "newer"),
        ({"size": 64}, "changed"),
    ):
        (fake / "model/model.json").write_text(json.dumps({**told, **changed}))
        ran = anomaly("segment", "apply", unseen, "-m", fake, *out)
        assert (ran.code, said in ran.err) == (5, True), ran.err
    (fake / "model/model.json").write_text(json.dumps(told))
    weights = fake / "model/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "is damaged" in anomaly("segment", "apply", unseen, "-m", fake, *out).err
    weights.unlink()
    assert "is missing" in anomaly("segment", "apply", unseen, "-m", fake, *out).err
    assert "holds no model" in anomaly("segment", "apply", unseen, "-m", tmp_path, *out).err
    assert not (tmp_path / "out").exists()
    masks = ("--masks", unseen / "lung_masks")
    assert "holds no masks.csv" in anomaly("segment", "evaluate", run, *masks).err
    cut = copy(applied, tmp_path / "cut")
    (cut / "masks.csv").write_bytes((cut / "masks.csv").read_bytes()[:-1])
    assert "is damaged" in anomaly("segment", "evaluate", cut, *masks).err
    shutil.copy(applied / "masks.csv", cut)
    for name in ("segmenter.safetensors", next((cut / "chances").iterdir()).relative_to(cut).as_posix()):
        (cut / name).write_bytes(b"")
        ran = anomaly("segment", "evaluate", cut, *masks)
        assert (ran.code, "Cannot read" in ran.err) == (4, True)
        shutil.copy(applied / name, cut / name)
    assert not (cut / "evaluation.json").exists()


def test_hashed_names_leave_no_name_and_cannot_be_matched(run: Path, unseen: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("segment", "apply", unseen, "-m", run, "-o", out)
    assert anomaly(*words, "--hash-paths").code == 3
    assert not [path for path in out.rglob("*") if "phantom" in path.name]
    assert "phantom" not in (out / "masks.csv").read_text() + (out / "journal.jsonl").read_text()
    assert "without --hash-paths" in anomaly("segment", "evaluate", out, "--masks", unseen / "lung_masks").err
    assert "--hash-paths just as" in anomaly(*words, "--resume").err
    assert "--split just as" in anomaly(*words, "--resume", "--hash-paths", "--split", "test").err


def test_a_folder_in_which_nothing_can_be_read_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films/bad.png").write_bytes(b"")
    ran = anomaly("segment", "apply", tmp_path / "films", "-m", run, "-o", tmp_path / "out")
    assert (ran.code, "None of the 1 files" in ran.err) == (4, True)
    assert rows_of(tmp_path / "out/masks.csv")["bad.png"]["status"] == "failed"
