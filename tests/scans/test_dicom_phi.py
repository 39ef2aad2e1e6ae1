"""What a header says of people and places: told on request, and never otherwise."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import traceback
from collections.abc import Callable

import numpy as np
import pytest
from dicom_recipes import read, recipe, saved
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from anomaly.errors import ScanError
from anomaly.scans.dicom_phi import read_phi

CANARY = "CANARY"
NUMBER = "2718281828"
DAY = "27180828"
PIXELS = np.random.default_rng(3).integers(0, 4096, (32, 40)).astype(np.uint16)
STEERING = {"PhotometricInterpretation", "SpecificCharacterSet"}
TEXT = {
    entry[4]: entry[0]
    for tag, entry in DicomDictionary.items()
    if entry[0] in ("LO", "SH", "PN", "LT", "ST", "UT", "UC", "AE", "CS", "UR")
    and entry[4]
    and entry[1].startswith("1")
    and tag >> 16 not in (0x0000, 0x0002, 0x0004)
    and entry[4] not in STEERING
}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
DATES = ("StudyDate", "ContentDate", "PatientBirthDate")


def told() -> Dataset:
    """A film whose every text is a canary; only the photometric interpretation is what it must be."""
    data = recipe(PIXELS, bits=12, WindowCenter="2048.111", WindowWidth="4096.222", RescaleSlope="1.000000")
    data.RescaleIntercept, data.PixelSpacing, data.NumberOfFrames = "0.00000", ["0.143", "0.143"], "000001"
    for keyword in TEXT:
        setattr(data, keyword, CANARY)
    for keyword in UIDS:
        setattr(data, keyword, f"2.25.{NUMBER}")
    for keyword in DATES:
        setattr(data, keyword, DAY)
    block = data.private_block(0x0011, CANARY, create=True)
    block.add_new(0x01, "LO", CANARY)
    data.OtherPatientIDsSequence = [Dataset()]
    data.OtherPatientIDsSequence[0].PatientID = CANARY
    return data


@functools.cache
def told_file() -> bytes:
    return saved(told())


def silent(text: str) -> bool:
    return CANARY.lower() not in text.lower() and NUMBER not in text and DAY not in text


def swap(old: bytes, new: str = CANARY) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert data.count(old) == 1, old
        return data.replace(old, new.encode().ljust(len(old))[: len(old)])

    return change


def without(keyword: str) -> Callable[[bytes], bytes]:
    def change(_data: bytes) -> bytes:
        dataset = told()
        delattr(dataset, keyword)
        return saved(dataset)

    return change


def with_value(keyword: str, value: object) -> Callable[[bytes], bytes]:
    def change(_data: bytes) -> bytes:
        dataset = told()
        setattr(dataset, keyword, value)
        return saved(dataset)

    return change


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in the header": lambda data: data[: len(data) // 3],
    "cut in the pixels": lambda data: data[:-100],
    "photometric": swap(b"MONOCHROME2"),
    "slope": swap(b"1.000000"),
    "intercept": swap(b"0.00000 "),
    "frames": swap(b"000001"),
    "window": swap(b"2048.111"),
    "window width": swap(b"4096.222"),
    "transfer syntax": swap(b"1.2.840.10008.1.2.1\0", f"2.25.{NUMBER}"),
    "no rows": without("Rows"),
    "no pixels": without("PixelData"),
    "no samples": without("SamplesPerPixel"),
    "depth": with_value("BitsAllocated", 12),
    "lengths": lambda data: re.sub(rb"LO\x06\x00CANARY", b"LO\xff\x7fCANARY", data),
    "kinds": lambda data: re.sub(rb"LO\x06\x00CANARY", b"FD\x06\x00CANARY", data),
    "a dose": with_value("Modality", "RTDOSE"),
}


def test_there_is_a_canary_in_every_text() -> None:
    assert len(TEXT) > 900
    assert told_file().count(CANARY.encode()) >= len(TEXT)


def test_no_text_of_a_film_read_well_leaves_the_reader() -> None:
    scan = read(told_file())
    assert silent(repr(scan))
    assert scan.patient is not None


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_no_text_of_a_damaged_film_leaves_the_reader(change: Callable[[bytes], bytes]) -> None:
    data = change(told_file())
    try:
        seen = repr(read(data))
    except ScanError as error:
        seen = "".join(traceback.format_exception(error))  # as -v shows it: causes, too
    assert silent(seen)


def test_what_a_codec_says_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_dataset: Dataset) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr("anomaly.scans.dicom_codecs._decode", decode)
    with pytest.raises(ScanError, match=r"cannot be decoded \(Explicit VR Little Endian\): ValueError; ") as caught:
        read(told_file())
    assert f"ValueError: {CANARY}" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_no_text_reaches_the_log_of_the_application(
    change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    data = change(told_file())
    data = data.replace(f"2.25.{NUMBER}".encode(), b"not-a-uid-CANA")
    caplog.clear()
    with caplog.at_level(logging.DEBUG), contextlib.suppress(ScanError):
        read(data)
    assert caplog.records == []


def test_most_of_the_damage_is_refused() -> None:
    refused = 0
    for change in DAMAGE.values():
        try:
            read(change(told_file()))
        except ScanError:
            refused += 1
    assert refused >= 10


def test_identifying_text_is_told_on_request() -> None:
    data = recipe(PIXELS, bits=12, PatientID="4711", PatientSex="F", StationName="XR\x1b\t 1", InstitutionName="")
    data.SpecificCharacterSet, data.PatientName = "ISO_IR 192", "Müller^Änne"
    phi = read_phi(saved(data))
    assert phi == {
        "PatientID": "4711",
        "PatientName": "Müller^Änne",
        "PatientSex": "F",
        "StationName": "XR 1",
        "StudyInstanceUID": "2.25.2",
        "SeriesInstanceUID": "2.25.3",
        "SOPInstanceUID": "2.25.1",
    }


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(128) + b"DICM", b"P" * 400])
def test_what_is_no_dicom_names_nobody(data: bytes) -> None:
    assert read_phi(data) == {}


def test_what_is_damaged_names_nobody() -> None:
    assert read_phi(DAMAGE["kinds"](told_file())) == {}
