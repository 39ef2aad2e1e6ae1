"""What the front door costs: wall time of `anomaly --help` over that of `import typer`, and which modules it loads.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import packages_distributions

import numpy as np
from common import parser, write_result

HEAVY = ("torch", "torchvision", "lightning", "anomalib", "sklearn", "cv2", "numpy", "scipy", "matplotlib", "pydicom")


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    chosen = parser(__doc__)
    chosen.add_argument("--repeats", type=int, default=15)
    repeats = chosen.parse_args().repeats
    front, typer = ["-m", "anomaly", "--help"], ["-c", "import typer"]
    seconds(front), seconds(typer)
    pairs = [(seconds(front), seconds(typer)) for _ in range(repeats)]
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", *front], check=True, capture_output=True, text=True
    ).stderr
    imported = {line.rsplit("|", 1)[1].strip() for line in listing.splitlines() if "|" in line}
    installed = packages_distributions()
    top = sorted({name.partition(".")[0] for name in imported} & set(installed))
    figures = {
        "help_seconds": float(np.median([a for a, _ in pairs])),
        "import_typer_seconds": float(np.median([b for _, b in pairs])),
        "ratio": float(np.median([a / b for a, b in pairs])),
        "heavy_modules_loaded": [name for name in HEAVY if name in top],
        "third_party_modules_loaded": top,
    }
    print(figures)
    write_result("startup", figures)


if __name__ == "__main__":
    main()
