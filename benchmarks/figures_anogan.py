"""The parts of docs/results.md and of the README about anogan as shipped; called by figures.py.

What its parts are worth: figures_ablation.py.
"""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, in_brackets, plain_table, pointing, table, trivial, with_interval

TASKS = {
    "kermany": "Kermany dev (children), normal against pneumonia",
    "rsna_opacity": "RSNA dev (adults), normal against lung opacity",
    "rsna_all": "RSNA dev (adults), normal against all abnormal",
}
RUNS = {
    "kermany-default": "anogan, Kermany",
    "rsna-default": "anogan, RSNA",
    "kermany-anogan-2017": "anogan-2017, Kermany",
}


def page() -> list[str]:
    """Return the lines of the section, if the benchmark has been run."""
    result = read_result("anogan_default")
    if not result.get("runs"):
        return []
    return [*accuracy(result), *p_values(result), *boxes(result)]


def runs_of(result: dict[str, Any], task: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the names of the recipes tried at a task, and the figures of seed 0 of each."""
    found = ((name.partition("-")[2], runs[0]) for name, runs in result["runs"].items() if task in runs[0]["tests"])
    return [("anogan" if cell == "default" else cell, run) for cell, run in found if run["seed"] == 0]


def accuracy(result: dict[str, Any]) -> list[str]:
    films = result["films"]
    parts = "; ".join(
        f"{name} {own['train']:,} / {own['calibration']} / {own['fresh']}"
        for name, own in zip(("Kermany", "RSNA"), films.values(), strict=True)
    )
    lines = [
        "## AnoGAN on children and adults (real films)",
        "",
        "The recipes as shipped. Settings were chosen on these two dev sets, so these figures flatter; the trivial",
        "numbers get their direction from the labels, which flatters them. Train normals seen by networks and terms /",
        f"by the calibration / by nothing, whole patients on Kermany: {parts}. RSNA's copy names no patients: there",
        "films are drawn one by one, so that two of a patient may fall into different parts, which may flatter.",
    ]
    for task, title in TASKS.items():
        runs = runs_of(result, task)
        if not runs:
            continue
        tests = [(name, run["tests"][task]) for name, run in runs]
        rows = [(name, test["rows"][0]) for name, test in tests]
        rows += [
            (row["name"] if row["name"] == "pixel-stats" else trivial(row), row) for row in tests[0][1]["rows"][1:]
        ]
        lines += ["", f"### {title}", "", *table(rows), ""]
        cells = []
        for name, test in tests:
            soft, at = test["within_softness"], test["operating"]
            rates = (in_brackets(at[key]["rate"], at[key]) for key in ("sensitivity", "false_positive_rate"))
            cells.append([name, in_brackets(soft["auroc"], soft), f"{soft['nuisance_itself']:.3f}", *rates])
        head = ["", "AUROC within five strata of softness", "softness itself there"]
        head += ["sensitivity at the threshold of 95 % of calibration normals", "false-positive rate there"]
        lines += plain_table(head, cells)
    if result.get("auroc_over_seeds", {}).get("sd") is not None:
        lines += ["", seeds(result["auroc_over_seeds"])]
    for name, title in RUNS.items():
        for run in result["runs"].get(name, ()):
            took, health = run["training_seconds"], run["health"]
            lines += [
                "",
                f"{title}, seed {run['seed']}: {run['steps']:,} steps, {took['processor'] / 60:.0f} min of one "
                f"processor; kept was step {health['step']:,}, whose samples differ {health['diversity']:.2f} times as "
                f"much as normals do and which redraws held-out normals with {health['reconstruction']:.2f} times the "
                "error of the mean film" + (f". Warned: {' '.join(run['warnings'])}" if run["warnings"] else "."),
            ]
    lines += [line for run in result["missing"] for line in ("", f"Not measured: {run['name']}: {run['why']}.")]
    return [*lines, *command(result)]


def seeds(auroc: dict[str, Any]) -> str:
    values = ", ".join(f"{value:.3f}" for value in auroc["values"])
    told = f"{auroc['mean']:.3f} ± {auroc['sd']:.3f} (sd)"
    return f"anogan on Kermany dev over {len(auroc['values'])} seeds: AUROC {told} ({values})."


def p_values(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, title in RUNS.items():
        for run in result["runs"].get(name, ()):
            for which, found in run["p_values"].items():
                cells = [f"{in_brackets(told['rate'], told)}{'' if told['alpha_within'] else ' *'}" for told in found]
                films, patients = found[0]["normals"], found[0]["patients"]
                of = f"{films} films of {patients} patients" if name.startswith("kermany") else f"{films} films"
                rows.append([f"{title}, seed {run['seed']}: {which} ({of})", *cells])
    alphas = [told["alpha"] for told in found]
    return [
        "## Do the p-values of AnoGAN hold?",
        "",
        "Share of normals flagged at alpha, with its exact binomial interval, which takes films for independent; a",
        "star where alpha lies outside. Fresh train normals were seen by nothing before. The seeds share one",
        "calibration and one fresh set: three seeds are not three checks. RSNA's copy names no patients, so that its",
        "fresh films may be of patients that were trained on, which may flatter. The normals of dev come from the",
        "official test, which is not the source of the train normals: there p-values promise nothing, which is what",
        "`anomaly calibrate` is for.",
        "",
        *plain_table(["", *(f"alpha {alpha:g}" for alpha in alphas)], rows),
        *command(result),
    ]


def boxes(result: dict[str, Any]) -> list[str]:
    runs = result["runs"].get("rsna-default")
    if not runs:
        return []
    told = runs[0]["boxes"]
    lines = pointing(told, told["threshold"]["unit"])
    return ["## Does AnoGAN point at opacities?", "", *lines, *command(result)]


def dev_rows() -> dict[str, dict[str, Any]]:
    """Return the row of seed 0 of each recipe on Kermany dev."""
    result = read_result("anogan_default")
    return {name: run["tests"]["kermany"]["rows"][0] for name, run in runs_of(result, "kermany")} if result else {}


def rows() -> list[str]:
    """Return its lines of the table in short."""
    result = read_result("anogan_default")
    if not result.get("runs"):
        return []
    lines = []
    for task, title, which in (
        ("kermany", "Kermany dev", "pneumonia"),
        ("rsna_opacity", "RSNA dev (adults)", "lung opacity"),
    ):
        for name, run in runs_of(result, task):
            test = run["tests"][task]
            row, soft = test["rows"][0], test["within_softness"]
            films = f"{row['n_normal']} normal, {row['n_abnormal']} {which}"
            lines.append(f"| `{name}`, {title} | {with_interval(row)} | {films} |")
            if name == "anogan":
                value, best = in_brackets(soft["auroc"], soft), best_trivial(test)
                lines.append(f"| the same, among films of like softness | {value} | the same |")
                if task == "kermany" and (auroc := result.get("auroc_over_seeds", {})).get("sd") is not None:
                    value = f"{auroc['mean']:.3f} ± {auroc['sd']:.3f} (sd)"
                    lines.append(f"| the same, mean of {len(auroc['values'])} seeds | {value} | the same |")
                lines.append(f"| *best trivial number there: {best['name']}* | {with_interval(best)} | the same |")
    return lines


def best_trivial(test: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the one number that tells the classes apart best."""
    rows: list[dict[str, Any]] = [row for row in test["rows"][1:] if row["name"] != "pixel-stats"]
    return max(rows, key=lambda row: float(row["auroc"]))


def compared() -> list[str]:
    """Return how anogan stands to the best trivial number, in words that the figures choose."""
    result = read_result("anogan_default")
    if not result.get("runs"):
        return []
    told = []
    for task, title in (("kermany", "Kermany dev"), ("rsna_opacity", "RSNA dev")):
        for test in (run["tests"][task] for name, run in runs_of(result, task) if name == "anogan"):
            row, best = test["rows"][0], best_trivial(test)
            side = "above" if row["auroc"] > best["auroc"] else "not above"
            told.append(f"{title} {row['auroc']:.3f}, {side} {best['name']} alone with {best['auroc']:.3f}")
    flatters = "the settings of `anogan` were chosen on these dev films: expect less elsewhere"
    return [f"* AUROC of `anogan` beside the best trivial number: {'; '.join(told)}; {flatters}."]
