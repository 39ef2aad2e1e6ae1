"""Who is trained on, held out, tested on and left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly.config import CalibrationConfig
from anomaly.errors import DataError, UsageError
from anomaly.records import ScanFile
from anomaly.scans.quality import EXCLUDING, Flag
from anomaly.scans.walk import Listing
from anomaly.workflows.selection import (
    Look,
    Roles,
    Rules,
    assign_roles,
    count_reasons,
    data_digest,
    select_normals,
)
from anomaly.workflows.splits import files_of_split

RULES = Rules(CalibrationConfig(fraction=0.25, minimum=4))


def film(number: int, label: int | None = 0, split: str | None = None, set_aside: str | None = None) -> ScanFile:
    name = f"film-{number:03}"
    source = None if label is None else "folder"
    return ScanFile(
        name, Path(f"{name}.png"), f"{name}.png", label=label, label_source=source, split=split, set_aside=set_aside
    )


def look(file: ScanFile, patient: str | None = "own", picture: str | None = None, *flags: Flag) -> Look:
    thumb = np.random.default_rng(int(file.scan_id[-3:])).integers(0, 256, (64, 64)).astype(np.uint8)
    named = f"patient {file.scan_id}" if patient == "own" else patient
    return Look(file, named, f"bytes {file.scan_id}", picture or f"picture {file.scan_id}", thumb, flags)


def roles_of(looks: Sequence[Look], rules: Rules = RULES, *, failed: dict[str, str] | None = None) -> Roles:
    listing = Listing(Path(), tuple(look.file for look in looks))
    return assign_roles(
        select_normals(listing, normal_only=True), {look.file.scan_id: look for look in looks}, failed or {}, rules
    )


def names(looks: Sequence[Look]) -> set[str]:
    return {look.file.scan_id for look in looks}


def test_every_file_has_one_role_and_patients_stay_together() -> None:
    looks = [look(film(n), f"p{n // 3}") for n in range(60)]
    roles = roles_of(looks)
    assert names(roles.train) | names(roles.calibration) == names(looks)
    assert not names(roles.train) & names(roles.calibration)
    assert not {x.patient for x in roles.train} & {x.patient for x in roles.calibration}
    assert roles.patients == 20
    assert [row[5] for row in roles.table()[1:]].count("calibration") == len(roles.calibration) == 15


def test_files_set_aside_by_their_layout_are_left_out_with_its_reason() -> None:
    looks = [look(film(n)) for n in range(20)] + [look(film(20, set_aside="copy inside a nested root"))]
    roles = roles_of(looks)
    assert [(f.scan_id, why) for f, why in roles.left_out] == [("film-020", "copy inside a nested root")]


def test_copies_of_a_film_are_left_out_but_the_first() -> None:
    looks = [look(film(n)) for n in range(20)]
    looks[7] = replace(looks[7], pixels_sha256=looks[3].pixels_sha256)
    roles = roles_of(looks)
    assert [(f.scan_id, why) for f, why in roles.left_out] == [("film-007", "copy of another film: film-003.png")]
    assert count_reasons(roles.left_out) == {"copy of another film": 1}


@pytest.mark.parametrize("exclude", [False, True])
def test_flagged_films_are_left_out_on_request_only(exclude: bool) -> None:
    bad = Flag(sorted(EXCLUDING)[0], "seen")
    looks = [look(film(n)) for n in range(20)] + [look(film(20), "own", None, bad)]
    roles = roles_of(looks, replace(RULES, exclude=EXCLUDING if exclude else frozenset()))
    assert [why for _, why in roles.left_out] == ([f"quality, {bad.name}: seen"] if exclude else [])


def test_a_flag_that_only_informs_excludes_nothing() -> None:
    assert "marker" not in EXCLUDING
    looks = [look(film(n), "own", None, Flag("marker", "a letter")) for n in range(20)]
    assert not roles_of(looks, replace(RULES, exclude=EXCLUDING)).left_out


def test_a_published_split_is_kept_and_is_the_test_set() -> None:
    looks = [look(film(n, split="train")) for n in range(20)]
    looks += [look(film(20 + n, label=n % 2, split="test")) for n in range(6)]
    roles = roles_of(looks)
    assert names(roles.test) == names(looks[20:])
    assert len(roles.train) + len(roles.calibration) == 20
    with pytest.raises(UsageError, match="publishes its own split"):
        roles_of(looks, replace(RULES, test=0.2))


@pytest.mark.parametrize("shared", ["patient", "picture"])
def test_a_patient_or_a_film_on_both_sides_stops_the_fit(shared: str) -> None:
    looks = [look(film(n, split="train")) for n in range(20)]
    patient = looks[4].patient if shared == "patient" else "another"
    picture = looks[4].pixels_sha256 if shared == "picture" else None
    looks.append(look(film(30, split="test"), patient, picture))
    with pytest.raises(DataError, match=r"film-030\.png"):
        roles_of(looks)


def test_a_near_copy_on_both_sides_is_warned_about() -> None:
    looks = [look(film(n, split="train")) for n in range(20)]
    ramp = np.add.outer(np.sin(np.arange(64) / 5.0), np.cos(np.arange(64) / 9.0))
    picture = np.rint((ramp - ramp.min()) / np.ptp(ramp) * 200).astype(np.uint8)
    looks[4] = replace(looks[4], thumb=picture)
    looks.append(replace(look(film(30, split="test")), thumb=picture + np.uint8(3)))
    roles = roles_of(looks)
    assert any("film-004.png" in note and "film-030.png" in note for note in roles.notes)


def test_a_published_test_set_without_ids_says_what_cannot_be_shown() -> None:
    looks = [look(film(n, split="train"), None) for n in range(20)] + [look(film(20, split="test"), None)]
    assert any("21 of 21 scans carry no patient id" in note for note in roles_of(looks).notes)


def test_a_drawn_test_set_holds_whole_patients_of_every_class() -> None:
    looks = [look(film(n, label=int(n >= 60)), f"p{n // 3}") for n in range(90)]
    roles = roles_of(looks, replace(RULES, test=0.2))
    tested, kept = {x.patient for x in roles.test}, {x.patient for x in (*roles.train, *roles.calibration)}
    assert not tested & kept
    labels = [x.file.label for x in roles.test]
    assert (labels.count(0), labels.count(1)) == (12, 6)
    rows = roles.table()[1:]
    assert len(rows) == len({row[0] for row in rows}) == 90
    assert all(x.file.label == 0 for x in (*roles.train, *roles.calibration))


def test_drawing_a_test_set_without_patient_ids_takes_permission() -> None:
    looks = [look(film(n, label=int(n >= 60)), None) for n in range(90)]
    with pytest.raises(DataError, match="--allow-image-split"):
        roles_of(looks, replace(RULES, test=0.2))
    roles = roles_of(looks, replace(RULES, test=0.2, allow_image_split=True))
    assert len(roles.test) == 18
    assert roles.notes


def test_unreadable_files_are_listed_as_failed() -> None:
    looks = [look(film(n)) for n in range(20)]
    listing = Listing(Path(), (*(x.file for x in looks), film(99)))
    roles = assign_roles(
        select_normals(listing, normal_only=True), {x.file.scan_id: x for x in looks}, {"film-099": "is empty"}, RULES
    )
    assert [(f.scan_id, why) for f, why in roles.failed] == [("film-099", "is empty")]


def test_copies_can_leave_too_few() -> None:
    looks = [look(film(n), "own", "the same picture") for n in range(20)]
    with pytest.raises(DataError, match=r"gives 1 normal scan .*19 copy of another film"):
        roles_of(looks)


def test_the_digest_of_the_data_goes_by_names_and_sizes(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        file = film(number)
        path = tmp_path / file.relative
        path.write_bytes(b"x" * number)
        files.append(replace(file, path=path))
    before = data_digest(files)
    assert data_digest(files[::-1]) == before
    (tmp_path / "film-001.png").write_bytes(b"xx")
    assert data_digest(files) != before


def test_a_split_is_the_published_one_or_else_the_fits_own(tmp_path: Path) -> None:
    files = [film(n, split="dev" if n % 2 else "train") for n in range(4)]
    assert [f.scan_id for f in files_of_split(files, "dev", tmp_path)] == ["film-001", "film-003"]
    (tmp_path / "splits.csv").write_text("scan_id,role\nfilm-000,train\nfilm-001,test\nfilm-002,calibration\n")
    assert [f.scan_id for f in files_of_split(files[:3], "test", tmp_path)] == ["film-001"]
    with pytest.raises(DataError, match="not the scans"):
        files_of_split(files, "test", tmp_path / "model")
    with pytest.raises(DataError, match=r"'holdout'.*calibration, dev, test, train"):
        files_of_split(files, "holdout", tmp_path)


def test_val_is_no_part_of_the_test_split_that_is_scored(tmp_path: Path) -> None:
    files = [film(n, split=("train", "val", "test")[n % 3]) for n in range(9)]
    rows = [f"{f.scan_id},{'train' if f.split == 'train' else 'test'}" for f in files]
    (tmp_path / "splits.csv").write_text("\n".join(["scan_id,role", *rows]) + "\n")
    assert {f.split for f in files_of_split(files, "test", tmp_path)} == {"test"}


def test_a_film_labelled_both_ways_is_trained_on_in_no_fit() -> None:
    looks = [look(film(n)) for n in range(20)] + [look(film(20, label=1), "own", "picture film-004")]
    roles = roles_of(looks)
    reasons = {f.scan_id: why for f, why in roles.left_out}
    assert reasons["film-004"] == "the same film is labelled both normal and abnormal"
    assert "film-004" not in names((*roles.train, *roles.calibration))


def test_a_calibration_split_of_the_manifest_is_kept() -> None:
    looks = [look(film(n, split="calibration" if n < 6 else "train")) for n in range(20)]
    assert names(roles_of(looks).calibration) == names(looks[:6])
    with pytest.raises(DataError, match="at least 8 are needed"):
        roles_of(looks, Rules(CalibrationConfig(minimum=8)))
    looks[0] = replace(looks[0], patient=looks[10].patient)
    with pytest.raises(DataError, match="1 patients are in both"):
        roles_of(looks)


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"film-003\.png: the split 'fold1' is not known"):
        roles_of([look(film(n, split="fold1" if n == 3 else None)) for n in range(20)])


def test_an_unlabelled_published_test_set_is_no_reason_not_to_draw_one() -> None:
    looks = [look(film(n, label=int(n >= 60), split="train"), f"p{n // 3}") for n in range(90)]
    looks += [look(film(90 + n, label=None, split="test")) for n in range(4)]
    roles = roles_of(looks, replace(RULES, test=0.2))
    assert len(roles.test) == 18
    assert {why for f, why in roles.left_out if f.split == "test"} == {"published for testing without a label"}
