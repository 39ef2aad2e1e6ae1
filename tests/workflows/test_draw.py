"""`heatmaps`: redrawing, and which pictures are kept."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from running import anomaly, table


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "heatmaps").iterdir()}


def test_redrawing_gives_the_same_pictures(results: Path) -> None:
    before = pictures(results)
    assert len(before) == 48
    ran = anomaly("heatmaps", results)
    assert ran.code == 0
    assert "48 drawn" in ran.out
    assert pictures(results) == before


def test_contours_of_the_top(results: Path) -> None:
    before, scores = pictures(results), (results / "scores.csv").read_bytes()
    ran = anomaly("heatmaps", results, "--contour", "--top", 3)
    assert "3 drawn" in ran.out
    changed = {name for name, data in pictures(results).items() if data != before[name]}
    worst = [row["scan_id"] + ".png" for row in table(results).values()][:3]
    assert changed == set(worst)
    assert (results / "scores.csv").read_bytes() == scores
    picture = cv2.imdecode(np.frombuffer(pictures(results)[worst[0]], np.uint8), cv2.IMREAD_COLOR)
    assert max(picture.shape) >= 512


@pytest.mark.parametrize(("panels", "kept"), [("none", 0), ("top:3", 3), ("all", 8), ("top:0", 0)])
def test_panels_kept(panels: str, kept: int, phantoms: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("score", phantoms / "abnormal", "-m", model, "-o", out, "--panels", panels)
    assert anomaly(*args).code == 0
    rows = list(table(out).values())
    assert [bool(row["heatmap"]) for row in rows] == [True] * kept + [False] * (8 - kept)
    on_disk = {path.stem for path in out.glob("panels/*.npz")}
    assert on_disk == {path.stem for path in out.glob("heatmaps/*.png")} == {row["scan_id"] for row in rows[:kept]}


@pytest.mark.parametrize("panels", ["some", "top", "top:-1", "top:x", ""])
def test_wrong_panels(panels: str, few: Path, model: Path, tmp_path: Path) -> None:
    ran = anomaly("score", few, "-m", model, "-o", tmp_path / "out", "--panels", panels)
    assert ran.code == 2
    assert "top:N, all or none" in ran.err
