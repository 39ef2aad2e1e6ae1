"""`score`: one row for every file that claims to be an image, whatever is wrong with some of them."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from running import anomaly, finish, parts_left, spawn, stop_when, table

from anomaly import load_model, score_paths
from anomaly.errors import DataError
from anomaly.scans.phantom import make_phantom
from anomaly.workflows.model import SCHEMA_VERSION

REASONS = {
    "truncated.jpg": "copy it again",
    "empty.png": "copy it again",
    "text.png": "convert it to PNG",
    "broken link.png": "mend the link",
    "one pixel.png": "use the original film",
    "huge.png": "max_megapixels",
    "constant.png": "export the film again",
    "nan.tiff": "save the film as 16-bit",
    "failing disk.png": "check the disk",
}
"""What a file that cannot be scored is told to do."""

GOOD = {
    "plain.png",
    "a name with spaces.png",
    "line\nbreak.png",
    "carriage\rreturn.png",
    "\N{LUNGS}\N{CROSS MARK}.png",
    "<script>alert(1)<script>.png",
    '=cmd, "quoted";x.png',
    "x.png/inside a folder called x.png",
    "cmyk.jpg",
    "palette.png",
    "alpha.png",
    "ramp16.png",
    "no extension",
}


def save(path: Path, pixels: Any) -> None:
    ok, data = cv2.imencode(path.suffix if path.suffix in (".jpg", ".tiff") else ".png", pixels)
    assert ok
    path.write_bytes(data.tobytes())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one of everything that turns up in real folders."""
    folder = tmp_path_factory.mktemp("mixed") / "films"
    (folder / "x.png").mkdir(parents=True)
    film = np.rint(make_phantom(3, seed=5).pixels * 255).astype(np.uint8)
    grey = Image.fromarray(film)
    for name in GOOD - {"cmyk.jpg", "palette.png", "alpha.png", "ramp16.png", "x.png/inside a folder called x.png"}:
        save(folder / name, film)
    save(folder / "x.png" / "inside a folder called x.png", film)
    grey.convert("RGB").convert("CMYK").save(folder / "cmyk.jpg")
    grey.convert("P").save(folder / "palette.png")
    grey.convert("RGBA").save(folder / "alpha.png")
    save(folder / "ramp16.png", np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16))

    save(folder / "truncated.jpg", film)
    whole = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    (folder / "broken link.png").symlink_to("nowhere.png")
    save(folder / "one pixel.png", np.zeros((1, 1), np.uint8))
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    save(folder / "constant.png", np.full((64, 64), 128, np.uint8))
    save(folder / "nan.tiff", np.where(np.eye(64) > 0, np.nan, 0.5).astype(np.float32))
    save(folder / "failing disk.png", film)
    (folder / "notes.txt").write_text("not an image and does not claim to be one")
    return folder


def fail_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make one file fail to be read as a failing disk does; permissions would not stop root."""
    whole = Path.open

    def opened(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == name:
            raise OSError(5, "Input/output error")
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, "open", opened)


@pytest.fixture
def failing_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_on(monkeypatch, "failing disk.png")


@pytest.mark.usefixtures("failing_disk")
def test_a_mixed_folder_is_scored_but_for_what_cannot_be(mixed: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = anomaly("score", mixed, "-m", model, "-o", out, "--panels", "all")
    assert ran.code == 3, ran.err
    assert "Traceback" not in ran.err
    rows = table(out)
    assert rows.keys() == GOOD | REASONS.keys()
    assert len(rows) == len((out / "journal.jsonl").read_text().splitlines())
    for name in GOOD:
        assert (rows[name]["status"], rows[name]["error"]) == ("scored", ""), name
        assert (out / rows[name]["heatmap"]).is_file()
    for name, fix in REASONS.items():
        assert rows[name]["status"] == "failed"
        assert fix in rows[name]["error"]
        assert rows[name]["score"] == rows[name]["p_value"] == rows[name]["rank"] == ""
    assert json.loads((out / "receipt.json").read_text())["not_images"] == 1

    loaded = load_model(model)
    for name in GOOD:
        (alone,) = score_paths(loaded, [mixed / name])
        assert alone.score is not None
        assert float(rows[name]["score"]) == np.float32(alone.score), name
        assert f"{alone.score:.9g}" == rows[name]["score"]

    assert anomaly("report", out).code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    for name, fix in REASONS.items():
        assert name in page
        assert fix in page
    redrawn = anomaly("heatmaps", out)
    assert redrawn.code == 0, redrawn.err


def test_the_same_film_scores_the_same_in_every_coat(mixed: Path, model: Path) -> None:
    names = ("plain.png", "cmyk.jpg", "palette.png", "alpha.png", "no extension")
    scores = [next(score_paths(load_model(model), [mixed / name])).score for name in names]
    assert all(score == pytest.approx(scores[0], rel=0.05) for score in scores)


def test_a_folder_of_nothing_but_broken_files_is_an_error_with_a_table(model: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "a.png").write_bytes(b"")
    (films / "b.dcm").write_text("no dicom")
    ran = anomaly("score", films, "-m", model, "-o", tmp_path / "out")
    assert ran.code == 4
    assert "scores.csv says why" in ran.err
    assert {row["status"] for row in table(tmp_path / "out").values()} == {"failed"}
    assert anomaly("report", tmp_path / "out").code == 0
    assert anomaly("evaluate", tmp_path / "out").code == 0


@pytest.mark.parametrize("inside", [None, "notes.txt"])
def test_a_folder_without_images_is_an_error(inside: str | None, model: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    if inside:
        (films / inside).write_text("hello")
    ran = anomaly("score", films, "-m", model, "-o", tmp_path / "out")
    assert ran.code == 4
    assert "holds no image" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scans", ["missing", "notes.txt"])
def test_scans_that_are_none(scans: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    ran = anomaly("score", tmp_path / scans, "-m", model, "-o", tmp_path / "out")
    assert ran.code == 4
    assert scans in ran.err


@pytest.mark.parametrize("shape", [(16, 16), (16, 3000), (3000, 17), (33, 65)])
def test_films_of_odd_shapes(shape: tuple[int, int], model: Path, tmp_path: Path) -> None:
    pixels = np.linspace(0, 255, shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    save(tmp_path / "odd.png", pixels)
    ran = anomaly("score", tmp_path / "odd.png", "-m", model, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert anomaly("report", tmp_path / "out").code == 0


def test_a_name_that_is_not_utf8(few: Path, model: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(few, tmp_path / "films"))
    next(films.iterdir()).rename(str(films) + "/caf\udce9.png")
    out = tmp_path / "out"
    assert anomaly("score", films, "-m", model, "-o", out).code == 0
    assert b"caf\xe9.png" in (out / "scores.csv").read_bytes()
    for command in ("evaluate", "report", "heatmaps"):
        assert anomaly(command, out).code == 0


def test_every_film_has_one_row_and_masks_have_none(scored: Path, phantoms: Path) -> None:
    rows = table(scored)
    films = [film for folder in ("normal", "abnormal") for film in (phantoms / folder).iterdir()]
    assert rows.keys() == {film.relative_to(phantoms).as_posix() for film in films}
    assert [int(row["rank"]) for row in rows.values()] == list(range(1, 49))
    scores = [float(row["score"]) for row in rows.values()]
    assert scores == sorted(scores, reverse=True)
    assert {row["label"] for path, row in rows.items() if path.startswith("abnormal/")} == {"1"}
    assert len({row["scan_id"] for row in rows.values()}) == 48


def test_p_values_follow_the_held_out_normals(scored: Path, model: Path) -> None:
    held_out = load_model(model).calibration.scores
    assert len(held_out) == 20
    for row in table(scored).values():
        p = (1 + np.count_nonzero(held_out >= float(np.float32(row["score"])))) / 21
        assert float(row["p_value"]) == pytest.approx(p, abs=1e-6)
        assert row["flagged"] == str(int(p <= 0.05))


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1.0])
def test_alpha_flags(alpha: float, phantoms: Path, model: Path, scored: Path, tmp_path: Path) -> None:
    films = phantoms / "abnormal"
    ran = anomaly("score", films, "-m", model, "-o", tmp_path / "out", "--alpha", alpha, "--json", "--panels", "none")
    assert ran.code == 0
    rows = table(tmp_path / "out").values()
    flagged = [row for row in rows if row["flagged"] == "1"]
    assert flagged == [row for row in rows if float(row["p_value"]) <= alpha]
    assert json.loads(ran.out)["flagged"] == len(flagged)
    assert ("nothing is flagged" in ran.err) == (alpha == 0.0)


def test_a_rerun_gives_the_same_bytes(phantoms: Path, model: Path, scored: Path, tmp_path: Path) -> None:
    ran = anomaly("score", phantoms, "-m", model, "-o", tmp_path / "out", "-j", "1")
    assert ran.code == 0
    assert (tmp_path / "out/scores.csv").read_bytes() == (scored / "scores.csv").read_bytes()


def test_a_finished_run_resumed_does_nothing_and_overwritten_does_it_again(
    few: Path, model: Path, tmp_path: Path
) -> None:
    args = ("score", few, "-m", model, "-o", tmp_path / "out")
    assert anomaly(*args).code == 0
    journal = (tmp_path / "out/journal.jsonl").read_bytes()
    before = (tmp_path / "out/scores.csv").read_bytes()
    assert anomaly(*args).code == 2
    assert anomaly(*args, "--resume").code == 0
    assert (tmp_path / "out/journal.jsonl").read_bytes() == journal
    (tmp_path / "out/report.html").write_text("old")
    assert anomaly(*args, "--overwrite").code == 0
    assert not (tmp_path / "out/report.html").exists()
    assert (tmp_path / "out/scores.csv").read_bytes() == before


def test_resume_scores_what_is_new_or_changed_and_drops_what_is_gone(few: Path, model: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(few, tmp_path / "films"))
    one, two, three, _ = sorted(films.iterdir())
    (films / "broken.png").write_bytes(b"")
    out = tmp_path / "out"
    args = ("score", films, "-m", model, "-o", out)
    assert anomaly(*args).code == 3
    save(films / "broken.png", np.rint(make_phantom(9).pixels * 255).astype(np.uint8))
    save(films / "new.png", np.rint(make_phantom(10).pixels * 255).astype(np.uint8))
    one.write_bytes(three.read_bytes())
    two.unlink()
    assert anomaly(*args, "--resume").code == 0
    assert anomaly("score", films, "-m", model, "-o", tmp_path / "afresh").code == 0
    assert (out / "scores.csv").read_bytes() == (tmp_path / "afresh/scores.csv").read_bytes()
    assert {p.name for p in (out / "heatmaps").iterdir()} == {p.name for p in (tmp_path / "afresh/heatmaps").iterdir()}
    (films / two.name).write_bytes((few / two.name).read_bytes())  # back again: scored again, and drawn
    assert anomaly(*args, "--resume").code == 0
    assert all((out / row["heatmap"]).is_file() for row in table(out).values())


def test_resume_tries_again_what_failed(few: Path, model: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(few, tmp_path / "films"))
    shutil.copy(next(film for film in sorted(films.iterdir()) if film.suffix == ".png"), films / "failing disk.png")
    args = ("score", films, "-m", model, "-o", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        fail_on(patch, "failing disk.png")
        assert anomaly(*args).code == 3
    assert anomaly(*args, "--resume").code == 0
    assert table(tmp_path / "out")["failing disk.png"]["status"] == "scored"


def test_resume_drops_an_evaluation_of_what_was_there_before(phantoms: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("score", phantoms, "-m", model, "-o", out, "--panels", "none")
    assert anomaly(*args).code == 0
    assert anomaly("evaluate", out).code == 0
    assert anomaly("report", out).code == 0
    assert anomaly(*args, "--resume").code == 0
    assert not [name for name in ("evaluation.json", "evaluation.md", "report.html") if (out / name).exists()]


def test_resume_takes_labels_as_they_are_now(few: Path, model: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(few, tmp_path / "films"))
    args = ("score", films, "-m", model, "-o", tmp_path / "out")

    def labels_after(label: int, *flags: str) -> set[str]:
        lines = [f"{film.name},{label}" for film in sorted(films.glob("*.png"))]
        (films / "manifest.csv").write_text("\n".join(["path,label", *lines]))
        assert anomaly(*args, *flags).code == 0
        return {row["label"] for row in table(tmp_path / "out").values() if row["path"].endswith(".png")}

    assert labels_after(0) == {"0"}
    assert labels_after(1, "--resume") == {"1"}


def test_resume_refuses_another_model_and_other_naming(few: Path, model: Path, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert anomaly("score", few, "-m", model, "-o", out).code == 0
    other = tmp_path / "other"
    assert anomaly("fit", phantoms, "--normal-only", "-d", "pixel-stats", "-o", other).code == 0
    ran = anomaly("score", few, "-m", other, "-o", out, "--resume")
    assert ran.code == 2
    assert "another model" in ran.err
    ran = anomaly("score", few, "-m", model, "-o", out, "--resume", "--hash-paths")
    assert ran.code == 2
    assert "--hash-paths" in ran.err


def test_overwrite_never_deletes_what_is_to_be_read(few: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert anomaly("score", few, "-m", model, "-o", out).code == 0
    ran = anomaly("score", out / "heatmaps", "-m", model, "-o", out, "--overwrite")
    assert ran.code == 2
    assert "would be replaced" in ran.err
    assert (out / "scores.csv").is_file()
    not_mine = anomaly("score", few, "-m", model, "-o", few, "--overwrite")
    assert not_mine.code == 2
    assert len(list(few.iterdir())) == 4


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    sent: signal.Signals, code: int, phantoms: Path, model: Path, scored: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    args = ("score", phantoms, "-m", model, "-o", out, "-j", "1")
    journal = out / "journal.jsonl"
    ran = stop_when(spawn(*args), lambda: journal.is_file() and journal.stat().st_size > 0, sent)
    assert ran.code == code, ran.err
    done = journal.read_text().count("\n")
    assert 0 < done < 48
    receipt = json.loads((out / "receipt.json").read_text())
    if sent == signal.SIGINT:
        assert "--resume" in ran.err
        assert "Traceback" not in ran.err
        assert receipt["status"] == "interrupted"
        assert not parts_left(out)
        assert done - 4 <= len(table(out)) <= done  # the last chunk may be on disk and not yet noted
        assert anomaly("heatmaps", out).code == 0
        assert anomaly("report", out).code == 0
    else:
        assert receipt["status"] == "running"
        unfinished = anomaly("report", out)
        assert unfinished.code == 4
        assert "--resume" in unfinished.err
    (out / ".part-left").write_bytes(b"half")
    assert anomaly(*args, "--resume").code == 0
    assert (out / "scores.csv").read_bytes() == (scored / "scores.csv").read_bytes()
    assert not parts_left(out)
    assert journal.read_text().count("\n") == 48


@pytest.mark.parametrize(("panels", "named"), [("all", "panels/"), ("none", "journal.jsonl")])
def test_a_full_disk_names_the_file_and_the_fix(
    panels: str, named: str, phantoms: Path, model: Path, scored: Path, tmp_path: Path
) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, resource.RLIM_INFINITY))

    args = ("score", phantoms, "-m", model, "-o", tmp_path / "out", "--panels", panels)
    ran = finish(spawn(*args, preexec_fn=little_room))
    assert ran.code == 4, ran.err
    assert named in ran.err
    assert "Free some space" in ran.err
    assert "Traceback" not in ran.err
    assert not parts_left(tmp_path)
    resumed = anomaly(*args, "--resume")
    assert resumed.code == 0, resumed.err
    rows, expected = table(tmp_path / "out"), table(scored)
    assert [{**row, "heatmap": ""} for row in rows.values()] == [{**row, "heatmap": ""} for row in expected.values()]


def test_folders_can_be_moved(few: Path, model: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    out = tmp_path / "out"
    assert anomaly("score", few, "-m", run, "-o", out).code == 0
    before = (out / "scores.csv").read_bytes()
    run, out = run.rename(tmp_path / "run moved"), out.rename(tmp_path / "out moved")
    films = Path(shutil.copytree(few, tmp_path / "films moved"))
    for command in ("evaluate", "report", "heatmaps"):
        assert anomaly(command, out).code == 0
    assert anomaly("score", films, "-m", run, "-o", tmp_path / "again").code == 0
    assert (tmp_path / "again/scores.csv").read_bytes() == before
    assert str(tmp_path) not in (out / "scores.csv").read_text() + (run / "model/model.json").read_text()


def everything_in(out: Path) -> str:
    names = " ".join(path.relative_to(out).as_posix() for path in out.rglob("*"))
    return names + "".join(path.read_bytes().decode("latin-1") for path in sorted(out.rglob("*")) if path.is_file())


@pytest.mark.parametrize("single", [False, True])
def test_hashed_paths_leave_no_name_anywhere(single: bool, few: Path, model: Path, tmp_path: Path) -> None:
    films = tmp_path / "Ward Beaulieu"
    shutil.copytree(few, films)
    next(films.iterdir()).rename(films / "JANEQUERY^DOEMAN.png")
    (films / "ROEMANSON.png").write_bytes(b"broken")
    out = tmp_path / "out"
    scans = films / "JANEQUERY^DOEMAN.png" if single else films
    args = ("score", scans, "-m", model, "-o", out, "--hash-paths")
    ran = finish(spawn(*args))
    assert ran.code == (0 if single else 3), ran.err
    for command in ("evaluate", "report", "heatmaps"):
        assert finish(spawn(command, out)).code == 0
    for text in (everything_in(out), ran.out, ran.err):
        for name in ("JANEQUERY", "DOEMAN", "ROEMANSON", "Beaulieu", *(film.stem for film in few.iterdir())):
            assert name not in text, name
    assert "SCANS" in json.loads((out / "receipt.json").read_text())["argv"]
    assert "hash-paths leaves" not in ran.err


def test_names_in_results_are_spoken_of(few: Path, model: Path, tmp_path: Path) -> None:
    assert "--hash-paths" in anomaly("score", few, "-m", model, "-o", tmp_path / "out").err


def test_score_paths_in_python(few: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    rows = list(score_paths(load_model(model / "model"), [few, tmp_path / "bad.png"]))
    assert [row.status for row in rows] == ["scored"] * 4 + ["failed"]
    assert all(0 < (row.p_value or 0) <= 1 for row in rows[:4])
    assert "is empty" in (rows[-1].error or "")
    assert [row.status for row in score_paths(load_model(model), str(few))] == ["scored"] * 4
    with pytest.raises(DataError, match="does not exist"):
        list(score_paths(load_model(model), [tmp_path / "nowhere"]))


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("weights.safetensors", Path.unlink, "is missing"),
        ("weights.safetensors", flipped, "is damaged"),
        ("calibration.safetensors", Path.unlink, "is missing"),
        ("calibration.safetensors", flipped, "is damaged"),
        ("model.json", Path.unlink, "holds no finished model"),
        ("model.json", newer, "newer anomaly"),
        ("model.json", lambda path: path.write_text("{"), "not a model description"),
        (
            "model.json",
            lambda path: path.write_text(path.read_text().replace("pixel-stats", "pixel-stat")),
            "was changed",
        ),
        (
            "model.json",
            lambda path: path.write_text(path.read_text().replace('"alpha": 0.05', '"alpha": 0.06')),
            "was changed",
        ),
        ("model.json", lambda path: path.write_text(path.read_text().replace('"size"', '"sise"')), "size"),
    ],
)
def test_a_damaged_model_is_refused(
    file: str, damage: Callable[[Path], Any], said: str, few: Path, model: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    damage(run / "model" / file)
    ran = anomaly("score", few, "-m", run, "-o", tmp_path / "out")
    assert ran.code == 5, ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model_path", ["nowhere", "."])
def test_no_model_there(model_path: str, few: Path, tmp_path: Path) -> None:
    ran = anomaly("score", few, "-m", tmp_path / model_path, "-o", tmp_path / "out")
    assert ran.code == 5
    assert "anomaly fit" in ran.err
