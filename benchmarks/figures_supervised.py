"""The part of docs/results.md about supervised baselines, and where their maps look."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, difference, in_brackets, plain_table, with_interval

SLIDES = 0.775
"""Macro-F1 of VGG16 on Kermany's three classes, from the slides of the projects this one goes back to."""


def dev_rows() -> dict[str, dict[str, Any]]:
    """Return the row of each recipe as shipped, seed 0, on Kermany dev."""
    return {
        cell["recipe"]: cell["row"]
        for cell in read_result("supervised").get("cells", [])
        if not cell["what"] and not cell["seed"]
    }


def page() -> list[str]:
    """Return the lines of the section, once its benchmark has been run."""
    result = read_result("supervised")
    if not result:
        return []
    cells = result["cells"]
    row = cells[0]["row"]
    lines = [
        "## Supervised baselines (real films)",
        "",
        f"Trained on Kermany's train split ({cells[0]['trained_on']} films of both classes; a fifth of the normals is",
        f"held out for p-values), scored on dev ({row['n_normal']} normal, {row['n_abnormal']} pneumonia).",
        "AUROC [95 %]. Minutes are of a whole fit, other work beside it; `changed` says what differs from the recipe.",
        "",
        *plain_table(
            ["recipe", "changed", "seed", "side", "epochs", "minutes", "AUROC", "within softness", "heat in the lungs"],
            [_line(cell) for cell in cells],
        ),
        "",
        *_seeds(result),
        *_paired(result),
        *_classes(cells),
        *_attention(cells),
    ]
    return [*lines, *command(result)]


def _line(cell: dict[str, Any]) -> list[str]:
    soft = cell["within_softness"]
    return [
        cell["recipe"],
        cell["what"],
        str(cell["seed"]),
        str(cell["size"]),
        str(cell["epochs"]),
        f"{cell['seconds'] / 60:.0f}",
        with_interval(cell["row"]),
        in_brackets(soft["auroc"], soft),
        _share(cell),
    ]


def _share(cell: dict[str, Any]) -> str:
    told = cell["attention"]["rows"][0]
    return f"{told['mean']:.3f} [{told['interval']['low']:.3f}, {told['interval']['high']:.3f}]"


def _seeds(result: dict[str, Any]) -> list[str]:
    drawn = result["seeds"]
    values = ", ".join(f"{value:.3f}" for value in drawn["values"])
    return [
        f"mobilenet_v2 over {len(drawn['values'])} seeds: AUROC {drawn['mean']:.3f} ± {drawn['sd']:.3f} ({values})."
    ]


def _paired(result: dict[str, Any]) -> list[str]:
    lines = [
        f"Augmentation minus none, the same films, seed {seed}: {difference(found)}."
        for seed, found in result["augmentation"].items()
    ]
    paint = result["inpaint"]
    return [
        *lines,
        f"Markers painted over minus kept: AUROC {difference(paint['auroc'])}; share of Grad-CAM inside the lungs "
        f"{difference(paint['attention'])} ({paint['attention']['films']} films).",
    ]


def _classes(cells: list[dict[str, Any]]) -> list[str]:
    lines = ["", "### Classes, and where to cut", ""]
    head = ["", "films", "accuracy", "balanced accuracy", "macro-F1", "ECE", "majority class"]
    rows = []
    for cell in cells:
        told = cell["classes"]
        interval = told["accuracy_interval"]
        rows.append(
            [
                " ".join(part for part in (cell["recipe"], cell["what"], f"seed {cell['seed']}") if part),
                str(told["n"]),
                in_brackets(told["accuracy"], interval),
                in_brackets(told["balanced_accuracy"], told["balanced_accuracy_interval"]),
                in_brackets(told["macro_f1"], told["macro_f1_interval"]),
                f"{told['ece']:.3f}",
                f"{told['majority']['accuracy']:.3f}",
            ]
        )
    lines += plain_table(head, rows)
    lines += ["", f"The slides' VGG16 reached a macro-F1 of {SLIDES} on three classes (bacteria, virus, normal)."]
    told = "; ".join(
        f"{cut['rule']} ({cut['threshold']:.3f}) "
        + ", ".join(
            f"{what} {in_brackets(cut[what], cut[f'{what}_interval'])}"
            for what in ("sensitivity", "specificity", "accuracy")
        )
        for cut in cells[0]["classes"]["two_way"]
    )
    return [*lines, f"{cells[0]['recipe']}, normal against the rest: {told}."]


def _attention(cells: list[dict[str, Any]]) -> list[str]:
    """Return how much of Grad-CAM lies inside the lungs, beside what an even map would have there."""
    lines = ["", "### Where Grad-CAM looks", "", "Share of a map's heat inside human lung masks.", ""]
    rows = []
    for cell in cells:
        name = " ".join(part for part in (cell["recipe"], cell["what"], f"seed {cell['seed']}") if part)
        for told in cell["attention"]["rows"]:
            quartiles = f"{told['low_quartile']:.3f} to {told['high_quartile']:.3f}"
            interval = told["interval"]
            mean = in_brackets(told["mean"], interval) if interval else f"{told['mean']:.3f}"
            share = [f"{told['median']:.3f}", quartiles, mean, f"{told['lung_area']:.3f}", f"{told['below']:.3f}"]
            rows.append([name, told["name"], f"{told['n']} ({told['no_heat']} without heat)", *share])
    head = ["", "films", "n", "median", "quartiles", "mean [95 %]", "even map", "share of films below even"]
    return [*lines, *plain_table(head, rows)]


def rows() -> list[str]:
    """Return its lines of the table in short."""
    lines = []
    for recipe, row in dev_rows().items():
        films = f"{row['n_normal']} normal, {row['n_abnormal']} pneumonia"
        lines.append(f"| `{recipe}` (supervised), Kermany dev | {with_interval(row)} | {films} |")
    return lines
