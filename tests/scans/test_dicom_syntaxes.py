"""Every file that the pydicom package bundles, read or refused as the table says: transfer syntaxes, odd containers."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_recipes import read
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from anomaly.errors import ScanError

FOLDER = Path(pydicom.__file__).parent / "data"
DICOM = sorted(
    path
    for path in FOLDER.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".json", ".md", ".txt", ".pyc", ".icc", ".gz", ".dump")
)

NOTHING = "holds no radiograph"
INDEX = "is a DICOMDIR"
SMALL = "is too small"
FLAT = "every pixel has the same value"
READ = ""
TABLE = {
    # Explicit VR Little Endian, 8 bits: many alphabets in the header
    "charset_files/chr[AFGHRX]*.dcm": READ,
    "charset_files/chrI2.dcm": READ,
    "charset_files/chrJap*.dcm": "PixelData is missing",
    "charset_files/chrKoreanMulti.dcm": "PixelData is missing",
    "charset_files/chrSQ*.dcm": NOTHING,
    "palettes/*.dcm": NOTHING,
    # plain syntaxes: explicit, implicit, big endian, deflated; CT, MR, US, CR
    "test_files/CT_small.dcm": READ,
    "test_files/MR_small.dcm": READ,
    "test_files/MR_small_padded.dcm": READ,
    "test_files/MR_small_implicit.dcm": READ,
    "test_files/MR_small_bigendian.dcm": READ,
    "test_files/MR_small_expb.dcm": READ,
    "test_files/ExplVR_BigEnd.dcm": READ,
    "test_files/image_dfl.dcm": READ,
    "test_files/examples_overlay.dcm": READ,
    "test_files/dicomdirtests/77654033/CR*": READ,
    "test_files/dicomdirtests/77654033/CT2/171[03]6": READ,
    "test_files/dicomdirtests/77654033/CT2/171[69]6": FLAT,
    "test_files/dicomdirtests/98892001/*": READ,
    "test_files/dicomdirtests/98892003/*": READ,
    # RLE, JPEG-LS, JPEG 2000, JPEG Extended with 12 bits
    "test_files/MR_small_RLE.dcm": READ,
    "test_files/MR_small_jpeg_ls_lossless.dcm": READ,
    "test_files/MR_small_jp2klossless.dcm": READ,
    "test_files/693_J2KI.dcm": READ,
    "test_files/J2K_pixelrep_mismatch.dcm": READ,
    "test_files/JPEG2000.dcm": READ,
    "test_files/JPEG-lossy.dcm": READ,
    "test_files/JPGExtended.dcm": READ,
    # colour: uncompressed, palette, JPEG baseline and lossless, JPEG-LS, JPEG 2000, RLE
    "test_files/SC_ybr_full_422_uncompressed.dcm": READ,
    "test_files/examples_rgb_color.dcm": READ,
    "test_files/examples_palette.dcm": READ,
    "test_files/SC_rgb_jpeg*.dcm": READ,
    "test_files/SC_jpeg_no_color_transform*.dcm": READ,
    "test_files/SC_rgb_dcmtk_*.dcm": READ,
    "test_files/SC_rgb_jls_lossy_*.dcm": READ,
    "test_files/SC_rgb_gdcm_KY.dcm": READ,
    "test_files/GDCMJ2K_TextGBR.dcm": READ,
    "test_files/examples_jpeg2k.dcm": READ,
    "test_files/SC_rgb_rle.dcm": READ,
    "test_files/SC_rgb_rle_16bit.dcm": READ,
    # refused
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": "has not the size its header gives",
    "test_files/MR_truncated.dcm": "is truncated or damaged (PixelData holds 8130 of 8192 bytes)",
    "test_files/SC_rgb_rle_32bit.dcm": "stores 32 bits",
    "test_files/SC_rgb_rle*_2frame.dcm": "is multi-frame (2 frames)",
    "test_files/examples_ybr_color.dcm": "is multi-frame (30 frames)",
    "test_files/JPEGLSNearLossless_*.dcm": SMALL,
    "test_files/SC_rgb_small_odd*.dcm": SMALL,
    "test_files/dicomdirtests/DICOMDIR*": INDEX,
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": INDEX,
    "test_files/dicomdirtests/TINY_ALPHA/PT000000/*": "does not give the size of a picture",
    "test_files/dicomdirtests/TINY_ALPHA/README": "holds text",
    "test_files/ExplVR_BigEndNoMeta.dcm": "has no DICM marker",
    "test_files/ExplVR_LitEndNoMeta.dcm": f"{NOTHING} (RTPLAN)",
    "test_files/no_meta.dcm": "has no DICM marker",
    "test_files/no_meta_group_length.dcm": NOTHING,
    "test_files/meta_missing_tsyntax.dcm": NOTHING,
    "test_files/empty_charset_LEI.dcm": NOTHING,
    "test_files/UN_sequence.dcm": NOTHING,
    "test_files/*priv_SQ.dcm": NOTHING,
    "test_files/badVR.dcm": f"{NOTHING} (RTDOSE)",
    "test_files/rtdose*.dcm": f"{NOTHING} (RTDOSE)",
    "test_files/rtplan*.dcm": f"{NOTHING} (RTPLAN)",
    "test_files/rtstruct.dcm": f"{NOTHING} (RTSTRUCT)",
    "test_files/liver_*.dcm": f"{NOTHING} (SEG)",
    "test_files/reportsi*.dcm": f"{NOTHING} (SR)",
    "test_files/test-SR.dcm": f"{NOTHING} (SR)",
    "test_files/waveform_ecg.dcm": f"{NOTHING} (ECG)",
}
"""Pattern -> words of the refusal, or READ."""

NOT_BY_HAND = {"JPEG-lossy.dcm", "JPGExtended.dcm"}
"""Pydicom's own plugins decline these."""


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def bundled(name: str) -> Path:
    return FOLDER / "test_files" / name


def expected_of(path: Path) -> list[str]:
    return [words for pattern, words in TABLE.items() if fnmatch(name_of(path), pattern)]


def by_hand(path: Path) -> np.ndarray:
    """The picture by pydicom's functions: (H, W) or (H, W, 3) in [0, 1]."""
    data = pydicom.dcmread(path)
    stored = pixel_array(data)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(stored, data)
        return colours / np.iinfo(colours.dtype).max
    if data.SamplesPerPixel == 3:
        return stored / (2**data.BitsStored - 1)
    values = apply_modality_lut(stored, data)
    shown = apply_voi_lut(values, data).astype(np.float64)
    padding = stored == data.get("PixelPaddingValue", 2**20)
    if "WindowWidth" in data:
        limits = np.array([0, 2**data.BitsStored - 1]) - 2 ** (data.BitsStored - 1) * data.PixelRepresentation
        low, high = limits * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    elif data.BitsStored == 8:
        low, high = 0, 255
    else:
        low, high = shown[~padding].min(), shown[~padding].max()
    fraction = (shown - low) / (high - low)
    return np.where(padding, 0, 1 - fraction if data.PhotometricInterpretation == "MONOCHROME1" else fraction)


def test_the_table_names_every_bundled_file_once() -> None:
    assert {name_of(path): len(expected_of(path)) for path in DICOM if len(expected_of(path)) != 1} == {}
    assert [pattern for pattern in TABLE if not any(fnmatch(name_of(path), pattern) for path in DICOM)] == []
    assert sum(expected_of(path) == [READ] for path in DICOM) >= 70


@pytest.mark.filterwarnings("ignore:The pixel data is 8320 bytes", "ignore:Expected explicit VR, but found implicit")
@pytest.mark.parametrize("path", DICOM, ids=name_of)
def test_bundled_file_is_read_or_refused_as_expected(path: Path) -> None:
    words = expected_of(path)[0]
    if words:
        with pytest.raises(ScanError) as caught:
            read(path.read_bytes(), path.name)
        assert words in str(caught.value)
        return
    scan = read(path.read_bytes(), path.name, channels=3)
    assert scan.pixels.dtype == np.float32
    assert 0 <= scan.pixels.min() < scan.pixels.max() <= 1
    modality = pydicom.dcmread(path).get("Modality")
    assert any("not a radiograph" in note for note in scan.warnings) == (modality in ("CT", "MR", "US", "NM"))
    if path.name not in NOT_BY_HAND:
        expected = by_hand(path)
        grey = expected if scan.pixels.ndim == expected.ndim else expected[..., 0]
        assert np.allclose(scan.pixels, grey, atol=1e-6)


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_lossless_syntaxes_give_the_same_pixels(kind: str) -> None:
    plain = read(bundled("MR_small.dcm").read_bytes())
    assert np.array_equal(read(bundled(f"MR_small_{kind}.dcm").read_bytes()).pixels, plain.pixels)


def test_12_bit_jpeg_extended_has_its_known_values() -> None:
    scan = read(bundled("JPEG-lossy.dcm").read_bytes())
    stored = np.rint(scan.pixels * 264).astype(int)  # no window: stretched to 0..264
    assert (stored[420, 140], stored[230, 120], stored.max()) == (244, 95, 264)  # as libjpeg decodes it
    assert scan.bits == 12


@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm"])
@pytest.mark.parametrize("tag", ["Rows", "Columns"])
def test_stream_and_header_of_different_size_are_refused_before_decoding(name: str, tag: str) -> None:
    data = pydicom.dcmread(bundled(name))
    data[tag].value += 8
    with pytest.raises(ScanError, match="has not the size its header gives"):
        read(data)


@pytest.mark.parametrize("kind", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_compressed_samples_in_upper_bits_are_refused(kind: str) -> None:
    data = pydicom.dcmread(bundled(f"MR_small_{kind}.dcm"))
    data.BitsStored, data.HighBit = 12, 15
    with pytest.raises(ScanError, match="is compressed, yet has HighBit 15 with 12 bits stored; export it"):
        read(data)


def test_samples_in_upper_bits_are_moved_down_in_big_endian() -> None:
    data = pydicom.dcmread(bundled("MR_small_bigendian.dcm"))
    stored = data.pixel_array.astype(np.int64)
    assert 0 <= stored.min() < stored.max() < 2**14
    data.BitsStored, data.HighBit = 12, 13
    shown = read(data).pixels
    center, width = float(data.WindowCenter), float(data.WindowWidth)
    assert np.allclose(shown, np.clip(((stored >> 2) - (center - 0.5)) / (width - 1) + 0.5, 0, 1), atol=1e-6)


def test_truncated_compressed_stream_is_refused() -> None:
    from pydicom.encaps import encapsulate, get_frame

    data = pydicom.dcmread(bundled("MR_small_jp2klossless.dcm"))
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    with pytest.raises(ScanError, match="stops before its end marker"):
        read(data)


def test_codecs_do_not_depend_on_what_else_is_installed() -> None:
    from pydicom.pixels import get_decoder

    from anomaly.scans.dicom_codecs import _CODECS

    for syntax, plugin in _CODECS.items():
        assert plugin in get_decoder(syntax).available_plugins
