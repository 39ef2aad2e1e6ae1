"""The part of docs/results.md about getting scans in; called by figures.py."""

from __future__ import annotations

from typing import Any

from common import read_result


def page() -> list[str]:
    """Return the lines of every section whose benchmark has been run."""
    return [*inspection(), *quality(), *inpainting(), *copies(), *damaged(), *throughput(), *memory()]


def _command(result: dict[str, Any]) -> list[str]:
    return ["", f"    {result['command']}", ""]


def inspection() -> list[str]:
    result = read_result("inspect_kermany")
    if not result:
        return []
    seconds, plan = result["seconds"], result["fit"]
    lines = [
        "## Inspecting Kermany",
        "",
        f"`anomaly inspect --html` on {result['films']} films, {result['machine']['cores']} cores: "
        f"{seconds['without_cache']:.0f} s without a cache, {seconds['from_the_cache']:.0f} s from the cache. A fit "
        f"would train on {plan['train']}, hold out {plan['calibration']}, keep {plan['test']} for testing.",
        "",
        f"Shortcut audit, {result['shortcut_audit_on']}; and test normals against training normals, "
        f"{result['split_audit_on']}. AUROC of one number, in the direction the labels choose:",
        "",
        "| | abnormal against normal [95 %] | test normals against training normals [95 %] |",
        "|---|---|---|",
    ]
    splits = {row["name"]: row for row in result["split_audit"]}
    for row in result["shortcut_audit"]:
        cells = [f"{r['auroc']:.3f} [{r['ci'][0]:.3f}, {r['ci'][1]:.3f}]" for r in (row, splits[row["name"]])]
        lines.append(f"| {row['name']} | {cells[0]} | {cells[1]} |")
    known = ", ".join(f"{name} {row['known']:.2f}" for name, row in result["known"].items())
    within = "both lie" if all(row["within"] for row in result["known"].values()) else "NOT all lie"
    lines += ["", f"Known figures on the whole official test are {known}; {within} within these intervals."]
    return [*lines, *_command(result)]


def copies() -> list[str]:
    result = read_result("duplicates")
    if not result:
        return []
    recall = result["recall"].values()
    films, found = sum(row["films"] for row in recall), sum(round(row["films"] * row["confirmed"]) for row in recall)
    confirmed = sum(len(row["confirmed"]) for row in result["pairs"].values() if isinstance(row["confirmed"], list))
    compared = sum(row["pairs"] for row in result["pairs"].values() if "pairs" in row)
    within = result["chance"]["kermany"]["share_of_pairs_within"][str(result["radius"])]
    return [
        "## Copies of a film",
        "",
        f"{len(result['recall'])} ways of changing a film (re-saving, resizing, re-windowing, gamma, crops, shifts, "
        f"turns): {found} of {films} copies found, {sum(row['pairs_of_other_films'] for row in recall)} other films "
        f"taken for one. Of {compared:,} pairs of different files of Kermany, RSNA and Montgomery {confirmed} not "
        f"bit-identical pair is confirmed. The hash alone would not do: {within:.0%} "
        f"of clean Kermany pairs lie within the {result['radius']} bits it takes to nominate every copy.",
        *_command(result),
    ]


def damaged() -> list[str]:
    result = read_result("fuzz")
    if not result:
        return []
    total = result["all"]
    lines = [
        "## Damaged files",
        "",
        f"{total['files']:,} seeded mutations of good files: {total['scans']:,} still read as a scan, "
        f"{total['refused']:,} refused in one line, {total['faults']} other errors, {total['crashes']} crashes, "
        f"{total['hangs']} hangs over {result['limits']['seconds']:.0f} s. Slowest {total['slowest_seconds']:.2f} s, "
        f"peak memory {total['peak_mib']:.0f} MiB.",
        "",
        "| | files | scans | refused | slowest, s |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["formats"].items():
        lines.append(f"| {name} | {row['files']} | {row['scans']} | {row['refused']} | {row['slowest_seconds']:.2f} |")
    return [*lines, *_command(result)]


def throughput() -> list[str]:
    result = read_result("throughput")
    if not result:
        return []
    kinds = {name: row for name, row in result.items() if isinstance(row, dict) and "films_per_second" in row}
    lines = [
        "## Reading",
        "",
        f"Full-size films a second, {result['workers']} processes; bare is a loop over the same OpenCV and pydicom "
        "calls. Ratios are medians of turns within one run.",
        "",
        "| | read + prepare | bare | ratio | examined too | its ratio | against bare decoding | from the cache |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in kinds.items():
        rate, ratio = row["films_per_second"], row["ratios"]
        lines.append(
            f"| {name}, {row['films']} films | {rate['ours']:.1f} | {rate['bare']:.1f} | {ratio['ours / bare']:.2f} | "
            f"{rate['ours, examined']:.1f} | {ratio['ours, examined / bare']:.2f} | "
            f"{ratio['ours / bare decoding']:.2f} | "
            f"{rate['ours, examined, from the cache']:.1f} |"
        )
    return [*lines, *_command(result)]


def memory() -> list[str]:
    result = read_result("memory")
    if not result:
        return []
    runs = ", ".join(f"{run['peak'] / 2**20:.0f} MiB for {run['films']:,} films" for run in result["runs"])
    return [
        f"Peak memory of reading, preparing, examining and spooling, with {result['workers']} workers: {runs}; "
        f"growth {result['growth']:.1%}.",
        *_command(result),
    ]


def inpainting() -> list[str]:
    result = read_result("inpaint")
    if not result:
        return []
    lines = ["## Markers filled in", "", "| recipe, seed | keep | inpaint | inpaint minus keep |", "|---|---|---|---|"]
    for recipe, runs in result["recipes"].items():
        for run in runs:
            keep, inpaint = (
                f"{run[what]['auroc']:.3f} [{run[what]['low']:.3f}, {run[what]['high']:.3f}]"
                for what in ("keep", "inpaint")
            )
            by = run["inpaint minus keep"]
            lines.append(
                f"| {recipe}, {run['seed']} | {keep} | {inpaint} | "
                f"{by['difference']:+.3f} [{by['low']:+.3f}, {by['high']:+.3f}] |"
            )
    shares = ", ".join(f"{row['share']:.0%} of {name}" for name, row in result["markers_found"].items())
    return [*lines, "", f"AUROC [95 %] on {result['data']}. Markers found on {shares}.", *_command(result)]


def quality() -> list[str]:
    result = read_result("quality")
    if not result:
        return []
    judged, every = result["judged"], result["all"]
    lines = [
        "## Quality flags",
        "",
        f"{judged['films']} real films judged by eye (`benchmarks/quality_verdicts.csv`; flagged ones were sought out, "
        f"so shares are of flags, not of films), and every flag over {every['films']:,} films:",
        "",
        "| flag | right of judged [95 %] | missed in the sample | flagged of all |",
        "|---|---|---|---|",
    ]
    for name, count in every["flags"].items():
        row = judged["precision"].get(name)
        right = "none to judge" if row is None else f"{row['k']} of {row['n']} [{row['low']:.2f}, {row['high']:.2f}]"
        lines.append(f"| {name} | {right} | {judged['missed'].get(name, 0)} | {count} |")
    altered = ", ".join(
        f"{name} {row['share']:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
        for name, row in every["altered_films_found"].items()
    )
    return [*lines, "", f"The same films turned or inverted, share flagged: {altered}.", *_command(result)]
