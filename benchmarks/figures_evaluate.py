"""The part of docs/results.md about evaluation itself: what its intervals hold, and how long it takes."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import in_brackets, plain_table


def page() -> list[str]:
    """Return the lines of every section whose benchmark has been run."""
    return [*coverage(), *speed()]


def coverage() -> list[str]:
    result = read_result("coverage")
    if not result:
        return []
    lines = [
        "## What the intervals hold",
        "",
        f"{result['sets']} simulated sets a line, {result['replicates']} bootstrap replicates: how often a 95 % "
        "interval holds the true AUROC, and",
        f"the true difference of two scores, which is 0, and how often p <= {result['alpha']:g} for it. In brackets: "
        "the chance of so many sets.",
        "Clustered: two to four films a patient, correlated by 0.5; DeLong takes films as independent.",
    ]
    titles = {"bootstrap": "patient-clustered bootstrap", "delong": "DeLong"}
    for method, title in titles.items():
        head = [title, "true AUROC", "holds the AUROC", "holds the difference", f"p <= {result['alpha']:g}"]
        lines += ["", *plain_table(head, [_row(row, row[method]) for row in result["rows"]])]
    return [*lines, "", f"    {result['command']}", ""]


def _row(row: dict[str, Any], found: dict[str, Any]) -> list[str]:
    films = "clustered" if row["clustered"] else "one film each"
    cells = [in_brackets(found[name]["share"], found[name]) for name in ("area", "difference", "size")]
    return [f"{row['normal']} + {row['abnormal']} patients, {films}", f"{row['auroc']:.2f}", *cells]


def speed() -> list[str]:
    result = read_result("evaluate_speed")
    if not result:
        return []
    load, cores = result["load_average"], result["machine"]["cores"]
    beside = f" Other work ran beside it (load average {load:.0f})." if load > cores else ""
    return [
        "## How long an evaluation takes",
        "",
        f"`anomaly evaluate` on {result['films']:,} scans of {result['patients']:,} patients, {result['replicates']:,} "
        f"bootstrap replicates, {result['baselines']} trivial",
        f"baselines, {result['subgroups']} subgroups: {result['best_wall_seconds']:.0f} s on "
        f"{cores} cores ({min(result['processor_seconds']):.0f} s of processor time), "
        f"{result['peak_bytes'] / 2**20:,.0f} MiB at most.{beside}",
        "",
        f"    {result['command']}",
        "",
    ]
