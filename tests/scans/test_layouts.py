from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from anomaly.errors import DataError
from anomaly.records import ScanFile
from anomaly.scans.walk import Listing, list_scans

PNG = cv2.imencode(".png", np.random.default_rng(2).integers(0, 256, (32, 32)).astype(np.uint8))[1].tobytes()
UUIDS = [f"0004cfab-14fd-4e49-80ba-63a80b6bddd{i}" for i in range(5)]


def put(root: Path, *names: str, content: bytes = PNG) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@dataclass(frozen=True)
class Set:
    """A public set as its names go: what is on disk beside the films, and what must be said of each film.

    `films`: path -> (label, class, split). `patients`: groups of films of one patient each, all others having none.
    """

    title: str
    films: dict[str, tuple[int | None, str | None, str | None]]
    tables: dict[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    patients: tuple[tuple[str, ...], ...] = ()
    masked: tuple[str, ...] = ()
    boxed: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    part: str = ""


KERMANY = Set(
    "Kermany",
    {
        "train/NORMAL/IM-0115-0001.jpeg": (0, "NORMAL", "train"),
        "train/NORMAL/IM-0115-0002.jpeg": (0, "NORMAL", "train"),
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg": (0, "NORMAL", "train"),
        "train/NORMAL/NORMAL2-IM-1427-0002.jpeg": (0, "NORMAL", "train"),
        "train/PNEUMONIA/person1_bacteria_1.jpeg": (1, "PNEUMONIA", "train"),
        "train/PNEUMONIA/person1_virus_6.jpeg": (1, "PNEUMONIA", "train"),
        "test/NORMAL/IM-0115-0001.jpeg": (0, "NORMAL", "test"),
        "test/PNEUMONIA/person1_virus_6.jpeg": (1, "PNEUMONIA", "test"),
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg": (0, "NORMAL", "val"),
    },
    patients=(
        ("train/NORMAL/IM-0115-0001.jpeg", "train/NORMAL/IM-0115-0002.jpeg"),
        ("train/NORMAL/NORMAL2-IM-0115-0001.jpeg",),
        ("train/PNEUMONIA/person1_bacteria_1.jpeg", "train/PNEUMONIA/person1_virus_6.jpeg"),
        ("test/NORMAL/IM-0115-0001.jpeg",),
        ("test/PNEUMONIA/person1_virus_6.jpeg",),
        ("train/NORMAL/NORMAL2-IM-1427-0002.jpeg", "val/NORMAL/NORMAL2-IM-1427-0001.jpeg"),
    ),
    aside=("val/NORMAL/NORMAL2-IM-1427-0001.jpeg",),
    part="train/NORMAL",
)
MENDELEY = Set(
    "Kermany",
    {
        "train/NORMAL/NORMAL-28501-0001.jpeg": (0, "NORMAL", "train"),
        "train/NORMAL/NORMAL-28501-0002.jpeg": (0, "NORMAL", "train"),
        "test/PNEUMONIA/BACTERIA-28501-0001.jpeg": (1, "PNEUMONIA", "test"),
        "test/PNEUMONIA/VIRUS-1234-0001.jpeg": (1, "PNEUMONIA", "test"),
    },
    patients=(
        ("train/NORMAL/NORMAL-28501-0001.jpeg", "train/NORMAL/NORMAL-28501-0002.jpeg"),
        ("test/PNEUMONIA/BACTERIA-28501-0001.jpeg",),
        ("test/PNEUMONIA/VIRUS-1234-0001.jpeg",),
    ),
    part="test",
)
COVID = Set(
    "COVID-19 Radiography",
    {
        "COVID/images/COVID-1.png": (1, "COVID", None),
        "Lung_Opacity/images/Lung_Opacity-7.png": (1, "Lung_Opacity", None),
        "Normal/images/Normal-1.png": (0, "Normal", None),
        "Viral Pneumonia/images/Viral Pneumonia-3.png": (1, "Viral Pneumonia", None),
    },
    beside=("COVID/masks/COVID-1.png", "Normal/masks/Normal-1.png", "Normal/masks/Normal-9.png"),
    tables={"COVID.metadata.xlsx": "PK", "README.md.txt": "words"},
    masked=("COVID/images/COVID-1.png", "Normal/images/Normal-1.png"),
    part="Normal/images",
)
OLD_COVID = Set(
    "COVID-19 Radiography",
    {
        "COVID-19/COVID-19 (1).png": (1, "COVID-19", None),
        "NORMAL/NORMAL (1).png": (0, "NORMAL", None),
        "Viral Pneumonia/Viral Pneumonia (12).png": (1, "Viral Pneumonia", None),
    },
    part="NORMAL",
)
RSNA = Set(
    "RSNA Pneumonia",
    {
        f"stage_2_train_images/{UUIDS[0]}.dcm": (0, "Normal", "train"),
        f"stage_2_train_images/{UUIDS[1]}.dcm": (1, "Lung Opacity", "train"),
        f"stage_2_train_images/{UUIDS[2]}.dcm": (1, "No Lung Opacity / Not Normal", "train"),
        f"stage_2_train_images/{UUIDS[3]}.dcm": (None, None, "train"),
        f"stage_2_test_images/{UUIDS[4]}.dcm": (None, None, "test"),
    },
    tables={
        "stage_2_train_labels.csv": "patientId,x,y,width,height,Target\n"
        f"{UUIDS[0]},,,,,0\n{UUIDS[1]},1,2,3,4,1\n{UUIDS[1]},5,6,7,8,1\n{UUIDS[2]},,,,,0\n",
        "stage_2_detailed_class_info.csv": f"patientId,class\n{UUIDS[0]},Normal\n{UUIDS[1]},Lung Opacity\n"
        f"{UUIDS[1]},Lung Opacity\n{UUIDS[2]},No Lung Opacity / Not Normal\n",
    },
    patients=tuple((f"stage_2_{'test' if i == 4 else 'train'}_images/{name}.dcm",) for i, name in enumerate(UUIDS)),
    boxed=(f"stage_2_train_images/{UUIDS[1]}.dcm",),
    part="stage_2_train_images",
)
NIH = Set(
    "NIH ChestX-ray14",
    {
        "images_001/images/00000001_000.png": (1, "Cardiomegaly|Effusion", "train"),
        "images_001/images/00000001_001.png": (0, "No Finding", "train"),
        "images_002/images/00000013_005.png": (0, "No Finding", "test"),
        "images_002/images/00000014_000.png": (None, None, None),
    },
    tables={
        "Data_Entry_2017_v2020.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position\n"
        "00000001_000.png,Cardiomegaly|Effusion,0,1,57,PA\n00000001_001.png,No Finding,1,1,58,PA\n"
        "00000013_005.png,No Finding,5,13,60,AP\n",
        "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Cardiomegaly,1,2,3,4\n",
        "train_val_list.txt": "00000001_000.png\n00000001_001.png\n",
        "test_list.txt": "00000013_005.png\n",
    },
    patients=(
        ("images_001/images/00000001_000.png", "images_001/images/00000001_001.png"),
        ("images_002/images/00000013_005.png",),
        ("images_002/images/00000014_000.png",),
    ),
    boxed=("images_001/images/00000001_000.png",),
    part="images_001/images",
)
BMAD = Set(
    "BMAD",
    {
        "train/good/img/00003_60.png": (0, "good", "train"),
        "valid/Ungood/img/00124_60.png": (1, "Ungood", "val"),
        "test/good/img/00000_96.png": (0, "good", "test"),
        "test/Ungood/img/00002_60.png": (1, "Ungood", "test"),
        f"test/Ungood/img/{UUIDS[0]}.png": (1, "Ungood", "test"),
    },
    beside=("valid/Ungood/label/00124_60.png", "test/Ungood/anomaly_mask/00002_60.png"),
    patients=((f"test/Ungood/img/{UUIDS[0]}.png",),),
    masked=("valid/Ungood/img/00124_60.png", "test/Ungood/img/00002_60.png"),
    part="test/Ungood",
)
HAM = Set(
    "HAM10000",
    {
        "HAM10000_images_part_1/ISIC_0024306.jpg": (0, "nv", None),
        "HAM10000_images_part_1/ISIC_0024307.jpg": (0, "nv", None),
        "HAM10000_images_part_2/ISIC_0029316.jpg": (1, "mel", None),
    },
    tables={
        "HAM10000_metadata.csv": "lesion_id,image_id,dx,dx_type,age\nHAM_1,ISIC_0024306,nv,histo,80.0\n"
        "HAM_1,ISIC_0024307,nv,histo,80.0\nHAM_2,ISIC_0029316,mel,histo,\n"
    },
    beside=("HAM10000_segmentations_lesion_tschandl/ISIC_0024306_segmentation.png",),
    patients=(
        ("HAM10000_images_part_1/ISIC_0024306.jpg", "HAM10000_images_part_1/ISIC_0024307.jpg"),
        ("HAM10000_images_part_2/ISIC_0029316.jpg",),
    ),
    masked=("HAM10000_images_part_1/ISIC_0024306.jpg",),
    part="HAM10000_images_part_2",
)
CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pneumonia,Support Devices\n"
CHEXPERT = Set(
    "CheXpert",
    {
        "train/patient00001/study1/view1_frontal.jpg": (0, "no finding", "train"),
        "train/patient00001/study2/view1_lateral.jpg": (1, "edema | pneumonia", "train"),
        "train/patient00002/study1/view1_frontal.jpg": (None, None, "train"),
        "valid/patient64541/study1/view1_frontal.jpg": (0, "no finding", "val"),
    },
    tables={
        "train.csv": CHEXPERT_HEADER
        + "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Male,50,Frontal,AP,1.0,,,1.0\n"
        + "CheXpert-v1.0-small/train/patient00001/study2/view1_lateral.jpg,Male,50,Lateral,,,1.0,1.0,\n"
        + "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Female,9,Frontal,PA,,-1.0,0.0,1.0\n",
        "valid.csv": CHEXPERT_HEADER
        + "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,1.0,0.0,0.0,0.0\n",
    },
    patients=(
        ("train/patient00001/study1/view1_frontal.jpg", "train/patient00001/study2/view1_lateral.jpg"),
        ("train/patient00002/study1/view1_frontal.jpg",),
        ("valid/patient64541/study1/view1_frontal.jpg",),
    ),
    part="train/patient00001",
)
VINDR = Set(
    "VinDr-CXR",
    {
        "train/aaa.dicom": (0, "No finding", "train"),
        "train/bbb.dicom": (None, None, "train"),
        "train/ccc.dicom": (1, "Cardiomegaly", "train"),
        "test/ddd.dicom": (0, "No finding", "test"),
    },
    tables={
        "annotations/annotations_train.csv": "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        "aaa,R1,No finding,,,,\naaa,R2,No finding,,,,\nbbb,R1,No finding,,,,\nbbb,R2,Nodule/Mass,1,2,3,4\n"
        "ccc,R1,Cardiomegaly,1,2,3,4\nccc,R2,Cardiomegaly,2,2,3,4\n",
        "annotations/image_labels_test.csv": "image_id,Cardiomegaly,Nodule/Mass,No finding\nddd,0,0,1\n",
    },
    boxed=("train/bbb.dicom", "train/ccc.dicom"),
    part="train",
)
KAGGLE_VINDR = Set(
    "VinDr-CXR",
    {"train/aaa.dicom": (0, "No finding", "train"), "train/bbb.dicom": (1, "Nodule/Mass", "train")},
    tables={
        "train.csv": "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\naaa,No finding,14,R1,,,,\n"
        "aaa,No finding,14,R2,,,,\nbbb,Nodule/Mass,8,R1,1,2,3,4\n"
    },
    boxed=("train/bbb.dicom",),
    part="train",
)
MEDIANOMALY = Set(
    "MedIAnomaly",
    {
        "images/a.png": (0, "normal", "train"),
        "images/b.png": (0, "normal", "test"),
        "images/c.png": (1, "abnormal", "test"),
        "images/d.png": (None, None, None),
    },
    tables={"data.json": json.dumps({"train": {"0": ["a.png"]}, "test": {"0": ["b.png"], "1": ["c.png"]}})},
    part="images",
)
NLM = Set(
    "Montgomery",
    {
        "CXR_png/MCUCXR_0001_0.png": (0, "normal", None),
        "CXR_png/MCUCXR_0104_1.png": (1, "tuberculosis", None),
        "CXR_png/CHNCXR_0001_0.png": (0, "normal", None),
    },
    beside=(
        *("ManualMask/leftMask/MCUCXR_0001_0.png", "ManualMask/rightMask/MCUCXR_0001_0.png"),
        "mask/CHNCXR_0001_0_mask.png",
    ),
    patients=tuple((f"CXR_png/{name}.png",) for name in ("MCUCXR_0001_0", "MCUCXR_0104_1", "CHNCXR_0001_0")),
    masked=("CXR_png/CHNCXR_0001_0.png",),
    part="CXR_png",
)
CLASSES = Set(
    "class folders",
    {
        "train/akiec/a.png": (None, "akiec", "train"),
        "train/healthy/b.png": (0, "healthy", "train"),
        "validation/akiec/images/c.png": (None, "akiec", "val"),
        "Testing/effusion/00000013_005.png": (1, "effusion", "test"),
    },
    patients=(("Testing/effusion/00000013_005.png",),),
)
SETS = {
    "kermany": KERMANY,
    "mendeley": MENDELEY,
    "covid": COVID,
    "old-covid": OLD_COVID,
    "rsna": RSNA,
    "nih": NIH,
    "bmad": BMAD,
    "ham10000": HAM,
    "chexpert": CHEXPERT,
    "vindr": VINDR,
    "kaggle-vindr": KAGGLE_VINDR,
    "medianomaly": MEDIANOMALY,
    "nlm": NLM,
    "classes": CLASSES,
}
each_set = pytest.mark.parametrize("known", SETS.values(), ids=SETS.keys())


def lay_out(known: Set, root: Path) -> Path:
    for path, text in known.tables.items():
        put(root, path, content=text.encode())
    return put(root, *known.films, *known.beside)


def facts(file: ScanFile) -> tuple[object, ...]:
    return file.label, file.class_name, file.split, file.patient, file.view, file.label_source


def partners(listing: Listing) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for file in listing.files:
        if file.patient is not None:
            groups.setdefault(file.patient, set()).add(file.relative)
    return groups


@each_set
def test_what_a_set_says_of_its_films(tmp_path: Path, known: Set) -> None:
    listing = list_scans(lay_out(known, tmp_path / "set"))
    assert listing.layout is not None
    assert known.title in listing.layout
    found = {file.relative: (file.label, file.class_name, file.split) for file in listing.files}
    assert found == known.films
    assert sorted(map(sorted, partners(listing).values())) == sorted(map(sorted, known.patients))
    assert {file.relative for file in listing.files if file.mask} == set(known.masked)
    assert {file.relative for file in listing.files if file.boxes} == set(known.boxed)
    assert {file.relative for file in listing.files if file.set_aside} == set(known.aside)
    assert all(path.is_file() for file in listing.files for path in (file.mask, file.boxes) if path)
    assert listing.others == len(known.tables)
    assert all((file.label_source is None) == (file.label is None) for file in listing.files)
    if known.title != "class folders":
        assert listing.patient_scope


@each_set
def test_the_root_may_lie_three_levels_down_and_be_written_in_any_case(tmp_path: Path, known: Set) -> None:
    straight = {file.relative: file for file in list_scans(lay_out(known, tmp_path / "set")).files}
    swapped = Set(
        known.title,
        {_upper(path): value for path, value in known.films.items()},
        tables={path.upper(): text for path, text in known.tables.items()},
        beside=tuple(map(_upper, known.beside)),
    )
    lay_out(swapped, tmp_path / "deep" / "one" / "two" / "THREE")
    listing = list_scans(tmp_path / "deep")
    assert listing.layout is not None
    assert known.title in listing.layout
    for file in listing.files:
        twin = next(one for path, one in straight.items() if f"one/two/THREE/{_upper(path)}" == file.relative)
        assert (file.label, file.split, file.patient) == (twin.label, twin.split, twin.patient)
        assert bool(file.mask) == bool(twin.mask)
        assert bool(file.boxes) == bool(twin.boxes)
        assert file.set_aside == twin.set_aside


def _upper(path: str) -> str:
    folders, _, name = path.rpartition("/")
    stem, _, extension = name.rpartition(".")
    return f"{folders.upper()}/{stem}.{extension.upper()}"


@pytest.mark.parametrize("known", [s for s in SETS.values() if s.part], ids=[k for k, s in SETS.items() if s.part])
def test_a_part_of_a_set_says_the_same(tmp_path: Path, known: Set) -> None:
    root = lay_out(known, tmp_path / "set")
    whole = {file.relative: facts(file) for file in list_scans(root).files if file.relative.startswith(known.part)}
    part = {f"{known.part}/{file.relative}": facts(file) for file in list_scans(root / known.part).files}
    assert part == whole
    first = next(iter(whole))
    assert facts(list_scans(root / first).files[0]) == whole[first]


def test_two_sets_in_one_folder_keep_apart(tmp_path: Path) -> None:
    lay_out(KERMANY, tmp_path / "all" / "chest_xray")
    lay_out(NLM, tmp_path / "all" / "tb")
    put(tmp_path / "all", "own/NORMAL/x.png")
    listing = list_scans(tmp_path / "all")
    assert listing.layout is not None
    assert [title.split()[0] for title in listing.layout.split("; ")] == ["Kermany", "Montgomery"]
    labels = {file.relative: file.label for file in listing.files}
    assert (labels["tb/CXR_png/MCUCXR_0104_1.png"], labels["own/NORMAL/x.png"]) == (1, 0)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (COVID, ["confounded", "no external test"]),
        (HAM, ["nv", "non-commercial", "channels=3"]),
        (KERMANY, ["1 file set aside", "1 of at most 16 images"]),
        (CLASSES, ["akiec", "manifest.csv"]),
        (CHEXPERT, ["-1"]),
    ],
)
def test_warnings_of_a_set(tmp_path: Path, known: Set, words: list[str]) -> None:
    notes = " ".join(list_scans(lay_out(known, tmp_path / "set")).notes)
    assert all(word in notes for word in words)


def test_a_view_comes_from_the_table(tmp_path: Path) -> None:
    views = {file.relative: file.view for file in list_scans(lay_out(NIH, tmp_path / "nih")).files}
    assert views["images_001/images/00000001_000.png"] == "PA"
    views = {file.relative: file.view for file in list_scans(lay_out(CHEXPERT, tmp_path / "chexpert")).files}
    assert list(views.values()) == ["AP", "Lateral", "PA", "AP"]


def test_kermanys_kinds_of_pneumonia_are_kept_beside_the_class(tmp_path: Path) -> None:
    kinds = {file.relative: file.extra for file in list_scans(lay_out(KERMANY, tmp_path / "set")).files}
    assert kinds["train/PNEUMONIA/person1_virus_6.jpeg"] == {"kind": "virus"}
    assert kinds["train/NORMAL/IM-0115-0001.jpeg"] == {}


def test_a_val_of_more_than_16_images_is_used(tmp_path: Path) -> None:
    lay_out(KERMANY, tmp_path)
    put(tmp_path, *(f"val/PNEUMONIA/person{i}_virus_1.jpeg" for i in range(16)))
    listing = list_scans(tmp_path)
    assert not any(file.set_aside for file in listing.files)
    assert "not the published one" in str(listing.patient_scope)
    patients = {file.relative: file.patient for file in listing.files}
    torn = [f"{split}/PNEUMONIA/person1_virus_{n}.jpeg" for split, n in (("train", 6), ("test", 6), ("val", 1))]
    assert len({patients[name] for name in torn}) == 1
    put(tmp_path, "list.csv", content="\n".join(["path", *patients]).encode())
    assert {file.relative: file.patient for file in list_scans(tmp_path / "list.csv").files} == patients
    put(tmp_path / "mixed", *patients, *(f"train/NORMAL/own-{i}.png" for i in range(9)))
    mixed = list_scans(tmp_path / "mixed")
    assert {file.relative: file.patient for file in mixed.files}.items() >= patients.items()
    assert "not the published one" in str(mixed.patient_scope)
    for part in ("train", "test/PNEUMONIA", "val"):
        alone = list_scans(tmp_path / part)
        assert {f"{part}/{file.relative}": file.patient for file in alone.files}.items() <= patients.items()


def test_without_the_class_table_rsnas_normals_are_not_known(tmp_path: Path) -> None:
    lay_out(RSNA, tmp_path)
    (tmp_path / "stage_2_detailed_class_info.csv").unlink()
    listing = list_scans(tmp_path)
    labels = {file.relative: file.label for file in listing.files}
    assert [labels[f"stage_2_train_images/{UUIDS[i]}.dcm"] for i in range(3)] == [None, 1, None]
    assert any("stage_2_detailed_class_info.csv is missing" in note for note in listing.notes)


def test_a_table_that_lacks_a_column_stops(tmp_path: Path) -> None:
    put(tmp_path, "images/00000001_000.png")
    put(tmp_path, "Data_Entry_2017.csv", content=b"Image Index,Finding Labels\n00000001_000.png,No Finding\n")
    with pytest.raises(DataError, match=r"Data_Entry_2017\.csv.*'Patient ID'.*again"):
        list_scans(tmp_path)


# ---- folders that only look a bit like a set ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("films", "tables", "layout"),
    [
        (["COVID/a.png", "NORMAL/b.png", "Viral Pneumonia/c.png"], {}, "class folders"),
        (["train/NORMAL/a.png", "train/PNEUMONIA/b.png"], {}, "class folders"),
        (["train/NORMAL/IM-0115-0001.png", "train/NORMAL/x.png", "train/PNEUMONIA/b.png"], {}, "class folders"),
        (["train/good/a.png", "test/good/b.png", "test/bad/c.png"], {}, "class folders"),
        (["a.png", "b.png"], {"train.csv": "path,label\na.png,1\n"}, None),
        (["images/a.png"], {"data.json": '{"train": "config", "test": {"0": 3}}'}, None),
        (["images/a.png"], {"data.json": "not json"}, None),
        (["images/a.png"], {"data.json": '{"train": {"0": ["other.png"]}}'}, None),
        (["mine/a.png"], {"train.csv": CHEXPERT.tables["train.csv"]}, None),
        (["mine/a.png"], RSNA.tables, None),
        (["mine/a.png"], NIH.tables, None),
        (["mine/a.png"], HAM.tables, None),
        (["MCUCXR_0001_0.png", "a.png", "b.png"], {}, None),
        (["patient001/a.png", "patient002/b.png"], {}, None),
        (["2021/a.png", "2022/b.png"], {}, None),
        (["site/a.png", "b.png"], {}, None),
        (["one/a.png"], {}, None),
        (["SMITH_JOHN/CXR0.png", "DOE_JANE/CXR0.png"], {}, None),
        (["train/SMITH_JOHN/CXR0.png", "test/DOE_JANE/CXR0.png"], {}, None),
        (["horos/IM-0001-0001.png", "horos/IM-0002-0001.png"], {}, None),
        (["COVID/COVID (1).png", "NORMAL/NORMAL (2).png"], {}, "class folders"),
    ],
)
def test_what_only_looks_like_a_set_is_not_taken_for_it(
    tmp_path: Path, films: list[str], tables: dict[str, str], layout: str | None
) -> None:
    for name, text in tables.items():
        put(tmp_path / "films", name, content=text.encode())
    listing = list_scans(put(tmp_path / "films", *films))
    assert listing.layout == layout
    assert {file.relative for file in listing.files} == set(films)
    if tables:  # a table above SCANS speaks for no one else's films either
        assert list_scans(tmp_path / "films" / films[0].partition("/")[0]).layout is None


@pytest.mark.parametrize(
    "known", [s for s in SETS.values() if s is not CLASSES], ids=[k for k in SETS if k != "classes"]
)
def test_class_folders_inside_a_set_keep_their_labels(tmp_path: Path, known: Set) -> None:
    lay_out(known, tmp_path)
    before = {file.relative: facts(file) for file in list_scans(tmp_path).files}
    if known in (BMAD, COVID, OLD_COVID, KERMANY, MENDELEY, NLM):  # known by nine names in ten
        copies = [f"more{i}/{path}" for i in range(9) for path in known.films]
        put(tmp_path, *copies)
        before |= {file.relative: facts(file) for file in list_scans(tmp_path).files}
    listing = list_scans(put(tmp_path, "hospital/NORMAL/h1.png", "hospital/PNEUMONIA/h2.png"))
    assert known.title in str(listing.layout)
    found = {file.relative: facts(file) for file in listing.files}
    assert found.pop("hospital/NORMAL/h1.png") == (0, "NORMAL", None, None, None, "folder")
    assert found.pop("hospital/PNEUMONIA/h2.png") == (1, "PNEUMONIA", None, None, None, "folder")
    assert found == before


def test_a_set_may_be_one_folder_of_films_and_nothing_else(tmp_path: Path) -> None:
    listing = list_scans(put(tmp_path, "several/montgomery/MCUCXR_0001_1.png", "several/mine/a.png", "b.png"))
    found = {file.relative: (file.label, file.patient is not None) for file in listing.files}
    assert found["several/montgomery/MCUCXR_0001_1.png"] == (1, True)
    assert {found["several/mine/a.png"], found["b.png"]} == {(None, False)}


def test_two_folders_of_the_covid_database_are_enough(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{kind}/{name}-7.png" for name in ("COVID", "Normal") for kind in ("images", "masks")))
    listing = list_scans(tmp_path)
    assert "COVID-19 Radiography" in str(listing.layout)
    assert any("confounded" in note for note in listing.notes)


def test_chexpert_at_full_resolution_lies_in_batches(tmp_path: Path) -> None:
    films, tables = "CheXpert-v1.0 batch 2 (train 1)", "CheXpert-v1.0 batch 1 (validate & csv)"
    for name, text in CHEXPERT.tables.items():
        put(tmp_path, f"{tables}/{name}", content=text.replace("-small", "").encode())
    put(tmp_path, *(f"{films}/{path.removeprefix('train/')}" for path in CHEXPERT.films if path.startswith("train")))
    put(tmp_path, f"{tables}/valid/patient64541/study1/view1_frontal.jpg")
    put(tmp_path, f"{films}/patient00003/study1/view1_frontal.jpg", "hospital/NORMAL/x.png")
    listing = list_scans(tmp_path)
    found = {file.relative: (file.label, file.split, file.patient is not None) for file in listing.files}
    assert found == {
        "hospital/NORMAL/x.png": (0, None, False),
        f"{tables}/valid/patient64541/study1/view1_frontal.jpg": (0, "val", True),
        f"{films}/patient00001/study1/view1_frontal.jpg": (0, "train", True),
        f"{films}/patient00001/study2/view1_lateral.jpg": (1, "train", True),
        f"{films}/patient00002/study1/view1_frontal.jpg": (None, "train", True),
        f"{films}/patient00003/study1/view1_frontal.jpg": (None, None, True),
    }
    assert any("1 of its films are in none of its tables" in note for note in listing.notes)
    alone = {f"{films}/{file.relative}": facts(file) for file in list_scans(tmp_path / films).files}
    assert alone.items() <= {file.relative: facts(file) for file in listing.files}.items()
    for file in (tmp_path / tables).glob("*.csv"):
        file.unlink()
    assert len({file.patient for file in list_scans(tmp_path / films).files}) == 3  # the folder tells, always


@each_set
def test_a_strangers_folder_inside_a_set_is_no_part_of_it(tmp_path: Path, known: Set) -> None:
    root = lay_out(known, tmp_path / "set")
    listing = list_scans(put(root / "mine", "scan-a.png", "scan-b.png"))
    assert listing.layout is None
    assert {(file.label, file.patient, file.mask) for file in listing.files} == {(None, None, None)}


def test_folders_inside_a_class_are_no_classes(tmp_path: Path) -> None:
    listing = list_scans(put(tmp_path / "NORMAL", "north/a.png", "south/b.png"))
    assert {(file.label, file.class_name) for file in listing.files} == {(0, "NORMAL")}
    listing = list_scans(put(tmp_path / "x", "normal/north/a.png", "normal/south/b.png"))
    assert {(file.label, file.class_name) for file in listing.files} == {(0, "normal")}


# ---- copies and masks --------------------------------------------------------------------------------------------


def test_copies_in_a_nested_root_are_set_aside(tmp_path: Path) -> None:
    root = lay_out(KERMANY, tmp_path / "chest_xray")
    lay_out(KERMANY, root / "chest_xray")
    put(root, "chest_xray/train/NORMAL/IM-0115-0001.jpeg", content=PNG + b"another size")
    put(root, "chest_xray/train/NORMAL/IM-0999-0001.jpeg")
    for scans, prefix in ((root, ""), (tmp_path, "chest_xray/")):
        listing = list_scans(scans)
        inner = {file.relative: file for file in listing.files if file.relative.startswith(f"{prefix}chest_xray/")}
        kept = {name for name, file in inner.items() if file.set_aside is None}
        names = ("IM-0115-0001", "IM-0999-0001")
        assert kept == {f"{prefix}chest_xray/train/NORMAL/{name}.jpeg" for name in names}
        assert len(listing.files) == 2 * len(KERMANY.films) + 1
        assert any(note.startswith("8 files set aside") and "nested root" in note for note in listing.notes)
    patients = {file.relative: file.patient for file in list_scans(root).files}
    assert patients["test/NORMAL/IM-0115-0001.jpeg"] == patients["chest_xray/test/NORMAL/IM-0115-0001.jpeg"]


@pytest.mark.parametrize(
    ("film", "mask", "belongs"),
    [
        ("X/images/a.png", "X/masks/a.png", True),
        ("X/images/sub/a.jpg", "X/masks/sub/A_mask.png", True),
        ("X/a.dcm", "X/masks/a.png", True),
        ("films/train/NORMAL/a.jpeg", "films_lung_masks/train/NORMAL/a.png", True),
        ("X/NORMAL/a.png", "X/masks/NORMAL/a.png", True),
        ("X/NORMAL/a.png", "X/masks/a.png", False),
        ("X/images/a.png", "Y/masks/a.png", False),
        ("films/a.jpeg", "other_masks/a.png", False),
    ],
)
def test_masks_belong_to_films_of_the_same_base_name(tmp_path: Path, film: str, mask: str, belongs: bool) -> None:
    (file,) = list_scans(put(tmp_path, film, mask)).files
    assert file.relative == film
    assert file.mask == (tmp_path / mask if belongs else None)


def test_masks_beside_the_images_are_found_from_within(tmp_path: Path) -> None:
    put(tmp_path, "X/images/a.png", "X/images/b.png", "X/masks/a.png", "X/left_masks/b.png", "X/masks/b.png")
    masks = {file.relative: file.mask for file in list_scans(tmp_path / "X" / "images").files}
    assert masks == {"a.png": tmp_path / "X/masks/a.png", "b.png": None}  # two may be meant: none is guessed


@pytest.mark.parametrize(
    ("masks", "of_a", "of_b"),
    [
        (("masks/a.png", "lung_masks/a.png", "lung_masks/b.png"), "masks/a.png", None),
        (("infection masks/a.png", "lung masks/a.png", "lung masks/b.png"), "infection masks/a.png", None),
        (("lung_masks/a.png", "lung_masks/b.png"), "lung_masks/a.png", "lung_masks/b.png"),
        (("masks/deeper/x.png", "lung_masks/images/a.png"), None, None),
    ],
)
def test_lung_masks_beside_other_masks_are_no_films_mask(
    tmp_path: Path, masks: tuple[str, ...], of_a: str | None, of_b: str | None
) -> None:
    put(tmp_path, "images/a.png", "images/b.png", *masks)
    for scans in (tmp_path, tmp_path / "images"):
        found = {file.path.stem: file.mask for file in list_scans(scans).files}
        assert found == {"a": of_a and tmp_path / of_a, "b": of_b and tmp_path / of_b}


def test_a_folder_called_label_holds_masks_only_beside_images(tmp_path: Path) -> None:
    put(tmp_path, "set/img/a.png", "set/label/a.png", "other/label/b.png")
    assert [file.relative for file in list_scans(tmp_path).files] == ["other/label/b.png", "set/img/a.png"]


# ---- real films --------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_real_kermany(shared_data: Path) -> None:
    listing = list_scans(shared_data / "data" / "kermany")
    assert listing.layout is not None
    assert "Kermany" in listing.layout
    counts: dict[tuple[str | None, int | None], int] = {}
    patients: dict[str | None, set[str | None]] = {}
    for file in listing.files:
        counts[file.split, file.label] = counts.get((file.split, file.label), 0) + 1
        patients.setdefault(file.split, set()).add(file.patient)
    assert counts == {("train", 0): 1341, ("train", 1): 929, ("dev", 0): 114, ("dev", 1): 234}
    assert None not in patients["train"] | patients["dev"]
    assert not patients["train"] & patients["dev"]


@pytest.mark.real
def test_real_rsna_adult(shared_data: Path) -> None:
    listing = list_scans(shared_data / "data" / "rsna_adult")
    found = {(file.split, file.class_name, file.label) for file in listing.files}
    abnormal = {("dev", "lung_opacity", 1), ("dev", "abnormal_no_opacity", 1)}
    assert found == {("train", "normal", 0), ("dev", "normal", 0)} | abnormal
    dev = [file for file in listing.files if file.split == "dev"]
    assert len(dev) == 151
    assert all(file.patient for file in dev)
    assert all(file.boxes for file in dev if file.class_name == "lung_opacity")
    assert not any(file.boxes for file in dev if file.label == 0)


@pytest.mark.real
def test_real_montgomery_and_a_folder_of_several_sets(shared_data: Path) -> None:
    listing = list_scans(shared_data / "data" / "montgomery")
    labels = [file.label for file in listing.files]
    assert (len(labels), labels.count(1)) == (138, 58)
    assert all(file.mask and file.mask.is_file() and file.patient for file in listing.files)
    together = list_scans(shared_data / "data")
    kermany = [file for file in together.files if file.relative.startswith("kermany/")]
    assert len(kermany) == 2618
    assert sum(file.mask is not None for file in kermany) == 2549
    assert not any("mask" in file.relative for file in together.files)
