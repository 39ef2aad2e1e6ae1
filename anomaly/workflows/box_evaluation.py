"""How well a method's boxes lie on the scans' own: mean average precision, and the pointing game, beside what is usual.

Part of `anomaly evaluate`, for methods that draw boxes, where the scans came with boxes. Films are of many sizes, so
boxes are brought onto one square first, each film stretched onto it: overlaps stay what they are, and one can say where
lesions usually lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.evaluate.boxes import BoxPrecision, Found, box_mask, box_table
from anomaly.evaluate.localise import HitRate, hit_rates
from anomaly.records import ABNORMAL, NORMAL, Float32, Float64
from anomaly.workflows.box_tables import BOXES, SHAPE, read_true_boxes
from anomaly.workflows.journal import read_journal
from anomaly.workflows.results import ScoreLine

OVERLAP = 0.5
_SIDE = 256  # of the square that films are stretched onto


@dataclass(frozen=True, slots=True)
class BoxEvaluation:
    """The boxes drawn on `films` films beside the `boxes` true ones on `boxed` of them.

    `map_50` and `map_50_95` are COCO's, in [0, 1]; `precision` has the first of them, integrated over all recalls, with
    an interval, beside places that take no detector; `pointing` says whether the most confident box lies on a true one.
    Both are empty where there are too few patients.
    """

    films: int
    boxed: int
    boxes: int
    map_50: float
    map_50_95: float
    precision: tuple[BoxPrecision, ...]
    pointing: tuple[HitRate, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Film:
    """A film on the square: true boxes float64 (m, 4), those drawn, and what else is asked of it."""

    truth: Float64
    drawn: Found
    score: float
    patient: str


def evaluate_boxes(out: Path, lines: Sequence[ScoreLine], *, n_boot: int = 2000) -> BoxEvaluation | None:
    """Return how well the boxes of a scoring run lie; None where no boxes were drawn, or no true ones are known.

    A normal film has none; abnormal films of which no box is known are left out.

    Args:
        out: A folder written by `anomaly score`.
        lines: Its scores.
        n_boot: Bootstrap replicates, resampling whole patients.

    Raises:
        DataError: A damaged table.
    """
    known = read_true_boxes(out)
    if known is None:
        return None
    journal = read_journal(out)
    films, without = [], 0
    for line in lines:
        entry = journal.get(line.row.scan_id, {})
        if line.row.score is None or BOXES not in entry:
            continue
        truth = known.get(line.row.scan_id, np.zeros((0, 4)) if line.row.label == NORMAL else None)
        if truth is None:
            without += line.row.label == ABNORMAL
            continue
        films.append(_on_square(line, entry, truth))
    if not any(len(film.truth) for film in films):
        return None
    notes = [f"{without} abnormal films have no known box and count in no figure of boxes."] if without else []
    return _measured(films, notes, n_boot)


def _on_square(line: ScoreLine, entry: Mapping[str, Any], truth: Float64) -> _Film:
    height, width = entry[SHAPE]
    scale = np.array([_SIDE / width, _SIDE / height] * 2)
    drawn = np.array(entry[BOXES], np.float64).reshape(-1, 5)
    drawn = drawn[(drawn[:, 2:4] > 0).all(axis=1)]  # what was cut away at the film's edge
    score = line.row.score
    assert score is not None
    return _Film(truth * scale, (drawn[:, :4] * scale, drawn[:, 4]), score, line.row.patient or line.row.scan_id)


def _measured(films: Sequence[_Film], notes: list[str], n_boot: int) -> BoxEvaluation:
    from anomaly.detectors.retinanet.precision import mean_average_precision

    found = mean_average_precision([_cornered(*film.drawn) for film in films], [_cornered(f.truth) for f in films])
    groups, shape = [film.patient for film in films], (_SIDE, _SIDE)
    precision: list[BoxPrecision] = []
    pointing: list[HitRate] = []
    try:
        precision = box_table(
            [film.drawn for film in films],
            [film.truth for film in films],
            [film.score for film in films],
            shape,
            groups,
            overlaps=(OVERLAP,),
            n_boot=n_boot,
        )
    except DataError as error:
        notes.append(f"No interval of the boxes' precision: {error}.")
    sick = [film for film in films if box_mask(film.truth, shape).any()]
    try:
        pointing = hit_rates(
            [_map(film.drawn) for film in sick],
            [box_mask(film.truth, shape) for film in sick],
            [np.ones(shape, np.bool_)] * len(sick),
            groups=[film.patient for film in sick],
            n_boot=n_boot,
        )
    except DataError as error:
        notes.append(f"No pointing game: {error}.")
    return BoxEvaluation(
        len(films),
        len(sick),
        sum(len(film.truth) for film in films),
        found.at_half,
        found.mean,
        tuple(replace(row, name=_own(row.name)) for row in precision),
        tuple(replace(row, name=_own(row.name)) for row in pointing),
        tuple(notes),
    )


def _own(name: str) -> str:
    """Return what a row of `box_table` or `hit_rates` is called here: no map was looked at, but boxes."""
    return "boxes drawn" if name == "map" else name.replace("region", "film")


def _cornered(boxes: Float64, confidences: Float64 | None = None) -> Float64:
    """Return x1, y1, x2, y2 of boxes, and their confidences where there are any."""
    corners = [boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]
    return np.concatenate([*corners, *([] if confidences is None else [confidences[:, None]])], axis=1)


def _map(drawn: Found) -> Float32:
    """Return where the most confident box lies; flat where there is none, which hits as often as chance does."""
    boxes, confidences = drawn
    best = boxes[:1] if len(confidences) else boxes
    return box_mask(best, (_SIDE, _SIDE)).astype(np.float32)


def to_markdown(found: BoxEvaluation) -> str:
    """Return the figures as text and two GitHub tables."""
    lines = [
        f"Boxes on {found.films} films, {found.boxed} of which have {found.boxes} true ones: mAP at an overlap of 0.5 "
        f"{found.map_50:.3f}, over 0.5 to 0.95 {found.map_50_95:.3f} (COCO)."
    ]
    rows = [
        [row.name, f"{row.average_precision:.3f} [{row.interval.low:.3f}, {row.interval.high:.3f}]"]
        for row in found.precision
    ]
    hits = [[row.name, f"{row.rate:.3f} [{row.interval.low:.3f}, {row.interval.high:.3f}]"] for row in found.pointing]
    for head, table in (("average precision at an overlap of 0.5", rows), ("the point lies on a lesion", hits)):
        if table:
            lines += ["", f"| | {head} |", "|---|---|", *(f"| {' | '.join(cells)} |" for cells in table)]
    return "\n".join(lines)
