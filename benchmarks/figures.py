"""Bring every place that quotes a figure up to date with the committed results.

    python benchmarks/figures.py

Writes docs/results.md, configs/dev_auroc.json (what `anomaly models` prints), configs/times.json (what `anomaly compare
--dry-run` goes by) and the README's block between the `figures` marks. A test holds them equal to the results, so a
figure in the text cannot drift from its file.
"""

from __future__ import annotations

import json
import re
from typing import Any

import figures_ablation
import figures_anogan
import figures_atlas
import figures_boxes
import figures_compare
import figures_evaluate
import figures_frozen
import figures_robust
import figures_scans
import figures_segment
import figures_supervised
from common import ROOT, parser, read_result
from figures_tables import difference, in_brackets, plain_table, table, trivial, with_interval

START, END = "<!-- figures: written by benchmarks/figures.py -->", "<!-- end of figures -->"


def dev_auroc() -> dict[str, Any]:
    """Return what `anomaly models` prints: seed 0 of each recipe on Kermany dev."""
    rows = figures_anogan.dev_rows() | figures_frozen.dev_rows() | figures_supervised.dev_rows()
    atlas = read_result("atlas")
    if "kermany" in atlas:
        test = atlas["kermany"]["tests"]["pneumonia"]
        rows |= {"pixel-stats": test["others"]["pixel-stats"]["row"], "atlas": test["rows"][0]}
    return {
        recipe: {
            "data": "Kermany dev",
            "auroc": round(row["auroc"], 6),
            "low": round(row["auroc_interval"]["low"], 6),
            "high": round(row["auroc_interval"]["high"], 6),
            "normal": row["n_normal"],
            "abnormal": row["n_abnormal"],
        }
        for recipe, row in sorted(rows.items())
    }


def seeds_line(name: str, auroc: dict[str, Any]) -> str:
    values = ", ".join(f"{value:.3f}" for value in auroc["values"])
    sd = "" if auroc["sd"] is None else f" ± {auroc['sd']:.3f} (sd)"
    return f"{name} over {len(auroc['values'])} seeds: AUROC {auroc['mean']:.3f}{sd} ({values})."


def phantoms() -> list[str]:
    result = read_result("phantoms")
    if not result:
        return []
    first = result["runs"][0]
    rows = [("anogan (seed 0)", first["rows"][0]), ("pixel-stats on anogan's films", first["rows"][1])]
    rows += [(trivial(row), row) for row in first["rows"][2:]]
    lines = [
        "## Phantoms (generated)",
        "",
        f"Trained on {result['train_normals']} normal phantoms, scored on {result['test']['normal']} normal and "
        f"{result['test']['abnormal']} abnormal unseen ones.",
        "Phantoms show that the machinery works; they say nothing of how it does on patients.",
        "",
        *table(rows),
        "",
        seeds_line("anogan", result["anogan_auroc"]),
    ]
    for name, found in first["minus"].items():
        other = "pixel-stats on anogan's films" if name == "pixel-stats" else name
        lines.append(
            f"Paired difference to {other}: {found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]."
        )
    kinds = "; ".join(
        f"{kind} {in_brackets(found['auroc'], found) if 'low' in found else format(found['auroc'], '.3f')} "
        f"(n = {found['n']})"
        for kind, found in first["by_kind"].items()
    )
    lines += [
        "AUROC by kind of lesion: " + kinds + ".",
        "",
        "Pointing game (does the map's peak lie in the lesion?):",
        "",
    ]
    lines += ["| | n | rate [95 %] |", "|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['n']} | {row['rate']:.3f} [{row['low']:.3f}, {row['high']:.3f}] |"
        for row in first["pointing"]
    ]
    return [*lines, "", f"    {result['command']}", ""]


def speed() -> list[str]:
    lines = ["## Speed", ""]
    lines += search_time()
    start = read_result("startup")
    if start:
        loaded = ", ".join(start["heavy_modules_loaded"]) or "none"
        lines.append(
            f"* `anomaly --help` takes {start['ratio']:.1f} times as long as `import typer`; heavy packages loaded "
            f"(of torch, torchvision, lightning, anomalib, sklearn, cv2 and others): {loaded}."
        )
        lines += ["", f"      {start['command']}", ""]
    demo = read_result("demo_time")
    if demo:
        lines.append(
            f"* `make demo` on a fresh clone with a warm package cache: {demo['total_seconds']:.0f} s, of which set-up "
            f"{demo['install_seconds']:.0f} s."
        )
        lines += ["", f"      {demo['command']}", ""]
    return lines


def search_time() -> list[str]:
    result = read_result("search_time")
    if "auroc" not in result:
        return []
    naive = list(result["naive"])
    how = f"in chunks of {result['score_batch']}, {result['runs_on']}"
    rows = []
    for threads, figures in result["threads"].items():
        for name, found in figures.items():
            times = found.get("times_faster", {})
            took = f"{found['seconds_per_image'] * 1000:,.1f}"
            title = f"{name}, one by one, fp32" if name in naive else f"{name}, {how}"
            rows.append([title, threads, took, *(f"{times[base]:.0f}" if times else "" for base in naive)])
    areas = "; ".join(f"{name} {in_brackets(row['auroc'], row)}" for name, row in result["auroc"].items())
    apart = result["loop_and_batch_apart"]
    return [
        "A scan's score and map by anogan, search included: one set of networks, one way to score, only the search",
        f"differs. Networks: {result['networks']}.",
        "",
        *plain_table(["search", "threads", "ms a scan", *(f"times faster than {base}" for base in naive)], rows),
        "",
        f"AUROC on Kermany dev by search: {areas}; AUROC as shipped minus naive "
        f"{difference(result['shipped_minus_naive'])}. The naive search was done in batches for it; on "
        f"{apart['images']} films its latents differ from the loop's by at most {apart['latent']:.2g}, its scores by "
        f"{apart['score_in_sd_of_normals']:.2g} sd of those of held-out normals.",
        "",
        f"    {result['command']}",
        "",
    ]


def readme_block() -> str:
    """Return the README's few figures; `in_short` has the others."""
    lines = [
        *figures_compare.readme(),
        *figures_ablation.readme_twin(),
        *_shortcuts(),
        *_sites(),
        *figures_frozen.readme(),
        *figures_segment.readme(),
        *figures_boxes.readme(),
    ]
    return "\n".join([START, "", *lines, END])


def in_short() -> list[str]:
    """Return what each method was measured at and asked, one line each."""
    table = [
        *_atlas(),
        *figures_anogan.rows(),
        *figures_frozen.rows(),
        *_pixel_stats(),
        *_phantoms(),
        *figures_supervised.rows(),
    ]
    asked = [*_anogan(), *_grid(), *figures_frozen.features_added()]
    return [
        "## In short",
        "",
        "| trained on normals only, unless said | AUROC [95 %] | films |",
        "|---|---|---|",
        *table,
        "",
        *asked,
        "",
    ]


def _anogan() -> list[str]:
    """Return what anogan was asked beside its accuracy, one line each."""
    return [*figures_anogan.compared(), *figures_ablation.in_short(), *_search()]


def _grid() -> list[str]:
    grid = read_result("atlas_grid")
    if not grid:
        return []
    spread = grid["spread"]["with the deficit term"]
    of = {task: spread[task]["averaged"] for task in ("kermany", "rsna_opacity")}
    told = [f"{s['median']:.3f} ({s['min']:.3f} to {s['max']:.3f})" for s in of.values()]
    return [
        f"* With all settings of `atlas` moved about, {of['kermany']['n']} ways: median {told[0]} on Kermany dev, "
        f"{told[1]} on RSNA dev."
    ]


def _shortcuts() -> list[str]:
    shortcuts = read_result("atlas_shortcuts")
    if not shortcuts:
        return []
    found = {
        (entry["name"], entry["when"]): entry["atlas"] for entry in shortcuts["comparisons"]["kermany"]["conditions"]
    }
    asked = {
        "sharpness drawn by lot": ("sharpness drawn by lot", "test"),
        "borders and markers masked": ("borders and markers masked", "test"),
        "all but the lungs painted over": ("all but the lungs painted over", "train and test"),
        "the lungs painted over": ("the lungs painted over", "train and test"),
    }
    areas = [f"{name} {in_brackets(found[key]['auroc'], found[key])}" for name, key in asked.items()]
    return [f"* `atlas`, Kermany dev without what might be shortcuts: {'; '.join(areas)}."]


def _sites() -> list[str]:
    sites = read_result("atlas_transfer")
    lines = []
    for way, title, against in (
        ("kermany to rsna", "children, scored on adults", "lung opacity"),
        ("rsna to kermany", "adults, scored on children", "pneumonia"),
    ):
        if not sites:
            continue
        draw = sites["transfer"][way]["draws"][0]
        row = draw["before"]["tests"][against]
        alarms = [draw[when]["false_alarms"]["further train normals"] for when in ("before", "after")]
        flagged = [f"{told['flagged']} of {told['normals']}" for told in alarms]
        lines.append(
            f"* `atlas` fitted on {title}: {with_interval(row)}; normals flagged at alpha 0.05 {flagged[0]}, after "
            f"`anomaly calibrate` with {sites['transfer'][way]['calibrated_on']} local ones {flagged[1]}."
        )
    return lines


def _atlas() -> list[str]:
    result = read_result("atlas")
    if "kermany" not in result:
        return []
    lines = []
    sets = {"kermany": ("Kermany dev", "pneumonia"), "rsna": ("RSNA dev (adults)", "lung opacity")}
    for data_set, (title, against) in sets.items():
        test = result[data_set]["tests"][against]
        row, within = test["rows"][0], test["strata"]["softness"]["score"]
        best = figures_atlas.best_trivial(test)
        films = f"{row['n_normal']} normal, {row['n_abnormal']} {against}"
        lines += [
            f"| `atlas`, {title} | {with_interval(row)} | {films} |",
            f"| the same, among films of like softness | {in_brackets(within['auroc'], within)} | the same |",
            f"| *best trivial number there: {best['name']}* | {with_interval(best)} | the same |",
        ]
    return lines


def _pixel_stats() -> list[str]:
    atlas = read_result("atlas")
    if "kermany" not in atlas:
        return []
    row = atlas["kermany"]["tests"]["pneumonia"]["others"]["pixel-stats"]["row"]
    films = f"{row['n_normal']} normal, {row['n_abnormal']} pneumonia"
    return [f"| `pixel-stats`, Kermany dev | {with_interval(row)} | {films} |"]


def _search() -> list[str]:
    result = read_result("search_time")
    if "auroc" not in result:
        return []
    told = []
    first, *others = result["naive"]
    for threads, figures in result["threads"].items():
        shipped = next(found for name, found in figures.items() if name not in result["naive"])
        faster = shipped["times_faster"]
        more = ", ".join(f"{faster[name]:.0f} than {name}" for name in others)
        both = f"{figures[first]['seconds_per_image']:.2f} s to {shipped['seconds_per_image'] * 1000:.1f} ms"
        on = "1 thread" if threads == "1" else f"{threads} threads"
        told.append(f"{faster[first]:.0f} times faster on {on} ({both} a scan; {more})")
    apart = difference(result["shipped_minus_naive"])
    how = f"in chunks of {result['score_batch']}, {result['runs_on']}"
    return [f"* Scoring by `anogan`, {how}, against {first}: {'; '.join(told)}; AUROC as shipped minus naive {apart}."]


def _phantoms() -> list[str]:
    result = read_result("phantoms")
    lines = []
    for name, row in zip(("anogan", "pixel-stats"), result["runs"][0]["rows"][:2] if result else (), strict=False):
        films = f"{row['n_normal']} normal, {row['n_abnormal']} with a lesion"
        which = "phantoms" if name == "anogan" else "phantoms as `anogan` prepares them"
        lines.append(f"| `{name}`, {which} | {with_interval(row)} | {films} |")
    return lines


def results_page() -> str:
    """Return docs/results.md."""
    head = [
        "# Results",
        "",
        "Written by `python benchmarks/figures.py` from the files in `benchmarks/results/`; do not edit by hand.",
        "Intervals are 95 %, from resampling whole patients.",
        "",
    ]
    atlas = [*figures_atlas.page(), *figures_robust.page()]
    anogan = [*figures_anogan.page(), *figures_ablation.page()]
    lines = [
        *head,
        *in_short(),
        *atlas,
        *anogan,
        *figures_frozen.page(),
        *figures_supervised.page(),
        *figures_compare.page(),
        *figures_segment.page(),
        *figures_boxes.page(),
        *phantoms(),
        *figures_scans.page(),
        *figures_evaluate.page(),
        *speed(),
        *figures_atlas.speed(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def with_block(readme: str) -> str:
    """Return the README with its block of figures replaced."""
    pattern = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(readme):
        raise SystemExit("README.md has no block of figures to replace")
    return pattern.sub(lambda _: readme_block(), readme)


def main() -> None:
    parser(__doc__).parse_args()
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "results.md").write_text(results_page(), encoding="utf-8")
    for name, figures in (("dev_auroc", dev_auroc()), ("times", figures_compare.times())):
        (ROOT / "configs" / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_block(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print("docs/results.md, configs/*.json and README.md are up to date")


if __name__ == "__main__":
    main()
