"""Registration through the whole road: fit, model folder, score, calibrate, and what is said of films it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from running import FLOOR, anomaly, parts_left, table

from anomaly import load_model
from anomaly.config import PrepareConfig, ReadConfig
from anomaly.errors import ModelError
from anomaly.prepare.cache import Cache
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import NOT_REGISTERED, fit_template, small_copy
from anomaly.records import ScanFile
from anomaly.scans.read import read_scan
from anomaly.workflows.model import PREPARATION, SCHEMA_VERSION, find_model
from anomaly.workflows.reading import Outcome, read_files
from anomaly.workflows.register import refusal_notes

AFFINE = (*FLOOR, "--set", "prepare.register=affine")
FILES = ("weights.safetensors", "calibration.safetensors", PREPARATION, "model.json", "README.md")


@pytest.fixture(scope="module")
def registered(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of pixel-stats on registered films; never written to."""
    run = tmp_path_factory.mktemp("runs") / "registered"
    ran = anomaly("fit", phantoms, "--normal-only", *AFFINE, "-o", run)
    assert ran.code == 0, ran.err
    assert not parts_left(run)
    return run


def role(run: Path, wanted: str) -> list[str]:
    with (run / "splits.csv").open(newline="", encoding="utf-8") as file:
        return [row["path"] for row in csv.DictReader(file) if row["role"] == wanted]


def test_the_model_holds_the_template_of_its_training_normals_alone(registered: Path, phantoms: Path) -> None:
    model = load_model(registered)
    assert {path.name for path in (registered / "model").iterdir()} == set(FILES)
    assert model.preparation.fitted
    shrink = Preparation(PrepareConfig(register="affine"), 32).shrink
    films = [phantoms / path for path in role(registered, "train")]
    scans = [read_scan(ScanFile(film.name, film, film.name)) for film in films]
    template = fit_template(np.stack([small_copy(shrink(scan).pixels) for scan in scans]))
    assert model.preparation.template is not None
    np.testing.assert_array_equal(model.preparation.template.image, template.image)
    assert model.preparation.template.least == template.least
    assert "mean normal chest" in (registered / "model/README.md").read_text()
    receipt = json.loads((registered / "receipt.json").read_text())
    assert receipt["not_registered"] == {"training": 0, "held-out": 0}


def test_score_needs_the_model_folder_alone_and_a_film_has_one_answer(
    registered: Path, phantoms: Path, tmp_path: Path
) -> None:
    shutil.copytree(registered / "model", tmp_path / "model")
    films = tmp_path / "films"
    films.mkdir()
    for film in sorted((phantoms / "abnormal").iterdir())[:3]:
        shutil.copy(film, films)
    cv2.imwrite(str(films / "upside_down.png"), cv2.imread(str(film), cv2.IMREAD_UNCHANGED)[::-1])
    assert anomaly("score", films, "-m", tmp_path / "model", "-o", tmp_path / "some").code == 0
    assert anomaly("score", phantoms, "-m", registered, "-o", tmp_path / "all").code == 0
    some, every = table(tmp_path / "some"), table(tmp_path / "all")
    assert NOT_REGISTERED in some.pop("upside_down.png")["warnings"]
    assert len(some) == 3
    for path, row in some.items():
        assert row["score"] == every[f"abnormal/{path}"]["score"]
        assert NOT_REGISTERED not in row["warnings"]
    assert anomaly("report", tmp_path / "all").code == 0


def test_calibrate_takes_the_template_along(registered: Path, other_site: Path, tmp_path: Path) -> None:
    ran = anomaly("calibrate", registered, other_site, "-o", tmp_path / "site")
    assert ran.code == 0, ran.err
    same = f"model/{PREPARATION}"
    assert (tmp_path / "site" / same).read_bytes() == (registered / same).read_bytes()
    assert anomaly("score", other_site, "-m", tmp_path / "site", "-o", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "site/model/model.json").read_text())["data"]["not_registered"] == 0


@pytest.mark.parametrize(("harm", "said"), [("gone", "missing"), ("cut", "damaged"), ("another", "damaged")])
def test_a_model_without_its_own_template_is_refused(harm: str, said: str, registered: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(registered, tmp_path / "run"))
    file = run / "model" / PREPARATION
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-8] + (b"" if harm == "cut" else bytes(8)))
    with pytest.raises(ModelError, match=f"{PREPARATION} is {said}"):
        load_model(run)


def test_a_model_of_the_first_schema_still_loads(model: Path, other_site: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    file = find_model(run) / "model.json"
    facts = json.loads(file.read_text())
    del facts["prepare"]["register"], facts["sha256"]["model.json"]
    told = {key: value for key, value in (facts | {"schema_version": 1}).items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({**told, "sha256": facts["sha256"] | {"model.json": digest}}))
    assert not load_model(run).preparation.registers
    assert anomaly("calibrate", run, other_site, "-o", tmp_path / "site").code == 0
    assert load_model(tmp_path / "site").facts.schema_version == SCHEMA_VERSION


def test_a_fit_that_is_gone_on_with_ends_in_the_same_model(registered: Path, phantoms: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(registered, tmp_path / "run"))
    shutil.rmtree(run / "model")
    ran = anomaly("fit", phantoms, "--normal-only", *AFFINE, "-o", run, "--resume")
    assert ran.code == 0, ran.err
    for name in FILES:
        assert (run / "model" / name).read_bytes() == (registered / "model" / name).read_bytes(), name


def test_normals_that_cannot_be_registered_are_counted_and_used(phantoms: Path, tmp_path: Path) -> None:
    films = tmp_path / "normal"
    films.mkdir()
    for number, film in enumerate(sorted((phantoms / "normal").iterdir())):
        picture = np.rint(read_scan(ScanFile("", film, film.name)).pixels * 255).astype(np.uint8)
        cv2.imwrite(str(films / f"{number}.png"), picture[::-1] if number % 4 == 0 else picture)
    run = tmp_path / "run"
    ran = anomaly("fit", films, *AFFINE, "--set", "calibration.minimum=16", "-o", run)
    assert ran.code == 0, ran.err
    counts = json.loads((run / "receipt.json").read_text())["not_registered"]
    assert sum(counts.values()) == 10
    said = " ".join(ran.err.split())
    assert "training normals (see splits.csv) could not be registered" in said
    assert "look whether they are turned" in said
    with (run / "splits.csv").open(newline="", encoding="utf-8") as file:
        assert sum("not registered" in row["reason"] for row in csv.DictReader(file)) == 10
    assert len(role(run, "train")) + len(role(run, "calibration")) == 40


@pytest.mark.parametrize(
    ("refused", "words"), [(0, []), (1, ["1 of 20", "as they are."]), (3, ["3 of 20", "crop=auto"])]
)
def test_a_note_on_refused_normals_tells_what_to_do_where_they_are_many(refused: int, words: list[str]) -> None:
    notes = refusal_notes([True] * refused + [False] * (20 - refused), "normals")
    assert len(notes) == bool(refused)
    assert all(word in notes[0] for word in words)


def test_normals_too_unlike_one_another_stop_the_fit(tmp_path: Path) -> None:
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (128, 128)).astype(np.uint8)
        (tmp_path / "normal").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "normal" / f"{number}.png"), noise)
    ran = anomaly(
        "fit", tmp_path / "normal", *FLOOR, "--set", "calibration.minimum=4", *AFFINE[-2:], "-o", tmp_path / "run"
    )
    assert ran.code == 4
    assert "prepare.register=none" in ran.err


def test_the_cache_knows_nothing_of_the_template(registered: Path, phantoms: Path, tmp_path: Path) -> None:
    """Films wait shrunk where there is no template yet; with one they are finished from the same entry."""
    films = sorted((phantoms / "normal").iterdir())[:3]
    files = [ScanFile(film.name, film, film.name) for film in films]
    cache = Cache(tmp_path / "cache", 2**30)

    def read(preparation: Preparation, seconds: float = 60.0) -> list[Outcome]:
        found = read_files(
            files, read=ReadConfig(), channels=1, preparation=preparation, cache=cache, seconds=seconds, examine=False
        )
        return list(found)

    fitted = load_model(registered).preparation
    waiting = read(Preparation(fitted.config, 32))
    assert all(outcome.prepared is None and outcome.shrunk is not None for outcome in waiting)
    assert cache.usage().entries == 3
    finished = read(fitted, seconds=1e-6)  # no decoder is that fast
    direct = [fitted(read_scan(file)) for file in files]
    for outcome, waited, wanted in zip(finished, waiting, direct, strict=True):
        assert outcome.prepared is not None
        assert waited.shrunk is not None
        for other in (wanted, fitted.finish(waited.shrunk)):
            np.testing.assert_array_equal(outcome.prepared.image, other.image)
            np.testing.assert_array_equal(outcome.prepared.geometry.matrix, other.geometry.matrix)
            assert (outcome.prepared.inside is None) == (other.inside is None)
            assert outcome.prepared.inside is None or np.array_equal(outcome.prepared.inside, other.inside)
    read(Preparation(PrepareConfig(), 32), seconds=1e-6)
    assert cache.usage().entries == 3
