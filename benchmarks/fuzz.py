"""What damaged files do to the reader: mutated PNG, JPEG, TIFF, BMP and DICOM, each a scan or one line of reason.

    python benchmarks/fuzz.py

fuzz_cases.py makes the files. A worker process reads one after another; a case that kills it or takes over 10 seconds
is recorded, and the next worker goes on after it. Memory is the highest resident size of the whole process while one
case was read (Linux only).
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import parser, write_result
from fuzz_cases import KINDS, make_case, make_corpus, verdict

HANG_SECONDS = 10.0
MEMORY_MIB = 2048


def work() -> None:
    """Read case numbers from stdin, answer each with a line of JSON."""
    os.environ.setdefault("ANOMALY_SALT", "of no secret")
    corpus = make_corpus()
    print(json.dumps({"ready": _peak_mib()}), flush=True)
    for line in sys.stdin:
        kind, data = make_case(int(line), corpus)
        _forget_peak()
        noise, started = os.fstat(2).st_size, time.perf_counter()
        outcome, words = verdict(kind, data)
        answer = {"outcome": outcome, "words": words, "seconds": time.perf_counter() - started}
        answer |= {"mib": _peak_mib(), "printed": os.fstat(2).st_size > noise}
        print(json.dumps(answer), flush=True)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the high-water mark


def _peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Worker:
    """A process that reads cases; a new one takes the place of one that died or hung."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.start_mib = 0.0

    def ask(self, number: int) -> dict[str, Any]:
        """Return the answer to a case, or {"outcome": "crash" or "hang", ...}."""
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        return self._answer(HANG_SECONDS)

    def _start(self) -> None:
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.start_mib = self._answer(120.0)["ready"]

    def _answer(self, seconds: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        if not ready:
            self.stop()
            return {"outcome": "hang", "words": f"no answer after {seconds:g} s", "seconds": seconds, "mib": 0.0}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            return {"outcome": "crash", "words": name, "seconds": 0.0, "mib": 0.0}
        return dict(json.loads(line))

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


PLURALS = {"scan": "scans", "refused": "refused", "fault": "faults", "crash": "crashes", "hang": "hangs"}


def reason(sentence: str) -> str:
    """Return a refusal without what differs from file to file."""
    return re.sub(r"\d[\d.]*", "N", sentence.split(";")[0])[:90]


def main() -> None:
    chosen = parser(__doc__)
    chosen.add_argument("--files", type=int, default=5000)
    chosen.add_argument("--first", type=int, default=0, help="number of the first case")
    chosen.add_argument("--worker", action="store_true", help="read cases from stdin (used by this script itself)")
    asked = chosen.parse_args()
    if asked.worker:
        work()
        return
    worker = Worker()
    answers: dict[int, dict[str, Any]] = {}
    for number in range(asked.first, asked.first + asked.files):
        answers[number] = worker.ask(number)
        if answers[number]["outcome"] not in ("scan", "refused"):
            print(f"case {number} ({KINDS[number % len(KINDS)]}): {answers[number]}", flush=True)
    worker.stop()
    formats = {kind: _summary([a for n, a in answers.items() if KINDS[n % len(KINDS)] == kind]) for kind in KINDS}
    figures = {
        "limits": {"seconds": HANG_SECONDS, "mib": MEMORY_MIB},
        "all": _summary(list(answers.values())),
        "formats": formats,
        "mib_before_the_first_case": worker.start_mib,
        "faults": [
            {"case": number, "kind": KINDS[number % len(KINDS)], "what": f"{a['outcome']}: {a['words']}"[:200]}
            for number, a in answers.items()
            if a["outcome"] not in ("scan", "refused") or a["mib"] > MEMORY_MIB
        ],
    }
    print(json.dumps(figures["all"], indent=2))
    write_result("fuzz", figures)


def _summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    outcomes = Counter(answer["outcome"] for answer in answers)
    reasons = Counter(reason(answer["words"]) for answer in answers if answer["outcome"] == "refused")
    return {
        "files": len(answers),
        **{plural: outcomes[name] for name, plural in PLURALS.items()},
        "reasons": dict(reasons.most_common(8)),
        "slowest_seconds": max(answer["seconds"] for answer in answers),
        "peak_mib": max(answer["mib"] for answer in answers),
        "printed_by_decoders": sum(bool(answer.get("printed")) for answer in answers),
    }


if __name__ == "__main__":
    main()
