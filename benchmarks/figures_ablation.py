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
    "untrained": "control, beside the eight: networks stopped after {steps} steps",
}
PARTS = {
    "swaps": "the twin exchanged",
    "leave_one_out": "parts of the default left out",
    "beside": "beside what looks at no twin",
    "clahe": "CLAHE",
    "starts": "start and steps of the search",
    "components": "components",
    "directions": "directions",
}
BESIDE = {"contrast_deficit": "the scan's own contrast", "atlas": "atlas"}
MEAN_FILM = "the mean film, score fitted on it"
OWN_MINUS_MEAN = "own twins minus the mean film"
ALLOWED = 30
"""Minutes that a training may take (issue 5)."""


def page() -> list[str]:
    """Return the lines of the sections, if the benchmark has been run."""
    result = read_result("anogan_ablation")
    if not any("score" in cell for cell in result.get("cells", {}).values()):
        return []
    lines = [
        "## What each part of AnoGAN is worth",
        "",
        "One training a cell, one seed, 64 px; what needs no training of its own is read off the same networks. AUROC",
        "[95 %]: intervals hold for other films of the kind, not for other trainings. Settings of search and score",
        "were chosen on these dev films, for the default cell: these figures flatter, that cell's the most.",
        *over_seeds(),
        *names_no_patients(),
        *([f"All trainings were cut to {result['steps']} steps."] if result["steps"] else []),
        *cells(result),
        *clahe(result),
        *swaps(result),
        *longer(result),
        *left_out(result),
        *beside(result),
        *terms(result),
        *starts(result),
        *settings(result, "components", "Principal components of the normals' residuals taken out"),
        *settings(result, "directions", "Which side of the residual counts, and its blur as a share of the width"),
        *missing(result),
    ]
    return [*lines, *command(result)]


def over_seeds() -> list[str]:
    """Return how much trainings of the default cell differ, where several were measured."""
    auroc = read_result("anogan_default").get("auroc_over_seeds", {})
    if auroc.get("sd") is None:
        return []
    return [f"Over {len(auroc['values'])} seeds the default's AUROC on Kermany dev has an sd of {auroc['sd']:.3f}."]


def names_no_patients() -> list[str]:
    return ["RSNA's copy names no patients: there films are drawn one by one, and intervals may be too short."]


def missing(result: dict[str, Any]) -> list[str]:
    """Return what of the benchmark has not been measured."""
    lines = []
    for part, title in PARTS.items():
        absent = [TITLES[name] for name in SETS if name not in result[part]]
        if absent:
            lines += ["", f"Not measured: {title}: {', '.join(absent)}."]
    return lines


def cells(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, tasks in SETS.items():
        own = {name.partition("-")[2]: cell for name, cell in result["cells"].items() if name.startswith(data_set)}
        rows = []
        for name, cell in own.items():
            if "missing" in cell:
                title = CELLS[name].format(steps="a few")
                rows.append([title, cell["missing"], *[""] * (3 * len(tasks) + 1)])
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
            times = cell["seconds_per_image"]
            taken = f"{times['median'] * 1000:.1f} ({times['search']['median'] * 1000:.1f})"
            rows.append([CELLS[name].format(steps=cell["steps"]), *by_task, took, taken])
        head = ["", *(text for task in tasks for text in (TASKS[task], "within softness", "the recipe minus it"))]
        head += ["steps / min of one processor", "ms a scan (search alone)"]
        lines += ["", f"### Objective, latent, registration, CLAHE: {TITLES[data_set]}", "", *plain_table(head, rows)]
        timed = [cell["seconds_per_image"] for cell in own.values() if "missing" not in cell]
        if timed:
            lines += ["", on(timed[0])]
    return lines


def on(found: dict[str, Any]) -> str:
    """Return what a time was taken on."""
    return f"Times: {found['runs_on']}, {found['threads']} thread{'s' if found['threads'] > 1 else ''}."


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
            [
                name,
                str(told["steps"]),
                *areas(told["score"], tasks),
                f"{told['search']['median'] * 1000:.1f}",
                told["search"]["runs_on"],
            ]
            for name, told in found.items()
        ]
        head = ["search", "steps", *(TASKS[task] for task in tasks), "ms a scan, search alone", "on"]
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
    for data_set, found in result["swaps"].items():
        tasks = SETS[data_set]
        rows, draws = [], 0
        for which, label in (("score", "the score"), ("residual", "term residual")):
            for name, told in found[which].items():
                minus, over = told.get("own_minus_it"), told.get("over_draws")
                apart = [difference(minus[task]) if minus else "" for task in tasks]
                spread = [over_draws(over[task]) if over else "" for task in tasks]
                draws = over[tasks[0]]["draws"] if over else draws
                rows.append([f"{label}: {name}", *areas(told["auroc"], tasks), *apart, *spread])
        head = ["", *(TASKS[task] for task in tasks), *(f"own twin minus it: {TASKS[task]}" for task in tasks)]
        head += [f"over {draws} deals, median (range): {TASKS[task]}" for task in tasks]
        whose = "another patient's film" if data_set == "kermany" else "another film (no patients are named)"
        lines += [
            "",
            f"### Does the twin matter? {TITLES[data_set]}",
            "",
            f"Each scan beside the twin of {whose}, dealt {draws} times; AUROC and interval are of the first deal.",
            "",
            *plain_table(head, rows),
        ]
        if sentence := of_the_mean_film(result, data_set):
            lines += ["", sentence]
    return lines


def longer(result: dict[str, Any]) -> list[str]:
    """Return what a longer training of the default comes to."""
    lines = []
    for data_set, found in result["longer"].items():
        tasks = SETS[data_set]
        rows = []
        for cell, exchanged in (
            (result["cells"][f"{data_set}-default"], result["swaps"][data_set]),
            (found, found["swaps"]),
        ):
            minus, kept = cell.get("default_minus_it"), cell["health"]["step"]
            by_mean = exchanged["score"][MEAN_FILM]["own_minus_it"]
            rows.append(
                [
                    f"{cell['steps']:,} steps, {cell['seconds']['processor'] / 60:.0f} min; kept: {kept:,}",
                    f"{cell['health']['reconstruction']:.3f}",
                    *areas(cell["score"], tasks),
                    *(difference(minus[task]) if minus else "" for task in tasks),
                    *(difference(by_mean[task]) for task in tasks),
                ]
            )
        head = ["", "error of held-out normals redrawn (mean film 1)", *(TASKS[task] for task in tasks)]
        head += [f"the recipe minus it: {TASKS[task]}" for task in tasks]
        head += [f"own twin minus the mean film: {TASKS[task]}" for task in tasks]
        lines += ["", f"### A longer training: {TITLES[data_set]}", "", *plain_table(head, rows)]
    return lines


def over_draws(found: dict[str, Any]) -> str:
    return f"{found['median']:+.3f} ({found['min']:+.3f} to {found['max']:+.3f})"


def of_the_mean_film(result: dict[str, Any], data_set: str) -> str:
    """Return whether the generated twin earns its place against the mean film, as the interval has it."""
    found = result["swaps"][data_set]["score"][MEAN_FILM]["own_minus_it"][SETS[data_set][0]]
    minutes = result["cells"][f"{data_set}-default"]["seconds"]["processor"] / 60
    told = (
        f"On {TITLES[data_set]} the generated twin {verdict(found)} the mean film in its place (AUROC "
        f"{difference(found)}); training took {minutes:.0f} of the {ALLOWED} minutes allowed"
    )
    if data_set not in result["longer"]:
        return f"{told}."
    more = result["longer"][data_set]
    minus = more["swaps"]["score"][MEAN_FILM]["own_minus_it"][SETS[data_set][0]]
    return f"{told}; after {more['seconds']['processor'] / 60:.0f} it {verdict(minus)} it ({difference(minus)})."


def verdict(found: dict[str, Any]) -> str:
    """Return what an interval says of two that were compared."""
    if found["low"] > 0:
        return "beats"
    return "does worse than" if found["high"] < 0 else "cannot be told from"


def untrained(result: dict[str, Any]) -> list[str]:
    """Return what is left of the score with networks that have hardly been trained, one line for the README."""
    told = []
    for data_set, (task, *_) in SETS.items():
        cell = result["cells"][f"{data_set}-untrained"]
        if "missing" not in cell and "default_minus_it" in cell:
            minus = difference(cell["default_minus_it"][task])
            told.append(f"{TASKS[task]} {area(cell['score'][task])}, the recipe minus it {minus}")
            steps = cell["steps"]
    if not told:
        return []
    return [f"* `anogan` with its networks stopped after {steps} steps: {'; '.join(told)}."]


def left_out(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, found in result["leave_one_out"].items():
        tasks = SETS[data_set]
        rows = []
        for name, told in found.items():
            minus = told.get("default_minus_it")
            rows.append([name, *areas(told["score"], tasks), *(difference(minus[t]) if minus else "" for t in tasks)])
        head = ["", *(TASKS[task] for task in tasks), *(f"as shipped minus it: {TASKS[task]}" for task in tasks)]
        lines += ["", f"### Parts of the default left out: {TITLES[data_set]} (tuned on dev)", ""]
        lines += plain_table(head, rows)
    return lines


def beside(result: dict[str, Any]) -> list[str]:
    lines = []
    for data_set, found in result.get("beside", {}).items():
        tasks = SETS[data_set]
        rows = [["anogan", *areas(found["anogan"]["auroc"], tasks), *[""] * len(tasks)]]
        for name, title in BESIDE.items():
            told = found[name]
            for case, values, minus in (
                (f"{title}; anogan minus it", "auroc", "anogan minus it"),
                (f"anogan + {title}; minus {title} alone", "with anogan", "with anogan minus alone"),
                (f"mean film for twin + {title}; own twins minus it", "with the mean film", OWN_MINUS_MEAN),
            ):
                rows.append([case, *areas(told[values], tasks), *(difference(told[minus][task]) for task in tasks)])
        head = ["", *(TASKS[task] for task in tasks), *(f"difference: {TASKS[task]}" for task in tasks)]
        lines += [
            "",
            f"### Beside what looks at no twin: {TITLES[data_set]}",
            "",
            "Sums are of standard deviations of calibration normals; a line says of what its difference is.",
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


def readme_twin() -> list[str]:
    """Return whether a generated twin is better than the mean film, a line a set, for the README."""
    result = read_result("anogan_ablation")
    told = [of_the_mean_film(result, data_set) for data_set in result.get("swaps", {})]
    return [f"* `anogan`: {text[0].lower()}{text[1:]}" for text in told]


def in_short() -> list[str]:
    """Return what the twin was asked, one line each."""
    result = read_result("anogan_ablation")
    if "swaps" not in result:
        return []
    lines = []
    for data_set, found in result["swaps"].items():
        told = "; ".join(
            f"{name} {difference(case['own_minus_it'][SETS[data_set][0]])}"
            for name, case in found["score"].items()
            if "over_draws" in case
        )
        lines.append(f"* AUROC of `anogan` with each scan's own twin minus that with {told} ({TITLES[data_set]}).")
    lines += untrained(result)
    for data_set, found in result["beside"].items():
        task = SETS[data_set][0]
        told = "; ".join(
            f"{title} alone {area(found[name]['auroc'][task])}, `anogan` minus it "
            f"{difference(found[name]['anogan minus it'][task])}, with `anogan` added "
            f"{difference(found[name]['with anogan minus alone'][task])}, of which the generated twins rather than the "
            f"mean film {difference(found[name][OWN_MINUS_MEAN][task])}"
            for name, title in BESIDE.items()
        )
        lines.append(f"* {TITLES[data_set]}: {told}.")
    if result["clahe"]:
        told = "; ".join(
            f"{TASKS[SETS[name][0]]} {difference(own['minus'][SETS[name][0]])}" for name, own in result["clahe"].items()
        )
        lines.append(f"* What CLAHE adds to the AUROC of `anogan`: {told}.")
    return lines
