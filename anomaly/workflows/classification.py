"""How well a scoring run of a classifier names the classes: classification.json, tables and three pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.errors import DataError
from anomaly.evaluate.classify import ClassTable, class_numbers, evaluate_classes, roc
from anomaly.evaluate.intervals import Interval, wilson
from anomaly.records import Float64, Int64
from anomaly.runs import RECEIPT, read_json, write_json, write_text
from anomaly.workflows.plots import save_figure, shown
from anomaly.workflows.predictions import PREDICTIONS, read_predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSIFICATION, TABLES = "classification.json", "classification.md"
CONFUSION, ROC, RELIABILITY = "figures/confusion.png", "figures/roc.png", "figures/reliability.png"
CLASSIFIED = (CLASSIFICATION, TABLES, CONFUSION, ROC, RELIABILITY)
"""Everything that `classify` writes, relative to the results folder."""

_NAMED = 4  # up to so many classes have their names over the columns of a confusion matrix
_COLOURS = (
    "#2f7fb8",
    "#c8452d",
    "#3a8f5c",
    "#6b4ea0",
    "#b8860b",
    "#17889b",
    "#c2527f",
    "#7a5230",
    "#5f6b7a",
    "#222222",
)
_INK, _SOFT = "#1c1f24", "#8a8f98"


@dataclass(frozen=True, slots=True)
class Classification:
    """The tables, and how many scored scans are of no known class and so not in them."""

    table: ClassTable
    without_class: int


def classify(out: Path, *, n_boot: int = 2000) -> Classification | None:
    """Evaluate what a classifier predicted, and write `CLASSIFIED` into the results folder.

    Args:
        out: A folder written by `anomaly score`.
        n_boot: Bootstrap replicates, resampling whole patients.

    Returns:
        None, and nothing written, where the run has no predictions, or no scored scan of known class.

    Raises:
        DataError: predictions.csv or receipt.json is damaged, or they do not fit each other.
        UnknownClassError: Scans of a class that the model does not know.
    """
    for name in CLASSIFIED:
        (out / name).unlink(missing_ok=True)
    if not (out / PREDICTIONS).is_file():
        return None
    predictions = read_predictions(out)
    known = [(line, line.class_name) for line in predictions if line.class_name is not None]
    if not known:
        return None
    classes, cut = _said_of_run(out)
    if list(known[0][0].probabilities) != classes:
        raise DataError(f"{out / PREDICTIONS} and {out / RECEIPT} name different classes: score again.")
    labels = class_numbers([name for _, name in known], classes)
    chances = np.array([list(line.probabilities.values()) for line, _ in known], np.float64)
    groups = [line.patient or line.scan_id for line, _ in known]
    table = evaluate_classes(labels, chances, classes, groups, cut=cut, n_boot=n_boot)
    found = Classification(table, len(predictions) - len(known))
    write_json(out / CLASSIFICATION, to_dict(found))
    write_text(out / TABLES, to_markdown(found) + "\n")
    save_figure(out / CONFUSION, _confusion(table))
    save_figure(out / ROC, _curves(table, labels, chances))
    save_figure(out / RELIABILITY, _reliability(table))
    return found


def to_dict(found: Classification) -> dict[str, Any]:
    """Return it as plain values for JSON: an interval becomes {low, high, level, n_boot}."""
    return {**asdict(found.table), "without_class": found.without_class}


def to_markdown(found: Classification) -> str:
    """Return GitHub tables, the notes below; the baseline's rows have its numbers; no trailing newline."""
    table = found.table
    tables = [_overall(table), _per_class(table), _counts(table), _two_way(table)]
    notes = list(table.notes)
    if found.without_class:
        notes.append(f"{found.without_class} scans of unknown class left out.")
    return "\n\n".join([*map(grid, tables), *notes])


def _said_of_run(out: Path) -> tuple[list[str], float | None]:
    """Return the names of the model's classes, the normal one first, and its cut, as the receipt has them."""
    facts = read_json(out / RECEIPT)
    classes, cut = facts.get("classes"), facts.get("cut")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not named or not (cut is None or isinstance(cut, int | float)):
        raise DataError(f"{out / RECEIPT} does not say which classes the model tells apart: score again.")
    return classes or [], None if cut is None else float(cut)


def _overall(table: ClassTable) -> list[list[str]]:
    head = [f"{table.n} films, {table.n_patients} patients"]
    head += ["accuracy", "balanced accuracy", "macro F1", "macro AUROC", "ECE"]
    classifier = [
        "classifier",
        _cell(table.accuracy, table.accuracy_interval),
        _cell(table.balanced_accuracy, table.balanced_accuracy_interval),
        _cell(table.macro_f1, table.macro_f1_interval),
        _cell(table.macro_auroc),
        _cell(table.ece),
    ]
    trivial = table.majority
    always = [f"trivial baseline: always {trivial.name}", _cell(trivial.accuracy), _cell(trivial.balanced_accuracy)]
    return [head, classifier, [*always, _cell(trivial.macro_f1), "n/a" if table.macro_auroc is None else "0.500", ""]]


def _per_class(table: ClassTable) -> list[list[str]]:
    lines = [["class", "films", "predicted", "precision", "recall", "F1", "AUROC"]]
    for row in table.per_class:
        rates = [_cell(value) for value in (row.precision, row.recall, row.f1, row.auroc)]
        lines.append([row.name, str(row.support), str(row.predicted), *rates])
    return lines


def _counts(table: ClassTable) -> list[list[str]]:
    names = list(table.classes)
    if len(names) > _NAMED:
        columns, names = [str(n) for n in range(1, len(names) + 1)], [f"{n} {name}" for n, name in enumerate(names, 1)]
    else:
        columns = names
    rows = [[name, *map(str, counts)] for name, counts in zip(names, table.confusion, strict=True)]
    return [["true \\ predicted", *columns], *rows]


def _two_way(table: ClassTable) -> list[list[str]]:
    lines = [
        [f"{table.classes[0]} against the rest", "abnormal above", "sensitivity", "specificity", "balanced accuracy"]
    ]
    lines[0].append("accuracy")
    for row in table.two_way:
        abnormal, normal = row.true_positives + row.false_negatives, row.true_negatives + row.false_positives
        right = row.true_positives + row.true_negatives
        lines.append(
            [
                row.rule,
                f"{row.threshold:.4g}",
                _cell(row.sensitivity, row.sensitivity_interval, f"{row.true_positives}/{abnormal}"),
                _cell(row.specificity, row.specificity_interval, f"{row.true_negatives}/{normal}"),
                _cell(row.balanced_accuracy, row.balanced_accuracy_interval),
                _cell(row.accuracy, row.accuracy_interval, f"{right}/{table.n}"),
            ]
        )
    return [*lines, ["trivial baseline: the commoner of the two", "", "", "", "0.500", _cell(table.majority.two_way)]]


def _cell(value: float | None, interval: Interval | None = None, counts: str = "") -> str:
    if value is None:
        return "n/a"
    between = "" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]"
    return f"{value:.3f}{between}" + (f" ({counts})" if counts else "")


def grid(lines: Sequence[Sequence[str]]) -> str:
    """Return a GitHub table whose first line is its head; no cell can break it."""
    ruler = ["---"] + ["---:"] * (len(lines[0]) - 1)
    plain = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in [plain[0], ruler, *plain[1:]])


def _confusion(table: ClassTable) -> Figure:
    """Draw counts of films, coloured by their share of the true class."""
    from matplotlib.figure import Figure

    names, k = [shown(name) for name in table.classes], len(table.classes)
    counts = np.array(table.confusion)
    films = counts.sum(axis=1)
    shares = counts / np.maximum(films, 1)[:, None]
    side = 2.4 + 0.55 * k
    figure = Figure(figsize=(side + 2.0, side + 0.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row in range(k):
        for column in range(k):
            share = f"\n{100 * shares[row, column]:.0f} %" if k <= _NAMED and films[row] else ""
            colour = "white" if shares[row, column] > 0.55 else _INK if counts[row, column] else _SOFT
            text = f"{counts[row, column]}{share}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10 if k <= _NAMED else 8)
    slanted = k > _NAMED or max(map(len, names)) > 12
    axes.set_xticks(range(k), names, rotation=40 if slanted else 0, ha="right" if slanted else "center", fontsize=9)
    axes.set_yticks(range(k), [f"{name} (n = {n})" for name, n in zip(names, films, strict=True)], fontsize=9)
    if slanted:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dfe3e8", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")
    axes.set_title("Films, coloured by their share of the true class", fontsize=10)
    return figure


def _curves(table: ClassTable, labels: Int64, chances: Float64) -> Figure:
    """Draw one ROC curve a class, it against the rest; of two classes the abnormal one, as the other mirrors it."""
    from matplotlib.figure import Figure

    longest = max(len(shown(row.name)) for row in table.per_class)
    figure = Figure(figsize=(6.2 + 0.075 * longest, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_SOFT, linestyle=":", linewidth=1.2)
    for place, row in list(enumerate(table.per_class))[1 if len(table.classes) == 2 else 0 :]:
        if row.auroc is None:
            continue
        false, true = roc((labels == place).astype(np.int64), chances[:, place])
        name = f"{shown(row.name)}: {row.auroc:.3f} (n = {row.support})"
        style = ("-", "--", "-.")[place % 3 if len(table.classes) > _NAMED else 0]  # so that no two lines are alike
        axes.plot(false, true, color=_COLOURS[place % len(_COLOURS)], linestyle=style, linewidth=1.6, label=name)
    axes.set_aspect("equal")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel("false positive rate: share of the other films")
    axes.set_ylabel("true positive rate: share of the class")
    axes.set_title("Each class against the rest", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, title="AUROC", alignment="left")
    else:
        axes.text(0.5, 0.5, "no curve: all films are of one class", ha="center", color=_INK)
    return figure


def _reliability(table: ClassTable) -> Figure:
    """Draw how often the predicted class is right beside its probability, and how many films each bin holds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=_SOFT, linestyle=":", linewidth=1.2, label="probability = frequency")
    for b in table.bins:
        if b.accuracy is None or b.confidence is None:
            continue
        between = wilson(round(b.accuracy * b.count), b.count)
        above.bar(b.low, b.accuracy, b.high - b.low, align="edge", color="#2f7fb8", alpha=0.35, edgecolor="white")
        above.plot([b.confidence] * 2, [between.low, between.high], color="#2f7fb8", linewidth=1.2)
        above.plot([b.confidence], [b.accuracy], "o", color="#2f7fb8", markersize=5)
    above.plot([], [], "o-", color="#2f7fb8", markersize=5, linewidth=1.2, label="films of a bin [95 %, Wilson]")
    above.set_title(f"ECE {table.ece:.3f} over {len(table.bins)} bins, {table.n} films", fontsize=10)
    above.set_ylabel("share of right predictions")
    above.set_ylim(0, 1.02)
    above.legend(frameon=False, fontsize=9, loc="upper left")
    _bin_counts(below, table)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _bin_counts(axes: Axes, table: ClassTable) -> None:
    most = max(b.count for b in table.bins)
    for b in table.bins:
        axes.bar(b.low, b.count, b.high - b.low, align="edge", color=_SOFT, edgecolor="white")
        if b.count:
            middle = (b.low + b.high) / 2
            axes.text(middle, b.count + 0.03 * most, str(b.count), ha="center", fontsize=8, color=_INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.25 * most)
    axes.set_ylabel("films")
    axes.set_xlabel("probability of the predicted class")
