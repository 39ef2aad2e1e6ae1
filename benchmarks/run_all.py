"""Run every benchmark, one after the other, then bring docs/results.md and the recipes' figures up to date.

    python benchmarks/run_all.py

Takes about two hours on 2 cores. Finished parts of an interrupted run are kept; results land in benchmarks/results/.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import parser

ORDER = (
    *("startup.py", "throughput.py", "memory.py", "fuzz.py", "inspect_kermany.py", "duplicates.py", "quality.py"),
    *("search_time.py", "demo_time.py", "phantoms.py", "kermany.py", "inpaint.py", "figures.py"),
)


def main() -> None:
    parser(__doc__).parse_args()
    for name in ORDER:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(name))], check=True)


if __name__ == "__main__":
    main()
