"""The part of docs/results.md about boxes drawn by a RetinaNet."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_tables import command, difference, in_brackets, plain_table, with_interval


def page() -> list[str]:
    """Return the lines of the section, once its benchmark has been run."""
    result = read_result("retinanet")
    if not result:
        return []
    return [
        "## Boxes drawn by a RetinaNet (phantoms)",
        "",
        f"`retinanet`, backbone {result['detector']['backbone']}, {result['size']} pixels. Phantoms show that the "
        "machinery works; they say",
        "nothing of how it does on patients.",
        "",
        *_trained(result["phantoms"], "phantoms"),
        "",
        *_tables(result["phantoms"]),
        "### A smoke run on RSNA dev (real films)",
        "",
        "That training on radiologists' boxes, scoring and evaluation go through. With so few films and epochs this is",
        "not a measurement of quality, and says nothing of the method.",
        "",
        *_trained(result["rsna_smoke"], "films"),
        *command(result),
    ]


def readme() -> list[str]:
    """Return the line of the README's figures."""
    result = read_result("retinanet")
    if not result:
        return []
    told = result["phantoms"]
    boxes, (ours, usual) = told["boxes"], told["boxes"]["pointing"][:2]
    return [
        f"* Boxes drawn by `retinanet`, {boxes['films']} unseen phantoms, {boxes['boxes']} boxes on {boxes['boxed']}: "
        f"mAP@0.5 {boxes['map_50']:.3f}; a point of the surest box lies in a lesion {_rate(ours)}, the "
        f"{usual['name']} {_rate(usual)}, paired difference {difference(told['boxes_minus_prior'])}. Phantoms say "
        "nothing of patients."
    ]


def _trained(told: dict[str, Any], films: str) -> list[str]:
    """Return what a model was trained on, and what one number says of it on films it has not seen."""
    boxes, row = told["boxes"], told["scores"][0]
    return [
        f"Trained on {told['trained_on']} {films}: {told['epochs']} epochs, {told['seconds'] / 60:.1f} minutes, other "
        "work beside it. Measured on",
        f"{boxes['films']} others, {boxes['boxed']} of which have {boxes['boxes']} boxes: mAP@0.5 "
        f"{boxes['map_50']:.3f}, mAP@[0.5:0.95] {boxes['map_50_95']:.3f}. AUROC of",
        f"the score, the confidence of a film's surest box: {with_interval(row)} ({row['n_normal']} normal, "
        f"{row['n_abnormal']} abnormal).",
        *boxes["notes"],
    ]


def _tables(told: dict[str, Any]) -> list[str]:
    """Return how well boxes lie on the true ones beside what takes no detector."""
    boxes = told["boxes"]
    precision = [
        [line["name"], in_brackets(line["average_precision"], line["interval"])] for line in boxes["precision"]
    ]
    pointing = [[line["name"], str(line["n"]), _rate(line)] for line in boxes["pointing"]]
    return [
        *plain_table(["", "average precision at an overlap of 0.5 [95 %]"], precision),
        "",
        "Pointing game (does a point of the surest box lie in a true one?):",
        "",
        *plain_table(["", "films", "hit rate [95 %]"], pointing),
        "",
        "Hit rate of the boxes minus that of the mean lesion location, the same films: "
        f"{difference(told['boxes_minus_prior'])}.",
        "",
    ]


def _rate(line: dict[str, Any]) -> str:
    return in_brackets(line["rate"], line["interval"])
