"""Whether memory stays flat from 100 to 10,000 films: peak of this process and its readers together.

    python benchmarks/memory.py

Each number of films is read, prepared, examined and spooled to disk, as `fit` does, by a process of its own, cache off.
The films are 24 phantoms (PNG, JPEG, DICOM) hard-linked under other names. Peak: the largest resident set each process
ever had (VmHWM), added up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import WORK, parser, write_result

from anomaly.config import PrepareConfig, ReadConfig
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.source import ImageSpool
from anomaly.records import ScanFile
from anomaly.scans.dicom_write import write_dicom
from anomaly.scans.phantom import make_phantom
from anomaly.workflows.reading import read_files

SIZE = 64


def films(folder: Path, count: int) -> list[ScanFile]:
    """Write 24 phantoms and link them until there are `count`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for index in range(24):
        path = folder / f"film-{index}.{('png', 'jpg', 'dcm')[index % 3]}"
        made.append(path)
        if path.exists():
            continue
        pixels = cv2.resize(make_phantom(index).pixels, (1024, 1024), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        if path.suffix == ".dcm":
            levels = np.rint(pixels * 4095).astype(np.uint16)
            write_dicom(path, levels, bits=12, patient=f"phantom {index}", spacing_mm=0.35)
        else:
            cv2.imwrite(str(path), np.rint(pixels * 255).astype(np.uint8))
    files = []
    for index in range(count):
        film = made[index % len(made)]
        link = folder / f"{index:05d}{film.suffix}"
        if not link.exists():
            os.link(film, link)
        files.append(ScanFile(link.name, link, link.name))
    return files


def peak(pid: int | str) -> int:
    """Return the largest resident set a process ever had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmHWM")


def readers() -> list[str]:
    """Return the ids of this process's children."""
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def read_all(count: int, workers: int) -> dict[str, Any]:
    """Read `count` films and return the peaks seen."""
    folder = WORK / "memory"
    files = films(folder, count)
    started = time.perf_counter()
    seen = {"parent": 0, "readers": 0}
    preparation = Preparation(PrepareConfig(), SIZE)
    outcomes = read_files(files, read=ReadConfig(), channels=1, preparation=preparation, workers=workers)
    with ImageSpool(folder) as spool:
        for index, outcome in enumerate(outcomes, start=1):
            assert outcome.prepared is not None, outcome.error
            spool.append(outcome.prepared.image)
            if index % 50 == 0 or index == count:
                found = {"parent": peak("self"), "readers": sum(peak(pid) for pid in readers())}
                seen = {who: max(seen[who], found[who]) for who in seen}
    return {"films": count, **seen, "peak": sum(seen.values()), "seconds": time.perf_counter() - started}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--films", type=int, nargs="+", default=[100, 1_000, 10_000])
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--serve", type=int, help="read this many films and say what it took")
    chosen = arguments.parse_args()
    if chosen.serve:
        print(json.dumps(read_all(chosen.serve, chosen.workers)))
        return
    films(WORK / "memory", max(chosen.films))  # here, so that the measured processes only read
    runs = []
    for count in chosen.films:
        command = [sys.executable, __file__, "--serve", str(count), "--workers", str(chosen.workers)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print({**runs[-1], "peak": f"{runs[-1]['peak'] / 2**20:.0f} MiB"}, flush=True)
    growth = max(run["peak"] for run in runs) / runs[0]["peak"] - 1
    print(f"growth {growth:.1%}")
    write_result("memory", {"workers": chosen.workers, "runs": runs, "growth": growth})


if __name__ == "__main__":
    main()
