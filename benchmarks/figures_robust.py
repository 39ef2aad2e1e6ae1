"""The part of docs/results.md about how robust the atlas is: grid, ideas, shortcuts; called by figures.py."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, difference, in_brackets, plain_table

TASKS = {
    "kermany": "Kermany, pneumonia",
    "rsna_opacity": "RSNA, lung opacity",
    "rsna_all": "RSNA, all abnormal",
}


def page() -> list[str]:
    """Return the lines of every section whose benchmark has been run."""
    return [*grid(), *ideas(), *shortcuts()]


def grid() -> list[str]:
    result = read_result("atlas_grid")
    if not result:
        return []
    lines = [
        "## How much the atlas depends on its settings",
        "",
        "Dev AUROC over single settings (one crop, one CLAHE, one rank) and over averaged ones, the recipe's nine",
        "looks and four ranks with their centres moved about. The recipe is fitted on all train normals of a set here.",
        "Nothing was chosen from this.",
    ]
    for terms, tasks in result["spread"].items():
        rows = []
        for task, found in tasks.items():
            for kind in ("single", "averaged"):
                spread = found[kind]
                numbers = [f"{spread[key]:.3f}" for key in ("min", "q1", "median", "q3", "max")]
                rows.append(
                    [f"{TASKS[task]}, {kind}", str(spread["n"]), *numbers, f"{found['share_below_recipe'][kind]:.0%}"]
                )
            recipe: dict[str, Any] = found["recipe"]
            rows.append(
                [f"{TASKS[task]}, **the recipe**", "1", "", "", in_brackets(recipe["auroc"], recipe), "", "", ""]
            )
        head = ["", "settings", "least", "quartile", "median", "quartile", "greatest", "below the recipe"]
        lines += ["", f"### {terms[0].upper()}{terms[1:]}", "", *plain_table(head, rows)]
    return [*lines, *command(result)]


def ideas() -> list[str]:
    result = read_result("atlas_ideas")
    if not result:
        return []
    tried = ", ".join(f"{idea} {count}" for idea, count in result["variants_tried"].items() if idea != "recipe")
    lines = [
        "## What more the atlas could do",
        "",
        f"Variants against the recipe on the same films, patients resampled together. Tried here: {tried}. "
        f"{result['note']}",
    ]
    for task, title in TASKS.items():
        rows = []
        for entry in result["rows"]:
            found = entry[task]
            minus = difference(found["minus_recipe"]) if "minus_recipe" in found else ""
            soft = found["within_softness"]
            name = entry["name"] if entry["idea"] == "recipe" else f"{entry['idea']}: {entry['name']}"
            cells = [in_brackets(found["auroc"], found), minus, in_brackets(soft["auroc"], soft)]
            rows.append([name, *cells])
        head = ["", "AUROC [95 %]", "minus the recipe", "within softness"]
        lines += ["", f"### {title}", "", *plain_table(head, rows)]
    return [*lines, *command(result)]


def shortcuts() -> list[str]:
    result = read_result("atlas_shortcuts")
    if not result:
        return []
    reading = "; ".join(f"*{word}*: {meaning}" for word, meaning in result["reading"].items())
    lines = [
        "## The atlas without its shortcuts",
        "",
        "Films changed for scoring alone (*test*), or for the fit as well (*train and test*); and the film as it is, "
        f"among films alike in a nuisance or less the trend of normals over it. {reading}.",
    ]
    for task, title in TASKS.items():
        told = result["comparisons"][task]
        rows = []
        for entry in told["conditions"]:
            own, floor = entry["atlas"], entry["pixel-stats"]
            terms = [f"{entry[name]['auroc']:.3f}" for name in ("opacity", "deficit", "darker")]
            cells = [in_brackets(own["auroc"], own), difference(own["minus_untouched"]), f"{own['stays']:.2f}", *terms]
            rows.append([entry["name"], entry["when"], *cells, f"{floor['auroc']:.3f}"])
        head = [
            "",
            "changed",
            "AUROC [95 %]",
            "minus untouched",
            "stays",
            "opacity",
            "deficit",
            "darker",
            "pixel-stats",
        ]
        lines += ["", f"### {title}", "", *plain_table(head, rows), ""]
        rows = [[f"{r['name']}, within {r['within']}", in_brackets(r["auroc"], r)] for r in told["strata"]]
        rows += [
            [f"atlas, {r['name']}, less the trend over {r['less_the_trend_over']}", in_brackets(r["auroc"], r)]
            for r in told["residualised"]
        ]
        lines += [*plain_table(["", "AUROC [95 %]"], rows), ""]
        audit = ", ".join(f"{r['name']} {r['auroc']:.3f} [{r['ci'][0]:.3f}, {r['ci'][1]:.3f}]" for r in told["audit"])
        lines.append(f"Single numbers on these films, in the direction the labels choose: {audit}.")
    return [*lines, *command(result)]
