"""How often a classifier names the right class, how far its probabilities can be believed, and normal against the rest.

Averages over classes are over those that the films have: a class without a film has no recall. Beside every accuracy
stands that of the rule that says the most frequent class of every film: on uneven sets it is high.

Balanced accuracy is the mean recall (Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution", ICPR
2010); macro F1 the mean of the classes' F1. Their intervals resample whole patients (`resample.py`); those of plain
proportions are Wilson's, which takes films for independent. ECE: Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017, equation 3; with few films it lies above 0 even where every probability is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import DataError
from anomaly.evaluate.intervals import Interval, proportion, wilson
from anomaly.evaluate.metrics import auroc, tally
from anomaly.evaluate.resample import film_replicates, group_numbers
from anomaly.records import Float64, Int64

BINS = 15
HALF, CUT = "one half", "chosen on validation films"
_SUM = 1e-3  # probabilities are stored as float32, and written with nine digits


class UnknownClassError(DataError):
    """Films of a class that the model does not know."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class. Metrics in [0, 1], None where they cannot be computed: the class has no film or is never predicted.

    `support` films are of it and `predicted` are said to be; `auroc` is of its probability, it against the rest.
    """

    name: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Films whose highest probability lies in (low, high]: how many, its mean, and how often the class is right."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class TwoWay:
    """Normal against the rest: a film is called abnormal where 1 - P(normal) > threshold.

    Positive is abnormal. Rates in [0, 1], None where no film is abnormal (or normal). Intervals are 95 %: Wilson, and
    patient-clustered for the balanced accuracy.
    """

    rule: str
    threshold: float
    true_positives: int
    false_negatives: int
    true_negatives: int
    false_positives: int
    sensitivity: float | None
    sensitivity_interval: Interval | None
    specificity: float | None
    specificity_interval: Interval | None
    balanced_accuracy: float | None
    balanced_accuracy_interval: Interval | None
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True, slots=True)
class Majority:
    """The trivial baseline: the rule that says the most frequent class of every film; `two_way` its accuracy there."""

    name: str
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    two_way: float


@dataclass(frozen=True, slots=True)
class ClassTable:
    """All that is said of a classifier's answers on N films. Values in [0, 1]; None where not computable.

    `confusion` counts films, a row a true class and a column a predicted one, in the order of `classes`.
    """

    classes: tuple[str, ...]
    n: int
    n_patients: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float
    balanced_accuracy_interval: Interval | None
    macro_f1: float
    macro_f1_interval: Interval | None
    macro_auroc: float | None
    ece: float
    majority: Majority
    per_class: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[Bin, ...]
    two_way: tuple[TwoWay, ...]
    notes: tuple[str, ...]


def class_numbers(names: Sequence[str], classes: Sequence[str]) -> Int64:
    """Return the place of each name among the classes: N names -> int64 (N,); case matters only where it must.

    Raises:
        UnknownClassError: A name that is none of them.
    """
    places = {name: place for place, name in enumerate(classes)}
    folded = [name.casefold() for name in classes]
    if len(set(folded)) == len(folded):
        places = {name: folded.index(name.casefold()) for name in {*names, *classes} if name.casefold() in folded}
    strange = sorted(set(names) - places.keys())
    if strange:
        raise UnknownClassError(
            f"The films are of classes that the model does not know ({', '.join(strange)}; it knows "
            f"{', '.join(classes)}): rename or leave out those films, or use a model that was trained on these classes."
        )
    return np.array([places[name] for name in names], dtype=np.int64)


def evaluate_classes(
    labels: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
    groups: ArrayLike,
    *,
    cut: float | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> ClassTable:
    """Evaluate a classifier's probabilities on films of known class.

    Args:
        labels: (N,) whole numbers in [0, K), the place of each film's true class in `classes`.
        probabilities: float (N, K) in [0, 1], each row summing to 1; of equal highest ones the first is predicted.
        classes: K >= 2 different names, the normal one first.
        groups: (N,), patient of each film, numbers or strings.
        cut: The score 1 - P(normal) in [0, 1] above which a scan is called abnormal, chosen on other films; or None.
        n_boot: Bootstrap replicates.
        seed: Of the resamples.

    Raises:
        DataError: No films, shapes or values other than these.
        UnknownClassError: A label outside [0, K).
    """
    truth, chances = _checked(labels, probabilities, classes)
    patients = group_numbers(groups, len(truth))
    predicted = chances.argmax(axis=1)
    confusion = _confusion(truth, predicted, len(classes))
    present = np.flatnonzero(confusion.sum(axis=1))
    rows = tuple(_class_row(name, place, confusion, truth, chances) for place, name in enumerate(classes))
    rules = [(HALF, 0.5)] if cut is None else [(HALF, 0.5), (CUT, cut)]
    scores = chances[:, 1:].sum(axis=1)  # 1 - P(normal), without losing what is small to rounding
    flagged = [scores > threshold for _, threshold in rules]
    macro, two_way, note = _intervals(truth, predicted, flagged, patients, n_boot, seed)
    areas = [row.auroc for row in rows if row.auroc is not None]
    bins = reliability(chances.max(axis=1), predicted == truth)
    right = int(np.trace(confusion))
    return ClassTable(
        tuple(classes),
        len(truth),
        len(np.unique(patients)),
        accuracy=right / len(truth),
        accuracy_interval=wilson(right, len(truth)),
        balanced_accuracy=_mean_recall(confusion),
        balanced_accuracy_interval=macro[0],
        macro_f1=_mean_f1(confusion),
        macro_f1_interval=macro[1],
        macro_auroc=float(np.mean(areas)) if areas else None,
        ece=expected_calibration_error(bins),
        majority=_majority(classes, confusion.sum(axis=1)),
        per_class=rows,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        bins=bins,
        two_way=tuple(
            _two_way(rule, threshold, truth > 0, said, interval)
            for (rule, threshold), said, interval in zip(rules, flagged, two_way, strict=True)
        ),
        notes=_notes(classes, present, len(truth), len(np.unique(patients)), note),
    )


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> tuple[Bin, ...]:
    """Gather films by their highest probability, in bins of equal width (Guo et al., section 2).

    Args:
        confidence: (N,) in [0, 1].
        right: bool (N,), whether that class is the true one.
        bins: How many, M; bin m is ((m - 1) / M, m / M], and 0 lies in the first.
    """
    sure, hits = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    place = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums, correct = (np.bincount(place, weights=values, minlength=bins) for values in (sure, hits))
    return tuple(
        Bin(
            m / bins,
            (m + 1) / bins,
            int(counts[m]),
            float(sums[m] / counts[m]) if counts[m] else None,
            float(correct[m] / counts[m]) if counts[m] else None,
        )
        for m in range(bins)
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """ECE = sum_m |B_m| / n |acc(B_m) - conf(B_m)|, Guo et al., equation 3; in [0, 1]; n >= 1."""
    gaps = [b.count * abs((b.accuracy or 0.0) - (b.confidence or 0.0)) for b in bins]  # an empty bin weighs nothing
    return sum(gaps) / sum(b.count for b in bins)


def roc(truth: ArrayLike, scores: ArrayLike) -> tuple[Float64, Float64]:
    """Return the ROC curve from (0, 0) to (1, 1): false and true positive rates, float64 (T + 1,), non-decreasing.

    Args:
        truth: (N,), 1 where the film is of the class, else 0.
        scores: (N,), finite.

    Raises:
        DataError: One of the two is missing.
    """
    counts = tally(truth, scores)
    false, true = (np.concatenate([[0.0], np.cumsum(c[::-1])]) for c in (counts.normal, counts.abnormal))
    return false / false[-1], true / true[-1]


def _checked(labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> tuple[Int64, Float64]:
    truth: NDArray[Any] = np.asarray(labels)
    chances: NDArray[Any] = np.asarray(probabilities)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise DataError(f"Classes must be two or more different names; these are: {', '.join(classes) or 'none'}.")
    if truth.size == 0:
        raise DataError("Not computable: no film of known class; give films whose folder or manifest names it.")
    if truth.ndim != 1 or truth.dtype.kind not in "iu":
        raise DataError(f"Labels must be whole numbers (N,), one a film; these are {truth.dtype} {truth.shape}.")
    if chances.shape != (len(truth), len(classes)) or chances.dtype.kind != "f":
        wanted = f"float ({len(truth)}, {len(classes)}): one a film and class"
        raise DataError(f"Probabilities must be {wanted}; these are {chances.dtype} {chances.shape}.")
    strange = sorted({int(label) for label in truth if not 0 <= label < len(classes)})
    if strange:
        known = ", ".join(f"{place} ({name})" for place, name in enumerate(classes))
        raise UnknownClassError(
            f"The labels {', '.join(map(str, strange))} are none of the model's classes {known}: leave out those films."
        )
    chances = chances.astype(np.float64)
    if not (np.all(chances >= 0.0) and np.all(np.abs(chances.sum(axis=1) - 1.0) < _SUM)):
        raise DataError("Probabilities must lie in [0, 1] and sum to 1 over the classes of a film: score again.")
    return truth.astype(np.int64), chances


def _confusion(truth: Int64, predicted: Int64, k: int, counts: Float64 | None = None) -> NDArray[Any]:
    """Count films by true class (rows) and predicted one (columns): (K, K), each film `counts` times, else once."""
    return np.bincount(truth * k + predicted, weights=counts, minlength=k * k).reshape(k, k)


def _mean_recall(confusion: NDArray[Any]) -> float:
    """Balanced accuracy: the mean over the classes that have films of TP / (TP + FN)."""
    support = confusion.sum(axis=1)
    has = support > 0
    return float(np.mean(np.diag(confusion)[has] / support[has]))


def _mean_f1(confusion: NDArray[Any]) -> float:
    """Macro F1: the mean over the classes that have films of 2 TP / (2 TP + FP + FN)."""
    support = confusion.sum(axis=1)
    has = support > 0
    return float(np.mean(2 * np.diag(confusion)[has] / (support + confusion.sum(axis=0))[has]))


def _class_row(name: str, place: int, confusion: NDArray[Any], truth: Int64, chances: Float64) -> ClassRow:
    support, predicted = int(confusion[place].sum()), int(confusion[:, place].sum())
    hits = int(confusion[place, place])
    return ClassRow(
        name,
        support,
        predicted,
        precision=hits / predicted if predicted else None,
        recall=hits / support if support else None,
        f1=2 * hits / (support + predicted) if support else None,
        auroc=auroc(truth == place, chances[:, place]) if 0 < support < len(truth) else None,
    )


def _majority(classes: Sequence[str], support: Int64) -> Majority:
    """Return what always saying the most frequent class (the first of equals) reaches; support int64 (K,)."""
    place, n = int(support.argmax()), int(support.sum())
    share, present = float(support[place] / n), int(np.count_nonzero(support))
    f1 = 2 * share / (1 + share)  # of that class; 0 of the others
    abnormal = float(support[1:].sum() / n)
    return Majority(classes[place], share, 1 / present, f1 / present, max(abnormal, 1.0 - abnormal))


def _two_way(
    rule: str, threshold: float, abnormal: NDArray[np.bool_], said: NDArray[np.bool_], interval: Interval | None
) -> TwoWay:
    """Return the table of one threshold; abnormal and said bool (N,): what a film is, and what it is called."""
    tp, fn = int(np.sum(abnormal & said)), int(np.sum(abnormal & ~said))
    tn, fp = int(np.sum(~abnormal & ~said)), int(np.sum(~abnormal & said))
    sensitivity = tp / (tp + fn) if tp + fn else None
    specificity = tn / (tn + fp) if tn + fp else None
    both = sensitivity is not None and specificity is not None
    return TwoWay(
        *(rule, threshold, tp, fn, tn, fp),
        sensitivity=sensitivity,
        sensitivity_interval=wilson(tp, tp + fn) if tp + fn else None,
        specificity=specificity,
        specificity_interval=wilson(tn, tn + fp) if tn + fp else None,
        balanced_accuracy=((sensitivity or 0.0) + (specificity or 0.0)) / 2 if both else None,
        balanced_accuracy_interval=interval if both else None,
        accuracy=(tp + tn) / len(said),
        accuracy_interval=wilson(tp + tn, len(said)),
    )


def _intervals(
    truth: Int64,
    predicted: Int64,
    flagged: Sequence[NDArray[np.bool_]],
    patients: Int64,
    n_boot: int,
    seed: int,
) -> tuple[list[Interval | None], list[Interval | None], str | None]:
    """Return the intervals of balanced accuracy and macro F1, of each rule's balanced accuracy, and why there are none.

    A replicate that draws no patient of some class averages over those it has. Percentiles are taken for as many
    patients as the rarest class has (see `intervals.py`).
    """
    k = int(max(truth.max(), predicted.max())) + 1
    present = np.unique(truth)
    fewest = min(len(np.unique(patients[truth == place])) for place in present)
    if len(present) < 2 or fewest < 2:
        why = "Balanced accuracies and macro F1 have no interval: that needs two classes, and two patients of each."
        return [None, None], [None] * len(flagged), why
    abnormal = (truth > 0).astype(np.int64)
    statistics = [_on(truth, predicted, k, metric) for metric in (_mean_recall, _mean_f1)]
    statistics += [_on(abnormal, said.astype(np.int64), 2, _mean_recall) for said in flagged]
    kinds = (truth != present[0]).astype(np.int64)  # normal and abnormal, where there are normals
    values = film_replicates(statistics, kinds, patients, n=n_boot, seed=seed)
    pair = min(len(np.unique(patients[kinds == kind])) for kind in (0, 1))
    macro: list[Interval | None] = [proportion(column, fewest) for column in values.T[:2]]
    return macro, [proportion(column, pair) for column in values.T[2:]], None


def _on(truth: Int64, said: Int64, k: int, metric: Callable[[NDArray[Any]], float]) -> Callable[[Float64], float]:
    """Return a metric of the confusion matrix as a function of how often each film is drawn, float64 (N,)."""
    return lambda counts: metric(_confusion(truth, said, k, counts))


def _notes(classes: Sequence[str], present: Int64, films: int, patients: int, why: str | None) -> tuple[str, ...]:
    notes = [why] if why else []
    absent = [name for place, name in enumerate(classes) if place not in present]
    if absent:
        notes.append(
            f"No film is of class {', '.join(absent)}: no recall, F1 or AUROC there, and averages are over the others."
        )
    if len(present) == 1:
        notes.append("All films are of one class: nothing can be said of how well classes are told apart.")
    if patients < films:
        notes.append(
            f"The {films} films are of {patients} patients: Wilson's intervals (accuracy, sensitivity, specificity) "
            "take films for independent and are a little too short."
        )
    return tuple(notes)
