from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from anomaly.errors import ScanError
from anomaly.records import Scan, ScanFile
from anomaly.scans.dicom import write_dicom
from anomaly.scans.luts import look_up, window
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


# ---- the order: modality, VOI, inversion last --------------------------------------------------------------------


def test_window_comes_before_the_inversion(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 1000, 500, "LINEAR_EXACT"

    scan = read(change(phantom(tmp_path / "a.dcm"), edit))
    expected = 1 - np.clip((PIXELS.astype(float) - 750) / 500, 0, 1)
    assert np.allclose(scan.pixels, expected, atol=1e-6)


def test_negative_slope_and_window_are_not_turned_negative(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = -10, 40950
        dataset.WindowCenter, dataset.WindowWidth = 20475.5, 40951

    scan = read(change(phantom(tmp_path / "a.dcm"), edit))
    assert np.allclose(scan.pixels, 1 - PIXELS / 4095, atol=1e-4)


def test_rescale_without_window_uses_the_stored_range(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000

    half = (PIXELS // 2).astype(np.uint16)
    assert np.allclose(read(change(phantom(tmp_path / "a.dcm", half), edit)).pixels, half / 4095, atol=1e-6)


def test_signed_pixels(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.PixelRepresentation = 1
        dataset.PixelData = (PIXELS.astype(np.int16) - 2048).astype("<i2").tobytes()

    assert np.allclose(read(change(phantom(tmp_path / "a.dcm"), edit)).pixels, PIXELS / 4095, atol=1e-6)


def test_voi_lut_comes_before_the_window_and_does_not_wrap(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 8]
        item.LUTData = [entry >> 4 for entry in range(4096)]
        item["LUTData"].VR = "US"
        dataset.VOILUTSequence = [item]
        dataset.WindowCenter, dataset.WindowWidth = 5, 5

    assert np.allclose(read(change(phantom(tmp_path / "a.dcm"), edit)).pixels, (PIXELS >> 4) / 255, atol=1e-6)


def test_modality_lut(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        item = Dataset()
        item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "US"
        item.LUTData = np.arange(65535, -1, -16, dtype="<u2")[:4096].tobytes()
        item["LUTData"].VR = "OW"
        dataset.ModalityLUTSequence = [item]
        del dataset.RescaleSlope
        del dataset.RescaleIntercept

    expected = (65535 - 16 * PIXELS.astype(int)) / 65535
    assert np.allclose(read(change(phantom(tmp_path / "a.dcm"), edit)).pixels, expected, atol=1e-6)


@pytest.mark.parametrize("empty", [None, "", []])
def test_empty_window_tags_mean_no_window(tmp_path: Path, empty: object) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.WindowCenter = dataset.WindowWidth = empty

    assert np.allclose(read(change(phantom(tmp_path / "a.dcm"), edit)).pixels, PIXELS / 4095, atol=1e-6)


def test_the_first_of_several_windows_is_taken(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.WindowCenter, dataset.WindowWidth = [2048, 100], [4096, 10]

    assert np.allclose(read(change(phantom(tmp_path / "a.dcm"), edit)).pixels, PIXELS / 4095, atol=1e-3)


def test_window_of_no_width_is_ignored_and_said(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.WindowCenter, dataset.WindowWidth = 2048, 0

    scan = read(change(phantom(tmp_path / "a.dcm"), edit))
    assert any("window" in note for note in scan.warnings)
    assert np.allclose(scan.pixels, PIXELS / 4095, atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_agrees_with_pydicom(function: str) -> None:
    from pydicom.pixels.processing import apply_windowing

    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 1500, 700, function
    theirs = apply_windowing(PIXELS, dataset) / 4095
    assert np.allclose(window(PIXELS.astype(np.float64), 1500, 700, function), theirs, atol=1e-9)


def test_narrowest_window_is_a_step_and_luts_hold_their_ends() -> None:
    values = np.array([9.0, 10.0, 11.0])
    assert window(values, 10.5, 1, "LINEAR").tolist() == [0, 0, 1]
    assert look_up(np.array([-5, 3, 4, 99]), np.array([7.0, 8.0]), 3).tolist() == [7, 7, 8, 8]


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


def test_warnings_name_what_matters(tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.Modality, dataset.ViewPosition, dataset.BurnedInAnnotation = "CT", "LL", "YES"

    notes = " | ".join(read(change(phantom(tmp_path / "a.dcm"), edit)).warnings)
    for word in ("CT", "lateral", "burned-in"):
        assert word in notes


def test_dark_film_without_window_is_said(tmp_path: Path) -> None:
    scan = read(phantom(tmp_path / "a.dcm", PIXELS, bits=16))
    assert any("dark" in note for note in scan.warnings)


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

    def slope(dataset: Dataset) -> None:
        dataset.RescaleSlope = 0

    refused(change(phantom(tmp_path / "slope.dcm"), slope), "RescaleSlope")


def test_constant_film(tmp_path: Path) -> None:
    refused(phantom(tmp_path / "a.dcm", np.full((40, 40), 1000, np.uint16)), "same value")


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "rtdose.dcm", "liver_1frame.dcm", "waveform_ecg.dcm"])
def test_objects_that_are_no_images(name: str) -> None:
    refused(shipped(name), "no radiograph")


def test_dicomdir() -> None:
    refused(shipped("dicomdirtests/DICOMDIR"), "DICOMDIR")


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm"])
def test_shipped_multi_frame(name: str) -> None:
    refused(shipped(name), "frames")


def test_every_shipped_file_is_a_picture_or_a_sentence() -> None:
    files = sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm"))
    for path in files:
        try:
            scan = read(path)
        except ScanError:  # anything else fails the test
            continue
        assert scan.pixels.dtype == np.float32
        assert 0 <= scan.pixels.min() < scan.pixels.max() <= 1


# ---- transfer syntaxes and odd containers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [f"MR_small_{kind}.dcm" for kind in ("RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded")],
)
def test_lossless_syntaxes_give_the_same_pixels(name: str) -> None:
    assert np.array_equal(read(shipped(name)).pixels, read(shipped("MR_small.dcm")).pixels)


@pytest.mark.parametrize("name", ["image_dfl.dcm", "SC_rgb_jpeg_gdcm.dcm", "examples_palette.dcm"])
def test_deflated_jpeg_lossless_and_palette_are_read(name: str) -> None:
    assert read(shipped(name)).pixels.ndim == 2


def test_colour_capture_keeps_its_colour_if_asked() -> None:
    path = shipped("SC_ybr_full_422_uncompressed.dcm")
    colour = read(path, channels=3)
    assert colour.pixels.shape == (100, 100, 3)
    assert read(path).pixels.shape == (100, 100)


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


def test_truncated_compressed_stream_is_refused(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate, get_frame

    dataset = pydicom.dcmread(shipped("MR_small_jp2klossless.dcm"))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2 * 2 // 2 // 2 * 2]])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    path = tmp_path / "half.dcm"
    path.write_bytes(buffer.getvalue())
    refused(path, "truncated")


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
