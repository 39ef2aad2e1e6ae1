"""`ensemble`: the mean of the members' z, with p-values that hold, in a folder like any other results folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running import FLOOR, anomaly, table

from anomaly import load_model, score_paths
from anomaly.calibrate import Calibration, load_calibration
from anomaly.detectors.pixel_stats import PixelStats
from anomaly.prepare.geometry import resize_geometry
from anomaly.runs import read_json, read_tensors, write_tensors
from anomaly.scans.phantom import make_phantom
from anomaly.scans.walk import list_scans
from anomaly.workflows import ensemble as workflow
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.members import Ensemble, Member, find_members
from anomaly.workflows.model import describe_model, read_facts
from anomaly.workflows.panels import Panel, load_panel
from anomaly.workflows.report import write_report
from anomaly.workflows.splits import run_splits

CROPPED = ("--set", "size=48", "--set", "prepare.central_crop=0.8", "--set", "read.max_megapixels=0.4")


def fitted(phantoms: Path, run: Path, *settings: str) -> Path:
    assert anomaly("fit", phantoms, "--normal-only", *FLOOR, *settings, "-o", run).code == 0
    return run


@pytest.fixture(scope="module")
def cropped(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that prepares films in another way, and takes none of more than 0.4 megapixels."""
    return fitted(phantoms, tmp_path_factory.mktemp("runs") / "cropped", *CROPPED)


@pytest.fixture(scope="module")
def other_seed(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that holds out other normals."""
    return fitted(phantoms, tmp_path_factory.mktemp("runs") / "other", "--seed", "1")


def folder_of(folder: Path, **runs: Path) -> Path:
    for name, run in runs.items():
        shutil.copytree(run, folder / name)
    return folder


@pytest.fixture(scope="module")
def models(model: Path, cropped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two members, a and b, that hold out the same 20 normals; and what is passed over."""
    folder = folder_of(tmp_path_factory.mktemp("members"), b=cropped, a=model)
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("not a folder")
    return folder


@pytest.fixture(scope="module")
def films(phantoms: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 2 abnormal films and 2 normals held out by the members."""
    folder = tmp_path_factory.mktemp("films") / "films"
    held_out = [row["path"] for row in run_splits(model) if row["role"] == "calibration"]
    abnormal = sorted(path.relative_to(phantoms).as_posix() for path in (phantoms / "abnormal").iterdir())
    for path in (*held_out[:2], *abnormal[:2]):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(phantoms / path, folder / path)
    boxes = [f"{path},100,100,80,80" for path in abnormal[:2]]
    (folder / "boxes.csv").write_text("\n".join(["path,x,y,w,h", *boxes]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def together(films: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the films' results folder; never written to."""
    out = tmp_path_factory.mktemp("outs") / "out"
    ran = anomaly("ensemble", films, models, "-o", out)
    assert ran.code == 0, ran.err
    assert "4 scored" in ran.out
    assert "twice the mean" not in ran.err
    return out


def raw_scores(models: Path, films: Path, names: Sequence[str]) -> dict[str, list[float]]:
    """Return path -> the members' raw scores, each scored by itself."""
    found: dict[str, list[float]] = {}
    for name in names:
        for row in score_paths(load_model(models / name), films):
            assert row.score is not None
            found.setdefault(row.path, []).append(row.score)
    return found


def by_film(calibration: Calibration) -> dict[bytes, float]:
    assert calibration.scans is not None
    return {key.tobytes(): score for key, score in zip(calibration.scans, calibration.scores, strict=True)}


def test_the_score_is_the_mean_of_z_and_p_counts_the_normals_in_common(
    films: Path, models: Path, together: Path
) -> None:
    calibrations = [load_calibration(models / name / "model") for name in ("a", "b")]
    raw = raw_scores(models, films, ("a", "b"))

    def z(scores: Sequence[float]) -> list[float]:
        return [
            (score - calibration.scores.mean()) / calibration.scores.std()
            for score, calibration in zip(scores, calibrations, strict=True)
        ]

    first, second = map(by_film, calibrations)
    assert first.keys() == second.keys()
    normals = np.sort([np.mean(z([first[film], second[film]])) for film in first])
    kept = load_calibration(together)
    np.testing.assert_allclose(kept.scores, normals, rtol=1e-12)
    rows = table(together)
    assert rows.keys() == raw.keys()
    for path, row in rows.items():
        values = z(raw[path])
        assert float(row["score"]) == pytest.approx(np.mean(values), rel=1e-8)
        assert [float(row[name]) for name in ("a", "b")] == pytest.approx(values, rel=1e-8)
        at_least = sum(normal >= np.mean(values) - 1e-12 for normal in normals)
        assert float(row["p_value"]) == pytest.approx((1 + at_least) / (len(normals) + 1), rel=1e-5)
        assert row["flagged"] == str(int((1 + at_least) / 21 <= 0.05))
        if path.startswith("normal/"):  # one of those counted, and scored just as then
            assert np.isclose(kept.scores, np.mean(values), rtol=1e-12).sum() == 1


def test_heat_is_the_mean_in_units_of_the_normals(together: Path, models: Path) -> None:
    units = {name: load_calibration(models / name / "model").pixel_quantiles for name in ("a", "b")}
    for path in (together / "panels").iterdir():
        panel = load_panel(path)
        members = {name: load_panel(together / "members" / name / "panels" / path.name) for name in units}
        hand = [members[name].heat_on_film() / units[name]["0.99"] for name in units]
        assert panel.heatmap.shape == (60, 60)  # as fine as b's map of 0.8 of the film
        expected = resize_geometry(panel.film.shape[:2], 60)
        np.testing.assert_allclose(panel.geometry.matrix, expected.matrix)
        apart = np.abs(panel.heat_on_film() - np.mean(hand, axis=0))
        assert np.mean(apart) < 0.03 * np.mean(hand)
        np.testing.assert_allclose(panel.heatmap, sum(panel.term_maps.values()), atol=0.01)
        assert panel.term_maps.keys() == {"a", "b"}
        assert not panel.registered
    assert len(list((together / "panels").iterdir())) == 4
    quantiles = load_calibration(together).pixel_quantiles
    for level, heat in quantiles.items():
        assert heat == pytest.approx(np.mean([unit[level] / unit["0.99"] for unit in units.values()]))


def test_members_of_one_size_without_a_crop_need_no_resampling() -> None:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (50, 40)).astype(np.uint8)
    panels = [
        Panel(film, film, None, rng.random((32, 32), np.float32), resize_geometry((50, 40), 32)) for _ in range(2)
    ]
    members = [of_scores(name, [1.0, 2.0], heat=heat) for name, heat in (("a", 2.0), ("b", 0.5))]
    joined = Ensemble.of(members).panel(panels)
    np.testing.assert_allclose(joined.heatmap, panels[0].heatmap / 4 + panels[1].heatmap, atol=1e-4)


def of_scores(name: str, scores: Sequence[float], *, films: Sequence[int] | None = None, heat: float = 1.0) -> Member:
    values = np.array(scores)
    quantiles = {"0.5": 0.0, "0.95": heat / 2, "0.99": heat, "0.999": 2 * heat, "1.0": 3 * heat}
    scans = None if films is None else np.array(films, "<i8").view(np.uint8).reshape(len(films), 8)
    calibration = Calibration(values, quantiles, None, scans)
    return Member(name, Path(name), "m", "0", "cpu", 0.05, calibration, float(values.mean()), float(values.std()))


def test_maps_on_a_scale_of_their_own_count_by_it() -> None:
    member = of_scores("a", range(20), heat=0.01)
    assert member.heat == 0.01
    assert replace(member, heat_range=(1.0, 2.0)).heat == 1.5


def test_normals_in_common_are_matched_by_film_and_counted_once() -> None:
    films = list(range(18))
    one = of_scores("a", [float(film) for film in films], films=films)
    again = [*films[::-1], 3, 99]
    two = of_scores("b", [2.0 * film for film in again], films=again)
    both = Ensemble.of([one, two])
    assert both.bound is None
    assert len(both.calibration.scores) == 18
    for film in films:
        assert both.p_value([float(film), 2.0 * film]) == (1 + 18 - film) / 19
    few = Ensemble.of([of_scores("a", [float(film) for film in films[:15]], films=films[:15]), two])
    assert few.bound is not None
    assert "15 held-out normals in common" in few.bound


def test_twice_the_mean_of_p_values_is_no_more_often_small_than_it_may_be() -> None:
    rng = np.random.default_rng(1)
    trials, below = 400, 0
    for _ in range(trials):
        normals = rng.normal(size=(2, 39))
        both = Ensemble.of([of_scores(name, np.sort(row).tolist()) for name, row in zip("ab", normals, strict=True)])
        assert both.bound is not None
        fresh = rng.normal()
        p = both.p_value([fresh, fresh])
        own = [member.calibration.p_value(fresh) for member in both.members]
        assert p == min(1.0, sum(own)) >= both.smallest_alpha == 0.05
        below += p <= 0.2
    assert below <= 0.2 * trials + 3 * np.sqrt(0.16 * trials)


def old(run: Path) -> None:
    """Make a run look as an older version left it: without which films its calibration scores are of."""
    arrays, meta = read_tensors(run / "model" / "calibration.safetensors")
    write_tensors(run / "model" / "calibration.safetensors", {"scores": arrays["scores"]}, meta)
    describe_model(run / "model", read_facts(run / "model"))


@pytest.mark.parametrize("why", ["other normals", "older version"])
def test_without_normals_in_common_p_values_are_bounds(
    model: Path, cropped: Path, other_seed: Path, films: Path, tmp_path: Path, why: str
) -> None:
    models = folder_of(tmp_path / "models", a=model, b=other_seed if why == "other normals" else cropped)
    if why == "older version":
        old(models / "b")
    out = tmp_path / "out"
    ran = anomaly("ensemble", films, models, "-o", out, "--panels", "none")
    assert ran.code == 0, ran.err
    assert ran.err.count("twice the mean") == 1
    assert (
        "held-out normals in common" if why == "other normals" else "b was calibrated by an older version"
    ) in ran.err
    members = [table(out / "members" / name) for name in ("a", "b")]
    rows = table(out)
    for path, row in rows.items():
        bound = min(1.0, sum(float(member[path]["p_value"]) for member in members))
        assert float(row["p_value"]) == pytest.approx(bound, rel=1e-5)
        assert float(row["score"]) == pytest.approx(np.mean([float(row["a"]), float(row["b"])]), rel=1e-8)
    assert len(load_calibration(out).scores) == 0
    if why == "other normals":
        return
    assert "nothing is flagged at alpha 0.05" in ran.err
    assert evaluate(out, n_boot=20).rows
    page = write_report(out).read_text(encoding="utf-8")
    assert "twice the mean of the members" in page
    assert "flagged above" not in page
    assert "no p-value can be below" not in page
    assert "to their right" not in page


def test_what_reads_a_results_folder_reads_this_one(together: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(together, tmp_path / "out"))
    ran = anomaly("evaluate", out)
    assert ran.code == 0, ran.err
    assert "border_brightness" in ran.out
    places = read_json(out / "evaluation.json")["localisation"]
    assert (places["measured"], places["normal"]) == (2, 2)  # the boxes that the films came with
    assert anomaly("report", out).code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "ensemble (a, b)" in page
    assert "20 held-out normals that all" in page
    assert "flagged above" in page
    assert page.count("<article") == 4
    assert anomaly("heatmaps", out, "--contour").out.strip().endswith("4 drawn")
    told = read_json(out / "receipt.json")
    assert [(entry["name"], entry["method"]) for entry in told["members"]] == [
        ("a", "pixel-stats"),
        ("b", "pixel-stats"),
    ]
    assert all(len(entry["model_sha256"]) == 64 for entry in told["members"])


def test_one_image_one_answer(films: Path, models: Path, together: Path, tmp_path: Path) -> None:
    film = next((films / "abnormal").iterdir())
    assert anomaly("ensemble", film, models, "-o", tmp_path / "out", "--panels", "none").code == 0
    ((alone),) = table(tmp_path / "out").values()
    among = table(together)[f"abnormal/{film.name}"]
    for column in ("score", "p_value", "a", "b"):
        assert alone[column] == among[column]


def save(path: Path, pixels: Any) -> None:
    assert cv2.imwrite(str(path), pixels)


def test_a_scan_that_fails_for_one_member_fails(films: Path, models: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    film = np.rint(make_phantom(3, seed=5).pixels * 255).astype(np.uint8)
    save(scans / "good.png", film)
    save(scans / "large.png", cv2.resize(film, (800, 800)))
    (scans / "empty.png").write_bytes(b"")
    out = tmp_path / "out"
    ran = anomaly("ensemble", scans, models, "-o", out, "--json")
    assert ran.code == 3, ran.err
    told = json.loads(ran.out)
    assert (told["scored"], told["failed"]) == (1, 2)
    rows = table(out)
    assert rows["good.png"]["status"] == "scored"
    assert rows["large.png"]["status"] == rows["empty.png"]["status"] == "failed"
    assert rows["large.png"]["error"].startswith("b: large.png")
    assert rows["large.png"]["score"] == rows["large.png"]["p_value"] == rows["large.png"]["a"] == ""
    assert rows["empty.png"]["error"].startswith("empty.png")
    assert [path.stem for path in (out / "heatmaps").iterdir()] == [rows["good.png"]["scan_id"]]

    (scans / "good.png").unlink()
    ran = anomaly("ensemble", scans, models, "-o", tmp_path / "none")
    assert ran.code == 4
    assert "None of the 2 files" in ran.err


def test_interrupted_it_goes_on_where_it_was(
    films: Path, models: Path, together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    args = ("ensemble", films, models, "-o", out)
    whole, calls = workflow.score, []

    def stopped(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(workflow, "score", stopped)
        ran = anomaly(*args)
    assert ran.code == 130
    assert "--resume" in ran.err
    assert read_json(out / "receipt.json")["status"] == "interrupted"
    first = (out / "members/a/journal.jsonl").read_bytes()
    assert "not empty" in anomaly(*args).err
    for flag in (("--split", "test"), ("--hash-paths",)):
        ran = anomaly(*args, "--resume", *flag)
        assert ran.code != 0
    (out / "evaluation.json").write_text("{}")
    assert anomaly(*args, "--resume").code == 0
    assert (out / "members/a/journal.jsonl").read_bytes() == first
    assert (out / "scores.csv").read_bytes() == (together / "scores.csv").read_bytes()
    assert not (out / "evaluation.json").exists()


def test_resume_takes_the_same_members(
    models: Path, other_seed: Path, films: Path, together: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(together, tmp_path / "out"))
    more = folder_of(tmp_path / "more", a=models / "a", b=models / "b", c=other_seed)
    ran = anomaly("ensemble", films, more, "-o", out, "--resume")
    assert ran.code == 2
    assert "(c came, went or changed)" in ran.err
    changed = folder_of(tmp_path / "changed", a=models / "a", b=other_seed)
    assert "(b came" in anomaly("ensemble", films, changed, "-o", out, "--resume").err
    assert "--hash-paths just as" in anomaly("ensemble", films, models, "-o", out, "--resume", "--hash-paths").err
    assert (out / "scores.csv").read_bytes() == (together / "scores.csv").read_bytes()


def test_hashed_paths_are_hashed_everywhere(films: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = anomaly("ensemble", films / "normal", models, "-o", out, "--hash-paths", "--panels", "top:2")
    assert ran.code == 0, ran.err
    names = [path.name for path in (films / "normal").iterdir()]
    kept = [path for path in out.rglob("*") if path.is_file()]
    for path in kept:
        data = path.read_bytes()
        assert not any(name.encode() in data or name in path.name for name in names), path
    assert len(list((out / "panels").iterdir())) <= 2


def test_only_pictures_that_every_member_kept(films: Path, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = anomaly("ensemble", films, models, "-o", out, "--panels", "none")
    assert ran.code == 0
    assert "--panels all" not in ran.err
    assert not (out / "panels").exists()
    assert {row["heatmap"] for row in table(out).values()} == {""}


def refused(code: int, *words: str, films: Path, models: Path, out: Path) -> None:
    ran = anomaly("ensemble", films, models, "-o", out)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err
    assert not out.exists()


def test_refusals(model: Path, cropped: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    refused(5, "models", "anomaly fit", films=films, models=models, out=out)
    models.mkdir()
    refused(5, "holds no model", "anomaly fit", films=films, models=models, out=out)
    folder_of(models, a=model)
    refused(2, "one model (a)", "2 at least", films=films, models=models, out=out)
    shutil.copytree(model, models / "half")
    (models / "half/model/model.json").unlink()
    refused(5, "half holds an unfinished run", "--resume", "move it out", films=films, models=models, out=out)
    shutil.rmtree(models / "half")
    folder_of(models, score=cropped)
    refused(2, "rename", films=films, models=models, out=out)
    (models / "score").rename(models / "b")
    refused(4, "nowhere", films=tmp_path / "nowhere", models=models, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(PixelStats, "raw_squared_error", property(lambda self: self.size == 48))
        refused(
            2,
            f"{models / 'b'} (pixel-stats)",
            "plain squared error",
            "MedIAnomaly",
            "without that term",
            films=films,
            models=models,
            out=out,
        )
    arrays, meta = read_tensors(models / "b/model/calibration.safetensors")
    level = {**arrays, "scores": np.full_like(arrays["scores"], 0.1)}
    write_tensors(models / "b/model/calibration.safetensors", level, meta)
    refused(5, "sha256", films=films, models=models, out=out)
    describe_model(models / "b/model", read_facts(models / "b/model"))
    refused(5, f"{models / 'b'} cannot be a member", "all score 0.1", films=films, models=models, out=out)


def test_a_split_must_be_the_same_to_all_members(
    phantoms: Path, models: Path, model: Path, other_seed: Path, tmp_path: Path
) -> None:
    apart = folder_of(tmp_path / "models", a=model, b=other_seed)
    ran = anomaly("ensemble", phantoms, apart, "-o", tmp_path / "out", "--split", "calibration")
    assert ran.code == 2
    assert "a and b do not have the same scans" in ran.err
    workflow._same_films(list_scans(phantoms).files, "calibration", find_members(models))
