"""`anomaly models`: the recipes, and what each reached on the development data in the committed benchmarks."""

from __future__ import annotations

import json
from typing import Any

from anomaly.config import OF_ANOMALIB, parse_recipe, recipe_names, recipe_text, recipes_folder
from anomaly.registry import SEGMENTERS, SUPERVISED

FIGURES = "dev_auroc.json"
"""recipe -> {data, auroc, low, high, normal, abnormal}; written from the benchmark results by benchmarks/figures.py."""

TIMES = "times.json"
"""recipe -> {fit_seconds, trained_on, seconds_per_image} on 2 cores; written from the committed comparison likewise."""

_HEADINGS = (
    "Learning from normal scans alone:",
    "Learning from labels, to compare with:",
    "Drawing masks of lungs or lesions, learnt from masks (`anomaly segment`):",
)


def dev_figures() -> dict[str, dict[str, Any]]:
    """Return the committed development AUROC of each recipe that has one."""
    path = recipes_folder() / FIGURES
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def recipe_times() -> dict[str, dict[str, float]]:
    """Return how long each recipe took in the committed comparison, of those that took part."""
    path = recipes_folder() / TIMES
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def list_models() -> list[dict[str, Any]]:
    """Return every recipe: name, method, whether supervised, size, what its file says it is, and its figure.

    Those that learn from normals alone come first, those that draw masks last, and of each kind the strongest first.
    """
    figures = dev_figures()
    listed = []
    for name in recipe_names():
        text = recipe_text(name)
        recipe = parse_recipe(text, name)
        purpose = text.splitlines()[0].lstrip("# ").partition("— ")[2]
        listed.append(
            {
                "name": name,
                "method": recipe.method,
                "supervised": recipe.method in SUPERVISED,
                "segments": recipe.method in SEGMENTERS,
                "size": recipe.size,
                "purpose": purpose,
                "dev": figures.get(name),
            }
        )

    def place(model: dict[str, Any]) -> tuple[int, float, str]:
        return _kind(model), -(model["dev"] or {"auroc": 0.0})["auroc"], model["name"]

    return sorted(listed, key=place)


def _kind(model: dict[str, Any]) -> int:
    """Return under which of the headings a recipe comes."""
    return 2 if model["segments"] else int(model["supervised"])


def list_anomalib() -> list[dict[str, str]]:
    """Return every model that anomalib has: its name behind `-d`, what it needs, whether it can be had here."""
    from anomaly.detectors.from_anomalib.catalogue import catalogue

    return [{**entry, "name": f"{OF_ANOMALIB}:{entry['name']}"} for entry in catalogue()]


def render_models(listed: list[dict[str, Any]], of_anomalib: list[dict[str, str]]) -> str:
    """Return the lists as text, one recipe a paragraph, then one model of anomalib a line."""
    parts: list[str] = []
    for place, model in enumerate(listed):
        kind = _kind(model)
        if place == 0 or kind != _kind(listed[place - 1]):
            parts.append(("\n" if parts else "") + _HEADINGS[kind] + "\n")
        mark = "  (strongest)" if place == 0 and model["dev"] else ""
        figure = "" if model["segments"] else f"\n    {_figure(model['dev'])}"
        parts.append(f"{model['name']}{mark}\n    {model['purpose']}{figure}")
    width = max(len(model["name"]) for model in of_anomalib)
    parts.append("\nModels of anomalib, as it trains them, fed and read by us (tested; tried by hand; refused):")
    parts += [f"  {model['name']:{width}}  {model['status']:7}  {model['needs']}" for model in of_anomalib]
    return "\n".join(parts)


def strongest_line(name: str) -> str:
    """Return what `fit` says first: the recipe's figure and which is the strongest of those that need no labels."""
    listed = list_models()
    chosen = next((model for model in listed if model["name"] == name), None)
    best = listed[0]
    text = f"{name}: {_figure(chosen['dev'])}" if chosen and chosen["dev"] else f"{name} has no committed figure"
    if best["dev"] and best["name"] != name:
        text += f"; the strongest so far without labels is {best['name']} ({best['dev']['auroc']:.3f})"
    return text


def _figure(dev: dict[str, Any] | None) -> str:
    if dev is None:
        return "no committed figure"
    return (
        f"AUROC {dev['auroc']:.3f} [{dev['low']:.3f}, {dev['high']:.3f}] on {dev['data']} "
        f"({dev['normal']} normal, {dev['abnormal']} abnormal)"
    )
