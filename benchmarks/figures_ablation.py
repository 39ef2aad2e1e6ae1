"""The parts of docs/results.md and of the README about what each part of anogan is worth; called by figures.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common import read_result
from figures_tables import command, difference, in_brackets, plain_table

SETS = {"kermany": ("kermany",), "rsna": ("rsna_opacity", "rsna_all")}
TASKS = {"kermany": "Kermany dev", "rsna_opacity": "RSNA dev, opacity", "rsna_all": "RSNA dev, all abnormal"}
TITLES = {"kermany": "Kermany dev (children)", "rsna": "RSNA dev (adults)"}
CELLS = {
    "default": "the recipe",
    "latent-8": "latent 8",
    "latent-64": "latent 64",
    "dcgan": "objective dcgan",
    "wgan-gp": "objective wgan-gp, critic_steps 3, fewer steps",
    "game-alone": "redraw 0: the adversarial game alone",
    "unregistered": "films not registered",
    "no-clahe": "no CLAHE",
    "untrained": "networks stopped after 10 steps",
}


def page() -> list[str]:
    """Return the lines of the sections, if the benchmark has been run."""
    result = read_result("anogan_ablation")
    if not any("score" in cell for cell in result.get("cells", {}).values()):
        return []
    lines = [
        "## What each part of AnoGAN is worth",
        "",
        "One training a cell, one seed, 64 px; what needs no training of its own is read off the same networks.",
        "Settings of search and score were chosen on these dev films: these figures flatter. AUROC [95 %].",
        *([f"All trainings were cut to {result['steps']} steps."] if result["steps"] else []),
        *cells(result),
        *clahe(result),
        *swaps(result),
        *beside(result),
        *terms(result),
        *starts(result),
        *settings(result, "components", "Principal components of the normals' residuals taken out"),
        *settings(result, "directions", "Which side of the residual counts, and its blur as a share of the width"),
    ]
    return [*lines, *command(result)]


def cells(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, tasks in SETS.items():
        own = {name.partition("-")[2]: cell for name, cell in result["cells"].items() if name.startswith(data_set)}
        rows = []
        for name, cell in own.items():
            if "missing" in cell:
                rows.append([CELLS[name], cell["missing"], *[""] * (3 * len(tasks) + 1)])
                continue
            minus = cell.get("default_minus_it", {})
            by_task = [
                text
                for task in tasks
                for text in (
                    area(cell["score"][task]),
                    area(cell["within_softness"][task]),
                    difference(minus[task]) if minus else "",
                )
            ]
            took = f"{cell['steps']:,} / {cell['seconds']['processor'] / 60:.0f}"
            rows.append([CELLS[name], *by_task, took, f"{cell['seconds_per_image']['median'] * 1000:.1f}"])
        head = ["", *(text for task in tasks for text in (TASKS[task], "within softness", "the recipe minus it"))]
        head += ["steps / min of one processor", "ms a scan"]
        lines += ["", f"### Objective, latent, registration, CLAHE: {TITLES[data_set]}", "", *plain_table(head, rows)]
    return lines


def terms(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, tasks in SETS.items():
        cell = result["cells"][f"{data_set}-default"]
        if "missing" in cell:
            continue
        weights = cell["weights"]
        rows = [
            [name + (f" (weight {weights[name]:g})" if name in weights else ""), *areas(found, tasks)]
            for name, found in cell["terms"].items()
        ]
        rows += [[f"the score, pooling {name}", *areas(found, tasks)] for name, found in cell["pooling"].items()]
        head = ["term alone", *(TASKS[task] for task in tasks)]
        lines += ["", f"### Each term alone, and poolings: {TITLES[data_set]}", "", *plain_table(head, rows)]
    return lines


def starts(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, found in result.get("starts", {}).items():
        tasks = SETS[data_set]
        rows = [
            [name, *areas(told["score"], tasks), f"{told['seconds_per_image_of_the_search'] * 1000:.1f}"]
            for name, told in found.items()
        ]
        head = ["search", *(TASKS[task] for task in tasks), "ms a scan, search alone"]
        lines += ["", f"### Start and steps of the search: {TITLES[data_set]}", "", *plain_table(head, rows)]
    return lines


def settings(result: dict[str, Any], part: str, title: str) -> list[str]:
    lines = []
    for data_set, found in result.get(part, {}).items():
        tasks = SETS[data_set]
        rows = [
            [name, *areas(told["residual_pca"], tasks), *areas(told["score"], tasks)] for name, told in found.items()
        ]
        head = ["", *(f"{TASKS[task]}: {which}" for which in ("residual_pca alone", "the score") for task in tasks)]
        lines += ["", f"### {title}: {TITLES[data_set]} (tuned on dev)", "", *plain_table(head, rows)]
    return lines


def swaps(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, found in result.get("swaps", {}).items():
        tasks = SETS[data_set]
        rows = []
        for which, label in (("score", "the score"), ("residual", "term residual")):
            for name, told in found[which].items():
                minus = told.get("own_minus_it")
                apart = [difference(minus[task]) if minus else "" for task in tasks]
                rows.append([f"{label}: {name}", *areas(told["auroc"], tasks), *apart])
        head = ["", *(TASKS[task] for task in tasks), *(f"own twin minus it: {TASKS[task]}" for task in tasks)]
        lines += ["", f"### Does the twin matter? {TITLES[data_set]}", "", *plain_table(head, rows)]
    return lines


def beside(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, found in result.get("beside", {}).items():
        tasks = SETS[data_set]
        rows = [["anogan", *areas(found["anogan"]["auroc"], tasks), *[""] * len(tasks)]]
        for name, title in (("contrast_deficit", "the scan's own contrast"), ("atlas", "atlas")):
            told = found[name]
            rows.append([title, *areas(told["auroc"], tasks), *[""] * len(tasks)])
            gain = [difference(told["with anogan minus alone"][task]) for task in tasks]
            rows.append([f"anogan + {title}", *areas(told["with anogan"], tasks), *gain])
        head = ["", *(TASKS[task] for task in tasks), *(f"what anogan adds: {TASKS[task]}" for task in tasks)]
        lines += [
            "",
            f"### Beside what looks at no twin: {TITLES[data_set]}",
            "",
            "Sums are of standard deviations of calibration normals.",
            "",
            *plain_table(head, rows),
        ]
    return lines


def clahe(result: dict[str, Any]) -> list[str]:
    rows = []
    for data_set, found in result.get("clahe", {}).items():
        for task in SETS[data_set]:
            for soft, title in (("", TASKS[task]), (", within softness", f"{TASKS[task]}, within softness")):
                minus = found["minus_within_softness" if soft else "minus"][task]
                both = (area(found[f"{which}{soft}"][task]) for which in ("with", "without"))
                rows.append([title, *both, difference(minus)])
    if not rows:
        return []
    return ["", "### CLAHE", "", *plain_table(["", "with CLAHE", "without", "difference"], rows)]


def area(found: dict[str, Any]) -> str:
    return in_brackets(found["auroc"], found)


def areas(found: dict[str, Any], tasks: Iterable[str]) -> list[str]:
    return [area(found[task]) for task in tasks]


def readme() -> list[str]:
    """Return what the twin was asked, one line each, for the README."""
    result = read_result("anogan_ablation")
    lines = []
    for data_set, found in result.get("swaps", {}).items():
        told = "; ".join(
            f"{name} {difference(case['own_minus_it'][SETS[data_set][0]])}"
            for name, case in found["score"].items()
            if "own_minus_it" in case
        )
        lines.append(f"* AUROC of `anogan` with each scan's own twin minus that with {told} ({TITLES[data_set]}).")
    for data_set, found in result.get("beside", {}).items():
        task = SETS[data_set][0]
        told = "; ".join(
            f"{title} {area(found[name]['auroc'][task])}, with `anogan` added "
            f"{difference(found[name]['with anogan minus alone'][task])}"
            for name, title in (("contrast_deficit", "the scan's own contrast alone"), ("atlas", "`atlas`"))
        )
        lines.append(f"* {TITLES[data_set]}: {told}.")
    found = result.get("clahe", {})
    if found:
        told = "; ".join(
            f"{TASKS[SETS[name][0]]} {difference(own['minus'][SETS[name][0]])}" for name, own in found.items()
        )
        lines.append(f"* What CLAHE adds to the AUROC of `anogan`: {told}.")
    return lines
