"""Which class a scan is of, which are learnt from, and every refusal before a training starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly.config import CalibrationConfig
from anomaly.detectors.base import SupervisedConfig
from anomaly.errors import DataError, UsageError
from anomaly.records import ABNORMAL, NORMAL, ScanFile
from anomaly.scans.walk import Listing
from anomaly.workflows.classes import as_known, select_labelled
from anomaly.workflows.selection import Look, Roles, Rules, assign_roles

LABELS = {"NORMAL": NORMAL, "PNEUMONIA": ABNORMAL}


def film(number: int, name: str | None, **facts: Any) -> ScanFile:
    told = f"film-{number:03}"
    label = LABELS.get(name or "")
    return ScanFile(told, Path(f"{told}.png"), f"{told}.png", **{"label": label, "class_name": name, **facts})


def films(normal: int = 40, sick: int = 20, **facts: Any) -> list[ScanFile]:
    names = ["NORMAL"] * normal + ["PNEUMONIA"] * sick
    return [film(number, name, **facts) for number, name in enumerate(names)]


def select(files: Sequence[ScanFile], **settings: Any) -> Any:
    return select_labelled(Listing(Path(), tuple(files)), SupervisedConfig(**settings))


def roles_of(files: Sequence[ScanFile], patients: dict[str, str] | None = None, **rules: Any) -> Roles:
    selection = select(files)
    looks = {file.scan_id: look(file, (patients or {}).get(file.scan_id)) for file in files}
    named = {file.scan_id: file for file in (*selection.chosen, *selection.test)}
    looks = {i: Look(named[i], seen.patient, *_rest(seen)) for i, seen in looks.items() if i in named}
    return assign_roles(selection, looks, {}, Rules(CalibrationConfig(fraction=0.25, minimum=4), **rules))


def look(file: ScanFile, patient: str | None) -> Look:
    thumb = np.random.default_rng(int(file.scan_id[-3:])).integers(0, 256, (64, 64)).astype(np.uint8)
    own = patient or f"patient {file.scan_id}"
    return Look(file, own, f"bytes {file.scan_id}", f"picture {file.scan_id}", thumb, ())


def _rest(seen: Look) -> tuple[Any, ...]:
    return seen.content_sha256, seen.pixels_sha256, seen.thumb, seen.flags


def test_all_labelled_films_are_learnt_from_and_normals_alone_held_out() -> None:
    roles = roles_of(films())
    assert len(roles.train) == 50
    assert {seen.file.class_name for seen in roles.train} == {"NORMAL", "PNEUMONIA"}
    assert [seen.file.class_name for seen in roles.calibration] == ["NORMAL"] * 10


def test_the_normals_held_out_are_those_that_a_normal_only_fit_holds_out() -> None:
    both = roles_of(films())
    alone = roles_of([*films(sick=0), *(film(100 + i, "PNEUMONIA") for i in range(8))])
    assert [s.file.scan_id for s in both.calibration] == [s.file.scan_id for s in alone.calibration]


def test_a_patient_with_films_of_both_kinds_is_never_held_out() -> None:
    files = films()
    patients = {file.scan_id: f"both-{number % 20}" for number, file in enumerate(files[:20] + files[40:])}
    roles = roles_of(files, patients)
    assert not {seen.patient for seen in roles.calibration} & {seen.patient for seen in roles.train}


def test_a_test_set_is_drawn_from_every_class() -> None:
    roles = roles_of(films(), test=0.25)
    names = [seen.file.class_name for seen in roles.test]
    assert (names.count("NORMAL"), names.count("PNEUMONIA")) == (10, 5)
    assert {seen.file.class_name for seen in roles.train} == {"NORMAL", "PNEUMONIA"}


def test_classes_may_be_two_or_come_from_a_further_column() -> None:
    kinds = [film(100 + i, "PNEUMONIA", extra={"kind": ("virus", "bacteria")[i % 2]}) for i in range(20)]
    files = [*films(sick=0), *kinds]
    assert {f.class_name for f in select(files, classes="kind").chosen} == {"NORMAL", "virus", "bacteria"}
    assert {f.class_name for f in select(files, classes="two").chosen} == {"normal", "abnormal"}
    assert {f.class_name for f in select(files).chosen} == {"NORMAL", "PNEUMONIA"}
    with pytest.raises(UsageError, match="did you mean 'kind'"):
        select(files, classes="kinds")


def test_the_normal_class_may_be_named_and_must_be_where_no_name_says_so() -> None:
    files = [film(i, ("naevus", "melanoma", "keratosis")[i % 3], label=None) for i in range(60)]
    with pytest.raises(DataError, match=r"none of their names says so.*normal_class="):
        select(files)
    chosen = select(files, normal_class="naevus").chosen
    assert {f.class_name for f in chosen if f.label == NORMAL} == {"naevus"}
    assert sum(f.label == ABNORMAL for f in chosen) == 40
    with pytest.raises(UsageError, match="did you mean 'naevus'"):
        select(files, normal_class="nevus")
    with pytest.raises(DataError, match="all sound normal"):
        select([*films(), *(film(200 + i, "healthy", label=NORMAL) for i in range(20))])


def test_missing_labels_one_class_and_tiny_classes_are_refused() -> None:
    with pytest.raises(DataError, match="No scan is labelled"):
        select([film(i, None) for i in range(30)])
    with pytest.raises(DataError, match=r"one class alone.*NORMAL \(40\)"):
        select(films(sick=0))
    with pytest.raises(DataError, match=r"too few of virus \(2\).*detector\.classes=two"):
        select([*films(), film(100, "virus", label=ABNORMAL), film(101, "virus", label=ABNORMAL)])
    with pytest.raises(DataError, match=r"too few of virus \(1\)"):
        select([*films(), film(100, "virus", label=ABNORMAL)])


def test_a_test_split_with_classes_of_its_own_is_refused() -> None:
    files = [*films(split="train"), film(100, "Pneumonia", split="test", label=ABNORMAL)]
    with pytest.raises(DataError, match=r"test split has classes.*\(Pneumonia; training: NORMAL, PNEUMONIA\)"):
        select(files)


def test_films_of_unknown_class_are_left_out_and_counted() -> None:
    selection = select([*films(), film(100, None)])
    assert [(file.scan_id, reason) for file, reason in selection.left_out] == [("film-100", "class unknown")]
    assert "NORMAL 40, PNEUMONIA 20; normal: NORMAL" in selection.basis


def test_a_film_in_two_classes_is_left_out() -> None:
    files = films()
    selection = select(files)
    looks = {file.scan_id: look(file, None) for file in selection.chosen}
    twin = selection.chosen[50]
    same = looks[selection.chosen[0].scan_id].pixels_sha256
    looks[twin.scan_id] = Look(twin, "x", "y", same, looks[twin.scan_id].thumb, ())
    roles = assign_roles(selection, looks, {}, Rules(CalibrationConfig(fraction=0.25, minimum=4)))
    reasons = {file.scan_id: reason for file, reason in roles.left_out}
    assert reasons == dict.fromkeys(("film-000", "film-050"), "the same film is labelled both NORMAL and PNEUMONIA")


def test_scored_files_go_by_the_models_classes_whatever_their_case() -> None:
    classes = ("NORMAL", "PNEUMONIA")
    named = as_known(film(0, "Pneumonia", label=ABNORMAL), "class", classes)
    assert (named.class_name, named.label) == ("PNEUMONIA", ABNORMAL)
    other = as_known(film(0, "healthy", label=NORMAL), "class", classes)
    assert (other.class_name, other.label) == (None, NORMAL)
    unknown = as_known(film(0, None), "class", classes)
    assert (unknown.class_name, unknown.label) == (None, None)
