from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.errors import DataError, ScanError
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.layouts.names import class_of_folders, label_of_name, patient_key, root_names, split_of_folders
from anomaly.scans.patients import hash_patient, load_salt
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans, make_scan_id

FILM = np.random.default_rng(2).integers(0, 256, (32, 32)).astype(np.uint8)
PNG = cv2.imencode(".png", FILM)[1].tobytes()


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_SALT", "a salt for tests")


def put(root: Path, *names: str, content: bytes = PNG) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(root: Path) -> list[str]:
    return [file.relative for file in list_scans(root).files]


def test_walk_is_recursive_sorted_and_counts_the_rest(tmp_path: Path) -> None:
    put(tmp_path, "b/2.PNG", "a.jpeg", "b/1.tiff", "c.BMP", "z/deep/er/x.Dicom")
    put(tmp_path, "notes.txt", "b/table.xlsx", content=b"words")
    listing = list_scans(tmp_path)
    assert [file.relative for file in listing.files] == ["a.jpeg", "b/1.tiff", "b/2.PNG", "c.BMP", "z/deep/er/x.Dicom"]
    assert listing.others == 2
    assert listing.root == tmp_path
    assert all(file.path.is_file() for file in listing.files)


def test_files_are_known_by_content_too(tmp_path: Path) -> None:
    write_dicom(tmp_path / "IM000001", FILM.astype(np.uint16), bits=8, patient="p", spacing_mm=0.2)
    put(tmp_path, "scan.bin")
    put(tmp_path, "BMxxxx", content=b"BM is how this text begins, and that is all there is to it.")
    put(tmp_path, "liar.png", content=b"text called .png")
    listing = list_scans(tmp_path)
    assert [file.relative for file in listing.files] == ["IM000001", "liar.png", "scan.bin"]
    assert listing.others == 1
    with pytest.raises(ScanError, match=r"liar\.png.*text"):
        read_scan(listing.files[1])
    assert read_scan(listing.files[0]).patient == hash_patient("p")


def test_what_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.png", ".hidden.png", "._a.png", ".DS_Store", "__MACOSX/a.png", "DICOMDIR", ".git/a.png")
    put(tmp_path, "masks/a.png", "x/Mask/a.png", "lung_masks/a.png", "anomaly_mask/a.png", "Ground_Truth/a.png")
    listing = list_scans(tmp_path)
    assert [file.relative for file in listing.files] == ["a.png"]
    assert listing.others == 0
    assert any("5 folders of masks" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("root", "name", "noted"),
    [
        ("masks", "a.png", True),
        ("films_lung_masks", "train/NORMAL/a.png", True),
        ("films_lung_masks/train/NORMAL", "a.png", True),
        ("films", "a_mask.png", True),
        ("films", "a.png", False),
        ("Lung_Segmentation", "train/a.png", False),
        ("no_mask", "a.png", False),
    ],
)
def test_a_root_called_masks_is_walked_with_a_word(tmp_path: Path, root: str, name: str, noted: bool) -> None:
    listing = list_scans(put(tmp_path / root, name))
    assert [file.relative for file in listing.files] == [name]
    assert any("SCANS is named as masks" in note for note in listing.notes) == noted


@pytest.mark.parametrize(
    "folder",
    [
        *("Lung Segmentation/CXR_png", "Lung Segmentation/test", "Chest segmentation/images", "my_segmentation/images"),
        *("no_mask", "with_mask", "Without-Mask", "mask_wearers", "segmentation/train/NORMAL"),
    ],
)
def test_films_in_folders_that_only_sound_like_masks(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}/a.png", "Lung Segmentation/masks/b.png")
    assert names(tmp_path) == [f"{folder}/a.png"]


@pytest.mark.parametrize("folder", ["mask_png", "Masks_left", "lung_segmentations", "segmentation/NORMAL"])
def test_masks_beside_images(tmp_path: Path, folder: str) -> None:
    put(tmp_path, "images/a.png", "images/NORMAL/a.png", f"{folder}/a.png")
    assert names(tmp_path) == ["images/NORMAL/a.png", "images/a.png"]


def test_masks_beside_their_films(tmp_path: Path) -> None:
    put(tmp_path, "x/a0.png", "x/a0_mask.png", "x/b.jpg", "x/mask_b.png", "x/c.png", "x/C_segmentation.png")
    put(tmp_path, "x/lone_mask.png", "y/a0_mask.png")
    listing = list_scans(tmp_path)
    masks = {file.relative: file.mask and file.mask.name for file in listing.files}
    own = {"x/a0.png": "a0_mask.png", "x/b.jpg": "mask_b.png", "x/c.png": "C_segmentation.png"}
    assert masks == {**own, "x/lone_mask.png": None, "y/a0_mask.png": None}
    assert any("3 masks beside" in note for note in listing.notes)


def test_films_in_mask_folders_alone_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image.*1 folder of masks \(x/masks\)"):
        list_scans(put(tmp_path, "x/masks/a.png"))


def test_directory_named_like_an_image_is_walked(tmp_path: Path) -> None:
    assert names(put(tmp_path, "x.png/inside.png")) == ["x.png/inside.png"]


def test_links(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "real/a.png")
    put(tmp_path, "outside/b.png", "secret.png")
    (root / "elsewhere").symlink_to(tmp_path / "outside")
    (root / "real" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "broken.png").symlink_to(root / "gone.png")
    (root / "broken.txt").symlink_to(root / "gone.txt")
    (root / "self.png").symlink_to(root / "self.png")
    listing = list_scans(root)
    assert [file.relative for file in listing.files] == ["broken.png", "elsewhere/b.png", "real/a.png", "self.png"]
    assert listing.others == 1
    for file in (listing.files[0], listing.files[3]):
        with pytest.raises(ScanError, match=file.relative):
            read_scan(file)


@pytest.mark.parametrize("content", [None, "text"])
def test_empty_folder_and_folder_without_images(tmp_path: Path, content: str | None) -> None:
    if content:
        put(tmp_path, "readme.txt", content=b"nothing here")
    with pytest.raises(DataError, match="no image") as caught:
        list_scans(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "DICOM" in str(caught.value)


def test_folder_with_no_readable_image_is_listed_and_each_file_fails(tmp_path: Path) -> None:
    put(tmp_path, "empty.png", content=b"")
    put(tmp_path, "text.png", content=b"text")
    for file in list_scans(tmp_path).files:
        with pytest.raises(ScanError, match=file.relative):
            read_scan(file)


def test_missing_path_and_single_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list_scans(tmp_path / "nowhere")
    put(tmp_path, "normal/a.png", "normal/b.png")
    listing = list_scans(tmp_path / "normal" / "a.png")
    assert [(file.relative, file.label) for file in listing.files] == [("a.png", 0)]
    put(tmp_path, "words.txt", content=b"words")
    with pytest.raises(DataError, match=r"words\.txt.*manifest"):
        list_scans(tmp_path / "words.txt")


def test_unreadable_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def guarded(folder: str | Path) -> object:
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr("anomaly.scans.walk.os.scandir", guarded)
    listing = list_scans(tmp_path)
    assert len(listing.files) == 1
    assert any("1 folder could not be opened" in note for note in listing.notes)


# ---- ids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a film.png", "a\nb.png", "🫁.png", "<script>alert(1)<.png", "é.png", "-rf.png", "x" * 200 + ".png"]
)
def test_scan_ids_are_safe_whatever_the_name(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    (file,) = list_scans(tmp_path).files
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}-[0-9a-f]{16}", file.scan_id)
    assert file.relative == name
    assert read_scan(file).pixels.shape == (32, 32)


def test_scan_ids_are_unique_and_do_not_depend_on_the_root(tmp_path: Path) -> None:
    first, second = put(tmp_path / "one", "a/x.png", "b/x.png"), put(tmp_path / "two", "a/x.png")
    ids = [file.scan_id for file in list_scans(first).files]
    assert len(set(ids)) == 2
    assert list_scans(second).files[0].scan_id == ids[0]
    assert make_scan_id("a/x.png") == ids[0]


def test_undecodable_name(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff\xfe.png")).write_bytes(PNG)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (file,) = list_scans(tmp_path).files
    file.scan_id.encode("ascii")
    assert read_scan(file).pixels.shape == (32, 32)


# ---- labels, splits, patients ------------------------------------------------------------------------------------


NORMALS = ["NORMAL", "No Finding", "no_finding", "good", "Healthy", "negative"]
ABNORMALS = ["PNEUMONIA", "Viral Pneumonia", "COVID-19", "COVID", "Lung_Opacity", "TB", "abnormal_no_opacity", "Ungood"]
UNKNOWNS = ["images", "train", "not normal", "COVID-19_Radiography_Dataset", ""]


def test_label_of_name() -> None:
    assert {label_of_name(name) for name in NORMALS} == {0}
    assert {label_of_name(name) for name in ABNORMALS} == {1}
    assert {label_of_name(name) for name in UNKNOWNS} == {None}


def test_labels_come_from_the_deepest_class_like_folder(tmp_path: Path) -> None:
    put(tmp_path, "train/NORMAL/a.png", "test/good/images/b.png", "misc/c.png", "normal/pneumonia/d.png")
    files = {file.relative: file for file in list_scans(tmp_path).files}
    found = {name: (file.label, file.class_name, file.label_source, file.split) for name, file in files.items()}
    assert found == {
        "train/NORMAL/a.png": (0, "NORMAL", "folder", "train"),
        "test/good/images/b.png": (0, "good", "folder", "test"),
        "misc/c.png": (None, None, None, None),
        "normal/pneumonia/d.png": (1, "pneumonia", "folder", None),
    }


def test_the_root_speaks_for_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "train" / "NORMAL", "a.png")
    (file,) = list_scans(tmp_path / "train" / "NORMAL").files
    assert (file.label, file.class_name, file.split) == (0, "NORMAL", "train")
    monkeypatch.chdir(tmp_path / "train" / "NORMAL")
    (file,) = list_scans(Path()).files
    assert (file.label, file.relative) == (0, "a.png")


def test_only_the_near_end_of_the_root_speaks() -> None:
    assert root_names(["home", "bad", "mine"]) == ["mine"]
    assert root_names(["home", "train", "NORMAL"]) == ["train", "NORMAL"]
    assert root_names(["set", "Normal", "images"]) == ["set", "Normal", "images"]
    assert class_of_folders(["mine"]) == (None, None)
    assert split_of_folders(["Test", "NORMAL"]) == "test"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("train/NORMAL/IM-0115-0001", "train/NORMAL/IM-0115-0002", True),
        ("train/NORMAL/IM-0033-0001", "train/NORMAL/IM-0033-0001-0002", True),
        ("train/NORMAL/IM-0115-0001", "train/NORMAL/NORMAL2-IM-0115-0001", False),
        ("train/NORMAL/IM-0115-0001", "test/NORMAL/IM-0115-0001", False),
        ("train/PNEUMONIA/person59_virus_116", "train/PNEUMONIA/person59_bacteria_3", True),
        ("train/PNEUMONIA/person59_virus_116", "test/PNEUMONIA/person59_virus_116", False),
    ],
)
def test_kermany_patients(tmp_path: Path, first: str, second: str, same: bool) -> None:
    put(tmp_path, f"{first}.png", f"{second}.png")
    patients = {file.relative: file.patient for file in list_scans(tmp_path).files}
    one, other = patients[f"{first}.png"], patients[f"{second}.png"]
    assert one is not None
    assert re.fullmatch("[0-9a-f]{16}", one)
    assert (one == other) == same


def test_names_that_only_resemble_kermany_have_no_patient() -> None:
    for stem in ("IM-0115", "xIM-0115-0001", "IM-0115-0001 copy", "person1", "person1_other_2", "film"):
        assert patient_key(f"{stem}.png", "train") is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("IM-0001-0001.jpeg", "kermany/train/IM/1"),
        ("IM-0001-0001.dcm", None),
        ("IM-0001-0001", None),
        ("person1_virus_6.dicom", None),
        ("00030805_001.png", "nih//30805"),
        ("20230110_001.png", None),
    ],
)
def test_a_file_name_gives_a_patient_only_where_it_must_be_the_sets(name: str, key: str | None) -> None:
    assert patient_key(name, "train") == key


@pytest.mark.parametrize("name", ["IM-0001-0001.dcm", "IM-0001-0001"])
@pytest.mark.parametrize("folder", ["horos", "horos/NORMAL"])
def test_first_films_of_horos_are_of_as_many_patients(tmp_path: Path, folder: str, name: str) -> None:
    for number in range(4):
        path = tmp_path / folder / f"P{number:02d}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_dicom(path, FILM.astype(np.uint16), bits=8, patient=f"patient {number}", spacing_mm=0.2)
    put(tmp_path, "dev/NORMAL/IM-0002-0001.jpeg", "dev/PNEUMONIA/person1_virus_6.jpeg")
    listing = list_scans(tmp_path / "horos")
    assert listing.layout is None
    assert {read_scan(file).patient for file in listing.files} == {hash_patient(f"patient {n}") for n in range(4)}


def test_salt_is_made_once_kept_private_and_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = hash_patient("P1")
    monkeypatch.delenv("ANOMALY_SALT")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / name))
    salt = load_salt()
    path = tmp_path / "anomaly-cxr" / "salt"
    assert load_salt() == salt == path.read_bytes()
    assert len(salt) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["salt"]
    assert hash_patient("P1") == hash_patient(" P1 ") != given
    path.write_bytes(b"short")
    with pytest.raises(DataError, match="ANOMALY_SALT"):
        load_salt()


def test_no_patients_no_salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALY_SALT")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / "data" / name))
    assert list_scans(put(tmp_path / "films", "a.png")).files[0].patient is None
    assert not (tmp_path / "data").exists()


@pytest.mark.real
def test_a_real_split_given_alone(shared_data: Path) -> None:
    listing = list_scans(shared_data / "data" / "kermany" / "dev")
    labels = [file.label for file in listing.files]
    assert (labels.count(0), labels.count(1)) == (114, 234)
    assert all(file.patient for file in listing.files)
    assert {file.split for file in listing.files} == {"dev"}


def test_this_tools_own_results_inside_the_folder_are_no_scans(tmp_path: Path) -> None:
    put(tmp_path, "film.png", "out/heatmaps/film-1234.png", "theirs/other.png")
    put(tmp_path, "out/receipt.json", content=b'{"command": "score", "versions": {"anomaly": "0.1.0"}}')
    put(tmp_path, "theirs/receipt.json", content=b'{"shop": "another file of that name"}')
    listing = list_scans(tmp_path)
    assert [file.relative for file in listing.files] == ["film.png", "theirs/other.png"]
    assert any("own results" in note for note in listing.notes)
