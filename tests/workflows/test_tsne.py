"""Features of films: kept with the model and the journal, drawn by `report`, and nothing more than a picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from running import anomaly

from anomaly.calibrate import Calibration, load_calibration
from anomaly.records import Float32, ResultRow
from anomaly.workflows.journal import Journal, pack_features, read_journal, unpack_features
from anomaly.workflows.results import ScoreLine
from anomaly.workflows.tsne import TSNE, _evenly, draw_features

COLOURS = {"normals": "b4b8be", "quiet": "7fa98a", "flagged": "6b4ea0", "normal": "2f7fb8", "abnormal": "c8452d"}
ATLAS = ("-d", "atlas", "--set", "detector.side=16", "--set", "size=64")
HEADING = "In the method's features"


def line(number: int, label: int | None, p_value: float = 0.5) -> ScoreLine:
    row = ResultRow(f"scan-{number}", f"{number}.png", "scored", label=label, score=-float(number), p_value=p_value)
    return ScoreLine(row, number + 1, p_value <= 0.05, None)


def calibration(features: Float32 | None) -> Calibration:
    return Calibration(np.arange(8.0), {}, features)


def journal(out: Path, features: Float32) -> None:
    told = [{"scan_id": f"scan-{number}", "features": pack_features(own)} for number, own in enumerate(features)]
    Journal(out).append(told)


def colours_in(picture: Path) -> set[str]:
    """Return which groups a picture shows."""
    shown = cv2.imread(str(picture))[..., ::-1].astype(int)
    seen = set()
    for name, code in COLOURS.items():
        ink = 255 + 0.8 * (np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) - 255)
        if (np.abs(shown - ink).max(axis=2) <= 2).sum() > 20:
            seen.add(name)
    return seen


@pytest.mark.parametrize(
    ("labels", "p_values", "groups"),
    [
        ([0, 1], [0.01, 0.5], {"normals", "normal", "abnormal"}),
        ([None, None], [0.01, 0.5], {"normals", "flagged", "quiet"}),
        ([None, 1], [0.5, 0.5], {"normals", "quiet", "abnormal"}),
    ],
)
def test_scans_are_shown_by_label_where_known_and_else_by_flag(
    labels: list[int | None], p_values: list[float], groups: set[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    journal(tmp_path, rng.normal(size=(20, 4)).astype(np.float32))
    lines = [line(number, labels[number % 2], p_values[number % 2]) for number in range(20)]
    normals = rng.normal(size=(8, 4)).astype(np.float32)
    drawn = draw_features(tmp_path, lines, calibration(normals), alpha=0.05)
    assert drawn is not None
    assert drawn.file == tmp_path / TSNE
    assert "no part in scoring" in drawn.caption
    assert colours_in(drawn.file) == groups
    first = drawn.file.read_bytes()
    draw_features(tmp_path, lines, calibration(normals), alpha=0.05)
    assert drawn.file.read_bytes() == first


@pytest.mark.parametrize(
    ("normals", "scans", "said"),
    [
        (np.zeros((8, 4), np.float32), np.eye(4, dtype=np.float32)[:1], "9 films are too few"),
        (np.ones((8, 4), np.float32), np.ones((20, 4), np.float32), "the same for every film"),
        (None, np.eye(4, dtype=np.float32), None),
    ],
)
def test_where_there_is_nothing_to_draw_an_earlier_picture_goes(
    normals: Float32 | None, scans: Float32, said: str | None, tmp_path: Path
) -> None:
    (tmp_path / TSNE).write_bytes(b"of an earlier report")
    journal(tmp_path, scans)
    lines = [line(number, None) for number in range(len(scans))]
    drawn = draw_features(tmp_path, lines, calibration(normals), alpha=0.05)
    assert not (tmp_path / TSNE).exists()
    assert (drawn is None) == (said is None)
    if drawn is not None:
        assert drawn.file is None
        assert said in drawn.caption


def test_of_many_some_are_drawn_evenly_over_the_ranks() -> None:
    some = _evenly(range(2500), 1000)
    assert (len(some), some[0], some[-1]) == (1000, 0, 2499)
    assert set(np.diff(some)) == {2, 3}
    assert _evenly(range(7), 1000) == list(range(7))


@pytest.mark.parametrize("values", [[1e-30, -3.25, 1e30], [0.1, np.pi]])
def test_packed_features_come_back_to_the_bit(values: list[float]) -> None:
    features = np.array(values, np.float32)
    np.testing.assert_array_equal(unpack_features(json.loads(json.dumps(pack_features(features)))), features)


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "atlas"
    ran = anomaly("fit", phantoms, "--normal-only", *ATLAS, "-o", folder)
    assert ran.code == 0, ran.err
    return folder


def test_features_go_the_whole_road_and_survive_an_interruption(run: Path, phantoms: Path, tmp_path: Path) -> None:
    out, cut = tmp_path / "out", tmp_path / "cut"
    assert anomaly("score", phantoms, "-m", run, "-o", out, "--panels", "top:2").code == 0
    told = read_journal(out)
    assert len(told) == 48
    for entry in told.values():
        assert unpack_features(entry["features"]).shape == (8,)
    kept = load_calibration(out)
    assert kept.features is not None
    assert kept.features.shape == (len(kept.scores), 8)
    shutil.copytree(out, cut)
    whole = (cut / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "journal.jsonl").write_bytes(b"".join(whole[:16]))
    assert anomaly("score", phantoms, "-m", run, "-o", cut, "--panels", "top:2", "--resume").code == 0
    again = read_journal(cut)
    assert {name: entry["features"] for name, entry in again.items()} == {
        name: entry["features"] for name, entry in told.items()
    }
    assert anomaly("report", out).code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert HEADING in page
    assert "no part in scoring" in page
    assert colours_in(out / TSNE) == {"normals", "normal", "abnormal"}
    assert anomaly("score", phantoms, "-m", run, "-o", out, "--panels", "top:2", "--resume").code == 0
    assert not (out / TSNE).exists(), "it belonged to the report that is gone"


def test_another_sites_calibration_brings_its_own_features(run: Path, other_site: Path, tmp_path: Path) -> None:
    assert anomaly("calibrate", run, other_site, "-o", tmp_path / "site").code == 0
    before, after = load_calibration(run / "model"), load_calibration(tmp_path / "site/model")
    assert before.features is not None
    assert after.features is not None
    assert after.features.shape == (18, 8)
    assert not (after.features[:, None] == before.features).all(axis=2).any()


def test_a_method_without_features_has_no_such_picture(results: Path) -> None:
    assert anomaly("report", results).code == 0
    assert not (results / TSNE).exists()
    assert HEADING not in (results / "report.html").read_text(encoding="utf-8")
    assert load_calibration(results).features is None
