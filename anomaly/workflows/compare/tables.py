"""A comparison's figures as files: table.csv, table.md, pairs.csv, scores.csv, comparison.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomaly.runs import write_json, write_table, write_text
from anomaly.workflows.classification import grid
from anomaly.workflows.compare.results import Results
from anomaly.workflows.compare.summary import Entry, Summary
from anomaly.workflows.compare.table import BASELINE, Figure, Pair, Row
from anomaly.workflows.progress import seconds

TABLE, MARKDOWN, PAIRS, SCORES, COMPARISON = "table.csv", "table.md", "pairs.csv", "scores.csv", "comparison.json"
TITLES = {
    "auroc": "AUROC",
    "auroc_within_softness": "AUROC among films of like softness",
    "average_precision": "AP",
    "sensitivity_at_95_specificity": "sensitivity at 95 % specificity",
    "fpr_at_95_sensitivity": "FPR at 95 % sensitivity",
    "f1_max_oracle": "F1-max (oracle)",
}
"""Columns of the table, by the name of their figure."""


def write_tables(output: Path, summary: Summary, results: Results) -> None:
    """Write all of them into a comparison's folder."""
    write_json(output / COMPARISON, summary.to_dict())
    write_table(output / TABLE, _table(summary))
    write_table(output / PAIRS, _pairs(summary.table.pairs))
    write_table(output / SCORES, _scores(results))
    write_text(output / MARKDOWN, to_markdown(summary) + "\n")


def told(figure: Figure | None) -> str:
    """Return "0.912 ± 0.004 [0.880, 0.941]": mean over seeds, their sd where there are several, the interval."""
    if figure is None:
        return "n/a"
    spread = "" if figure.sd is None else f" ± {figure.sd:.3f}"
    between = "" if figure.low is None or figure.high is None else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.value:.3f}{spread}{between}"


def p_told(p: float | None) -> str:
    """Return a p-value as people write it."""
    return "n/a" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def size_told(size: float) -> str:
    """Return bytes as people say them."""
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.2f} GiB"


def _table(summary: Summary) -> list[list[object]]:
    head: list[object] = ["name", "kind", "seeds", "normal", "abnormal", "patients", "prevalence", "direction"]
    for name in TITLES:
        head += [name, f"{name}_sd", f"{name}_low", f"{name}_high"]
    head += ["flagged_normals", "alpha", "aucp", "fit_seconds", "seconds_per_image", "peak_bytes", "model_bytes"]
    head += ["trained_on", "runs_on", "failed"]
    table = summary.table
    counts = [table.n_normal, table.n_abnormal, table.n_patients, f"{prevalence(summary):.6g}"]
    entries = {entry.name: entry for entry in summary.entries}
    lines = [head]
    for row in table.rows:
        line: list[object] = [row.name, row.kind, row.seeds, *counts, row.direction or ""]
        for name in TITLES:
            own = row.figures.get(name)
            values = (None,) * 4 if own is None else (own.value, own.sd, own.low, own.high)
            line += ["" if value is None else f"{value:.6g}" for value in values]
        lines.append(line + _rest(entries.get(row.name) if row.kind != BASELINE else None, summary.alpha))
    blank = [""] * (4 * len(TITLES) + 10)
    lines += [[e.name, e.kind, 0, *counts, *blank, _failed(e)] for e in summary.entries if not e.seeds]
    return lines


def _rest(entry: Entry | None, alpha: float) -> list[object]:
    if entry is None or entry.cost is None or entry.alarms is None or entry.aucp is None:
        return [""] * 10
    cost = entry.cost
    return [
        f"{entry.alarms.value:.6g}",
        alpha,
        f"{entry.aucp.value:.6g}",
        f"{cost.fit_seconds:.1f}",
        f"{cost.seconds_per_image:.5f}",
        cost.peak_bytes,
        cost.model_bytes,
        cost.trained,
        cost.runs_on,
        _failed(entry),
    ]


def _failed(entry: Entry) -> str:
    return "; ".join(f"{cell}: {reason}" for cell, reason in entry.failed.items())


def prevalence(summary: Summary) -> float:
    """Return the share of abnormal among the test films: what AP is at chance."""
    return summary.table.n_abnormal / (summary.table.n_normal + summary.table.n_abnormal)


def _pairs(pairs: Sequence[Pair]) -> list[list[object]]:
    names = ("difference", "low", "high", "p_patients", "p_patients_holm", "p_delong", "p_delong_holm")
    lines: list[list[object]] = [["one", "other", *names]]
    for pair in pairs:
        values = [getattr(pair, name) for name in names]
        lines.append([pair.one, pair.other, *("" if value is None else f"{value:.6g}" for value in values)])
    return lines


def _scores(results: Results) -> list[list[object]]:
    """Return a line a film: what it is, then the score and the p-value of every cell."""
    head: list[object] = ["scan_id", "path", "patient", "label", "class"]
    for found in results.cells:
        head += [found.cell.name, f"{found.cell.name}.p"]
    lines = [head]
    for i, film in enumerate(results.films):
        known = film.patient if film.patient != film.scan_id else ""
        line: list[object] = [film.scan_id, film.file.relative, known, film.label, film.file.class_name or ""]
        for found in results.cells:
            line += [f"{found.scores[i]:.9g}", f"{found.p_values[i]:.6g}"]
        lines.append(line)
    return lines


def to_markdown(summary: Summary) -> str:
    """Return what a paper would print: counts, the table, pairs, alarms, costs, places, and how each was made."""
    table = summary.table
    learnt = ", ".join(f"{count} {name}" for name, count in sorted(summary.trained_on.items(), reverse=True))
    where = f"the published split {summary.published}" if summary.published else "a drawn test set"
    parts = [
        f"Tested on {table.n_normal} normal and {table.n_abnormal} abnormal films of {table.n_patients} patients "
        f"({where}); to learn from: {learnt}, and {summary.calibrated_on} normals held out. Methods that learn from "
        "normals alone see no other.",
        _rows(table.rows, [entry for entry in summary.entries if not entry.seeds], prevalence(summary)),
        _explained(summary),
        "Differences of AUROC, one minus other, on the same films:\n\n" + _pair_lines(table.pairs),
        "p by resampling whole patients together, and by DeLong, who takes films as independent; adjusted by Holm over "
        f"all {len(table.pairs)} pairs. Resampling can say no less than {p_told(table.least_p)} after Holm.",
        "What they take, and what they say of normals:\n\n" + _costs(summary),
    ]
    if places := localised(summary):
        parts.append(
            "How maps lie on known lesions, first seed; the two last lines look at no film:\n\n" + grid(places)
        )
    if groups := subgroups(summary):
        parts.append("AUROC of parts of the films, first seed:\n\n" + grid(groups))
    if summary.split_audit:
        parts.append("Test normals told from those trained on, by one number:\n\n" + grid(audited(summary)))
    parts += [f"{cell} failed: {reason}" for cell, reason in summary.failed.items()]
    parts += [f"Not read, and in no figure: {reason}" for reason in summary.unreadable]
    parts += list(summary.notes)
    parts.append("Research software, never a diagnosis.")
    return "\n\n".join(parts)


def _rows(rows: Sequence[Row], failed: Sequence[Entry], share: float) -> str:
    titles = [
        f"{title} (chance {share:.3f})" if name == "average_precision" else title for name, title in TITLES.items()
    ]
    lines = [["", "learns from", "seeds", *titles]]
    for row in rows:
        name = f"*{row.name}*, abnormal is {row.direction}" if row.kind == BASELINE else f"**{row.name}**"
        lines.append([name, row.kind, str(row.seeds), *(told(row.figures.get(key)) for key in TITLES)])
        if row.kind == BASELINE:
            lines[-1][2] = ""
    lines += [[f"**{e.name}**", e.kind, "0", f"failed: {_failed(e)}", *[""] * (len(TITLES) - 1)] for e in failed]
    return grid(lines)


def _explained(summary: Summary) -> str:
    leftover = summary.table.softness_leftover
    soft = "" if leftover is None else f" Among films of like softness, softness itself still has AUROC {leftover:.3f}."
    return (
        "Mean over seeds ± their standard deviation [95 % interval, whole patients resampled]. A trivial baseline is "
        "one number of a film that looks at no anatomy; its direction was chosen by the labels, in its favour. The "
        f"threshold of F1-max is picked with the answers.{soft}"
    )


def _pair_lines(pairs: Sequence[Pair]) -> str:
    lines = [["one", "other", "difference [95 %]", "p, patients", "Holm", "p, DeLong", "Holm"]]
    for pair in pairs:
        apart = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
        values = (pair.p_patients, pair.p_patients_holm, pair.p_delong, pair.p_delong_holm)
        lines.append([pair.one, pair.other, apart, *(p_told(p) for p in values)])
    return grid(lines)


def _costs(summary: Summary) -> str:
    alarms = f"normals flagged at alpha {summary.alpha:g}"
    lines = [["", "trained on", "fit", "per image", "peak memory", "model", alarms, "AUCp", "runs on"]]
    for entry in summary.entries:
        if entry.cost is None:
            continue
        cost = entry.cost
        took = [str(cost.trained), seconds(cost.fit_seconds), f"{1000 * cost.seconds_per_image:.0f} ms"]
        memory = [size_told(cost.peak_bytes), size_told(cost.model_bytes)]
        lines.append([entry.name, *took, *memory, told(entry.alarms), told(entry.aucp), cost.runs_on])
    return grid(lines)


def localised(summary: Summary) -> list[list[str]]:
    """Return the lines of the table of places, its head first; [] where no lesion is known.

    The two last lines look at no film: where the other patients' lesions lie, and an even map.
    """
    known = {entry.name: found for entry in summary.entries if (found := entry.localisation) and found["figures"]}
    if not known:
        return []
    first = next(iter(known.values()))["figures"]
    lines = [["", *(f"{figure['name']} (n = {figure['films']})" for figure in first)]]
    for name, found in known.items():
        lines.append([name, *(_ranged(figure["value"], figure["interval"]) for figure in found["figures"])])
    usual = [_ranged(figure["usual"], figure["usual_interval"]) for figure in first]
    return [*lines, ["mean lesion of the others", *usual], ["chance", *(f"{figure['chance']:.3f}" for figure in first)]]


def _ranged(value: float, interval: Mapping[str, Any] | None) -> str:
    between = (None, None) if interval is None else (interval["low"], interval["high"])
    return told(Figure(value, None, *between))


def subgroups(summary: Summary) -> list[list[str]]:
    """Return the lines of the table of subgroups, its head first; [] where there are none."""
    entries = [entry for entry in summary.entries if entry.subgroups]
    if not entries:
        return []
    lines = [["", "normal", "abnormal", *(entry.name for entry in entries)]]
    for column, rows in (entries[0].subgroups or {}).items():
        for i, row in enumerate(rows):
            each = [(entry.subgroups or {})[column][i] for entry in entries]
            cells = [
                told(Figure(own.auroc, None, own.interval.low, own.interval.high))
                if own.auroc is not None and own.interval is not None
                else "n/a"
                for own in each
            ]
            lines.append([f"{column}: {row.value}", str(row.n_normal), str(row.n_abnormal), *cells])
    return lines


def audited(summary: Summary) -> list[list[str]]:
    """Return the lines of the audit of the split, its head first."""
    lines = [["number", "AUROC [95 %]", "test normals are"]]
    for row in summary.split_audit:
        low, high = row["ci"] or (None, None)
        lines.append([row["name"], told(Figure(row["auroc"], None, low, high)), row["direction"]])
    return lines
