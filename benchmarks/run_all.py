"""Run every benchmark, one after the other, then bring docs/results.md and the recipes' figures up to date.

    python benchmarks/run_all.py

Takes many hours on 2 cores, most of them trainings. Finished parts of an interrupted run are kept; results land in
benchmarks/results/.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import parser

ORDER = (
    *("startup.py", "throughput.py", "memory.py", "fuzz.py", "inspect_kermany.py", "duplicates.py", "quality.py"),
    *("demo_time.py", "phantoms.py", "inpaint.py", "coverage.py", "evaluate_speed.py"),
    *("atlas.py", "atlas.py --speed", "atlas_transfer.py", "atlas_grid.py", "atlas_ideas.py", "atlas_shortcuts.py"),
    *("anogan_ablation.py --train all", "anogan_ablation.py --train rsna-default --steps 12000", "anogan_ablation.py"),
    *("anogan_default.py", "search_time.py"),
    *("frozen.py", "frozen.py --memory", "anomalib_parity.py", "anomalib_speed.py"),
    *("supervised.py", "unet.py", "lungs_input.py", "retinanet.py", "compare.py"),
    "figures.py",
)


def main() -> None:
    parser(__doc__).parse_args()
    for line in ORDER:
        print(f"== {line}", flush=True)
        name, *options = line.split()
        subprocess.run([sys.executable, str(Path(__file__).with_name(name)), *options], check=True)


if __name__ == "__main__":
    main()
