"""Do a method's maps lie on the lesions? Part of `anomaly evaluate` for every method, where masks or boxes are known.

The truth of a film is its mask, else its boxes. Films are of many sizes, so each is stretched onto one square: overlaps
stay what they are, and one can say where lesions usually lie. Every figure stands beside that of the mean lesion of the
other patients, which looks at no film, and beside chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.calibrate import CALIBRATION, load_calibration
from anomaly.errors import DataError
from anomaly.evaluate.boxes import (
    BoxPrecision,
    Found,
    box_mask,
    box_table,
    boxes_of_map,
    overlap,
    prior_boxes,
    random_boxes,
)
from anomaly.evaluate.intervals import Interval, mean_interval, wilson
from anomaly.evaluate.localise import hit_rates
from anomaly.evaluate.pixels import AUPRO, FLAT, LIMIT, MAP, USUAL, pixel_table
from anomaly.prepare.resize import resize
from anomaly.records import ABNORMAL, NORMAL, Float32, Float64
from anomaly.workflows.box_tables import SHAPE, read_true_boxes
from anomaly.workflows.draw import panel_path
from anomaly.workflows.journal import read_journal
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.panels import load_panel
from anomaly.workflows.results import ScoreLine
from anomaly.workflows.truth_masks import read_true_mask, small_shape, true_mask_path

OVERLAP = 0.3
"""Intersection over union from which a box hits, as regions of a map are blobs (see `evaluate.boxes`)."""
QUANTILE = 0.95
"""Of the heat of held-out normals' pixels: boxes are drawn around what is hotter."""
POINTING, HIT = "pointing game", f"box hit rate at an overlap of {OVERLAP:g}"

_SIDE, _LEAST_SIDE = 256, 64  # of the square that films are stretched onto
_MOST_PIXELS = 2**27  # of all films together, so that a gigabyte or two holds them


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the maps over `films` films, in [0, 1], beside those of what looks at no film.

    `usual` is the same figure of the mean lesion of the other patients, `chance` that of a map that is even, or of
    boxes at random places. Intervals are 95 %, whole patients resampled; None where there are too few.
    """

    name: str
    films: int
    value: float
    interval: Interval | None
    usual: float
    usual_interval: Interval | None
    chance: float


@dataclass(frozen=True, slots=True)
class Localisation:
    """How well the maps of a scoring run lie on known lesions.

    Of `lesioned` films with known lesions `measured` take part, `outlined` of them by a mask and the others by boxes,
    beside `normal` films without any. `boxes_a_film` are drawn around what is hotter than `threshold`, None where the
    run does not tell. `precision` is of these boxes, beside places that take no map, and empty with fewer than two
    normal patients; `figures` is empty where lesions are of fewer than two patients.
    """

    lesioned: int
    measured: int
    outlined: int
    normal: int
    threshold: float | None
    boxes_a_film: float | None
    figures: tuple[Figure, ...]
    precision: tuple[BoxPrecision, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Film:
    """A film on the square of side S: map float32 (S, S), and its lesions as mask bool (S, S) and boxes float64 (m, 4).

    `lesioned` says whether it has any, `outlined` whether a mask told.
    """

    heat: Float32
    mask: Mask
    boxes: Float64
    score: float
    patient: str
    lesioned: bool
    outlined: bool


def localise(out: Path, lines: Sequence[ScoreLine], *, n_boot: int = 2000) -> Localisation | None:
    """Return how well the maps of a scoring run lie on known lesions; None where none are known.

    A normal film has none; abnormal films of which no lesion is known are left out, and so are films whose map the run
    did not keep.

    Args:
        out: A folder written by `anomaly score`.
        lines: Its scores.
        n_boot: Bootstrap replicates, resampling whole patients; of pixel figures at most 500.

    Raises:
        DataError: A damaged panel, mask or table.
        ModelError: The run's calibration is damaged.
    """
    boxes = read_true_boxes(out) or {}
    scored = [line for line in lines if line.row.score is not None]
    sick = [line for line in scored if _has_lesion(out, line, boxes)]
    if not sick:
        return None
    lesioned = {line.row.scan_id for line in sick}
    rest = [line for line in scored if line.row.scan_id not in lesioned]
    normal = [line for line in rest if line.row.label == NORMAL or line.row.scan_id in boxes]
    kept = [line for line in (*sick, *normal) if panel_path(out, line).is_file()]
    side = _side(len(kept))
    films = _films(out, kept, boxes, side)
    seen = [film for film in films if film.mask.any() or not film.lesioned]
    notes = _notes(rest, normal, missing=len(sick) + len(normal) - len(kept), unseen=len(films) - len(seen), side=side)
    threshold = load_calibration(out).pixel_quantiles[str(QUANTILE)] if (out / CALIBRATION).is_file() else None
    return _measured(seen, side, len(sick), threshold, notes, n_boot)


def known_lesions(out: Path, scan_ids: Collection[str]) -> dict[str, Mask]:
    """Return the lesions of films as people outlined or boxed them, bool (h, w) on a copy of each film of any size.

    Args:
        out: A folder written by `anomaly score`.
        scan_ids: Of the films; those of which no lesion is known are left out.

    Raises:
        DataError: A damaged mask or table.
    """
    boxes, journal = read_true_boxes(out) or {}, read_journal(out)
    found = {}
    for scan_id in scan_ids:
        mask = read_true_mask(out, scan_id)
        if mask is None and len(boxes.get(scan_id, ())):
            height, width = journal[scan_id][SHAPE]
            shape = small_shape((height, width))
            mask = box_mask(boxes[scan_id] * np.array([shape[1] / width, shape[0] / height] * 2), shape)
        if mask is not None:
            found[scan_id] = mask
    return found


def _has_lesion(out: Path, line: ScoreLine, boxes: Mapping[str, Float64]) -> bool:
    return true_mask_path(out, line.row.scan_id).is_file() or len(boxes.get(line.row.scan_id, ())) > 0


def _side(films: int) -> int:
    """Return the side of the square that so many films are stretched onto."""
    side = _SIDE
    while films * side * side > _MOST_PIXELS and side > _LEAST_SIDE:
        side //= 2
    return side


def _notes(
    rest: Sequence[ScoreLine], normal: Sequence[ScoreLine], *, missing: int, unseen: int, side: int
) -> list[str]:
    notes = []
    if missing:
        notes.append(
            f"{missing} films with known lesions or known to have none have no map kept and count in no figure of "
            "localisation: score again with --panels all."
        )
    without = sum(line.row.label == ABNORMAL for line in rest) - sum(line.row.label == ABNORMAL for line in normal)
    if without:
        notes.append(f"{without} abnormal films have no known lesion and count in no figure of localisation.")
    if unseen:
        notes.append(f"The lesions of {unseen} films are too small to be seen at {side} x {side} pixels; left out.")
    if side < _SIDE:
        notes.append(f"Films are many, so maps were compared with lesions at {side} x {side} pixels.")
    return notes


def _films(out: Path, lines: Sequence[ScoreLine], boxes: Mapping[str, Float64], side: int) -> list[_Film]:
    """Bring the maps and lesions of films onto the square."""
    journal = read_journal(out)
    return [_film(out, line, boxes.get(line.row.scan_id), journal.get(line.row.scan_id, {}), side) for line in lines]


def _film(out: Path, line: ScoreLine, boxes: Float64 | None, entry: Mapping[str, Any], side: int) -> _Film:
    row = line.row
    heat = load_panel(panel_path(out, line)).heat_on_film()
    outline = read_true_mask(out, row.scan_id)
    given = np.zeros((0, 4))
    if boxes is not None and len(boxes):
        height, width = entry[SHAPE]
        given = boxes * np.array([side / width, side / height] * 2)
    if outline is None:
        mask = box_mask(given, (side, side))
    else:
        mask = resize(outline.astype(np.float32), side) >= 0.5
        given = given if len(given) else boxes_of_map(mask.astype(np.float32), 0.5)[0]
    assert row.score is not None
    lesioned = outline is not None or len(given) > 0
    return _Film(resize(heat, side), mask, given, row.score, row.patient or row.scan_id, lesioned, outline is not None)


def _measured(
    films: Sequence[_Film], side: int, lesioned: int, threshold: float | None, notes: list[str], n_boot: int
) -> Localisation:
    sick = [film for film in films if film.lesioned]
    drawn = None if threshold is None else [boxes_of_map(film.heat, threshold) for film in films]
    figures: list[Figure] = []
    precision: list[BoxPrecision] = []
    if drawn is None:
        notes.append("No boxes around heat: this run did not keep what held-out normals' maps show; score again.")
    if len({film.patient for film in sick}) < 2:
        notes.append("No figure of localisation: it needs maps of films with known lesions of two patients or more.")
    else:
        try:
            figures = _figures(films, side, drawn, n_boot)
        except DataError as error:
            notes.append(f"No figure of localisation: {error}.")
    if figures and drawn is not None:
        try:
            precision = box_table(
                drawn,
                [film.boxes for film in films],
                [film.score for film in films],
                (side, side),
                [film.patient for film in films],
                overlaps=(OVERLAP,),
                n_boot=n_boot,
            )
        except DataError as error:
            notes.append(f"No precision of boxes around heat: {error}.")
    return Localisation(
        lesioned,
        len(sick),
        sum(film.outlined for film in sick),
        len(films) - len(sick),
        threshold,
        float(np.mean([len(found) for found, _ in drawn])) if drawn else None,
        tuple(figures),
        tuple(precision),
        tuple(notes),
    )


def _figures(films: Sequence[_Film], side: int, drawn: Sequence[Found] | None, n_boot: int) -> list[Figure]:
    """Return the figures, which need lesions of two patients; `drawn` are the boxes on each of `films`."""
    shape, groups = (side, side), [film.patient for film in films]
    sick = [film for film in films if film.lesioned]
    owners = [film.patient for film in sick]
    ours, usual, chance = hit_rates(
        [film.heat for film in sick],
        [film.mask for film in sick],
        [np.ones(shape, np.bool_)] * len(sick),
        groups=owners,
        n_boot=n_boot,
    )
    figures = [Figure(POINTING, len(sick), ours.rate, ours.interval, usual.rate, usual.interval, chance.rate)]
    if drawn is not None:
        truths = [film.boxes for film in sick]
        found = [boxes for (boxes, _), film in zip(drawn, films, strict=True) if film.lesioned]
        (own, interval), (prior, usually), (random, _) = (
            _hit_rate(boxes, truths, owners, n_boot)
            for boxes in (found, prior_boxes(truths, shape, owners), random_boxes(truths, shape, owners))
        )
        figures.append(Figure(HIT, len(sick), own, interval, prior, usually, random))
    table = pixel_table([film.heat for film in films], [film.mask for film in films], groups, n_boot=n_boot)
    rows = {(row.figure, row.name): row for row in table}
    for name in dict.fromkeys(row.figure for row in table):
        row, place, flat = (rows[name, source] for source in (MAP, USUAL, FLAT))
        told = f"{name}, false positives up to {LIMIT:g}" if name == AUPRO else name
        figures.append(Figure(told, row.films, row.value, row.interval, place.value, place.interval, flat.value))
    return figures


def _hit_rate(
    drawn: Sequence[Float64], truths: Sequence[Float64], patients: Sequence[str], n_boot: int
) -> tuple[float, Interval]:
    """Return the mean over films of the share of their lesions that one of the boxes drawn overlaps; as `hit_rates`."""
    pairs = zip(drawn, truths, strict=True)
    hits = [float((overlap(found, true).max(axis=0, initial=0.0) >= OVERLAP).mean()) for found, true in pairs]
    alone = len(set(patients)) == len(patients)
    interval = wilson(sum(hits), len(hits)) if alone else mean_interval(hits, patients, n=n_boot)
    return float(np.mean(hits)), interval


def to_markdown(found: Localisation) -> str:
    """Return the figures as text and two GitHub tables."""
    text = (
        f"Maps of {found.measured} films with known lesions ({found.outlined} outlined, "
        f"{found.measured - found.outlined} boxed; {found.lesioned} scored) and of {found.normal} without any. "
    )
    if found.threshold is not None and found.boxes_a_film is not None:
        text += (
            f"Boxes around what is hotter than the {QUANTILE:g} quantile of held-out normals' pixels "
            f"({found.threshold:.3g}): {found.boxes_a_film:.1f} a film. "
        )
    lines = [text + "An oracle's threshold is chosen by the answers."]
    if found.figures:
        lines += [
            "",
            "| | films | map [95 %] | where lesions usually lie [95 %] | chance |",
            "|---|---:|---:|---:|---:|",
        ]
    for figure in found.figures:
        cells = (_cell(figure.value, figure.interval), _cell(figure.usual, figure.usual_interval))
        lines.append(f"| {figure.name} | {figure.films} | {' | '.join(cells)} | {figure.chance:.3f} |")
    if found.precision:
        lines += ["", f"| boxes around heat | average precision at an overlap of {OVERLAP:g} [95 %] |", "|---|---:|"]
    lines += [f"| {row.name} | {_cell(row.average_precision, row.interval)} |" for row in found.precision]
    return "\n".join(lines)


def _cell(value: float, interval: Interval | None) -> str:
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
