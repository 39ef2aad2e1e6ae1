"""How often 95 % intervals hold the truth, and how often p <= 0.05 where nothing differs, on simulated films.

    python benchmarks/coverage.py

Scores are normal, of variance 1, an abnormal film's mean d above a normal film's, so the true AUROC is Phi(d / sqrt 2).
Two scores of the same films have the same AUROC and correlation 0.5: their true difference is 0. "Clustered": each
patient has two to four films of one class, whose scores correlate by 0.5. The patient-clustered bootstrap is that of
`anomaly evaluate`; DeLong's method takes films as independent. Less than 10 minutes on one core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from common import parser, write_result

from anomaly.evaluate.curves import CURVE_METRICS, curve_replicates
from anomaly.evaluate.delong import contrast, delong
from anomaly.evaluate.intervals import Interval, compared, proportion, wilson
from anomaly.evaluate.metrics import auroc_of
from anomaly.records import Float64, Int64

PATIENTS = ((35, 25), (200, 100))
AREAS = (0.76, 0.93)
SCORES_CORRELATE, FILMS_CORRELATE = 0.5, 0.5
ALPHA = 0.05
METHODS = ("bootstrap", "delong")


@dataclass(frozen=True)
class Case:
    """One kind of simulated set."""

    clustered: bool
    normal: int
    abnormal: int
    auroc: float

    def draw(self, rng: np.random.Generator) -> tuple[Int64, Float64, Int64]:
        """Return labels int64 (N,), two scores float64 (N, 2), and patients int64 (N,)."""
        count = self.normal + self.abnormal
        films = rng.integers(2, 5, count) if self.clustered else np.ones(count, np.int64)
        patients = np.repeat(np.arange(count), films)
        labels = (patients >= self.normal).astype(np.int64)
        share = FILMS_CORRELATE if self.clustered else 0.0
        noise = math.sqrt(share) * _pairs(rng, count)[patients] + math.sqrt(1.0 - share) * _pairs(rng, len(patients))
        shift = math.sqrt(2.0) * NormalDist().inv_cdf(self.auroc)
        return labels, noise + shift * labels[:, None], patients


@dataclass(frozen=True)
class Answer:
    """What one method says of one set: intervals of the first score's AUROC and of the difference, and its p-value."""

    area: Interval | None
    difference: Interval | None
    p_value: float | None


def _pairs(rng: np.random.Generator, n: int) -> Float64:
    """Return n pairs of standard normal numbers that correlate by `SCORES_CORRELATE`: float64 (n, 2)."""
    first, second = rng.normal(size=(2, n))
    mixed = SCORES_CORRELATE * first + math.sqrt(1.0 - SCORES_CORRELATE**2) * second
    return np.column_stack([first, mixed])


def answers(labels: Int64, scores: Float64, patients: Int64, replicates: int, seed: int) -> dict[str, Answer]:
    """Ask both methods. The bootstrap is `intervals.bootstrap` and `paired_difference`, on one set of resamples."""
    found = delong(labels, scores)
    drawn = curve_replicates(labels, scores, patients, n=replicates, seed=seed)[:, :, CURVE_METRICS.index(auroc_of)]
    fewest = min(len(np.unique(patients[labels == label])) for label in (0, 1))
    paired = compared(float(found.areas[0] - found.areas[1]), drawn[:, 0] - drawn[:, 1], fewest)
    alone, apart = contrast(found, [1, 0]), contrast(found, [1, -1])
    return {
        "bootstrap": Answer(proportion(drawn[:, 0], fewest), paired.interval, paired.p_value),
        "delong": Answer(alone.interval, apart.interval, apart.p_value),
    }


def told(case: Case, each: list[Answer]) -> dict[str, Any]:
    """Return how often a method's answers are right; one it cannot give counts as wrong, and as no finding."""
    found: dict[str, Any] = {}
    for name, truth in (("area", case.auroc), ("difference", 0.0)):
        given = [getattr(answer, name) for answer in each]
        hits = sum(one is not None and one.low <= truth <= one.high for one in given)
        found[name] = _share(hits, len(each))
        found[name]["width"] = float(np.mean([one.high - one.low for one in given if one is not None]))
    found["size"] = _share(sum(a.p_value is not None and a.p_value <= ALPHA for a in each), len(each))
    found["none"] = sum(answer.area is None or answer.difference is None for answer in each)
    return found


def _share(k: int, n: int) -> dict[str, float]:
    interval = wilson(k, n)
    return {"share": k / n, "low": interval.low, "high": interval.high}


def main() -> None:
    chosen = parser(__doc__)
    chosen.add_argument("--sets", type=int, default=500)
    chosen.add_argument("--replicates", type=int, default=1000)
    given = chosen.parse_args()
    cases = [Case(clustered, *counts, area) for clustered in (False, True) for counts in PATIENTS for area in AREAS]
    rows = []
    for number, case in enumerate(cases):
        rng = np.random.default_rng(number)
        each = [answers(*case.draw(rng), given.replicates, seed) for seed in range(given.sets)]
        row = {"clustered": case.clustered, "normal": case.normal, "abnormal": case.abnormal, "auroc": case.auroc}
        rows.append(row | {method: told(case, [one[method] for one in each]) for method in METHODS})
        print(rows[-1], flush=True)
    write_result("coverage", {"sets": given.sets, "replicates": given.replicates, "alpha": ALPHA, "rows": rows})


if __name__ == "__main__":
    main()
