from __future__ import annotations

import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import DataError, ScanError
from anomaly.records import ScanFile
from anomaly.scans import npz
from anomaly.scans.read import decode_scan, file_bytes, read_scan
from anomaly.scans.walk import list_scans

COUNTS = {"train": 9, "val": 3, "test": 4}
PICTURES = {s: np.random.default_rng(n).integers(0, 256, (n, 28, 28)).astype(np.uint8) for s, n in COUNTS.items()}


def save(path: Path, labels: dict[str, np.ndarray], pictures: dict[str, np.ndarray] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = {f"{split}_images": array for split, array in (pictures or PICTURES).items()}
    np.savez_compressed(path, **images, **{f"{split}_labels": array for split, array in labels.items()})
    return path


def column(*values: int) -> dict[str, np.ndarray]:
    return {split: np.resize(np.array(values, np.uint8), (count, 1)) for split, count in COUNTS.items()}


def by_name(scans: Path) -> dict[str, ScanFile]:
    return {file.relative: file for file in list_scans(scans).files}


def test_every_picture_is_a_scan(tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "pneumoniamnist.npz", column(1, 0, 1))
    for scans, prefix in ((path, ""), (tmp_path / "in", ""), (tmp_path, "in/")):
        listing = list_scans(scans)
        assert (listing.layout, listing.others) == ("MedMNIST (pneumoniamnist)", 0)
        assert len(listing.files) == len({file.scan_id for file in listing.files}) == sum(COUNTS.values())
        file = {file.relative: file for file in listing.files}[f"{prefix}pneumoniamnist.npz/train/00002"]
        assert (file.label, file.class_name, file.split, file.member) == (1, "pneumonia", "train", "train/2")
        assert (file.path, file.label_source, file.patient) == (path, "pneumoniamnist.npz", None)
        scan = read_scan(file)
        assert (scan.bits, scan.facts) == (8, {"format": "NPZ"})
        np.testing.assert_array_equal(np.rint(scan.pixels * 255), PICTURES["train"][2])
    assert {file.split for file in listing.files} == set(COUNTS)


@pytest.mark.parametrize(
    ("name", "labels", "expected", "noted"),
    [
        ("pneumoniamnist_128", column(0, 1), [(0, "normal"), (1, "pneumonia"), (0, "normal")], False),
        ("octmnist", column(3, 0), [(None, "3"), (None, "0"), (None, "3")], True),
        (
            "chestmnist",
            {
                split: np.eye(14, dtype=np.uint8)[np.arange(n) % 3] * (np.arange(n) > 0)[:, None]
                for split, n in COUNTS.items()
            },
            [(0, "no finding"), (1, "cardiomegaly"), (1, "effusion")],
            False,
        ),
    ],
)
def test_labels(
    tmp_path: Path, name: str, labels: dict[str, np.ndarray], expected: list[tuple[int | None, str]], noted: bool
) -> None:
    listing = list_scans(save(tmp_path / f"{name}.npz", labels))
    assert [(file.label, file.class_name) for file in listing.files if file.split == "val"] == expected
    assert any("manifest.csv" in note for note in listing.notes) == noted


def test_a_manifest_labels_members(tmp_path: Path) -> None:
    save(tmp_path / "octmnist.npz", column(3, 0))
    (tmp_path / "manifest.csv").write_text("path,label\noctmnist.npz/val/1,1\noctmnist.npz/val/00000,0\n")
    files = by_name(tmp_path)
    found = [
        (files[f"octmnist.npz/val/{i:05d}"].label, files[f"octmnist.npz/val/{i:05d}"].class_name) for i in range(3)
    ]
    assert found == [(0, None), (1, None), (None, "3")]
    first, second = list_scans((tmp_path / "manifest.csv").rename(tmp_path / "mine.csv")).files
    assert first == replace(files["octmnist.npz/val/00001"], class_name=None)
    np.testing.assert_array_equal(np.rint(read_scan(second).pixels * 255), PICTURES["val"][0])


def test_only_the_pictures_own_bytes_are_passed_on_and_decoded(tmp_path: Path) -> None:
    file = by_name(save(tmp_path / "pneumoniamnist.npz", column(1)))["pneumoniamnist.npz/test/00003"]
    data = file_bytes(file)
    assert len(data) < 2 * 28 * 28
    assert data != file_bytes(by_name(file.path)["pneumoniamnist.npz/test/00002"])
    file.path.unlink()
    np.testing.assert_array_equal(np.rint(decode_scan(file, data).pixels * 255), PICTURES["test"][3])


def test_more_than_100_000_pictures_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly.scans.walk.read_labels", lambda _path: {"train": np.zeros((100_002, 1), np.int64)})
    (tmp_path / "tissuemnist.npz").write_bytes(b"")
    numbers = [int(file.relative.rpartition("/")[2]) for file in list_scans(tmp_path).files]
    assert numbers == list(range(100_002))


def test_colour_pictures(tmp_path: Path) -> None:
    pictures = {"train": np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3)).astype(np.uint8)}
    (file, _) = list_scans(save(tmp_path / "pathmnist.npz", {"train": np.zeros((2, 1), int)}, pictures)).files
    np.testing.assert_array_equal(np.rint(read_scan(file, channels=3).pixels * 255), pictures["train"][0])


def test_blocks_give_the_same_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_BLOCK_BYTES", 2 * 28 * 28)
    monkeypatch.setattr(npz, "_BLOCKS_KEPT", 2)
    npz._pictures.cache_clear()
    path = save(tmp_path / "pneumoniamnist.npz", column(1))
    files = by_name(path)
    for index in (0, 8, 3, 3, 7, 0, 1, 5, 8, 2):
        pixels = read_scan(files[f"pneumoniamnist.npz/train/{index:05d}"]).pixels
        np.testing.assert_array_equal(np.rint(pixels * 255), PICTURES["train"][index])
    assert len(npz._pictures(path, path.stat().st_size, path.stat().st_mtime_ns, "train")._blocks) == 2


def test_a_changed_archive_is_read_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "pneumoniamnist.npz", column(1))
    file = by_name(path)["pneumoniamnist.npz/train/00000"]
    before = file_bytes(file)
    save(path, column(1), {split: 255 - array for split, array in PICTURES.items()})
    assert file_bytes(file) != before


def broken(data: bytes, where: str) -> bytes:
    """Return an archive with one array damaged inside its compressed bytes."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        start = archive.getinfo(where).header_offset
    at = start + 20_000  # listing reads the first few thousand bytes of it
    return data[:at] + bytes(255 - byte for byte in data[at : at + 40]) + data[at + 40 :]


def test_damaged_pictures_fail_one_by_one_with_a_sentence(tmp_path: Path) -> None:
    large = {s: np.random.default_rng(n).integers(0, 256, (n, 128, 128)).astype(np.uint8) for s, n in COUNTS.items()}
    path = save(tmp_path / "pneumoniamnist.npz", column(1), large)
    path.write_bytes(broken(path.read_bytes(), "val_images.npy"))
    files = by_name(path)
    for name in ("val/00000", "val/00002"):
        with pytest.raises(ScanError, match=rf"pneumoniamnist\.npz/{name}: is damaged .*; download it again"):
            read_scan(files[f"pneumoniamnist.npz/{name}"])
    assert read_scan(files["pneumoniamnist.npz/test/00000"]).pixels.shape == (128, 128)


@pytest.mark.parametrize(
    ("pictures", "labels", "words"),
    [
        (np.zeros((2, 28, 28, 28), np.uint8), np.zeros((2, 1), int), "volumes"),
        (np.zeros((2, 28, 28), np.float32), np.zeros((2, 1), int), "8-bit"),
        (np.zeros((2, 28, 28), np.uint8), np.zeros((3, 1), int), "damaged"),
        (np.zeros((2, 28, 28), np.uint8), np.array([["a"], ["b"]]), "damaged"),
        (np.zeros((2, 28, 28), np.uint8), np.array([[None], [{}]], dtype=object), "damaged"),
    ],
)
def test_what_is_not_fit_to_read(tmp_path: Path, pictures: np.ndarray, labels: np.ndarray, words: str) -> None:
    path = save(tmp_path / "in" / "thing.npz", {"train": labels}, {"train": pictures})
    with pytest.raises(DataError, match=rf"thing\.npz: .*{words}"):
        list_scans(path)
    with pytest.raises(DataError, match="no image"):
        list_scans(tmp_path / "in")


def test_strangers(tmp_path: Path) -> None:
    save(tmp_path / "pneumoniamnist.npz", column(1))
    np.savez(tmp_path / "features.npz", features=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "features.npz").read_bytes()[:50])
    listing = list_scans(tmp_path)
    assert len(listing.files) == sum(COUNTS.values())
    assert listing.others == 3
    assert any("1 .npz file passed over; the first: cut.npz is damaged" in note for note in listing.notes)
    with pytest.raises(DataError, match=r"features\.npz.*MedMNIST form"):
        list_scans(tmp_path / "features.npz")
    with pytest.raises(DataError, match=r"cut\.npz: is damaged"):
        list_scans(tmp_path / "cut.npz")
    with pytest.raises(DataError, match=r"array\.npy"):
        list_scans(tmp_path / "array.npy")
    with pytest.raises(ScanError, match="holds no picture train/99"):
        read_scan(ScanFile("x", tmp_path / "pneumoniamnist.npz", "x", member="train/99"))
