"""Are the quality flags right? Verdicts by eye on real films, counts over whole sets, and turned and inverted films.

    python benchmarks/quality.py

quality_verdicts.csv holds the verdicts: a seeded sample of 72 films judged for markers, and every film of all sets that
carries any other flag. "missed" is a film of the sample that has the fault and not the flag; "none" has neither. A
verdict stands for the flags as they were when it was given: the benchmark stops where a film's flags have changed.
Inverted and turned films are made from the real ones, as none of these sets has more than a few.
`--time` also times the flags and the inpainting; it wants a machine doing nothing else.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, parser, shared_data, write_result

from anomaly.evaluate.intervals import wilson
from anomaly.prepare.markers import inpaint_markers
from anomaly.records import Float32, Scan, ScanFile
from anomaly.scans.borders import find_borders
from anomaly.scans.quality import MEANINGS, quality_flags
from anomaly.scans.read import read_scan

VERDICTS = ROOT / "benchmarks" / "quality_verdicts.csv"
SETS = (
    "kermany/train/NORMAL",
    "kermany/train/PNEUMONIA",
    "kermany_fullres",
    "rsna_adult/train/normal",
    "rsna_adult/dev",
    "montgomery/images",
)
ALTERED: dict[str, Callable[[Float32], Float32]] = {
    "inverted": lambda pixels: 1 - pixels,
    "rotated by 90": lambda pixels: np.rot90(pixels, 1),
    "rotated by 180": lambda pixels: np.rot90(pixels, 2),
    "rotated by 270": lambda pixels: np.rot90(pixels, 3),
}


def read(path: Path) -> Float32:
    return read_scan(ScanFile(path.name, path, path.name)).pixels


def names(pixels: Float32) -> set[str]:
    return {flag.name for flag in quality_flags(Scan("film", pixels, 8))}


def share(k: int, n: int) -> dict[str, Any]:
    interval = wilson(k, n)
    return {"k": k, "n": n, "share": k / n, "low": interval.low, "high": interval.high}


def judged(data: Path) -> dict[str, Any]:
    """Return precision by flag and, for markers, the share found of those in the sample."""
    with VERDICTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        has = names(read(data / row["file"]))
        fits = not has if row["flag"] == "none" else (row["flag"] in has) == (row["verdict"] != "missed")
        if not fits:
            raise SystemExit(f"{row['file']} now has {sorted(has)}: judge it again and mend {VERDICTS.name}")
    count = Counter((row["flag"], row["verdict"]) for row in rows)
    flags = [flag for flag in MEANINGS if any(name == flag for name, _ in count)]
    figures: dict[str, Any] = {"films": len({row["file"] for row in rows}), "precision": {}, "missed": {}}
    for flag in flags:
        right, wrong = count[flag, "right"], count[flag, "wrong"]
        figures["precision"][flag] = share(right, right + wrong)
        figures["missed"][flag] = count[flag, "missed"]
    markers = count["marker", "right"]
    figures["markers_found_of_those_in_the_sample"] = share(markers, markers + count["marker", "missed"])
    return figures


def counted(paths: Iterable[Path]) -> dict[str, Any]:
    """Return how often every flag occurs, how often borders are found, and what becomes of altered films."""
    flags: Counter[str] = Counter()
    borders: Counter[str] = Counter()
    found: Counter[str] = Counter()
    films = 0
    for path in paths:
        pixels = read(path)
        films += 1
        flags.update(names(pixels))
        box = find_borders(pixels)
        whole = (0, pixels.shape[0], 0, pixels.shape[1])
        borders["refused" if box is None else "none" if tuple(asdict(box).values()) == whole else "cropped"] += 1
        for name, alter in ALTERED.items():
            found[name] += name.split()[0] in names(np.ascontiguousarray(alter(pixels)))
    return {
        "films": films,
        "flags": {name: flags[name] for name in MEANINGS},
        "borders": dict(borders),
        "altered_films_found": {name: share(found[name], films) for name in ALTERED},
    }


def timed(data: Path) -> dict[str, float]:
    """Return milliseconds a film, medians of 5 rounds, for flags at 512 px and inpainting at 5 MP."""
    import cv2

    paths = sorted((data / "kermany/train/NORMAL").glob("*.jpeg"))[:40]
    figures = {}
    for name, side, work in (
        ("flags_512_px", 512, lambda pixels: quality_flags(Scan("film", pixels, 8))),
        ("inpaint_5_megapixels", 2236, inpaint_markers),
    ):
        films = [cv2.resize(read(path), (side, side)) for path in paths[: 40 if side < 1000 else 8]]
        rounds = []
        for _ in range(5):
            started = time.perf_counter()
            for film in films:
                work(film)
            rounds.append((time.perf_counter() - started) / len(films) * 1000)
        figures[name] = float(np.median(rounds))
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--time", action="store_true")
    chosen = arguments.parse_args()
    data = shared_data()
    figures: dict[str, Any] = {"judged": judged(data), "sets": {}}
    for name in SETS:
        paths = sorted(path for path in (data / name).rglob("*") if path.suffix in (".jpeg", ".jpg", ".png"))
        figures["sets"][name] = counted(paths)
        print(f"{name}: {figures['sets'][name]['flags']}", flush=True)
    sets = list(figures["sets"].values())
    films = sum(found["films"] for found in sets)
    figures["all"] = {
        "films": films,
        "flags": {name: sum(found["flags"][name] for found in sets) for name in MEANINGS},
        "altered_films_found": {
            name: share(sum(found["altered_films_found"][name]["k"] for found in sets), films) for name in ALTERED
        },
    }
    if chosen.time:
        figures["milliseconds"] = timed(data)
    write_result("quality", figures)


if __name__ == "__main__":
    main()
