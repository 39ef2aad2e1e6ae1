"""Curves of a comparison: ROC with a band, densities of scores by class, sensitivity against false alarms, p-values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomaly.evaluate.classify import roc
from anomaly.evaluate.intervals import proportion
from anomaly.evaluate.metrics import Tally, sensitivity_at_specificity_of
from anomaly.evaluate.resample import fewest_patients, group_numbers, replicates
from anomaly.records import ABNORMAL, NORMAL, Float64, Int64
from anomaly.workflows.compare.results import Found, Results
from anomaly.workflows.compare.summary import Summary
from anomaly.workflows.plots import save_figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROC, DENSITIES, FROC, P_VALUES = "roc.png", "densities.png", "false_alarms.png", "p_values.png"
COLOURS = ("#2f7fb8", "#c8452d", "#3c8f57", "#8a5bb0", "#c08a1e", "#158a94", "#b0487d", "#6c6f75", "#88663c", "#4a55a5")
_INK, _SOFT, _HELD, _NORMAL, _ABNORMAL = "#1c1f24", "#9aa1ab", "#b9bec6", "#2f7fb8", "#c8452d"
_RATES = np.linspace(0.0, 1.0, 41)[1:]
_REPLICATES = 500


def draw_figures(folder: Path, summary: Summary, results: Results) -> None:
    """Draw all of them, one panel a recipe; of several seeds the first is drawn in colour and the others fainter."""
    labels = np.array([film.label for film in results.films], np.int64)
    patients = [film.patient for film in results.films]
    each = [(name, own) for name, own in by_entrant(summary, results) if own]
    save_figure(folder / ROC, _roc(each, labels, patients))
    save_figure(folder / DENSITIES, _densities(each, labels, summary.alpha))
    save_figure(folder / FROC, _false_alarms(each, labels))
    save_figure(folder / P_VALUES, _p_values(summary))


def by_entrant(summary: Summary, results: Results) -> list[tuple[str, list[Found]]]:
    """Return the finished cells of every recipe, in the order they were asked for."""
    return [
        (entry.name, [found for found in results.cells if found.cell.entrant == entry.name])
        for entry in summary.entries
    ]


def _panels(count: int, wide: float, high: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(wide * columns + 0.4, high * rows + 0.5), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel())
    for spare in axes[count:]:
        spare.axis("off")
    for own in axes[:count]:
        own.spines[["top", "right"]].set_visible(False)
        own.tick_params(labelsize=8)
    return figure, axes[:count]


def _roc(each: Sequence[tuple[str, list[Found]]], labels: Int64, patients: Sequence[str]) -> Figure:
    figure, panels = _panels(len(each), 2.7, 2.8)
    curves = [[roc(labels, found.scores) for found in own] for _, own in each]
    numbers = group_numbers(list(patients), len(labels))
    fewest = fewest_patients(labels, numbers)
    for place, (axes, (name, own)) in enumerate(zip(panels, each, strict=True)):
        colour = COLOURS[place % len(COLOURS)]
        axes.plot([0, 1], [0, 1], color=_SOFT, linestyle=":", linewidth=1)
        for other, (false, true) in enumerate(curve[0] for curve in curves):
            if other != place:
                axes.plot(false, true, color=_HELD, linewidth=0.8, zorder=1)
        low, high = _band(labels, own[0].scores, numbers, fewest)
        axes.fill_between(_RATES, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
        for seed, (false, true) in enumerate(curves[place]):
            axes.plot(false, true, color=colour, linewidth=1.7 if seed == 0 else 0.8, alpha=1 if seed == 0 else 0.6)
        axes.set_title(shown(name), fontsize=9.5)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
    figure.supxlabel("false positive rate (share of normals flagged)", fontsize=9)
    figure.supylabel("sensitivity", fontsize=9)
    figure.suptitle("ROC curves; band: 95 % at each rate, patients resampled; grey: the other methods", fontsize=10)
    return figure


def _band(labels: Int64, scores: Float64, numbers: Int64, fewest: int) -> tuple[list[float], list[float]]:
    """Return the ends of the 95 % interval of the sensitivity at each of `_RATES`."""

    def at(rate: float) -> object:
        def sensitivity(counts: Tally) -> float:
            return sensitivity_at_specificity_of(counts, 1.0 - rate) if rate < 1.0 else 1.0

        return sensitivity

    drawn = replicates([at(float(rate)) for rate in _RATES], labels, scores, numbers, n=_REPLICATES)  # type: ignore[misc]
    intervals = [proportion(column, fewest) for column in drawn.T]
    # Sensitivity cannot fall as more is flagged, so what bounds it at one rate bounds it at every higher one.
    low = np.maximum.accumulate([interval.low for interval in intervals])
    return low.tolist(), [interval.high for interval in intervals]


def _densities(each: Sequence[tuple[str, list[Found]]], labels: Int64, alpha: float) -> Figure:
    figure, panels = _panels(len(each), 2.9, 2.3)
    for axes, (name, own) in zip(panels, each, strict=True):
        first = own[0]
        groups = (
            ("held-out normals", _HELD, first.calibration.scores),
            ("test normals", _NORMAL, first.scores[labels == NORMAL]),
            ("test abnormal", _ABNORMAL, first.scores[labels == ABNORMAL]),
        )
        every = np.concatenate([values for *_, values in groups])
        low, high = np.quantile(every, [0.002, 0.99])
        edges = np.linspace(low, high if high > low else low + 1.0, 31)
        for title, colour, values in groups:
            weights = np.full(len(values), 100.0 / len(values))
            filled = title == "held-out normals"
            axes.hist(
                np.clip(values, edges[0], edges[-1]),
                bins=edges.tolist(),
                weights=weights,
                histtype="stepfilled" if filled else "step",
                color=colour,
                alpha=0.6 if filled else 1.0,
                linewidth=1.4,
                label=title,
            )
        threshold = first.calibration.threshold(alpha)
        if edges[0] <= threshold <= edges[-1]:
            axes.axvline(threshold, color=_INK, linestyle="--", linewidth=1, label=f"flagged above, alpha {alpha:g}")
        axes.set_title(shown(name), fontsize=9.5)
    handles, titles = panels[0].get_legend_handles_labels()
    for axes in panels[1:]:  # the threshold is drawn only where it lies among the scores
        for handle, title in zip(*axes.get_legend_handles_labels(), strict=True):
            if title not in titles:
                handles.append(handle)
                titles.append(title)
    figure.legend(handles, titles, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5)
    figure.supylabel("share of the group, in 100", fontsize=9)
    figure.suptitle("Scores by class, first seed (the ends take in what lies beyond)", fontsize=10)
    return figure


def _false_alarms(each: Sequence[tuple[str, list[Found]]], labels: Int64) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    normals = int(np.sum(labels == NORMAL))
    for place, (name, own) in enumerate(each):
        false, true = roc(labels, own[0].scores)
        style = ("-", "--", "-.")[place // len(COLOURS) % 3]
        axes.step(
            np.maximum(100 * false, 50.0 / normals),
            true,
            where="post",
            color=COLOURS[place % len(COLOURS)],
            linestyle=style,
            linewidth=1.7,
            label=shown(name),
        )
    axes.set_xscale("log")
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if t >= 50.0 / normals]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(50.0 / normals, 100)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(color="#e6e9ed", linewidth=0.7)
    axes.set_xlabel(f"false positives per 100 normals ({normals} normals)")
    axes.set_ylabel(f"sensitivity ({int(np.sum(labels == ABNORMAL))} abnormal)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _p_values(summary: Summary) -> Figure:
    entries = [entry for entry in summary.entries if entry.p_values is not None]
    figure, panels = _panels(len(entries), 2.5, 1.9)
    for axes, entry in zip(panels, entries, strict=True):
        if entry.p_values is None:
            continue
        counts = np.array(entry.p_values.counts)
        edges = np.linspace(0.0, 1.0, len(counts) + 1)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_NORMAL, alpha=0.5, edgecolor="white")
        axes.axhline(counts.sum() / len(counts), color=_INK, linestyle=":", linewidth=1)
        axes.set_title(shown(entry.name), fontsize=9.5)
        axes.set_xlim(0, 1)
    figure.supxlabel("p-value", fontsize=9)
    figure.supylabel("test normals", fontsize=9)
    figure.suptitle(
        "p-values of test normals, first seed; dotted: even, as for normals like the held-out ones", fontsize=10
    )
    return figure
