from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dicom_recipes as recipes
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from anomaly.errors import ScanError
from anomaly.records import Scan, ScanFile
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.patients import hash_patient
from anomaly.scans.read import read_scan

SHARED = Path(os.environ.get("ANOMALY_SHARED", "../shared"))
RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 4096, (33, 41)).astype(np.uint16)
PIXELS.flat[0], PIXELS.flat[1] = 0, 4095


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_SALT", "a salt for tests")


def read(path: Path, **settings: float) -> Scan:
    return read_scan(ScanFile("id", path, path.name), **settings)


def refused(path: Path, *words: str) -> str:
    with pytest.raises(ScanError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(path.name)
    assert "; " in message
    for word in words:
        assert word in message
    return message


def phantom(path: Path, pixels: np.ndarray = PIXELS, *, bits: int = 12, **options: Any) -> Path:
    write_dicom(path, pixels, bits=bits, **{"patient": "P-1", "spacing_mm": 0.14} | options)
    return path


def change(path: Path, edit: Callable[[Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def shipped(name: str) -> Path:
    """A file that lies inside the pydicom package; nothing is downloaded."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    if not (folder / name).exists():
        pytest.skip(f"this pydicom does not ship {name}")
    return folder / name


# ---- writing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_is_written_is_read_back(tmp_path: Path, bits: int, photometric: str) -> None:
    top = 2**bits - 1
    pixels = (PIXELS.astype(np.uint32) * top // 4095).astype(np.uint16)
    path = phantom(tmp_path / "a.dcm", pixels, bits=bits, photometric=photometric, view="AP")
    stored = pydicom.dcmread(path).pixel_array
    assert np.array_equal(stored, top - pixels if photometric == "MONOCHROME1" else pixels)
    scan = read(path)
    assert scan.pixels.dtype == np.float32
    assert np.allclose(scan.pixels, pixels / top, atol=1e-7)
    assert (scan.bits, scan.view, scan.spacing_mm, scan.warnings) == (bits, "AP", (0.14, 0.14), ())
    assert scan.facts["photometric"] == photometric
    assert scan.facts["transfer_syntax"] == "Explicit VR Little Endian"


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_window_written_is_the_full_range(tmp_path: Path, bits: int) -> None:
    """A deep film without window would be stretched to the values it uses, and differ from its 8-bit copy."""
    quarter = (PIXELS >> 6).astype(np.uint16)
    scan = read(phantom(tmp_path / "a.dcm", quarter, bits=bits))
    assert np.allclose(scan.pixels, quarter / (2**bits - 1), atol=1e-7)


def test_written_bytes_depend_on_the_arguments_alone(tmp_path: Path) -> None:
    first, second = phantom(tmp_path / "a.dcm").read_bytes(), phantom(tmp_path / "b.dcm").read_bytes()
    assert first == second
    assert phantom(tmp_path / "c.dcm", patient="P-2").read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcm", "b.dcm", "c.dcm"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10 bits"):
        phantom(tmp_path / "a.dcm", bits=10)
    with pytest.raises(ValueError, match="uint16"):
        phantom(tmp_path / "a.dcm", PIXELS.astype(np.float32))
    assert list(tmp_path.iterdir()) == []


def test_16_bit_ramp_keeps_its_levels(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    scan = read(phantom(tmp_path / "ramp.dcm", ramp, bits=16))
    assert len(np.unique(scan.pixels)) == 65536


# ---- what a header may leave ---------------------------------------------------------------------------------------


def test_no_header_value_leaves_but_the_few(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PatientName, dataset.InstitutionName, dataset.ViewPosition = "SECRET^NAME", "SECRET HOSPITAL", "SECRET"
        dataset.PatientID, dataset.StudyDescription = "SECRET-ID", "SECRET STUDY"

    scan = read(change(phantom(tmp_path / "a.dcm"), edit))
    assert "SECRET" not in repr(scan)
    assert scan.view is None
    assert scan.patient == hash_patient("SECRET-ID")


def test_refusals_quote_no_header_value(tmp_path: Path) -> None:
    path = phantom(tmp_path / "a.dcm")
    data = path.read_bytes()
    assert b"PIXELS" not in data
    path.write_bytes(data.replace(b"MONOCHROME2", b"SECRETNAMES"))
    assert "SECRET" not in refused(path, "Photometric")


@pytest.mark.parametrize("placeholder", ["", " ", "Anonymous", "0", "UNKNOWN"])
def test_placeholder_ids_make_no_group(tmp_path: Path, placeholder: str) -> None:
    assert read(phantom(tmp_path / "a.dcm", patient=placeholder)).patient is None


VIEWS: dict[str, tuple[dict[str, Any], str | None]] = {
    "position": ({"ViewPosition": "AP  SUPINE"}, "AP SUPINE"),
    "position wins": ({"ViewPosition": "PA", "code": "399348003"}, "PA"),
    "unknown position, SCT code": ({"ViewPosition": "FREE TEXT", "code": "272479007"}, "PA"),
    "AP": ({"ViewPosition": "", "code": "R-10206"}, "AP"),
    "PA, in the older code": ({"ViewPosition": "", "code": "R-10214"}, "PA"),
    "frontal": ({"ViewPosition": "", "code": "399033003"}, "FRONTAL"),
    "left lateral": ({"ViewPosition": "", "code": "R-10236"}, "LL"),
    "lateral": ({"ViewPosition": "", "code": "399067008"}, "LATERAL"),
    "another code": ({"ViewPosition": "", "code": "12345"}, None),
    "none": ({"ViewPosition": ""}, None),
}


@pytest.mark.parametrize(("tags", "view"), VIEWS.values(), ids=VIEWS)
def test_view_is_a_known_term_from_the_position_or_the_code(tags: dict[str, Any], view: str | None) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = tags.get("code", ""), "SRT", "SECRET"
    codes = {"ViewCodeSequence": [item]} if "code" in tags else {}
    scan = recipes.read(recipes.recipe(PIXELS, bits=12, ViewPosition=tags["ViewPosition"], **codes))
    assert scan.view == view
    assert any("lateral" in note for note in scan.warnings) == (view in ("LL", "LATERAL"))


def test_codes_of_views_are_those_of_the_standard() -> None:
    from pydicom.sr.codedict import codes

    from anomaly.scans.dicom_view import _CODES

    known = {code.value: code.meaning for name in codes.cid4010.dir() if (code := getattr(codes.cid4010, name))}
    words = {"PA": "postero-anterior", "AP": "antero-posterior", "LL": "left lateral", "RL": "right lateral"}
    words |= {"LAO": "left anterior oblique", "RAO": "right anterior oblique", "LPO": "left posterior oblique"}
    words |= {"RPO": "right posterior oblique", "FRONTAL": "frontal", "LATERAL": "lateral"}
    sct = {code: view for code, view in _CODES.items() if not code.startswith("R-")}
    assert {known[code]: view for code, view in sct.items()} == {words[view]: view for view in words}


WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "CT": ({"Modality": "CT"}, "a CT image"),
    "unknown modality": ({"Modality": "SECRET"}, "not marked as a radiograph"),
    "raw": ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING: raw detector values"),
    "burned in": ({"BurnedInAnnotation": "YES"}, "burned-in annotation"),
    "lateral": ({"ViewPosition": "LL"}, "lateral view"),
}


@pytest.mark.parametrize(("tags", "words"), WARNINGS.values(), ids=WARNINGS)
def test_warnings_name_what_matters(tags: dict[str, Any], words: str) -> None:
    assert recipes.read(recipes.recipe(PIXELS, bits=12)).warnings == ()
    scan = recipes.read(recipes.recipe(PIXELS, bits=12, **tags))
    assert len(scan.warnings) == 1
    assert words in scan.warnings[0]
    assert "SECRET" not in repr(scan)


def test_overlays_are_not_drawn_and_said() -> None:
    data = recipes.recipe(PIXELS, bits=12)
    plain = recipes.read(data).pixels
    data.add_new(0x60020010, "US", PIXELS.shape[0])
    data.add_new(0x60020011, "US", PIXELS.shape[1])
    data.add_new(0x60023000, "OW", b"\xff" * 256)
    scan = recipes.read(data)
    assert np.array_equal(scan.pixels, plain)
    assert ["overlay" in note for note in scan.warnings] == [True]


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0.6, 0.9, 0.97])
@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"])
def test_truncated_dicom_is_refused(tmp_path: Path, name: str, cut: float) -> None:
    data = shipped(name).read_bytes()
    path = tmp_path / "a.dcm"
    path.write_bytes(data[: int(len(data) * cut)])
    refused(path, "truncated")


@pytest.mark.parametrize("length", [140, 400, -2])
def test_dicom_cut_off_in_its_header_or_last_pixel_is_refused(tmp_path: Path, length: int) -> None:
    path = phantom(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:length])
    refused(path)


def test_nothing_is_printed_for_damaged_dicom(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("MR_small.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"):
        data = shipped(name).read_bytes()
        path = tmp_path / "a.dcm"
        path.write_bytes(data[: len(data) * 3 // 4])
        refused(path)
    assert capfd.readouterr() == ("", "")


def test_missing_pixels_multi_frame_and_odd_depths(tmp_path: Path) -> None:
    def drop(dataset: Dataset) -> None:
        del dataset.PixelData

    refused(change(phantom(tmp_path / "none.dcm"), drop), "PixelData")

    def frames(dataset: Dataset) -> None:
        dataset.NumberOfFrames = 30

    refused(change(phantom(tmp_path / "frames.dcm"), frames), "30 frames")

    def deep(dataset: Dataset) -> None:
        dataset.BitsAllocated = dataset.BitsStored = 32

    refused(change(phantom(tmp_path / "deep.dcm"), deep), "32 bits")

    def rows(dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 30000

    refused(change(phantom(tmp_path / "large.dcm"), rows), "too large")

    def small(dataset: Dataset) -> None:
        dataset.Rows = 1

    refused(change(phantom(tmp_path / "small.dcm"), small), "too small")


def test_frames_are_counted_however_they_are_written() -> None:
    assert recipes.read(recipes.recipe(PIXELS, bits=12, NumberOfFrames="01")).bits == 12
    with pytest.raises(ScanError, match=r"multi-frame \(2 frames\)"):
        recipes.read(recipes.recipe(PIXELS, bits=12, NumberOfFrames="02"))


def test_what_inflates_beyond_measure_is_refused_uninflated(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recipes.recipe(np.tile(PIXELS, (9, 9)), bits=12)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    deflated = recipes.saved(data)
    assert recipes.read(deflated).pixels.shape == (297, 369)
    monkeypatch.setattr("anomaly.scans.dicom_header._MAX_INFLATED", 2**16)
    with pytest.raises(ScanError, match="is deflated and grows beyond"):
        recipes.read(deflated)


def test_unknown_transfer_syntax_is_refused_without_its_name() -> None:
    data = recipes.saved(recipes.recipe(PIXELS, bits=12))
    data = data.replace(b"1.2.840.10008.1.2.1\0", b"2.25.12345678901234\0")
    with pytest.raises(ScanError, match=r"not read here \(unknown transfer syntax\)") as caught:
        recipes.read(data)
    assert "2.25" not in str(caught.value)


def test_constant_film(tmp_path: Path) -> None:
    refused(phantom(tmp_path / "a.dcm", np.full((40, 40), 1000, np.uint16)), "same value")


# ---- odd containers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_group_2", [True, False])
def test_without_preamble_and_by_content(tmp_path: Path, keep_group_2: bool) -> None:
    whole = phantom(tmp_path / "a.dcm")
    bare = tmp_path / "no_extension"
    data = whole.read_bytes()[132:]
    if not keep_group_2:
        length = int.from_bytes(data[8:12], "little")
        data = data[12 + length :]
    bare.write_bytes(data)
    assert np.array_equal(read(bare).pixels, read(whole).pixels)


@pytest.mark.real
def test_real_radiographs() -> None:
    folder = SHARED / "data" / "dicom"
    if not folder.exists():
        pytest.skip("no real films here")
    film = read(folder / "RG1_J2KI.dcm")
    assert (film.pixels.shape, film.bits, film.view) == ((1955, 1841), 15, "PA")
    assert film.facts["photometric"] == "MONOCHROME1"
    height, width = film.pixels.shape
    spine = film.pixels[height // 2 :, width // 2 - 60 : width // 2 + 60].mean()
    lung = film.pixels[height // 3 : height // 2, width // 4 : width // 3].mean()
    assert spine > lung, "bone is bright after the inversion"
    assert read(folder / "xrv_rsna_1.2.276.dcm").pixels.shape == (1024, 1024)
