"""`anomaly inspect` on the 2,618 Kermany films: how long it takes, and what its shortcut audit says.

    python benchmarks/inspect_kermany.py

The cache of decoded scans is off for the first time and on for the second and third (which fills and uses it).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import WORK, parser, shared_data, write_result

KNOWN = {"file_size": 0.83, "sharpness": 0.70}
"""AUROC of one number on the whole official test, from the data's own README."""


def timed(scans: Path, out: Path, cache: str) -> float:
    environment = {**os.environ, "ANOMALY_CACHE": cache}
    started = time.perf_counter()
    command = [sys.executable, "-m", "anomaly", "inspect", str(scans), "-o", str(out), "--html", "-q"]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser(__doc__).parse_args()
    scans, work = shared_data() / "kermany", WORK / "inspect"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    seconds = {
        "without_cache": timed(scans, work / "out", "off"),
        "filling_the_cache": timed(scans, work / "out", str(work / "cache")),
        "from_the_cache": timed(scans, work / "out", str(work / "cache")),
    }
    told = json.loads((work / "out" / "inspection.json").read_text(encoding="utf-8"))
    audit = {row["name"]: row for row in told["shortcut_audit"]}
    figures = {
        "films": told["files"],
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "shortcut_audit_on": told["shortcut_audit_on"],
        "shortcut_audit": told["shortcut_audit"],
        "split_audit_on": told["split_audit_on"],
        "split_audit": told["split_audit"],
        "known": {
            name: {"known": value, "within": audit[name]["ci"][0] <= value <= audit[name]["ci"][1]}
            for name, value in KNOWN.items()
        },
        "quality": {name: row["count"] for name, row in told["quality"].items()},
        "duplicates": {key: value for key, value in told["duplicates"].items() if key != "examples"},
        "fit": told["fit"],
    }
    print(json.dumps(figures["seconds"]), json.dumps(figures["known"]))
    write_result("inspect_kermany", figures)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
