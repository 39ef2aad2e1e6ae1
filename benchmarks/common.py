"""What every benchmark shares: where work and results go, and how a result file says how it came to be."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anomaly.runs import versions, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "build" / "benchmarks"
"""Models and scores of the benchmarks; git-ignored. What is there already is not computed again."""


def shared_data() -> Path:
    """Return the folder of real films (ANOMALY_SHARED, default ../shared), or stop with a sentence."""
    folder = Path(os.environ.get("ANOMALY_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        sys.exit("This benchmark needs the real films: set ANOMALY_SHARED to the folder that holds data/kermany.")
    return folder


def write_result(name: str, figures: dict[str, Any]) -> None:
    """Write results/NAME.json: the figures, the command, the versions and the kind of machine."""
    command = "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    machine = {"cores": os.cpu_count(), "processor": platform.machine()}
    when = datetime.now(UTC).date().isoformat()
    path = RESULTS / f"{name}.json"
    write_json(path, {"command": command, "date": when, "machine": machine, "versions": versions(), **figures})
    print(f"wrote {path.relative_to(ROOT)}")


def read_result(name: str) -> dict[str, Any]:
    """Read results/NAME.json; empty when that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return an argument parser that shows the benchmark's own description; progress goes to stderr."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, sample standard deviation and the values themselves."""
    mean = sum(values) / len(values)
    sd = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
    return {"mean": mean, "sd": sd, "values": list(values)}
