"""The part of docs/results.md about lungs outlined by a U-Net, and about methods that are shown the lungs alone."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, difference, in_brackets, plain_table, with_interval

TITLES = {"kermany": "Kermany dev (children)", "montgomery": "Montgomery (adults), unseen"}
MEASURES = ("dice", "iou", "sensitivity", "precision")
INPUTS = {"none": "whole", "mask": "masked", "crop": "cropped"}
VERDICTS = ("helps", "harms", "makes no difference that can be told")
"""What an interval of a difference to whole films says: above 0, below 0, or across it."""


def page() -> list[str]:
    """Return the lines of both sections, each once its benchmark has been run."""
    return [*_unet(), *_inputs()]


def _unet() -> list[str]:
    result = read_result("unet")
    if not result:
        return []
    fit = result["fit"]
    return [
        "## Lungs outlined by a U-Net (real films)",
        "",
        f"Trained on Kermany's train split at {fit['size']} pixels ({fit['trained']} films, encoder {fit['encoder']}),",
        f"threshold chosen on {fit['validated']} films of other patients; {fit['seconds'] / 60:.0f} minutes, "
        f"{fit['epochs']} epochs, the best",
        f"the {_nth(fit['best_epoch'])}. Human masks; each measure is the mean over films [95 %].",
        "",
        *plain_table(["films", "mask", "films measured", *MEASURES], _rows(result)),
        "",
        *_labels(result),
        *_thresholds(result),
        *command(result),
    ]


def readme() -> list[str]:
    """Return the lines of the README's figures."""
    result = read_result("unet")
    lines = []
    for name, title in TITLES.items():
        told = result.get("sets", {}).get(name)
        if told:
            ours, guess = ({row["name"]: row for row in rows} for rows in told["rows"].values())
            lines.append(
                f"* Lungs outlined by `unet`, {title}: Dice {_cell(ours['dice'])}, IoU {_cell(ours['iou'])} "
                f"({ours['dice']['n']} films); the mean training mask, which looks at no film: Dice "
                f"{_cell(guess['dice'])}."
            )
    inputs = _recipes(read_result("lungs_input"))
    return [*lines, *([f"* {_answer(inputs)}"] if inputs else [])]


def _nth(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number if number < 20 else number % 10, "th")
    return f"{number}{ending}"


def _rows(result: dict[str, Any]) -> list[list[str]]:
    lines = []
    for name, told in result["sets"].items():
        for mask, rows in told["rows"].items():
            cells = {row["name"]: _cell(row) for row in rows}
            lines.append([TITLES[name], mask, str(rows[0]["n"]), *(cells.get(measure, "") for measure in MEASURES)])
    return lines


def _cell(row: dict[str, Any]) -> str:
    return in_brackets(row["mean"], row["interval"]) if row["interval"] else f"{row['mean']:.3f}"


def _labels(result: dict[str, Any]) -> list[str]:
    lines = []
    for name, told in result["sets"].items():
        parts = [f"{label} {in_brackets(found['mean'], found)} ({found['n']})"
                 for label, found in told["dice_by_label"].items()]  # fmt: skip
        if parts:
            lines.append(f"Dice by label, {TITLES[name]}: {', '.join(parts)}.")
    return lines


def _thresholds(result: dict[str, Any]) -> list[str]:
    curves = {name: told["iou_over_thresholds"] for name, told in result["sets"].items()}
    first = next(iter(curves.values()))
    chosen = result["fit"]["threshold"]
    head = ["threshold", *(f"{value:.2f}" for value in first["thresholds"][1::2])]
    rows = [["validation", *(f"{value:.3f}" for value in first["validation"][1::2])]]
    rows += [[TITLES[name], *(f"{value:.3f}" for value in curve["here"][1::2])] for name, curve in curves.items()]
    best = ", ".join(f"{TITLES[name]} {curve['best_here']:.2f}" for name, curve in curves.items())
    return [
        "",
        f"Mean IoU over thresholds; {chosen:.2f} was chosen on validation films. Best in hindsight: {best}.",
        "",
        *plain_table(head, rows),
    ]


def _recipes(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what was found for each recipe, of those that have been measured so far."""
    return {name: found for name, found in result.items() if isinstance(found, dict) and "minus_whole" in found}


def _inputs() -> list[str]:
    result = read_result("lungs_input")
    recipes = _recipes(result)
    if not recipes:
        return []
    row = next(iter(recipes.values()))["rows"]["none"]["row"]
    head = ["recipe", "films are", "registered", "trained on", "minutes", "AUROC [95 %]", "minus whole films [95 %]"]
    return [
        "## The whole film or the lungs alone (real films)",
        "",
        "Fitted on Kermany's train split with `prepare.lungs` none, mask and crop (the lungs are those that the U-Net",
        f"above finds), scored on the same films of dev ({row['n_normal']} normal, {row['n_abnormal']} pneumonia); one "
        "seed. Differences are",
        "paired: the same films, patients resampled together. Minutes are of a whole fit, other work beside it.",
        "",
        *plain_table(head, [_input(name, found, lungs) for name, found in recipes.items() for lungs in found["rows"]]),
        "",
        *_unregistered(recipes),
        _answer(recipes),
        *command(result),
    ]


def _input(name: str, found: dict[str, Any], lungs: str) -> list[str]:
    cell = found["rows"][lungs]
    return [
        name,
        INPUTS[lungs],
        "yes" if cell["registered"] else "no",
        str(cell["trained_on"]),
        f"{cell['seconds'] / 60:.0f}",
        with_interval(cell["row"]),
        difference(found["minus_whole"][lungs]) if lungs in found["minus_whole"] else "",
    ]


def _loses_registration(found: dict[str, Any], lungs: str) -> bool:
    return bool(found["rows"]["none"]["registered"] and not found["rows"][lungs]["registered"])


def _unregistered(recipes: dict[str, dict[str, Any]]) -> list[str]:
    """Say where a difference to whole films is one of registration too."""
    names = [name for name, found in recipes.items() if _loses_registration(found, "crop")]
    if not names:
        return []
    return [
        f"A film cropped to its lungs is not registered: for {' and '.join(names)} the cropped line gives up the "
        "registration as well, and says nothing of the crop by itself.",
        "",
    ]


def _answer(recipes: dict[str, dict[str, Any]]) -> str:
    """Say in a sentence whether segmented input helps: what each interval of a difference to whole films says."""
    said: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for name, found in recipes.items():
        for lungs, apart in found["minus_whole"].items():
            which = f"{INPUTS[lungs]} and unregistered" if _loses_registration(found, lungs) else INPUTS[lungs]
            said[_verdict(apart)].append(f"`{name}` {which} {difference(apart)}")
    counts = "; ".join(f"{verdict} in {len(told)}{_listed(told)}" for verdict, told in said.items())
    return (
        f"Does it help to show a method the lungs alone? Of {sum(map(len, said.values()))} comparisons with whole "
        f"films on Kermany dev (difference of AUROC, one seed) it {counts}."
    )


def _listed(told: list[str]) -> str:
    return f" ({', '.join(told)})" if told else ""


def _verdict(apart: dict[str, float]) -> str:
    helps, harms, neither = VERDICTS
    return helps if apart["low"] > 0 else harms if apart["high"] < 0 else neither
