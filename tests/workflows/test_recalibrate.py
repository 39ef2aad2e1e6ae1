"""`calibrate`: another site's normals, the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from running import anomaly, table

from anomaly.calibrate import load_calibration
from anomaly.runs import sha256_of


def test_new_p_values_same_weights_and_the_parent_is_known(
    phantoms: Path, model: Path, other_site: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    run = tmp_path / "site"
    ran = anomaly("calibrate", model, other_site, "-o", run)
    assert ran.code == 0, ran.err
    assert "18 normals" in ran.out
    weights = "model/weights.safetensors"
    assert (run / weights).read_bytes() == (model / weights).read_bytes()
    facts = json.loads((run / "model/model.json").read_text())
    assert facts["parent"] == sha256_of(model / "model/model.json")
    assert json.loads((run / "receipt.json").read_text())["parent"] == facts["parent"]
    assert len(load_calibration(run / "model").scores) == 18
    assert load_calibration(run / "model").pixel_quantiles != load_calibration(model / "model").pixel_quantiles

    for which, out in ((model, "old"), (run, "new")):
        args = ("score", phantoms / "abnormal", "-m", which, "-o", tmp_path / out, "--panels", "none")
        assert anomaly(*args).code == 0
    old, new = table(tmp_path / "old"), table(tmp_path / "new")
    assert {path: row["score"] for path, row in old.items()} == {path: row["score"] for path, row in new.items()}
    assert {row["p_value"] for row in old.values()} != {row["p_value"] for row in new.values()}
    assert before == {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}


def test_only_what_is_labelled_normal_is_used(phantoms: Path, other_site: Path, model: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(other_site, tmp_path / "both" / "normal")).parent
    shutil.copytree(phantoms / "abnormal", both / "abnormal")
    assert "18 normals" in anomaly("calibrate", model, both, "-o", tmp_path / "site").out


def test_what_the_model_has_seen_is_left_out(phantoms: Path, other_site: Path, model: Path, tmp_path: Path) -> None:
    ran = anomaly("calibrate", model, phantoms, "-o", tmp_path / "site")
    assert "20 normals" in ran.out  # of 40: those held out
    assert "left out: 20 trained or tested on by this model" in ran.err
    assert (tmp_path / "site/splits.csv").read_bytes() == (model / "splits.csv").read_bytes()
    shutil.copytree(model / "model", tmp_path / "alone")
    assert (
        "came without its splits.csv" in anomaly("calibrate", tmp_path / "alone", other_site, "-o", tmp_path / "b").err
    )


def test_a_published_test_split_is_left_alone(other_site: Path, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    films = sorted(other_site.iterdir())
    for split, chosen in (("train", films[:16]), ("test", films[16:])):
        (data / split / "normal").mkdir(parents=True)
        for film in chosen:
            shutil.copy(film, data / split / "normal")
    ran = anomaly("calibrate", model, data, "-o", tmp_path / "site")
    assert "16 normals" in ran.out
    assert "left out: 2 of a test split" in ran.err


def test_it_needs_sixteen_normals(other_site: Path, model: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(other_site, tmp_path / "films"))
    for film in sorted(films.iterdir())[:2]:
        film.unlink()
    args = ("calibrate", model, films, "-o", tmp_path / "site")
    assert anomaly(*args).code == 0
    next(films.iterdir()).write_bytes(b"")
    again = anomaly(*args)
    assert again.code == 2
    assert "--resume" not in again.err
    ran = anomaly(*args, "--overwrite")
    assert ran.code == 4
    assert "15 normal" in ran.err
    assert "16" in ran.err


def test_one_unreadable_film_is_named(other_site: Path, model: Path, tmp_path: Path) -> None:
    films = Path(shutil.copytree(other_site, tmp_path / "films"))
    (films / "bad.png").write_bytes(b"")
    ran = anomaly("calibrate", model, films, "-o", tmp_path / "site")
    assert ran.code == 3
    assert "bad.png" in ran.err


def test_a_model_cannot_replace_itself(other_site: Path, model: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert anomaly("calibrate", model, other_site, "-o", site).code == 0
    ran = anomaly("calibrate", site, other_site, "-o", site, "--overwrite")
    assert ran.code == 2
    assert "would be replaced" in ran.err
    assert (site / "model/model.json").is_file()
