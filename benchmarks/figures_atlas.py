"""The part of docs/results.md about the atlas itself; called by figures.py. How robust it is: figures_robust.py."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, difference, in_brackets, plain_table, pointing, table, trivial, with_interval

from anomaly.config import load_recipe
from anomaly.workflows.fit import resolve

SETS = {"kermany": "Kermany dev (children)", "rsna": "RSNA dev (adults)"}


def page() -> list[str]:
    """Return the lines of every section whose benchmark has been run."""
    return [*accuracy(), *strata(), *boxes(), *sizes(), *transfer()]


def tests(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return every comparison and what to call it."""
    return [
        (f"{title}, normal against {name}", test)
        for data_set, title in SETS.items()
        for name, test in result[data_set]["tests"].items()
    ]


def best_trivial(test: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the one number that tells the classes apart best."""
    return max([*test["rows"][1:], test["alone"]], key=lambda row: float(row["auroc"]))


def accuracy() -> list[str]:
    result = read_result("atlas")
    if "kermany" not in result:
        return []
    lines = [
        "## The atlas on children and adults (real films)",
        "",
        "The recipe as shipped, trained on each set's own train normals. Its settings were chosen on these two dev",
        "sets, so these figures flatter. The terms stand as the detector gives them. The trivial numbers get their",
        "direction from the labels, which flatters them; softness is pixels per byte of the registered film as a JPEG.",
    ]
    for title, test in tests(result):
        rows = [("atlas", test["rows"][0])]
        rows += [(f"its term {row['name']}", row) for row in test["terms"]]
        rows += [(name, other["row"]) for name, other in test["others"].items()]
        rows += [(trivial(test["alone"]), test["alone"])] + [(trivial(row), row) for row in test["rows"][1:]]
        lines += ["", f"### {title}", "", *table(rows), ""]
        minus = "; ".join(
            f"{name} {difference(found)}" for name, found in test["minus"].items() if name in test["others"]
        )
        lines.append(f"Paired difference of AUROC, atlas minus: {minus}.")
        alarms, refused = test["false_alarms"], test["not_registered"]
        lines.append(
            f"At alpha {alarms['alpha']:g} the p-values flag {alarms['flagged']} of {alarms['normals']} dev normals "
            f"({in_brackets(alarms['rate'], alarms)}). Not registered: {refused['normal']} normal and "
            f"{refused['abnormal']} abnormal films."
        )
        if test["kinds"]:
            kinds = ", ".join(f"{k} {with_interval(row)} (n = {row['n_abnormal']})" for k, row in test["kinds"].items())
            lines.append(f"AUROC by kind: {kinds}.")
    for data_set, title in SETS.items():
        told = result[data_set]
        refused = told["not_registered"]
        lines += [
            "",
            f"{title.partition(' ')[0]}: {told['trained']:,} train normals fitted to, of which {refused['training']} "
            f"could not be registered, and {told['held_out']} held out for calibration, of which "
            f"{refused['held-out']} could not.",
        ]
    return [*lines, *command(result)]


def strata() -> list[str]:
    result = read_result("atlas")
    if "kermany" not in result:
        return []
    lines = [
        "## How much of the atlas is the softness of the film",
        "",
        "AUROC over pairs of films from one of five strata of a nuisance, and with the trend removed that held-out",
        "normals follow over log softness. The last lines give what the nuisance itself still tells within its own",
        "strata. Both also take away what disease does to the nuisance.",
    ]
    names = {"score": "atlas", "opacity": "term opacity", "deficit": "term deficit", "darker": "term darker"}
    for title, test in tests(result):
        rows = []
        for name, label in names.items():
            soft, size = (test["strata"][nuisance][name] for nuisance in ("softness", "file_size"))
            line = test["residualised"][name]
            plain = test["rows"][0] if name == "score" else next(r for r in test["terms"] if r["name"] == name)
            cells = [with_interval(plain), *(in_brackets(found["auroc"], found) for found in (soft, size, line))]
            rows.append([label, *cells])
        left = [f"{test['strata'][nuisance]['leftover']:.3f}" for nuisance in ("softness", "file_size")]
        size = next(row for row in test["rows"] if row["name"] == "file_size")
        for label, row, cells in (("softness", test["alone"], (left[0], "")), ("file size", size, ("", left[1]))):
            rows.append([f"*{label} itself*", with_interval(row), *cells, ""])
        head = ["", "AUROC", "within softness", "within file size", "residualised"]
        lines += ["", f"### {title}", "", *plain_table(head, rows)]
    return [*lines, *command(result)]


def boxes() -> list[str]:
    told = read_result("atlas").get("rsna", {}).get("boxes")
    if not told:
        return []
    _, atlas = resolve(load_recipe("atlas"))
    return [
        "## Does the atlas point at opacities?",
        "",
        *pointing(told, atlas.heat_unit),
        *command(read_result("atlas")),
    ]


def sizes() -> list[str]:
    result = read_result("atlas_transfer")
    if not result:
        return []
    lines = [
        "## How many normals the atlas needs",
        "",
        "Dev AUROC by the number of normals given to `fit`, which holds a fifth of them out; whole patients drawn at",
        "random, the template made of those. Mean (least to greatest) of the draws; the last line is the full set.",
    ]
    for data_set, title in SETS.items():
        rows = result["sizes"][data_set]
        names = list(rows[0]["auroc"])
        cells = []
        for row in rows:
            areas = [spread_of(row["auroc"][name]) for name in names]
            cells.append(
                [f"{row['normals']:,}", str(len(row["runs"])), *areas, alarms_of(row["runs"], result["alpha"])]
            )
        head = ["normals", "draws", *(f"normal against {name}" for name in names), "dev normals flagged at alpha 0.05"]
        lines += ["", f"### {title}", "", *plain_table(head, cells)]
    return [*lines, *command(result)]


def alarms_of(runs: list[dict[str, Any]], alpha: float) -> str:
    """Return the share of dev normals flagged, of all draws together."""
    if any(1 / (run["held_out"] + 1) > alpha for run in runs):
        return "none can be: too few held out"
    flagged, normals = (sum(run["false_alarms"][name] for run in runs) for name in ("flagged", "normals"))
    return f"{flagged / normals:.3f}"


def spread_of(auroc: dict[str, Any]) -> str:
    values = auroc["values"]
    return f"{auroc['mean']:.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else "")


def transfer() -> list[str]:
    result = read_result("atlas_transfer")
    if not result:
        return []
    rows, notes = [], []
    for name, found in result["transfer"].items():
        home, _, away = name.partition(" to ")
        at_home = found["at_home"]
        rows.append([f"{SETS[home]}, at home", *areas_of(at_home), *rates(at_home, ("dev normals",)), "not computable"])
        for draw in found["draws"]:
            for when in ("before", "after"):
                told = draw[when]
                which = ("dev normals", "further train normals")
                rows.append(
                    [f"{home} to {SETS[away]}, {when}, draw {draw['seed']}", *areas_of(told), *rates(told, which)]
                )
        refused = found["draws"][0]["before"]["not_registered"]
        told = ", ".join(f"{count} {which}" for which, count in refused.items())
        notes += [
            f"{home} to {SETS[away]}: not registered to the other template are {told} (draw 0). AUROC of the dev films "
            f"that were: {'; '.join(areas_of(found['draws'][0]['before'], 'tests_of_registered'))}.",
            "",
        ]
    unchanged = all(draw["scores_unchanged"] for found in result["transfer"].values() for draw in found["draws"])
    calibrated_on = next(iter(result["transfer"].values()))["calibrated_on"]
    lines = [
        "## The atlas at another site",
        "",
        f"Fitted on children and scored on adults, and the reverse, before and after `anomaly calibrate` with "
        f"{calibrated_on} normals of the other site, drawn three times. Calibration cannot change AUROC: scores stay "
        f"as they are ({'bit-identical here' if unchanged else 'NOT so here'}); only p-values and the heat's scale "
        f"follow. Flagged at alpha {result['alpha']:g}; the further train normals were neither fitted to nor "
        "calibrated on.",
        "",
        *plain_table(["", "AUROC [95 %]", "dev normals flagged", "further train normals flagged"], rows),
        "",
        *notes[:-1],
    ]
    return [*lines, *command(result)]


def areas_of(told: dict[str, Any], which: str = "tests") -> list[str]:
    found = told[which]
    return ["; ".join(f"{name} {with_interval(row)}" for name, row in found.items())]


def rates(told: dict[str, Any], which: tuple[str, ...]) -> list[str]:
    found = (told["false_alarms"][name] for name in which)
    return [f"{alarms['flagged']} of {alarms['normals']}, {in_brackets(alarms['rate'], alarms)}" for alarms in found]


def speed() -> list[str]:
    """Return the atlas's lines of the section on speed."""
    told = read_result("atlas").get("speed")
    if not told:
        return []
    runs, mib = told["runs"], 2**20
    first, again, files, alone = (runs[k] for k in ("fit", "fit, all read before", "score files", "prepared"))
    rates = alone["films_per_second"]
    fitting, scoring = (found["memory"]["above_imports"] / mib for found in (first, files))
    return [
        f"* The atlas, {first['films']:,} films of 224 px, {told['machine']['cores']} cores: fit "
        f"{first['seconds']:.0f} s, {again['seconds']:.0f} s when all have been read before, "
        f"{alone['seconds']['fit']:.0f} s from prepared films; {files['films_per_second']:.0f} films a second scored "
        f"from files, {rates['score with maps']:.0f} from prepared films, {rates['score without maps']:.0f} without "
        f"maps. Peak memory above the imports {fitting:.0f} MiB to fit and {scoring:.0f} MiB to score, the readers' "
        f"aside; the model takes {told['model_bytes'] / mib:.1f} MiB.",
        "",
        f"      {told['command']}",
        "",
    ]
