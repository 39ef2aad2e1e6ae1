"""The pages of compare.py: the table, the pairs, costs, places, parts; and how long each recipe takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import read_result
from figures_tables import plain_table

from anomaly.workflows.progress import seconds

SETS = {"kermany": "Kermany dev (children)", "rsna": "RSNA dev (adults)"}
_METRICS = {
    "auroc": "AUROC",
    "auroc_within_softness": "AUROC, like softness",
    "average_precision": "AP",
    "sensitivity_at_95_specificity": "sensitivity at 95 % specificity",
    "fpr_at_95_sensitivity": "FPR at 95 % sensitivity",
    "f1_max_oracle": "F1-max (oracle)",
}


def page() -> list[str]:
    lines: list[str] = []
    for name, title in SETS.items():
        result = read_result(f"compare_{name}")
        if result:
            lines += [f"## All methods side by side, {title}", "", *_section(result)]
    return lines


def _section(result: dict[str, Any]) -> list[str]:
    table, entries = result["table"], result["entries"]
    share = table["n_abnormal"] / (table["n_normal"] + table["n_abnormal"])
    learnt = ", ".join(f"{count} {kind}" for kind, count in result["trained_on"].items())
    hours = result["cells_seconds"] / 3600
    lines = [
        f"One split for all: {table['n_normal']} normal and {table['n_abnormal']} abnormal films of "
        f"{table['n_patients']} patients (chance of AP {share:.3f}); to learn from {learnt}, and "
        f"{result['calibrated_on']} normals held out. Mean over seeds ± sd [95 %, patients resampled]. Fitting and "
        f"scoring took {hours:.1f} hours of this machine, beside other work.",
        "",
        *plain_table(["", "learns from", "seeds", *_METRICS.values()], [_row(row) for row in table["rows"]]),
        "",
    ]
    for entry in entries:
        lines += [f"{cell} failed: {reason}" for cell, reason in entry["failed"].items()]
        lines += [""] if entry["failed"] else []
    least = f"which by resampling cannot be less than {_p(table['least_p'])}"
    lines += [
        f"Differences of AUROC, one minus other; p by resampling patients and by DeLong, after Holm, {least}:",
        "",
    ]
    lines += [*plain_table(["one", "other", "difference [95 %]", "p, patients", "p, DeLong"], _pairs(table)), ""]
    lines += [*plain_table(["", "trained on", "fit", "a film", "memory", "model", "flagged", "AUCp"], _costs(result))]
    lines += ["", f"Flagged: normals at alpha {result['alpha']:g}. Memory: the most of its process.", ""]
    if places := _places(entries):
        lines += ["How maps lie on known lesions, first seed; the two last lines look at no film:", ""]
        lines += [*plain_table(*places), ""]
    if parts := _parts(entries):
        lines += ["AUROC of parts of the films, first seed:", "", *plain_table(*parts), ""]
    audit = result["split_audit"][:3]
    if audit:
        told = "; ".join(f"{row['name']} {row['auroc']:.3f}" for row in audit)
        lines += [f"Test normals told from those trained on by one number (AUROC): {told}.", ""]
    return [*lines, f"    {result['command']}", ""]


def _told(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "n/a"
    spread = "" if figure["sd"] is None else f" ± {figure['sd']:.3f}"
    between = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{spread}{between}"


def _row(row: dict[str, Any]) -> list[str]:
    trivial = row["direction"] is not None
    name = f"*{row['name']}*, abnormal is {row['direction']}" if trivial else f"`{row['name']}`"
    seeds = "" if trivial else str(row["seeds"])
    return [name, row["kind"], seeds, *(_told(row["figures"].get(metric)) for metric in _METRICS)]


def _p(value: float | None) -> str:
    return "n/a" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _pairs(table: dict[str, Any]) -> list[list[str]]:
    return [
        [
            pair["one"],
            pair["other"],
            f"{pair['difference']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}]",
            _p(pair["p_patients_holm"]),
            _p(pair["p_delong_holm"]),
        ]
        for pair in table["pairs"]
    ]


def _costs(result: dict[str, Any]) -> list[list[str]]:
    rows = []
    for entry in result["entries"]:
        cost = entry["cost"]
        if cost is None:
            continue
        took = [f"{cost['fit_seconds']:,.0f} s", f"{1000 * cost['seconds_per_image']:.0f} ms"]
        sizes = [f"{cost[name] / 2**20:,.1f} MiB" for name in ("peak_bytes", "model_bytes")]
        rows.append(
            [f"`{entry['name']}`", str(cost["trained"]), *took, *sizes, _told(entry["alarms"]), _told(entry["aucp"])]
        )
    return rows


def _places(entries: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]] | None:
    known = [entry for entry in entries if entry["localisation"] and entry["localisation"]["figures"]]
    if not known:
        return None
    first = known[0]["localisation"]["figures"]

    def ranged(value: float, interval: dict[str, float] | None) -> str:
        return f"{value:.3f}" + ("" if interval is None else f" [{interval['low']:.3f}, {interval['high']:.3f}]")

    rows = [
        [f"`{entry['name']}`", *(ranged(f["value"], f["interval"]) for f in entry["localisation"]["figures"])]
        for entry in known
    ]
    rows.append(["*mean lesion of the others*", *(ranged(f["usual"], f["usual_interval"]) for f in first)])
    rows.append(["*chance*", *(f"{f['chance']:.3f}" for f in first)])
    return ["", *(f"{f['name']} (n = {f['films']})" for f in first)], rows


def _parts(entries: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]] | None:
    known = [entry for entry in entries if entry["subgroups"]]
    if not known:
        return None
    rows = []
    for column, parts in known[0]["subgroups"].items():
        for i, part in enumerate(parts):
            each = [entry["subgroups"][column][i] for entry in known]
            told = ["n/a" if own["auroc"] is None else f"{own['auroc']:.3f}" for own in each]
            rows.append([f"{column}: {part['value']}", str(part["n_normal"]), str(part["n_abnormal"]), *told])
    return ["", "normal", "abnormal", *(f"`{entry['name']}`" for entry in known)], rows


def times() -> dict[str, dict[str, float]]:
    """Return what `anomaly compare --dry-run` goes by: what each recipe took on Kermany."""
    result = read_result("compare_kermany")
    return {
        entry["name"]: {
            "fit_seconds": round(cost["fit_seconds"], 1),
            "trained_on": cost["trained"],
            "seconds_per_image": round(cost["seconds_per_image"], 5),
        }
        for entry in (result["entries"] if result else ())
        if (cost := entry["cost"]) is not None
    }


def readme() -> list[str]:
    """Return the README's table: every method and the best trivial number on both sets, and what a method takes."""
    results = {name: result for name in SETS if (result := read_result(f"compare_{name}"))}
    if "kermany" not in results:
        return []
    known = {name: {row["name"]: row for row in result["table"]["rows"]} for name, result in results.items()}
    first = results["kermany"]
    costs = {entry["name"]: entry["cost"] for entry in first["entries"] if entry["cost"] is not None}
    heads = [f"{_SHORT[key]}{part}" for key in results for part in (": AUROC", ": like softness")]
    best = next(name for name, row in known["kermany"].items() if row["direction"] is not None)
    shown = [row for name, row in known["kermany"].items() if row["direction"] is None or name == best]
    ranked = sorted(shown, key=lambda row: -row["figures"]["auroc"]["value"])
    lines = []
    for row in ranked:
        trivial = row["direction"] is not None
        name = f"*{row['name']} alone*" if trivial else f"`{row['name']}`"
        name += " (supervised)" if row["kind"] == "supervised" else ""
        cells = []
        for rows in known.values():
            figures = rows[row["name"]]["figures"] if row["name"] in rows else {}
            cells += [_told(figures.get(metric)) for metric in ("auroc", "auroc_within_softness")]
        cost = costs.get(row["name"])
        took = ["", ""]
        if cost is not None and not trivial:
            took = [seconds(cost["fit_seconds"]), f"{1000 * cost['seconds_per_image']:.0f} ms"]
        lines.append([name, *cells, *took])
    return [*plain_table(["", *heads, "fit", "a film"], lines), "", *_readme_words(results), ""]


_SHORT = {"kermany": "Kermany dev, children", "rsna": "RSNA dev, adults, any abnormality"}


def _readme_words(results: dict[str, Any]) -> list[str]:
    told = []
    for name, result in results.items():
        table = result["table"]
        seeds = max(row["seeds"] for row in table["rows"] if row["direction"] is None)
        told.append(
            f"{_SHORT[name]}: {table['n_normal']} normal and {table['n_abnormal']} abnormal films, "
            f"{result['trained_on']['normal']} normals to learn from, {seeds} seed{'s' if seeds > 1 else ''}"
        )
    apart = []
    for name, result in results.items():
        pair = next(
            pair
            for pair in result["table"]["pairs"]
            if pair["one"] == "atlas" and pair["other"].startswith("best trivial number")
        )
        apart.append(
            f"{pair['difference']:+.3f} [{pair['low']:+.3f}, {pair['high']:+.3f}] on {_SHORT[name].partition(',')[0]}"
        )
    return [
        f"One split for all, by `anomaly compare` (`benchmarks/compare.py`), on 2 cores. {'; '.join(told)}. Mean over "
        "seeds ± sd [95 %, whole patients resampled]; like softness: among films that are as soft. In italics: one "
        "number that looks at no chest, turned by the labels in its favour; `atlas` minus the best such number: "
        f"{', '.join(apart)}.",
    ]
