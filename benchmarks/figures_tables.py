"""How figures are set in the text; shared by figures.py and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def with_interval(row: dict[str, Any], key: str = "auroc") -> str:
    """Return a metric of a row of the results table, and its interval."""
    return in_brackets(row[key], row[f"{key}_interval"])


def in_brackets(value: float, interval: dict[str, Any]) -> str:
    return f"{value:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def difference(found: dict[str, Any]) -> str:
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def table(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the table of metrics, one line a name and its row."""
    lines = [
        "| | normal / abnormal | AUROC [95 %] | AP (prevalence) | sensitivity at 95 % specificity |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows:
        lines.append(
            f"| {name} | {row['n_normal']} / {row['n_abnormal']} | {with_interval(row)} | "
            f"{row['average_precision']:.3f} ({row['prevalence']:.3f}) | "
            f"{with_interval(row, 'sensitivity_at_95_specificity')} |"
        )
    return lines


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table of ready cells."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def trivial(row: dict[str, Any]) -> str:
    """Return the name of a trivial number's row, and which way abnormal films lie."""
    return f"{row['name']} alone ({row['direction']} is abnormal)"


def pointing(told: dict[str, Any], unit: str) -> list[str]:
    """Return the tables of what `pointing.py` finds: the pointing game, and average precision of boxes.

    `unit` is that of the heat; the map's lead over the prior is told where it was measured.
    """
    lines = [
        "RSNA dev, the map brought back to the film, beside radiologists' boxes. Pointing game: does the map's peak",
        f"lie in a box? Boxes cover {told['area_share']:.1%} of the film.",
        "",
        *plain_table(
            ["", "films", "hit rate [95 %]"],
            [[row["name"], str(row["n"]), in_brackets(row["rate"], row["interval"])] for row in told["pointing"]],
        ),
    ]
    if "map_minus_prior" in told:
        lines += ["", f"Hit rate of the map minus that of the mean location: {difference(told['map_minus_prior'])}."]
    above = told["threshold"]
    heat = f"{above['value']:.2f} {unit}".strip()
    lines += [
        "",
        f"Boxes around what is hotter than the {above['quantile_of_normals']:g} quantile of the heat that "
        f"held-out normals show where normal chests hold air ({heat}; {above['boxes_a_film']:.1f} "
        "boxes a film), average precision [95 %]:",
    ]
    for films, rows in told["average_precision"].items():
        overlaps = sorted({row["overlap"] for row in rows})
        by_name: dict[str, list[str]] = {}
        for row in rows:
            by_name.setdefault(row["name"], []).append(in_brackets(row["average_precision"], row["interval"]))
        counts = f"{rows[0]['films']} films, {rows[0]['boxes']} boxes"
        head = [f"{films} ({counts})", *(f"IoU {overlap:g}" for overlap in overlaps)]
        for lead in told.get("precision_map_minus_prior", {}).get(films, ()):
            by_name.setdefault(f"map minus {lead['name']}", []).append(difference(lead))
        lines += ["", *plain_table(head, [[name, *cells] for name, cells in by_name.items()])]
    return lines


def command(result: dict[str, Any]) -> list[str]:
    """Return the lines that say how a result was made."""
    return ["", f"    {result['command']}", ""]
