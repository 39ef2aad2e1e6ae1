"""How long `anomaly evaluate` takes on 100,000 scans, with 2,000 bootstrap replicates and every trivial baseline.

    python benchmarks/evaluate_speed.py

The results folder is made up: normal scores, a quarter of the scans abnormal, of three classes and two views, one to
three scans a patient, the ten trivial numbers in the journal. The command runs in a process of its own; wall time and
processor time are of that whole process, reading the folder included.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import WORK, parser, write_result

from anomaly.calibrate import Calibration
from anomaly.evaluate.baselines import BASELINES
from anomaly.records import ResultRow
from anomaly.runs import RECEIPT, write_json
from anomaly.workflows.evaluate import EVALUATION
from anomaly.workflows.journal import JOURNAL
from anomaly.workflows.results import SCORED, write_scores

GOAL = 60.0
KINDS = ("effusion", "mass", "pneumonia")
TIED = {"width": (1024, 2048, 2500), "height": (1024, 2048, 3056), "aspect": (0.82, 1.0)}
"""Numbers that take a few values only."""


def make_run(out: Path, films: int) -> None:
    """Write a results folder of so many scored scans."""
    rng = np.random.default_rng(0)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    labels = (rng.uniform(size=films) < 0.25).astype(int)
    kinds = np.where(labels == 1, np.array(KINDS)[rng.integers(0, len(KINDS), films)], "normal")
    views = np.where(rng.uniform(size=films) < 0.4, "AP", "PA")
    patients = np.repeat(np.arange(films), rng.integers(1, 4, films))[:films]
    patient_labels = rng.permutation(films)  # a patient's scans may be of both classes, as in hospital archives
    labels, kinds = labels[patient_labels], kinds[patient_labels]
    scores = (rng.normal(size=films) + labels).astype(np.float32)
    held_out = np.sort(rng.normal(size=1000).astype(np.float32)).astype(np.float64)
    calibration = Calibration(held_out, {"0.95": 1.0})
    calibration.save(out)
    trivial = {name: rng.normal(size=films) + 0.3 * labels for name in BASELINES}
    trivial |= {name: rng.choice(values, films) for name, values in TIED.items()}
    trivial |= {name: np.rint(8000 + 1000 * trivial[name]) for name in ("softness", "file_size")}
    rows = []
    with (out / JOURNAL).open("w", encoding="ascii") as journal:
        for at in range(films):
            score = float(scores[at])
            row = ResultRow(
                scan_id=f"scan-{at:06d}",
                path=f"films/{at:06d}.dcm",
                status=SCORED,
                patient=f"{patients[at]:016x}",
                label=int(labels[at]),
                class_name=str(kinds[at]),
                score=score,
                p_value=calibration.p_value(score),
            )
            beside = {"trivial": {name: float(values[at]) for name, values in trivial.items()}}
            journal.write(json.dumps({**asdict(row), **beside, "view": str(views[at]), "seconds": 0.01}) + "\n")
            rows.append(row)
    write_scores(out, rows, alpha=0.05)
    write_json(out / RECEIPT, {"command": "score", "method": "made up", "alpha": 0.05, "hashed_paths": False})


def main() -> None:
    chosen = parser(__doc__)
    chosen.add_argument("--films", type=int, default=100_000)
    chosen.add_argument("--repeats", type=int, default=2)
    given = chosen.parse_args()
    out = WORK / "evaluate_speed"
    make_run(out, given.films)
    walls, processors = [], []
    for _ in range(given.repeats):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "anomaly", "evaluate", str(out), "-q"], check=True, capture_output=True)
        walls.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    found = json.loads((out / EVALUATION).read_text(encoding="utf-8"))
    figures = {
        "films": given.films,
        "patients": found["rows"][0]["n_patients"],
        "replicates": found["rows"][0]["auroc_interval"]["n_boot"],
        "baselines": len(found["rows"]) - 1,
        "subgroups": sum(len(rows) for rows in found["subgroups"].values()),
        "wall_seconds": walls,
        "processor_seconds": processors,
        "best_wall_seconds": min(walls),
        "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "load_average": os.getloadavg()[0],
        "goal_seconds": GOAL,
    }
    print(figures)
    write_result("evaluate_speed", figures)


if __name__ == "__main__":
    main()
