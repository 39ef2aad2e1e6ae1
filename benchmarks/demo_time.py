"""`make demo` on a fresh clone with a warm package cache: set-up, phantoms, fit, score, heatmaps, report.

python benchmarks/demo_time.py
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from common import ROOT, parser, write_result


def main() -> None:
    parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        started = time.perf_counter()
        subprocess.run(["make", "install"], cwd=clone, check=True, capture_output=True)
        installed = time.perf_counter()
        subprocess.run(["make", "demo"], cwd=clone, check=True, capture_output=True)
        finished = time.perf_counter()
        if not (clone / "demo" / "out" / "report.html").is_file():
            raise SystemExit("make demo wrote no report")
    figures = {
        "install_seconds": round(installed - started, 1),
        "demo_seconds": round(finished - installed, 1),
        "total_seconds": round(finished - started, 1),
    }
    print(figures)
    write_result("demo_time", figures)


if __name__ == "__main__":
    main()
