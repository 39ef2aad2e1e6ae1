from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from dicom_recipes import ABSENT, lut, read, recipe
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_voi_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian

from anomaly.errors import ScanError
from anomaly.scans.luts import look_up, window

RNG = np.random.default_rng(1)
STRETCHED = "no window in its header"


def noise(low: int, high: int, dtype: str = "u2") -> np.ndarray:
    """Values that reach from low to high, both included."""
    values = RNG.integers(low, high + 1, (32, 40)).astype(dtype)
    values.flat[0], values.flat[1] = low, high
    return values


BYTES, TWELVE, SIGNED = noise(0, 255, "u1"), noise(0, 4095), noise(-2048, 2047, "i2")
PART, DEEP = noise(100, 2100), noise(0, 65535)
CURVE = np.rint(65535 * np.linspace(0, 1, 4096) ** 2).astype(int)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
NARROW = {"WindowCenter": 1000, "WindowWidth": 500, "VOILUTFunction": "LINEAR_EXACT"}


def narrow(values: np.ndarray) -> np.ndarray:
    return np.clip((values - 750) / 500, 0, 1)


@dataclass(frozen=True)
class Row:
    """A header recipe and what is seen: `expected` takes the stored values as float64."""

    name: str
    stored: np.ndarray
    bits: int
    tags: dict[str, Any]
    expected: Callable[[np.ndarray], np.ndarray]
    warnings: tuple[str, ...] = ()
    pydicom: bool = True
    """Whether pydicom's own transforms, applied by hand, say the same."""
    tolerance: float = field(default=1e-6)


def voi(*items: Dataset) -> dict[str, Any]:
    return {"VOILUTSequence": list(items)}


def several(count: int, what: str = "windows") -> tuple[str, ...]:
    return (f"{count} {what} in its header: the first is used",)


M1 = {"PhotometricInterpretation": "MONOCHROME1"}
PADDED = np.where(TWELVE < 300, 0, TWELVE).astype("u2")
BEYOND = np.where(PART < 300, 65535, PART).astype("u2")
UPPER = "HighBit is not BitsStored - 1"
ROWS = (
    # photometric interpretation and depth: 8 bits keep their range, deeper films without window are stretched
    Row("MONOCHROME2, 8 bits", noise(10, 200, "u1"), 8, {}, lambda s: s / 255),
    Row("MONOCHROME1, 8 bits", BYTES, 8, M1, lambda s: 1 - s / 255),
    Row("10 bits", noise(0, 1023), 10, {}, lambda s: s / 1023),
    Row("12 bits", TWELVE, 12, {}, lambda s: s / 4095),
    Row("14 bits", noise(0, 16383), 14, M1, lambda s: 1 - s / 16383),
    Row("16 bits", DEEP, 16, {}, lambda s: s / 65535),
    Row("12 bits in what claims 16", TWELVE, 16, {}, lambda s: s / 4095, (STRETCHED,)),
    Row("a small part of the range", PART, 16, M1, lambda s: 1 - (s - 100) / 2000, (STRETCHED,)),
    Row("signed", SIGNED, 12, {}, lambda s: (s + 2048) / 4095),
    Row("signed, in part", noise(-300, 700, "i2"), 16, {}, lambda s: (s + 300) / 1000, (STRETCHED,)),
    Row("8 bits signed", noise(-128, 127, "i1"), 8, {}, lambda s: (s + 128) / 255),
    Row("bits above BitsStored", TWELVE | 0xA000, 12, {}, lambda s: (s % 4096) / 4095),
    # samples that do not start at the lowest bit
    Row("the upper 12 of 16", TWELVE << 4 | 7, 12, {"HighBit": 15}, lambda s: (s >> 4) / 4095, (UPPER,), False),
    Row(
        "12 in the middle", TWELVE << 2 | 0x4001, 12, {"HighBit": 13}, lambda s: s % 2**14 // 4 / 4095, (UPPER,), False
    ),
    Row("the upper 12, signed", SIGNED << 4, 12, {"HighBit": 15}, lambda s: (s // 16 + 2048) / 4095, (UPPER,), False),
    Row(
        "the upper 12, MONOCHROME1 and a window",
        TWELVE << 4,
        12,
        {"HighBit": 15} | M1 | NARROW,
        lambda s: 1 - narrow(s >> 4),
        (UPPER,),
        False,
    ),
    Row("the upper 6 of 8", BYTES, 6, {"HighBit": 7}, lambda s: (s >> 2) / 63, (UPPER,), False),
    Row("no HighBit", TWELVE, 12, {"HighBit": ABSENT}, lambda s: s / 4095),
    # the modality step
    Row("rescale", PART, 12, {"RescaleSlope": 2, "RescaleIntercept": -1000}, lambda s: (s - 100) / 2000, (STRETCHED,)),
    Row("negative slope", TWELVE, 12, {"RescaleSlope": -1, "RescaleIntercept": 4095}, lambda s: 1 - s / 4095),
    Row(
        "slope -10 and a window",
        TWELVE,
        12,
        {"RescaleSlope": -10, "RescaleIntercept": 40950, "WindowCenter": 20475.5, "WindowWidth": 40951},
        lambda s: 1 - s / 4095,
        pydicom=False,
    ),
    Row(
        "slope and a window in rescaled units",
        TWELVE,
        12,
        {"RescaleSlope": 2, "RescaleIntercept": -1000, **NARROW},
        lambda s: narrow(2 * s - 1000),
    ),
    Row(
        "empty rescale tags", TWELVE, 12, {"RescaleSlope": None, "RescaleIntercept": None, **NARROW}, narrow, (), False
    ),
    Row(
        "modality LUT", TWELVE, 12, {"ModalityLUTSequence": [lut(CURVE[::-1], 0, 16)]}, lambda s: CURVE[::-1][s] / 65535
    ),
    # windows
    Row("full window", TWELVE, 12, WINDOW, lambda s: s / 4095),
    Row("linear", TWELVE, 12, {"WindowCenter": 1000, "WindowWidth": 501}, lambda s: np.clip((s - 749.5) / 500, 0, 1)),
    Row("linear exact", TWELVE, 12, NARROW, narrow),
    Row("linear exact, MONOCHROME1", TWELVE, 12, NARROW | M1, lambda s: 1 - narrow(s)),
    Row(
        "sigmoid",
        TWELVE,
        12,
        NARROW | {"VOILUTFunction": "SIGMOID"},
        lambda s: 1 / (1 + np.exp(-4 * (s - 1000) / 500)),
    ),
    Row("signed and a window", SIGNED, 12, NARROW | {"WindowCenter": 0}, lambda s: np.clip((s + 250) / 500, 0, 1)),
    Row(
        "several windows",
        TWELVE,
        12,
        NARROW | {"WindowCenter": [1000, 9, 9], "WindowWidth": [500, 1, 2]},
        narrow,
        several(3),
    ),
    Row("empty window tags", TWELVE, 12, {"WindowCenter": "", "WindowWidth": None}, lambda s: s / 4095, (), False),
    Row("a window without center", TWELVE, 12, {"WindowWidth": 100}, lambda s: s / 4095, (), False),
    Row("no width", TWELVE, 12, {"WindowCenter": 9, "WindowWidth": 0}, lambda s: s / 4095, ("window ignored",), False),
    Row(
        "unknown window function",
        TWELVE,
        12,
        WINDOW | {"VOILUTFunction": "ODD"},
        lambda s: s / 4095,
        ("unknown",),
        False,
    ),
    Row("FOR PRESENTATION", TWELVE, 12, WINDOW | {"PresentationIntentType": "FOR PRESENTATION"}, lambda s: s / 4095),
    Row(
        "FOR PROCESSING",
        PART,
        14,
        {"PresentationIntentType": "FOR PROCESSING"},
        lambda s: (s - 100) / 2000,
        ("FOR PROCESSING", STRETCHED),
    ),
    # VOI LUTs
    Row("VOI LUT, 16 bits", TWELVE, 12, voi(lut(CURVE, 0, 16)), lambda s: CURVE[s] / 65535),
    Row("VOI LUT, 12 bits", TWELVE, 12, voi(lut(CURVE >> 4, 0, 12)), lambda s: (CURVE[s] >> 4) / 4095),
    Row("VOI LUT, 8 bits, 256 entries", BYTES, 8, voi(lut(range(255, -1, -1), 0, 8)), lambda s: 1 - s / 255),
    Row(
        "VOI LUT, 8 bits, 4096 entries",
        TWELVE,
        12,
        voi(lut(CURVE >> 8, 0, 8)),
        lambda s: (CURVE[s] >> 8) / 255,
        (),
        False,
    ),
    Row(
        "VOI LUT, 8 bits, packed two to a word",
        TWELVE,
        12,
        voi(lut(CURVE >> 8, 0, 8, words=False)),
        lambda s: (CURVE[s] >> 8) / 255,
        pydicom=False,
    ),
    Row("VOI LUT before a window", TWELVE, 12, voi(lut(CURVE, 0, 16)) | NARROW, lambda s: CURVE[s] / 65535),
    Row(
        "two VOI LUTs",
        TWELVE,
        12,
        voi(lut(CURVE, 0, 16), lut(CURVE // 2, 0, 16)),
        lambda s: CURVE[s] / 65535,
        several(2, "VOI look-up tables"),
    ),
    Row(
        "VOI LUT that says 16 bits and uses 12",
        TWELVE,
        12,
        voi(lut(CURVE >> 4, 0, 16)),
        lambda s: (CURVE[s] >> 4) / 4095,
        ("says 16 bits but uses 12",),
        pydicom=False,
    ),
    Row(
        "VOI LUT that says 16 bits and uses 9",
        TWELVE,
        12,
        voi(lut(CURVE >> 7, 0, 16)) | M1,
        lambda s: 1 - (CURVE[s] >> 7) / 1023,
        ("says 16 bits but uses 10",),
        pydicom=False,
    ),
    Row(
        "VOI LUT whose first entries are its least",
        TWELVE,
        12,
        voi(lut(CURVE // 2 + 1, 0, 16)),
        lambda s: (CURVE[s] // 2 + 1) / 65535,
    ),
    Row("VOI LUT, MONOCHROME1", TWELVE, 12, voi(lut(CURVE, 0, 16)) | M1, lambda s: 1 - CURVE[s] / 65535),
    Row(
        "VOI LUT that starts later",
        TWELVE,
        12,
        voi(lut(CURVE[2048:], 1000, 16)),
        lambda s: CURVE[2048 + np.clip(s - 1000, 0, 2047)] / 65535,
    ),
    Row("VOI LUT that starts below zero", SIGNED, 12, voi(lut(CURVE, -2048, 16)), lambda s: CURVE[s + 2048] / 65535),
    Row(
        "VOI LUT whose first value is signed only by its meaning",
        TWELVE,
        12,
        voi(lut(CURVE, 65536 - 2048, 16)) | {"RescaleSlope": 1, "RescaleIntercept": -2048},
        lambda s: CURVE[s] / 65535,
        pydicom=False,
    ),
    # presentation: inverted once, by MONOCHROME1, whatever PresentationLUTShape says
    Row(
        "INVERSE with MONOCHROME1",
        TWELVE,
        12,
        WINDOW | M1 | {"PresentationLUTShape": "INVERSE"},
        lambda s: 1 - s / 4095,
    ),
    Row("IDENTITY with MONOCHROME2", TWELVE, 12, WINDOW | {"PresentationLUTShape": "IDENTITY"}, lambda s: s / 4095),
    Row(
        "INVERSE with MONOCHROME2",
        TWELVE,
        12,
        WINDOW | {"PresentationLUTShape": "INVERSE"},
        lambda s: s / 4095,
        ("contradicts",),
    ),
    Row(
        "IDENTITY with MONOCHROME1",
        TWELVE,
        12,
        WINDOW | M1 | {"PresentationLUTShape": "IDENTITY"},
        lambda s: 1 - s / 4095,
        ("contradicts",),
    ),
    # padding: no part of the range, black in the end
    Row(
        "padding without window",
        np.where(PART < 300, 0, PART).astype("u2"),
        12,
        {"PixelPaddingValue": 0},
        lambda s: np.where(s == 0, 0, (s - 300) / 1800),
        (STRETCHED,),
        tolerance=2e-3,  # the least of the random values need not be 300
    ),
    Row("white padding", TWELVE, 12, WINDOW | {"PixelPaddingValue": 4095}, lambda s: np.where(s == 4095, 0, s / 4095)),
    Row(
        "padding, MONOCHROME1",
        PADDED,
        12,
        WINDOW | M1 | {"PixelPaddingValue": 0},
        lambda s: np.where(s == 0, 0, 1 - s / 4095),
    ),
    Row(
        "a range of padding",
        TWELVE,
        12,
        NARROW | M1 | {"PixelPaddingValue": 900, "PixelPaddingRangeLimit": 800},
        lambda s: np.where((s >= 800) & (s <= 900), 0, 1 - narrow(s)),
    ),
    Row(
        "signed padding written unsigned",
        np.where(SIGNED < -1500, -2000, SIGNED).astype("i2"),
        16,
        NARROW | M1 | {"PixelPaddingValue": -2000},
        lambda s: np.where(s == -2000, 0, 1 - narrow(s)),
    ),
    Row(
        "padding beyond BitsStored",
        BEYOND,
        12,
        {"PixelPaddingValue": 65535},
        lambda s: np.where(s == 65535, 0, (s - 300) / 1800),
        (STRETCHED,),
        pydicom=False,
        tolerance=2e-3,
    ),
    Row(
        "a range of padding beyond BitsStored",
        BEYOND,
        12,
        {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535},
        lambda s: np.where(s == 65535, 0, (s - 300) / 1800),
        (STRETCHED,),
        pydicom=False,
        tolerance=2e-3,
    ),
    Row(
        "signed padding beyond BitsStored",
        np.where(SIGNED < 0, -32767, SIGNED).astype("i2"),
        12,
        NARROW | M1 | {"PixelPaddingValue": -32767},
        lambda s: np.where((s == -32767) | (s == 1), 0, 1 - narrow(s)),
        pydicom=False,
    ),
    Row(
        "padding beyond BitsStored that no pixel has: white stays white",
        TWELVE,
        12,
        WINDOW | {"PixelPaddingValue": 65535},
        lambda s: s / 4095,
    ),
    Row(
        "padding in the upper 12 of 16",
        np.where(TWELVE < 300, 65520, TWELVE << 4).astype("u2"),
        12,
        WINDOW | {"HighBit": 15, "PixelPaddingValue": 65520},
        lambda s: np.where(s == 65520, 0, (s >> 4) / 4095),
        (UPPER,),
        pydicom=False,
    ),
)


def by_hand(data: Dataset) -> np.ndarray:
    """What pydicom's transform functions give, brought to [0, 1] by the range they say they use."""
    values = apply_modality_lut(data.pixel_array, data)
    shown = apply_voi_lut(values, data, prefer_lut=True).astype(np.float64)
    padding = np.zeros(shown.shape, bool)
    if "PixelPaddingValue" in data:
        ends = sorted((data.PixelPaddingValue, data.get("PixelPaddingRangeLimit", data.PixelPaddingValue)))
        padding = (data.pixel_array >= ends[0]) & (data.pixel_array <= ends[1])
    signed = data.PixelRepresentation
    limits = np.array([-(2 ** (data.BitsStored - 1)) if signed else 0, 2 ** (data.BitsStored - signed) - 1])
    if data.get("VOILUTSequence"):
        low, high = 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowWidth" not in data and data.BitsStored > 8:
        low, high = shown[~padding].min(), shown[~padding].max()
    else:
        low, high = np.sort(limits * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0)))
    fraction = (shown - low) / (high - low)
    if data.PhotometricInterpretation == "MONOCHROME1":
        fraction = 1 - fraction
    return np.where(padding, 0, fraction)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_a_header_describes_is_what_is_read(row: Row) -> None:
    data = recipe(row.stored, bits=row.bits, **row.tags)
    scan = read(data)
    stored = row.stored.astype(np.int64)
    assert scan.pixels.dtype == np.float32
    assert np.allclose(scan.pixels, row.expected(stored), atol=row.tolerance)
    assert len(scan.warnings) == len(row.warnings), scan.warnings
    for words, note in zip(row.warnings, scan.warnings, strict=True):
        assert words in note
    assert scan.bits == max(8, row.bits)
    if row.pydicom:
        assert np.allclose(scan.pixels, by_hand(data), atol=1e-6)


def test_padding_beyond_the_stored_bits_is_found_in_big_endian() -> None:
    cells = np.where(PART < 300, 0xE7D1, PART).astype("u2")  # 0x7D1 stored
    data = recipe(cells, bits=12, PixelPaddingValue=0xE7D1, **WINDOW)
    data.file_meta.TransferSyntaxUID, data.PixelData = ExplicitVRBigEndian, cells.astype(">u2").tobytes()
    assert np.allclose(read(data).pixels, np.where((cells == 0xE7D1) | (cells == 0x7D1), 0, cells / 4095), atol=1e-6)


HIGHDICOM = [
    row for row in ROWS if {"WindowWidth", "VOILUTSequence"} & set(row.tags) and "PixelPaddingValue" not in row.tags
]
NOT_IN_HIGHDICOM = {
    "slope -10 and a window": "it takes LINEAR's half step (C.11.2.1.2.1) in stored units: 3e-4 off",
    "empty window tags": "it takes them for a window",
    "a window without center": "it takes it for a window",
    "no width": "it divides by it",
    "unknown window function": "it refuses",
    "VOI LUT, 12 bits": "it reads 8 and 16 bits only",
    "VOI LUT, 8 bits, 256 entries": "it takes 8-bit entries to be bytes",
    "VOI LUT, 8 bits, 4096 entries": "it takes 8-bit entries to be bytes",
    "VOI LUT that says 16 bits and uses 9": "it stretches a table to the entries that occur in it",
    "VOI LUT whose first entries are its least": "it stretches a table to the entries that occur in it",
    "INVERSE with MONOCHROME2": "it follows PresentationLUTShape, which contradicts",
    "IDENTITY with MONOCHROME1": "it follows PresentationLUTShape, which contradicts",
    "the upper 12, MONOCHROME1 and a window": "it pays no heed to HighBit",
    "VOI LUT that starts later": "it stretches a table to the entries that occur in it",
    "VOI LUT whose first value is signed only by its meaning": "it reads the first value as it is written",
}


@pytest.mark.parametrize(
    "row", [row for row in HIGHDICOM if row.name not in NOT_IN_HIGHDICOM], ids=lambda row: row.name
)
def test_values_agree_with_highdicoms_presentation_transform(row: Row) -> None:
    highdicom = pytest.importorskip("highdicom")
    data = recipe(row.stored, bits=row.bits, **row.tags)
    image = highdicom.Image.from_dataset(data)
    theirs = image.get_frame(1, dtype=np.float64, apply_voi_transform=True, voi_output_range=(0.0, 1.0))
    assert np.allclose(read(data).pixels, theirs, atol=1e-6)


# ---- why the two look-up steps are our own: when one of these fails, pydicom has been mended -------------------------


def test_pydicom_wraps_around_in_a_lut_of_8_bit_entries() -> None:
    data = recipe(TWELVE, bits=12, **voi(lut(CURVE >> 8, 0, 8)))
    assert not np.array_equal(apply_voi(TWELVE, data), (CURVE >> 8)[TWELVE])
    assert np.array_equal(apply_voi(TWELVE, data), (CURVE >> 8)[TWELVE % 256])


def test_pydicom_turns_the_picture_negative_when_the_slope_is() -> None:
    data = recipe(TWELVE, bits=12, RescaleSlope=-1, RescaleIntercept=4095, **WINDOW)
    values = apply_modality_lut(TWELVE, data)
    assert np.corrcoef(apply_windowing(values, data).ravel(), values.ravel())[0, 1] < -0.99


# ---- arithmetic ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_agrees_with_pydicom(function: str) -> None:
    data = recipe(TWELVE, bits=12, WindowCenter=1500, WindowWidth=700, VOILUTFunction=function)
    theirs = apply_windowing(TWELVE, data) / 4095
    assert np.allclose(window(TWELVE.astype(np.float64), 1500, 700, function), theirs, atol=1e-9)


def test_narrowest_window_is_a_step_and_luts_hold_their_ends() -> None:
    values = np.array([9.0, 10.0, 11.0])
    assert window(values, 10.5, 1, "LINEAR").tolist() == [0, 0, 1]
    assert look_up(np.array([-5, 3, 4, 99]), np.array([7.0, 8.0]), 3).tolist() == [7, 7, 8, 8]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"RescaleSlope": 0}, "RescaleSlope"),
        ({"RescaleSlope": "1e999"}, "RescaleSlope"),
        (voi(lut(CURVE, 0, 20)), "look-up table of 20 bits"),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65535}, "same value"),
        (WINDOW | {"WindowCenter": 90000}, "same value"),
        ({"HighBit": 10}, "HighBit 10, impossible with 12 bits stored; "),
        ({"HighBit": 16}, "HighBit 16, impossible with 12 bits stored; "),
        ({"HighBit": [11, 11]}, "no usable HighBit"),
    ],
)
def test_values_that_make_no_picture_are_refused(tags: dict[str, Any], words: str) -> None:
    with pytest.raises(ScanError, match=words):
        read(recipe(TWELVE, bits=12, **tags))


def test_short_look_up_table_is_refused() -> None:
    item = lut(CURVE, 0, 16)
    item.LUTData = item.LUTData[:100]
    with pytest.raises(ScanError, match="shorter than it says"):
        read(recipe(TWELVE, bits=12, **voi(item)))


def test_colour_capture_keeps_its_colour_if_asked() -> None:
    colour = RNG.integers(0, 256, (32, 40, 3)).astype(np.uint8)
    data = recipe(colour, bits=8, Modality="OT")
    assert np.array_equal(read(data, channels=3).pixels, colour.astype(np.float32) / np.float32(255))
    grey = read(data)
    assert grey.pixels.shape == (32, 40)
    assert any("colour" in note for note in grey.warnings)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_in_upper_bits_is_moved_down_before_its_colours_change(photometric: str) -> None:
    colour = RNG.integers(0, 128, (32, 40, 3)).astype(np.uint8)
    data = recipe(colour << 1, bits=7, HighBit=7, Modality="OT", PhotometricInterpretation=photometric)
    if photometric == "YBR_FULL":
        with pytest.raises(ScanError, match="YBR colours with HighBit 7 for 7 bits stored; export it as RGB"):
            read(data)
    else:
        assert np.array_equal(read(data, channels=3).pixels, colour.astype(np.float32) / np.float32(127))


def test_colour_capture_of_a_grey_film_is_grey() -> None:
    scan = read(recipe(np.dstack([BYTES] * 3), bits=8, Modality="SC"))
    assert scan.warnings == ()
    assert np.allclose(scan.pixels, BYTES / 255, atol=1e-6)
