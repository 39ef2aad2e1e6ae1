"""`anomaly inspect` on phantoms with everything in them that a real folder has."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import anomaly

from anomaly.scans.dicom_write import write_dicom

CANARY = "DOE^JANE"


@pytest.fixture(scope="session")
def mixed(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of phantoms with a copy, a broken file, a text and a DICOM film of a named patient."""
    folder = tmp_path_factory.mktemp("films") / "mixed"
    shutil.copytree(phantoms, folder)
    (folder / "manifest.csv").unlink()
    first = sorted((folder / "normal").iterdir())[0]
    shutil.copy(first, folder / "normal" / "a copy.png")
    (folder / "normal" / "broken.png").write_bytes(first.read_bytes()[:200])
    (folder / "notes.txt").write_text("nothing to see")
    levels = np.random.default_rng(0).integers(0, 4096, (64, 48)).astype(np.uint16)
    write_dicom(folder / "normal" / "film.dcm", levels, bits=12, patient=CANARY, spacing_mm=0.2)
    return folder


@pytest.fixture(scope="session")
def inspected(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inspections") / "inspection"
    assert anomaly("inspect", mixed, "-o", out, "--html").code == 3
    return out


def facts(out: Path) -> dict[str, object]:
    told = json.loads((out / "inspection.json").read_text())
    assert isinstance(told, dict)
    return told


def test_it_counts_what_is_there(inspected: Path) -> None:
    told = facts(inspected)
    assert told["files"] == 51
    assert told["readable"] == 50
    assert told["labels"] == {"normal": 43, "abnormal": 8}
    photometric = told["photometric"]
    assert isinstance(photometric, dict)
    assert set(photometric) == {"not DICOM", "MONOCHROME1", "MONOCHROME2"}
    assert sum(photometric.values()) == 50
    assert told["duplicates"]["extra_copies"] == 1  # type: ignore[index]
    assert [row["path"] for row in told["failed"]] == ["normal/broken.png"]  # type: ignore[attr-defined]
    assert told["fit"]["left_out"]["copy of another film"] == 1  # type: ignore[index]


def test_the_plan_is_what_fit_does(inspected: Path, mixed: Path, tmp_path: Path) -> None:
    plan = facts(inspected)["fit"]
    assert anomaly("fit", mixed, "--normal-only", "-o", tmp_path / "run", "-d", "pixel-stats").code == 3
    with (tmp_path / "run" / "splits.csv").open(newline="") as file:
        roles = [row["role"] for row in csv.DictReader(file)]
    assert isinstance(plan, dict)
    assert (roles.count("train"), roles.count("calibration")) == (plan["train"], plan["calibration"])
    assert roles.count("left out") == sum(plan["left_out"].values())
    assert roles.count("failed") == plan["unreadable"]
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["fingerprint_sha256"] == json.loads((inspected / "fingerprint.json").read_text())["sha256"]


def test_the_shortcut_audit_names_every_baseline_with_an_interval(inspected: Path) -> None:
    assert str(facts(inspected)["shortcut_audit_on"]).endswith("of all labelled scans"), "there is no split"
    audit = facts(inspected)["shortcut_audit"]
    assert isinstance(audit, list)
    names = {
        "file_size",
        "width",
        "height",
        "aspect",
        "mean",
        "std",
        "sharpness",
        "softness",
        "border_brightness",
        "black_fraction",
    }
    assert {row["name"] for row in audit} == names
    for row in audit:
        low, high = row["ci"]
        assert 0 <= low <= row["auroc"] <= high <= 1


def test_no_header_text_leaves_unasked(inspected: Path, mixed: Path, tmp_path: Path) -> None:
    for path in inspected.iterdir():
        assert CANARY.encode() not in path.read_bytes(), path.name
    ran = anomaly("inspect", mixed, "-o", tmp_path / "phi", "--include-phi")
    assert CANARY in (tmp_path / "phi" / "scans.csv").read_text()
    assert CANARY not in ran.out + ran.err + (tmp_path / "phi" / "inspection.json").read_text()
    assert "medical records" in ran.err


def test_json_is_what_is_on_disk(inspected: Path, mixed: Path, tmp_path: Path) -> None:
    ran = anomaly("inspect", mixed, "-o", tmp_path / "again", "--json")
    assert json.loads(ran.out) == json.loads((tmp_path / "again" / "inspection.json").read_text())
    assert (tmp_path / "again" / "scans.csv").read_bytes() == (inspected / "scans.csv").read_bytes()


def test_the_same_scans_may_be_inspected_again_and_others_not(mixed: Path, unlabelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "inspection"
    assert anomaly("inspect", unlabelled, "-o", out).code == 0
    assert anomaly("inspect", unlabelled, "-o", out).code == 0
    ran = anomaly("inspect", mixed, "-o", out)
    assert ran.code == 2
    assert "--overwrite" in ran.err
    assert facts(out)["files"] == 18


def test_unlabelled_films_have_no_audit_and_a_plan(unlabelled: Path, tmp_path: Path) -> None:
    assert anomaly("inspect", unlabelled, "-o", tmp_path / "out").code == 0
    told = facts(tmp_path / "out")
    assert told["shortcut_audit"] == []
    assert told["labels"] == {"unknown": 18}
    assert told["fit"]["train"] + told["fit"]["calibration"] == 18  # type: ignore[index]


def test_what_fit_would_refuse_is_said(few: Path, tmp_path: Path) -> None:
    ran = anomaly("inspect", few, "-o", tmp_path / "out")
    assert ran.code == 0
    assert "at least 16 are needed" in ran.out


def test_the_page_stands_alone(inspected: Path) -> None:
    page = (inspected / "inspection.html").read_text()
    assert page.lstrip().startswith("<!doctype html>")
    assert 'src="data:image/jpeg' in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.real
@pytest.mark.usefixtures("decoded_once")
def test_the_audit_reproduces_the_known_shortcuts_of_kermany(shared_data: Path, tmp_path: Path) -> None:
    assert anomaly("inspect", shared_data / "data" / "kermany", "-o", tmp_path / "out").code == 0
    told = facts(tmp_path / "out")
    assert told["files"] == 2618
    audit = {row["name"]: row for row in told["shortcut_audit"]}  # type: ignore[attr-defined]
    for name, known in (("file_size", 0.83), ("sharpness", 0.70)):
        low, high = audit[name]["ci"]
        assert low <= known <= high
    split = {row["name"]: row for row in told["split_audit"]}  # type: ignore[attr-defined]
    assert split["file_size"]["auroc"] > 0.55
