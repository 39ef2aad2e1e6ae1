"""How many full-size films a second are read and prepared, against a bare loop over the same library calls.

    python benchmarks/throughput.py

Bare: OpenCV or pydicom called directly in as many processes, each over its share of the files: decode (with the codec
the library itself chooses), scale, area resize, CLAHE, resize; no check of anything, no order, no way back to the film.
Decoding: the first of those calls alone. Ours: `read_files`, cache off, without and with the examination of each film;
then a second pass that finds everything in the cache. All in one run, in turns; start-up left out on every side;
medians over the repeats. JPEG: the 16 full-resolution Kermany films under other names. DICOM: phantoms of 2,500 x 2,048
pixels at 12 bit, and the two real ones.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import WORK, parser, shared_data, write_result

from anomaly.config import PrepareConfig, ReadConfig
from anomaly.prepare.cache import Cache
from anomaly.prepare.prepare import Preparation
from anomaly.records import ScanFile
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.phantom import make_phantom
from anomaly.workflows.reading import read_files

SIZE = 64
SHAPE = (2500, 2048)
CONFIG = PrepareConfig()


def bare_pixels(path: Path) -> np.ndarray[Any, Any]:
    """Decode one file as the libraries give it."""
    if path.suffix == ".dcm":
        from pydicom import dcmread

        return np.asarray(dcmread(path).pixel_array)
    return np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED))


def bare_prepared(path: Path) -> np.ndarray[Any, Any]:
    """Decode and prepare one file in as few calls as it takes."""
    if path.suffix == ".dcm":
        from pydicom import dcmread
        from pydicom.pixels.processing import apply_rescale, apply_voi_lut

        film = dcmread(path)
        pixels = apply_voi_lut(apply_rescale(film.pixel_array, film), film).astype(np.float32)
        pixels /= np.float32(2**film.BitsStored - 1)
        if film.PhotometricInterpretation == "MONOCHROME1":
            pixels = 1 - pixels
    else:
        pixels = bare_pixels(path).astype(np.float32) / np.float32(255)
    small = cv2.resize(pixels, (CONFIG.clahe_size, CONFIG.clahe_size), interpolation=cv2.INTER_AREA)
    eight_bit = np.clip(np.rint(small * 255), 0, 255).astype(np.uint8)
    clahe = cv2.createCLAHE(CONFIG.clahe_clip, (CONFIG.clahe_tiles, CONFIG.clahe_tiles))
    equal = clahe.apply(eight_bit).astype(np.float32) / 255
    return cv2.resize(equal, (SIZE, SIZE), interpolation=cv2.INTER_AREA) * 2 - 1


BARE = {"prepare": bare_prepared, "decode": bare_pixels}


def serve(what: str) -> None:
    """Be one process of a bare loop: files on stdin, warm up, wait for the start, say how long it took."""
    cv2.setNumThreads(1)
    paths = [Path(path) for path in json.loads(sys.stdin.readline())]
    for path in paths[:2]:
        BARE[what](path)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for path in paths:
        BARE[what](path)
    print(time.perf_counter() - started, flush=True)


def bare_rate(what: str, paths: Sequence[Path], workers: int) -> float:
    """Return films a second of `workers` bare loops together."""
    command = [sys.executable, __file__, "--serve", what]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(workers)]
    talk = [(run, run.stdin, run.stdout) for run in runs if run.stdin and run.stdout]
    for index, (_, asked, _) in enumerate(talk):
        asked.write(json.dumps([str(path) for path in paths[index::workers]]) + "\n")
        asked.flush()
    for _, _, said in talk:
        assert said.readline() == "ready\n"
    for _, asked, _ in talk:
        asked.write("go\n")
        asked.flush()
    seconds = max(float(said.readline()) for _, _, said in talk)
    for run, _, _ in talk:
        run.wait()
    return len(paths) / seconds


def our_rate(paths: Sequence[Path], workers: int, *, examine: bool, cache: Cache | None = None) -> float:
    """Return films a second of `read_files`, from when every process is warm."""
    warm = 4 * workers
    files = [ScanFile(str(index), path, path.name) for index, path in enumerate([*paths[:warm], *paths])]
    preparation = Preparation(CONFIG, SIZE)
    started = 0.0
    outcomes = read_files(
        files,
        read=ReadConfig(),
        channels=1,
        preparation=preparation,
        examine=examine,
        workers=workers,
        cache=cache,
    )
    for index, outcome in enumerate(outcomes, start=1):
        assert outcome.prepared is not None, outcome.error
        if index == warm:
            started = time.perf_counter()
    return len(paths) / (time.perf_counter() - started)


def copies(films: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Give films other names until there are `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"{index:04d}{films[index % len(films)].suffix}" for index in range(count)]
    for index, path in enumerate(made):
        if not path.exists():
            shutil.copyfile(films[index % len(films)], path)
    return made


def phantoms(folder: Path, count: int) -> list[Path]:
    """Write phantoms as large as a detector's films: grown, with the grain of 12 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"phantom-{index}.dcm" for index in range(count)]
    for index, path in enumerate(made):
        if not path.exists():
            small = make_phantom(index).pixels
            film = cv2.resize(small, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
            grain = np.random.default_rng(index).normal(0, 0.004, SHAPE)
            pixels = np.clip(np.rint((film + grain) * 4095), 0, 4095).astype(np.uint16)
            write_dicom(path, pixels, bits=12, patient=f"phantom {index}", spacing_mm=0.17)
    return made


def in_jpeg_2000(film: Path, path: Path) -> None:
    """Write a DICOM film again in lossless JPEG 2000."""
    from pydicom import dcmread
    from pydicom.uid import JPEG2000Lossless

    data = dcmread(film)
    data.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    data.save_as(path)


def in_lossless_jpeg(film: Path, path: Path) -> None:
    """Write a DICOM film again in lossless JPEG (process 14, selection value 1), the common one of radiography."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(film))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def kinds(films: int) -> dict[str, list[Path]]:
    """Return the files to read, by kind."""
    folder = WORK / "throughput"
    real = shared_data()
    plain = phantoms(folder / "phantoms", 8)
    again = {"JPEG 2000": in_jpeg_2000, "lossless JPEG": in_lossless_jpeg}
    found = {
        "JPEG": sorted((real / "kermany_fullres").rglob("*.jpeg")),
        "DICOM, uncompressed": plain,
        "DICOM, real": sorted((real / "dicom").rglob("*.dcm")),
    }
    for name, write in again.items():
        packed = [folder / name / film.name for film in plain]
        for film, path in zip(plain, packed, strict=True):
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                write(film, path)
        found[f"DICOM, {name}"] = packed
    counts = {name: films if name == "JPEG" else films // 4 for name in found}
    return {name: copies(paths, counts[name], folder / f"copies of {name}") for name, paths in found.items()}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--films", type=int, default=128, help="JPEG; a quarter as many of each kind of DICOM")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--serve", choices=tuple(BARE), help="be one process of a bare loop")
    chosen = arguments.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    workers = chosen.workers
    figures: dict[str, Any] = {"workers": workers, "size": SIZE}
    for name, paths in kinds(chosen.films).items():
        for path in paths:
            path.read_bytes()  # from memory for everyone
        rates: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            cache = Cache(Path(folder), 2**34)
            our_rate(paths, workers, examine=True, cache=cache)
            for _ in range(chosen.repeats):
                for what, rate in {
                    "ours": our_rate(paths, workers, examine=False),
                    "bare": bare_rate("prepare", paths, workers),
                    "ours, examined": our_rate(paths, workers, examine=True),
                    "bare decoding": bare_rate("decode", paths, workers),
                    "ours, examined, from the cache": our_rate(paths, workers, examine=True, cache=cache),
                }.items():
                    rates.setdefault(what, []).append(rate)
        per_second = {what: float(np.median(values)) for what, values in rates.items()}
        ratios = {
            f"{ours} / {other}": float(np.median(np.divide(rates[ours], rates[other])))
            for ours in ("ours", "ours, examined")
            for other in ("bare", "bare decoding")
        }
        figures[name] = {"films": len(paths), "films_per_second": per_second, "ratios": ratios, "repeats": rates}
        print(name, {k: round(v, 2) for k, v in (per_second | ratios).items()}, flush=True)
    write_result("throughput", figures)


if __name__ == "__main__":
    main()
