"""The part of docs/results.md about lungs outlined by a U-Net."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, in_brackets, plain_table

TITLES = {"kermany": "Kermany dev (children)", "montgomery": "Montgomery (adults), unseen"}
MEASURES = ("dice", "iou", "sensitivity", "precision")


def page() -> list[str]:
    """Return the lines of the section, once its benchmark has been run."""
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
    return lines


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
