from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly.errors import ScanError
from anomaly.records import Scan, ScanFile
from anomaly.scans.read import printable, read_scan
from anomaly.scans.walk import make_scan_id

SHARED = Path(os.environ.get("ANOMALY_SHARED", "../shared"))
RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (48, 64)).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (48, 64)).astype(np.uint16)
GREY16.flat[0], GREY16.flat[1] = 0, 65535
COLOUR8 = RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8)


def read(path: Path, **settings: float) -> Scan:
    return read_scan(ScanFile(make_scan_id(path.name), path, path.name), **settings)


def refused(path: Path, *words: str, **settings: float) -> str:
    with pytest.raises(ScanError) as caught:
        read(path, **settings)
    message = str(caught.value)
    assert printable(path.name) in message
    assert "; " in message, "a refusal says what to do"
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def encode(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(f".{kind}", pixels)[1].tobytes()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, **tags: int) -> bytes:
    """A one-strip uncompressed grey TIFF whose header comes first, as many scanners write it."""
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    height, width = pixels.shape
    entries = {256: width, 257: height, 258: pixels.dtype.itemsize * 8, 259: 1, 262: 1, 273: 0, 277: 1}
    entries |= {278: height, 279: pixels.nbytes, 339: kind} | {int(tag[1:]): value for tag, value in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start
    ifd = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", t, 4, 1, v) for t, v in sorted(entries.items())
    )
    return b"II*\0" + struct.pack("<I", 8) + ifd + struct.pack("<I", 0) + pixels.tobytes()


# ---- depth -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_16_bit_ramp_keeps_its_65536_levels(tmp_path: Path, kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"ramp.{kind}"
    path.write_bytes(encode(kind, ramp))
    scan = read(path)
    assert scan.pixels.dtype == np.float32
    assert scan.bits == 16
    assert scan.warnings == ()
    assert len(np.unique(scan.pixels)) == 65536
    assert np.array_equal(np.rint(scan.pixels.astype(np.float64) * 65535), ramp)


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_8_bit_is_exact(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encode(kind, GREY8))
    scan = read(path)
    assert scan.bits == 8
    assert np.array_equal(scan.pixels, GREY8.astype(np.float32) / np.float32(255))
    assert scan.facts["format"] == {"tif": "TIFF"}.get(kind, kind.upper())


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_16_bit_file_holding_fewer_bits_is_read_by_those(tmp_path: Path, bits: int) -> None:
    levels = np.minimum(GREY16, 2**bits - 1)
    path = tmp_path / "twelve.png"
    path.write_bytes(encode("png", levels))
    scan = read(path)
    assert scan.bits == bits
    assert scan.pixels.max() == 1.0
    assert any(f"{bits} bits" in note for note in scan.warnings)


def test_16_bit_colour_keeps_its_depth(tmp_path: Path) -> None:
    colour = np.dstack([GREY16, GREY16 // 2, GREY16 // 3])
    path = tmp_path / "deep.png"
    path.write_bytes(encode("png", colour))
    scan = read(path, channels=3)
    assert scan.pixels.shape == (48, 64, 3)
    assert np.array_equal(scan.pixels, colour[..., ::-1].astype(np.float32) / np.float32(65535))


def test_big_endian_tiff_and_white_is_zero(tmp_path: Path) -> None:
    path = tmp_path / "negative.tif"
    path.write_bytes(tiff(GREY16, t262=0))
    assert np.allclose(read(path).pixels, 1 - GREY16 / 65535, atol=1e-6)
    path.write_bytes(tiff(GREY8, t262=0))
    assert np.allclose(read(path).pixels, 1 - GREY8 / 255, atol=1e-6)


def test_float_tiff_within_range_is_read(tmp_path: Path) -> None:
    values = (GREY16 / 65535).astype(np.float32)
    path = tmp_path / "float.tif"
    path.write_bytes(tiff(values))
    assert np.array_equal(read(path).pixels, values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.1, 255.0])
def test_float_tiff_out_of_range_is_refused_with_the_fix(tmp_path: Path, bad: float) -> None:
    values = (GREY8 / 255).astype(np.float32)
    values[3, 4] = bad
    path = tmp_path / "float.tif"
    path.write_bytes(tiff(values))
    refused(path, "finite", "16-bit")


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int8, np.float64])
def test_other_sample_types_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "odd.tif"
    path.write_bytes(tiff((GREY8 // 3).astype(dtype)))
    refused(path, "save it as")


# ---- colour ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_colour_becomes_grey_with_a_warning_or_stays(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / f"colour.{kind}", Image.fromarray(COLOUR8))
    grey = read(path)
    assert grey.pixels.shape == (48, 64)
    assert any("colour" in note for note in grey.warnings)
    expected = (COLOUR8 / 255) @ np.array([0.299, 0.587, 0.114])
    assert np.allclose(grey.pixels, expected, atol=1e-6)
    kept = read(path, channels=3)
    assert np.array_equal(kept.pixels, COLOUR8.astype(np.float32) / np.float32(255))
    assert kept.warnings == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_channels_become_grey_silently(tmp_path: Path, channels: int) -> None:
    path = save(tmp_path / "grey.png", Image.fromarray(np.dstack([GREY8] * 3)))
    scan = read(path, channels=channels)
    assert scan.warnings == ()
    assert np.array_equal(scan.pixels, GREY8.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped(tmp_path: Path, kind: str, mode: str) -> None:
    alpha = Image.fromarray(np.roll(GREY8, 7, 0))
    grey = Image.fromarray(GREY8)
    bands = (grey, alpha) if mode == "LA" else (grey, grey, grey, alpha)
    path = save(tmp_path / f"alpha.{kind}", Image.merge(mode, bands))
    assert np.array_equal(read(path).pixels, GREY8.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("kind", ["png", "tif", "bmp"])
def test_palette_is_looked_up(tmp_path: Path, kind: str) -> None:
    indices = Image.fromarray((GREY8 // 16).astype(np.uint8), "L").convert("P")
    indices.putpalette([level for index in range(16) for level in [255 - 17 * index] * 3])
    path = save(tmp_path / f"palette.{kind}", indices)
    assert np.allclose(read(path).pixels, (255 - 17 * (GREY8 // 16).astype(int)) / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_cmyk_is_read_as_colour(tmp_path: Path, kind: str) -> None:
    smooth = cv2.resize(COLOUR8[:4, :4], (64, 48), interpolation=cv2.INTER_CUBIC)
    path = save(tmp_path / f"cmyk.{kind}", Image.fromarray(smooth).convert("CMYK"), quality=98)
    assert np.abs(read(path, channels=3).pixels - smooth / 255).mean() < 0.03


def test_one_bit_png_is_black_and_white(tmp_path: Path) -> None:
    scan = read(save(tmp_path / "bit.png", Image.fromarray(GREY8).convert("1")))
    assert set(np.unique(scan.pixels)) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["exif.png", "exif.jpg", "exif.tif"])
def test_orientation_tag_is_obeyed_and_said(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = cv2.resize(GREY8[:4, :4], (64, 48))
    extra = {"tiffinfo": {0x0112: 6}} if name.endswith("tif") else {"exif": exif}
    scan = read(save(tmp_path / name, Image.fromarray(smooth), **extra))
    assert scan.pixels.shape == (64, 48)
    assert np.abs(scan.pixels - np.rot90(smooth, -1) / 255).mean() < 0.03
    assert any("orientation" in note for note in scan.warnings)


# ---- refusals --------------------------------------------------------------------------------------------------


def noise_file(path: Path) -> Path:
    kind = path.suffix
    noise = RNG.integers(0, 65536 if "16" in path.name else 256, (256, 256))
    pixels = noise.astype(np.uint16 if "16" in path.name else np.uint8)
    options: dict[str, object] = {"compression": "tiff_lzw"} if "lzw" in path.name else {}
    return save(path, Image.fromarray(pixels), **options) if kind != ".rawtif" else path


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.png", "a16.png", "a.jpg", "a.bmp", "a.tif", "a16.tif", "lzw.tif", "lzw16.tif"])
def test_truncated_files_are_refused_and_never_half_read(tmp_path: Path, name: str, cut: float) -> None:
    path = noise_file(tmp_path / name)
    data = path.read_bytes()
    assert read(path).pixels.shape == (256, 256)
    path.write_bytes(data[: int(len(data) * cut)])
    refused(path, "truncated")


@pytest.mark.parametrize("cut", [0.5, 0.95])
def test_truncated_tiff_with_its_header_in_front_is_refused(tmp_path: Path, cut: float) -> None:
    for pixels in (GREY8, GREY16):
        data = tiff(pixels)
        path = tmp_path / "front.tif"
        path.write_bytes(data[: int(len(data) * cut)])
        refused(path, "truncated")


def test_png_without_end_and_with_wrong_checksum(tmp_path: Path) -> None:
    path = noise_file(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-12])
    refused(path, "IEND")
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(path, "checksum")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    refused(path, "0 bytes")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"Dear colleague, the films follow by post.\n", "text"),
        (b"GIF89a" + bytes(40), "GIF"),
        (b"%PDF-1.7 " + bytes(40), "PDF"),
        (b"\x1f\x8b\x08" + bytes(40), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (bytes(4096), "zero"),
        (b"\x7fELF" + RNG.bytes(300), "unknown"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(content)
    refused(path, word)


def test_dicom_in_name_only(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(b"not DICOM at all")
    refused(path, "DICM")


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(encode("jpg", GREY8))
    assert read(path).facts["format"] == "JPEG"


def test_directory_pipe_and_broken_link_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x.png"
    folder.mkdir()
    refused(folder, "not a file")
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "gone.png")
    refused(link, "link")
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    refused(loop)
    refused(tmp_path / "gone.png", "does not exist")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    refused(pipe, "not a file")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(encode("png", GREY8))

    def fail(*_args: object, **_keywords: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", fail)
    assert str(error.strerror).lower() in refused(path).lower()


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.dcm"
    with path.open("wb") as stream:
        stream.truncate(2**30 + 1)  # sparse
    refused(path, "GiB")


@pytest.mark.parametrize("shape", [(1, 1), (15, 400), (400, 15)])
def test_too_small(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(encode("png", np.zeros(shape, np.uint8)))
    refused(path, "too small")


def test_too_many_pixels_are_refused_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(20000, 20000))  # holds no pixels at all: decoding would say "truncated"
    refused(path, "too large", "400 megapixels", "max_megapixels")
    path.write_bytes(png_header(200000, 200000))
    refused(path, "too large")
    path.write_bytes(png_header(300, 300))
    refused(path, "truncated")
    path.write_bytes(encode("png", GREY8))
    refused(path, "too large", max_megapixels=0.001)


def test_constant_picture_is_refused(tmp_path: Path) -> None:
    for name, pixels in {
        "flat.png": np.full((64, 64), 77, np.uint8),
        "flat16.png": np.zeros((64, 64), np.uint16),
    }.items():
        path = tmp_path / name
        path.write_bytes(encode("png", pixels))
        refused(path, "same value")


def test_several_pages_are_refused_with_their_number(tmp_path: Path) -> None:
    page = Image.fromarray(GREY8)
    refused(save(tmp_path / "pages.tif", page, save_all=True, append_images=[page, page]), "3 pictures")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_give_a_sentence_or_a_picture(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind in ("png", "jpg", "tif", "bmp"):
        data = bytearray(encode(kind, GREY16 if kind == "tif" and seed % 2 else GREY8))
        for place in rng.integers(2, len(data), 8):
            data[place] = rng.integers(256)
        path = tmp_path / f"damaged.{kind}"
        path.write_bytes(data)
        try:
            scan = read(path)
        except ScanError:  # anything else fails the test
            continue
        assert scan.pixels.dtype == np.float32
        assert 0 <= scan.pixels.min() <= scan.pixels.max() <= 1


# ---- names, stderr, imports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a film.png", "a\nb.png", "🫁.png", "<script>alert(1)<.png", "é.PNG"])
def test_any_name_is_read_and_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode("png", GREY8))
    assert read(path).pixels.shape == (48, 64)
    path.write_bytes(b"")
    refused(path)


def test_damaged_exif_does_not_damage_the_film(tmp_path: Path) -> None:
    path = save(tmp_path / "film.jpg", Image.fromarray(GREY8), exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert read(path).pixels.shape == (48, 64)


def test_undecodable_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe film.png")
    path = tmp_path / name
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    refused(path).encode("utf-8")


def test_nothing_is_printed_for_truncated_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "a.jpg", "a16.tif", "lzw16.tif"):
        path = noise_file(tmp_path / name)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        refused(path)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_importing_the_readers_imports_no_decoder() -> None:
    code = (
        "import sys, anomaly.scans.read, anomaly.scans.walk, anomaly.scans.split\n"
        "print([name for name in ('cv2', 'PIL', 'pydicom', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_manifest_facts_win_and_input_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    path.write_bytes(encode("png", GREY8))
    scan = read_scan(ScanFile("id", path, "film.png", patient="abc", view="AP"))
    assert (scan.scan_id, scan.patient, scan.view) == ("id", "abc", "AP")


@pytest.mark.real
def test_real_films_are_read() -> None:
    films = sorted((SHARED / "data" / "kermany_fullres").rglob("*.jpeg"))
    if not films:
        pytest.skip("no real films here")
    for path in films[:4]:
        scan = read(path)
        assert scan.bits == 8
        assert min(scan.pixels.shape) > 300
        assert scan.pixels.max() > 0.8
