from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.errors import DataError, ScanError
from anomaly.scans.manifest import read_manifest
from anomaly.scans.patients import hash_patient
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans

FILM = np.random.default_rng(3).integers(0, 256, (32, 32)).astype(np.uint8)
PNG = cv2.imencode(".png", FILM)[1].tobytes()


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_SALT", "a salt for tests")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "NORMAL/c.png"):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    return tmp_path / "films"


def write(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_column(folder: Path) -> None:
    path = write(
        folder,
        "Path,Patient,LABEL,class,view,split,mask,Boxes,age,Site\n"
        "b.png,P7,abnormal,pneumonia,AP,test,m/b.png,boxes/b.csv,61,Utrecht\n"
        "a.png,P8,0,,,,,,,\n"
        "missing.png,,,,,,,,,\n",
    )
    listing = list_scans(path)
    first, second, third = listing.files
    assert [file.relative for file in listing.files] == ["b.png", "a.png", "missing.png"]
    assert (first.label, first.class_name, first.label_source) == (1, "pneumonia", "manifest")
    assert (first.view, first.split, first.mask) == ("AP", "test", folder / "m" / "b.png")
    assert first.boxes == folder / "boxes" / "b.csv"
    assert first.patient == hash_patient("P7")
    assert "P7" not in repr(first)
    assert first.extra == {"age": "61", "Site": "Utrecht"}
    assert (second.label, second.view, second.mask, second.boxes) == (0, None, None, None)
    assert (third.label, third.label_source, third.patient) == (None, None, None)
    assert read_scan(first).view == "AP"
    with pytest.raises(ScanError, match=r"missing\.png"):
        read_scan(third)


def test_same_ids_as_the_folder(folder: Path) -> None:
    ids = {file.relative: file.scan_id for file in list_scans(folder).files}
    listed = list_scans(write(folder, "path\n./NORMAL/../NORMAL/c.png\n")).files[0]
    assert listed.scan_id == ids["NORMAL/c.png"]


def test_paths_may_leave_the_folder_and_be_absolute(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path = write(other, f"path\n../films/a.png\n{folder / 'b.png'}\n")
    files = list_scans(path).files
    assert [file.relative for file in files] == ["../films/a.png", "../films/b.png"]
    assert all(read_scan(file).pixels.shape == (32, 32) for file in files)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath;label\r\na.png;1\r\n\r\nb.png;0\r\n",
        b'"path","label"\n"a.png","1"\nb.png,0.0\n',
        b"\n label , path \n abnormal , a.png \n normal , b.png \n",
    ],
)
def test_bom_semicolons_quotes_blank_lines_and_order(folder: Path, text: bytes) -> None:
    assert [(row.path.name, row.label) for row in read_manifest(write(folder, text))] == [("a.png", 1), ("b.png", 0)]


@pytest.mark.parametrize(("text", "label"), [("", None), ("1", 1), ("Normal", 0), ("ABNORMAL", 1), ("1.0", 1)])
def test_labels(folder: Path, text: str, label: int | None) -> None:
    assert read_manifest(write(folder, f"path,label\na.png,{text}\n"))[0].label == label


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("Training", "train"),
        ("valid", "val"),
        ("validation", "val"),
        ("TEST", "test"),
        ("dev", "dev"),
        ("fold 3", "fold 3"),
    ],
)
def test_splits_mean_the_same_however_they_are_called(folder: Path, text: str, split: str) -> None:
    assert read_manifest(write(folder, f"path,split\na.png,{text}\n"))[0].split == split


def test_class_column_labels_when_there_is_no_label_column(folder: Path) -> None:
    rows = read_manifest(write(folder, "path,class\na.png,No Finding\nb.png,Pneumonia\nNORMAL/c.png,other\n"))
    assert [row.label for row in rows] == [0, 1, None]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path,class\nNORMAL/c.png,weird\n", (None, "weird", None)),
        ("path,class\nNORMAL/c.png,normal\n", (0, "normal", "manifest")),
        ("path,class\nNORMAL/c.png,\n", (0, "NORMAL", "folder")),
        ("path,label\nNORMAL/c.png,0\n", (0, None, "manifest")),
        ("path,label,class\nNORMAL/c.png,0,clear\n", (0, "clear", "manifest")),
    ],
)
def test_label_and_class_come_from_the_manifest_together(
    folder: Path, text: str, found: tuple[int | None, str | None, str | None]
) -> None:
    (file,) = list_scans(write(folder, text)).files
    assert (file.label, file.class_name, file.label_source) == found


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["unknown", "NaN", "-", "Anonymous^Patient", "DEIDENTIFIED", "De-identified", "XXX", "n/a", "0000"], []),
        (["0000", "1234567"], ["1234567"]),
        (["0", "1", "2"], ["0", "1", "2"]),
        (["000", "001", "unknown"], ["000", "001"]),
        (["ANONYM-0012", "Xavier", "P0"], ["ANONYM-0012", "Xavier", "P0"]),
    ],
)
def test_patients_that_name_nobody_are_no_group(folder: Path, cells: list[str], kept: list[str]) -> None:
    rows = read_manifest(write(folder, "path,patient\n" + "".join(f"{i}.png,{c}\n" for i, c in enumerate(cells))))
    assert [row.patient for row in rows if row.patient] == kept
    assert len(rows) == len(cells)


def test_folder_labels_hold_when_the_manifest_is_silent(folder: Path) -> None:
    (file,) = list_scans(write(folder, "path\nNORMAL/c.png\n")).files
    assert (file.label, file.class_name, file.label_source) == (0, "NORMAL", "folder")
    (file,) = list_scans(write(folder, "path,label\nNORMAL/c.png,\n")).files
    assert (file.label, file.class_name, file.label_source) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na.png,1\n", ["no column 'path'", "image, label", "rename 'image' to 'path'"]),
        ("pth,label\na.png,1\n", ["rename 'pth' to 'path'"]),
        ("x,y\n1,2\n", ["no column 'path'", "x, y"]),
        ("path,label\na.png,1\nb.png,maybe\n", ["line 3", "maybe", "normal"]),
        ("path,label\na.png,1\n\n./a.png,0\n", ["line 4", "line 2"]),
        ("path\nx.npz/train/1\nx.npz/train/00001\n", ["line 3", "line 2"]),
        ("path,label\n,1\n", ["line 2", "empty"]),
        ("path,label\na.png,1,2\n", ["line 2", "3 values"]),
        ("path,label,label\na.png,1,2\n", ["label", "twice"]),
        ("", ["empty"]),
        ("\n \n", ["empty"]),
        ("path,label\n", ["no rows"]),
        (b"path\na.png\n\xe9.png\n", ["line 3", "UTF-8"]),
        (b"path\na.png\nb\0.png\n", ["line 3"]),
        ("path\n" + "x" * 200_000 + "\n", ["line 2"]),
    ],
)
def test_what_is_wrong_is_said_with_its_line(folder: Path, text: str | bytes, words: list[str]) -> None:
    path = write(folder, text)
    with pytest.raises(DataError) as caught:
        list_scans(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message


def test_unreadable_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(folder, "path\na.png\n")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match="Permission denied"):
        list_scans(path)


# ---- manifest.csv inside a folder ----------------------------------------------------------------------------------


def test_manifest_in_the_folder_annotates(folder: Path) -> None:
    write(folder, "path,label,patient\n./a.png,1,P1\ngone.png,0,P2\n", "manifest.csv")
    listing = list_scans(folder)
    found = {file.relative: (file.label, file.label_source) for file in listing.files}
    assert found == {"NORMAL/c.png": (0, "folder"), "a.png": (1, "manifest"), "b.png": (None, None)}
    assert listing.files[1].patient == hash_patient("P1")
    assert any(note.startswith("1 row ") for note in listing.notes)
    assert listing.others == 0


def test_a_manifest_overrules_the_set_where_it_speaks(tmp_path: Path) -> None:
    names = ["train/NORMAL/IM-0115-0001", "train/PNEUMONIA/person1_virus_6", "val/NORMAL/NORMAL2-IM-1427-0001"]
    for name in names:
        path = tmp_path / f"{name}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    before = {file.relative: file for file in list_scans(tmp_path).files}
    rows = [f"{names[0]}.jpeg,1,nodule,P1,,61", f"{names[1]}.jpeg,1,,,Test,", f"{names[2]}.jpeg,,,nan,train,"]
    write(tmp_path, "path,label,class,patient,split,age\n" + "\n".join(rows), "manifest.csv")
    listing = list_scans(tmp_path)
    first, second, third = (file for name in names for file in listing.files if file.relative == f"{name}.jpeg")
    assert (first.label, first.class_name, first.patient) == (1, "nodule", hash_patient("P1"))
    assert (first.split, first.label_source) == ("train", "manifest")
    assert (second.class_name, second.split, second.extra) == (None, "test", {"kind": "virus", "age": ""})
    assert second.patient == before[second.relative].patient is not None
    assert before[third.relative].set_aside is not None
    assert (third.label, third.split, third.set_aside) == (None, "train", None)
    assert third.patient == before[third.relative].patient is not None
    assert listing.patient_scope is not None
    assert "manifest" in listing.patient_scope


def test_another_manifest_csv_is_left_alone(folder: Path) -> None:
    write(folder, "sample,batch\n1,2\n", "manifest.csv")
    listing = list_scans(folder)
    assert len(listing.files) == 3
    assert listing.others == 1
    assert any("manifest.csv" in note for note in listing.notes)


def test_wrong_manifest_in_the_folder_stops(folder: Path) -> None:
    write(folder, "path,label\na.png,perhaps\n", "manifest.csv")
    with pytest.raises(DataError, match="line 2"):
        list_scans(folder)
