"""history.png: what a fit recorded as it went, drawn from history.csv."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomaly.errors import DataError
from anomaly.records import Float64
from anomaly.runs import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTORY, PICTURE = "history.csv", "history.png"
MOST_AXES = 12

Series = Mapping[str, tuple[Float64, Float64]]
"""Name -> steps float64 (n,), values float64 (n,), n >= 1, all finite."""

_COLUMNS = 3
_COLOURS = ("#2f7fb8", "#c8452d", "#6b4ea0", "#7fa98a")
_NOISY = 60  # points: more are drawn faint, with their running mean on top
_WINDOWS = 40  # of that mean, side by side, fill an axis
_FEW = 30  # points: so few are marked one by one
_DRAWN = 2000  # points at most: an axis is some 400 pixels wide
_DECADES = 100.0  # from the 5th to the 95th of 100 values, from which on an axis is logarithmic


def draw_history(run: Path) -> Path | None:
    """Draw history.png into a run folder; where there is nothing to draw, remove an earlier one.

    `train_loss` and `val_loss` share an axis, as all names do that are the same after train_ or val_; any other has an
    axis of its own, in order of appearance. Beyond 12 axes names are listed in a line of text. Many points are drawn
    faint under their running mean; an axis that spans decades is logarithmic.

    Args:
        run: A folder with a history.csv of `RunRecorder`.

    Returns:
        The picture's path, None where there is no history.

    Raises:
        DataError: history.csv is damaged.
    """
    (run / PICTURE).unlink(missing_ok=True)
    series = _read(run / HISTORY)
    if not series:
        return None
    axes_of: dict[str, list[str]] = {}
    for name in series:
        axes_of.setdefault(re.sub(r"^(train|val)_", "", name), []).append(name)
    _draw(run / PICTURE, series, axes_of)
    return run / PICTURE


def _read(path: Path) -> Series:
    """Return the finite numbers of a history by name, in order of appearance; empty where there is no file."""
    if not path.is_file():
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
    except (OSError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): it cannot be drawn.") from error
    arrays = {name: np.array(points, dtype=np.float64) for name, points in found.items()}
    finite = {name: points[np.isfinite(points).all(axis=1)] for name, points in arrays.items()}
    return {name: (points[:, 0], points[:, 1]) for name, points in finite.items() if len(points)}


def _draw(path: Path, series: Series, axes_of: Mapping[str, list[str]]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    titles = list(axes_of)[:MOST_AXES]
    columns = min(_COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(3.9 * max(columns, 2), 2.6 * rows + 0.4), layout="constrained")
    for place, title in enumerate(titles, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(title, fontsize=10, loc="left")
        for name, colour in zip(axes_of[title], _COLOURS, strict=False):
            _plot(axes, *series[name], name, colour)
        if _spans_decades(np.concatenate([series[name][1] for name in axes_of[title]])):
            axes.set_yscale("log")
        steps = np.concatenate([series[name][0] for name in axes_of[title]])
        room = 0.03 * max(float(np.ptp(steps)), 20.0)  # a lone point stands between whole steps
        axes.set_xlim(float(steps.min()) - room, float(steps.max()) + room)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
        if place > len(titles) - columns:
            axes.set_xlabel("step", fontsize=8)
    left_out = [name for title in list(axes_of)[MOST_AXES:] for name in axes_of[title]]
    if left_out:
        figure.supxlabel(f"Not drawn: {', '.join(left_out)}", fontsize=8, x=0.01, ha="left", wrap=True)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})


def _plot(axes: Axes, steps: Float64, values: Float64, name: str, colour: str) -> None:
    """Draw one line and, of many points, its running mean; a legend names what an axis shows beside its title."""
    every = slice(None, None, -(-len(steps) // _DRAWN))
    if len(steps) <= _NOISY:
        label = name if name != axes.get_title(loc="left") else None
        axes.plot(steps, values, color=colour, linewidth=1.6, label=label, marker="." if len(steps) <= _FEW else "")
        return
    axes.plot(steps[every], values[every], color=colour, linewidth=0.6, alpha=0.3)
    width = max(3, len(steps) // _WINDOWS)
    smooth = _running_mean(values, width)
    told = f"mean of {width} points"
    label = told if name == axes.get_title(loc="left") else f"{name}, {told}"
    axes.plot(steps[every], smooth[every], color=colour, linewidth=1.6, label=label)


def _running_mean(values: Float64, width: int) -> Float64:
    """Mean of the `width` values around each, fewer at the ends: float64 (n,) -> float64 (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start = np.maximum(places - width // 2, 0)
    end = np.minimum(places - width // 2 + width, len(values))
    return np.asarray((sums[end] - sums[start]) / (end - start), dtype=np.float64)


def _spans_decades(values: Float64) -> bool:
    low = np.quantile(values, 0.05, method="higher")  # never the lowest of several: the last step's alone may be tiny
    high = np.quantile(values, 0.95, method="lower")
    return bool(values.min() > 0 and high > _DECADES * low)
