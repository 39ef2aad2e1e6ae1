"""The part of docs/results.md about padim, patchcore, feature-gaussian and what stands beside anomalib."""

from __future__ import annotations

from typing import Any

from common import read_result
from figures_atlas import SETS
from figures_tables import command, difference, in_brackets, plain_table, with_interval

RECIPES = {
    ("padim", "mean"): "padim",
    ("padim", "max"): "padim-max",
    ("patchcore", "mean"): "patchcore",
    ("patchcore", "max"): "patchcore-max",
    ("feature-gaussian", ""): "feature-gaussian",
}
"""What a method and a pooling are as a recipe."""


def page() -> list[str]:
    """Return the lines of every section whose benchmark has been run."""
    return [*accuracy(), *parity(), *memory(), *speed()]


def default_rows(test: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the row of each recipe as shipped: resnet18, CLAHE, its own pooling."""
    return {
        RECIPES[told["method"], told["pooling"]]: told["row"]
        for told in test["rows"]
        if told["backbone"] == "resnet18" and told["clahe"] and (told["method"], told["pooling"]) in RECIPES
    }


def dev_rows() -> dict[str, dict[str, Any]]:
    """Return the row of each recipe on Kermany dev."""
    result = read_result("frozen")
    return default_rows(result["kermany"]["pneumonia"]) if result else {}


def _tests(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{title}, normal against {name}", test)
        for data_set, title in SETS.items()
        for name, test in result.get(data_set, {}).items()
    ]


def _counts(test: dict[str, Any]) -> str:
    row = test["rows"][0]["row"]
    return f"{row['n_normal']} normal, {row['n_abnormal']} abnormal"


def accuracy() -> list[str]:
    result = read_result("frozen")
    if not result:
        return []
    lines = [
        "## PaDiM, PatchCore and a Gaussian over frozen features (real films)",
        "",
        "Trained on each set's own train normals, films unregistered, ImageNet weights, 224 px; seed 0 unless said.",
        "AUROC [95 %]. Poolings of one method share a fit. PatchCore's `max` is the paper's reweighted score.",
    ]
    for title, test in _tests(result):
        found: dict[tuple[str, str], dict[tuple[str, bool], str]] = {}
        for told in test["rows"]:
            cell = found.setdefault((told["method"], told["pooling"]), {})
            cell[told["backbone"], told["clahe"]] = with_interval(told["row"])
        columns = [(backbone, clahe) for backbone in ("resnet18", "mobilenet_v2") for clahe in (True, False)]
        head = [f"{title} ({_counts(test)})", *(f"{b}, {'CLAHE' if c else 'no CLAHE'}" for b, c in columns)]
        rows = [
            [f"{method} {pooling}".strip(), *(cells[column] for column in columns)]
            for (method, pooling), cells in found.items()
        ]
        lines += ["", *plain_table(head, rows), "", f"Softness alone: {with_interval(test['softness'])}."]
        inside = "; ".join(
            f"{method} {in_brackets(told['auroc'], told)}" for method, told in test["within_softness"].items()
        )
        left = next(iter(test["within_softness"].values()))["softness"]
        lines.append(f"Within five strata of softness, as shipped: {inside}; softness itself leaves {left:.3f} there.")
        gains = "; ".join(f"{method} {difference(told)}" for method, told in test["clahe"].items())
        lines.append(f"CLAHE minus none, resnet18: {gains}.")
        if "bf16" in test:
            formats = "; ".join(f"{m} {difference(told['bf16_minus_fp32'])}" for m, told in test["bf16"].items())
            lines.append(f"One fit in fp32, scored in bf16 minus scored in fp32: {formats}.")
        for method, poolings in test.get("seeds", {}).items():
            told = "; ".join(
                f"{pooling} {drawn['mean']:.3f} ± {drawn['sd']:.3f} ({', '.join(f'{v:.3f}' for v in drawn['values'])})"
                for pooling, drawn in poolings.items()
            )
            lines.append(f"{method} over {len(next(iter(poolings.values()))['values'])} seeds, mean ± sd: {told}.")
        atlas = test["atlas"]
        added = "; ".join(
            f"weight {weight}: {difference(told['minus_atlas'])}" for weight, told in atlas["with"].items()
        )
        lines.append(f"The term `features` added to the atlas (alone {with_interval(atlas['alone'])}), AUROC: {added}.")
    return [*lines, *command(result)]


def parity() -> list[str]:
    result = read_result("anomalib_parity")
    if not result:
        return []
    rows = [
        [
            method,
            *(f"{result[method][part][kind]:.1e}" for part in ("score", "map") for kind in ("relative", "absolute")),
        ]
        for method in ("padim", "patchcore")
    ]
    head = ["", "score, relative", "score, absolute", "map, relative", "map, absolute"]
    return [
        "## Parity with anomalib",
        "",
        "Largest difference between our raw scores (max-pooled) and maps and those of `Engine.predict` without its",
        f"post-processor, on {result['films']} Kermany dev films, the same backbone weights and tensors, fp32, fitted",
        f"on {result['trained']} normals.",
        "PaDiM: each with a fit of its own on the same channels. PatchCore: the same bank.",
        "",
        *plain_table(head, rows),
        *command(result),
    ]


def memory() -> list[str]:
    result = read_result("frozen_memory")
    if not result:
        return []
    rows = []
    for method in ("padim", "patchcore", "feature-gaussian"):
        told = result[method]
        bank = f"{told['bank'] / 2**20:.1f} of {told['bank_mb']:g} MiB" if told["bank"] else ""
        sizes = [f"{told[part] / 2**30:.2f}" for part in ("estimate", "measured")]
        rows.append([method, str(told["films"]), *sizes, f"{told['ratio']:.2f}", bank])
    return [
        "## Memory of a fit",
        "",
        "What `fit` says before it begins, beside the peak of the detector's fit on adult films, in GiB, without what",
        "is loaded to start with; films are read from the disk as they are looked at and counted in both.",
        "",
        *plain_table(["", "films", "estimate", "measured", "ratio", "bank"], rows),
        *command(result),
    ]


def speed() -> list[str]:
    result = read_result("anomalib_speed")
    if not result:
        return []
    lines = [
        "## Speed beside anomalib",
        "",
        f"Scoring the 348 films of Kermany dev from their files, {result['workers']} readers either way, median of "
        f"{result['repeats']} in turns; peak memory of the main process above imports, MiB, and what the readers hold.",
    ]
    for method, told in result["methods"].items():
        rows = [
            [
                name + (f" ({run['runs_on']})" if "runs_on" in run else ""),
                f"{run['films_per_second']:.1f}",
                f"{run['above_imports'] / 2**20:.0f}",
                f"{run['readers'] / 2**20:.0f}",
            ]
            for name, run in told["score"].items()
        ]
        parts = ", ".join(f"{name} {took:.1f}" for name, took in told["where_ms"].items())
        fits = "; ".join(
            f"{name} {run['seconds']:.0f} s and {run['above_imports'] / 2**20:.0f} MiB for {run['films']} films"
            for name, run in told["fit"].items()
        )
        lines += [
            "",
            *plain_table([method, "films/s", "peak", "readers"], rows),
            "",
            f"{told['times_faster']:.2f} times as fast as {told['best_of_theirs']}, its best, at "
            f"{told['memory_share']:.2f} of its memory. Where the time goes, ms a film on prepared films: {parts}.",
            f"Fit: {fits}.",
        ]
    return [*lines, *command(result)]


def rows() -> list[str]:
    """Return its lines of the table in short."""
    result = read_result("frozen")
    if not result:
        return []
    lines = []
    for data_set, title, test in (
        ("kermany", "Kermany dev", "pneumonia"),
        ("rsna", "RSNA dev (adults)", "lung opacity"),
    ):
        if data_set not in result:
            continue
        told = result[data_set][test]
        for recipe, row in default_rows(told).items():
            films = f"{row['n_normal']} normal, {row['n_abnormal']} {test}"
            lines.append(f"| `{recipe}`, {title} | {with_interval(row)} | {films} |")
    return lines


def readme() -> list[str]:
    """Return what the README says of them beside anomalib's own, one line each."""
    lines = []
    fast, same = (read_result(name) for name in ("anomalib_speed", "anomalib_parity"))
    if same:
        largest = max(same[m][part]["relative"] for m in ("padim", "patchcore") for part in ("score", "map"))
        lines.append(
            f"* `padim` and `patchcore` beside anomalib's Engine, same weights and tensors, {same['films']} films: raw "
            f"scores and maps differ by {largest:.0e} at most, relative."
        )
    if fast:
        told = "; ".join(
            f"`{method}` {found['times_faster']:.1f} times as fast as {found['best_of_theirs']} at "
            f"{found['memory_share']:.2f} of its memory ({found['score']['ours']['films_per_second']:.0f} films/s)"
            for method, found in fast["methods"].items()
        )
        lines.append(f"* Scoring from files, {fast['workers']} readers, beside anomalib's `Engine.predict`: {told}.")
    return lines


def features_added() -> list[str]:
    """Return what the atlas's term `features` adds, a line a set."""
    result = read_result("frozen")
    lines = []
    for data_set, title in ((name, title) for name, title in SETS.items() if name in result):
        atlas = next(iter(result[data_set].values()))["atlas"]["with"]["0.5"]["minus_atlas"]
        lines.append(f"* {title}: `features_weight: 0.5` adds {difference(atlas)} to the AUROC of `atlas`.")
    return lines
