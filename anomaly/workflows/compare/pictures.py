"""Films of a comparison: the same twelve through every recipe side by side, and what each gets most wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anomaly.heatmaps import FOOTNOTE, fit_text, font, write_png
from anomaly.records import ABNORMAL, NORMAL, Int64, UInt8
from anomaly.workflows.compare.figures import by_entrant
from anomaly.workflows.compare.results import Found, Results
from anomaly.workflows.compare.summary import Summary
from anomaly.workflows.draw import draw, enlarged, heat_scale, panel_path
from anomaly.workflows.gallery import BLUE, Tile, draw_gallery, outline, tile_of
from anomaly.workflows.localisation import known_lesions
from anomaly.workflows.lung_masks import Mask
from anomaly.workflows.panels import load_panel

SIDE_BY_SIDE = "side_by_side.png"
SHOWN = 12
_WORST = 6
_TILE, _GAP, _WORDS, _HEADER, _FOOTER, _NAMES = 168, 6, 20, 62, 30, 26
_PAGE, _INK, _FAINT, _NORMAL, _ABNORMAL = (
    (17, 17, 19),
    (232, 232, 234),
    (152, 152, 158),
    (120, 190, 235),
    (240, 140, 110),
)
_TEXT, _SMALL = 16, 12
_OUTLINED = " Blue: a lesion as people drew it."


def worst_name(entrant: str) -> str:
    """Return the name of the picture of what a recipe gets most wrong."""
    return f"worst_{entrant.replace(':', '-')}.png"


def draw_pictures(folder: Path, summary: Summary, results: Results) -> None:
    """Draw both kinds, from the panels that the first seed of every recipe kept."""
    each = [(name, own[0]) for name, own in by_entrant(summary, results) if own]
    labels = np.array([film.label for film in results.films], np.int64)
    founds = [found for _, found in each]
    seen = {*chosen(labels, founds), *(place for found in founds for place, _ in _worst(found, labels))}
    sick = [results.films[place].scan_id for place in sorted(seen) if labels[place] == ABNORMAL]
    lesions = known_lesions(each[0][1].out, sick)
    draw_side_by_side(folder / SIDE_BY_SIDE, each, labels, results, lesions)
    for name, found in each:
        _draw_worst(folder / worst_name(name), name, found, labels, results, lesions)


def chosen(labels: Int64, each: Sequence[Found]) -> list[int]:
    """Return the places of up to twelve films, half of them abnormal, from what all call abnormal to what none does.

    Films are ranked by their mean p-value over recipes, and taken at equal steps of each label's ranks, so that no
    recipe, and no one who looks, has picked them.
    """
    mean_p = np.mean([found.p_values for found in each], axis=0)
    places: list[int] = []
    for label, count in ((ABNORMAL, SHOWN // 2), (NORMAL, SHOWN - SHOWN // 2)):
        own = np.flatnonzero(labels == label)
        ranked = own[np.argsort(mean_p[own], kind="stable")]
        at = np.unique(np.rint(np.linspace(0, len(ranked) - 1, min(count, len(ranked)))).astype(np.int64))
        places += ranked[at].tolist()
    return places


def draw_side_by_side(
    path: Path, each: Sequence[tuple[str, Found]], labels: Int64, results: Results, lesions: Mapping[str, Mask]
) -> None:
    """Draw a page: a row a film, a column a recipe, each map on its recipe's own fixed scale."""
    from PIL import Image, ImageDraw

    rows = chosen(labels, [found for _, found in each])
    width = _GAP + max(4, len(each) + 1) * (_TILE + _GAP)  # four at the least: the heading needs the room
    page = Image.new("RGB", (width, _HEADER + _NAMES + len(rows) * (_TILE + _WORDS + _GAP) + _FOOTER), _PAGE)
    ink = ImageDraw.Draw(page)
    room = width - 2 * _GAP
    heading = f"The same {len(rows)} films through every method"
    key = "Below: p-value. Colour: hotter than 95 % of what normal films show."
    key += _OUTLINED if lesions else ""
    ink.text((_GAP, 20), fit_text(heading, font(_TEXT), room), _INK, font(_TEXT), "lm")
    ink.text((_GAP, 44), fit_text(key, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    for column, name in enumerate(["film", *(name for name, _ in each)]):
        at = _GAP + column * (_TILE + _GAP)
        ink.text((at, _HEADER + 12), fit_text(name, font(_SMALL), _TILE), _INK, font(_SMALL), "lm")
    scales = [heat_scale(found.out) for _, found in each]
    for row, place in enumerate(rows):
        top = _HEADER + _NAMES + row * (_TILE + _WORDS + _GAP)
        sick = labels[place] == ABNORMAL
        file = results.films[place].file
        words = (file.class_name or "abnormal") if sick else "normal"
        panels = [load_panel(panel_path(found.out, found.lines[place])) for _, found in each]
        pictures = [_colour(enlarged(panels[0]).film), *(draw(p, s) for p, s in zip(panels, scales, strict=True))]
        texts = [words, *(f"p = {found.p_values[place]:.3g}" for _, found in each)]
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            left = _GAP + column * (_TILE + _GAP)
            small = Image.fromarray(picture)
            small.thumbnail((_TILE, _TILE), Image.Resampling.BOX)
            if column == 0 and results.films[place].scan_id in lesions:
                drawn = np.array(small)
                outline(drawn, lesions[results.films[place].scan_id], BLUE)
                small = Image.fromarray(drawn)
            page.paste(small, (left + (_TILE - small.width) // 2, top + (_TILE - small.height) // 2))
            colour = (_ABNORMAL if sick else _NORMAL) if column == 0 else _FAINT
            ink.text((left, top + _TILE + 10), fit_text(text, font(_SMALL), _TILE), colour, font(_SMALL), "lm")
    ink.text((_GAP, page.height - _FOOTER // 2), fit_text(FOOTNOTE, font(_SMALL), room), _FAINT, font(_SMALL), "lm")
    write_png(path, np.asarray(page, dtype=np.uint8))


def _worst(found: Found, labels: Int64) -> list[tuple[int, str]]:
    """Return the places of the normals that score highest and of the abnormal films that score lowest, in words."""
    places: list[tuple[int, str]] = []
    for label, sign, said in ((NORMAL, -1.0, "normal, scored high"), (ABNORMAL, 1.0, "abnormal, scored low")):
        own = np.flatnonzero(labels == label)
        places += [(int(at), said) for at in own[np.argsort(sign * found.scores[own], kind="stable")][:_WORST]]
    return places


def _draw_worst(
    path: Path, name: str, found: Found, labels: Int64, results: Results, lesions: Mapping[str, Mask]
) -> None:
    """Draw the normals that score highest, then the abnormal films that score lowest."""
    scale = heat_scale(found.out)
    tiles = []
    for place, said in _worst(found, labels):
        panel = load_panel(panel_path(found.out, found.lines[place]))
        film = results.films[place]
        words = f"{said}: p = {found.p_values[place]:.3g}"
        faint = f"{film.file.class_name or said.partition(',')[0]} · {film.scan_id}"
        picture = tile_of(draw(panel, scale))
        if film.scan_id in lesions:
            outline(picture, lesions[film.scan_id], BLUE)
        tiles.append(Tile(picture, words, faint))
    key = f"The {_WORST} normals with the highest scores, then the {_WORST} abnormal films with the lowest."
    key += _OUTLINED if lesions else ""
    draw_gallery(path, f"{name}: worst false positives and negatives", key, tiles)


def _colour(film: UInt8) -> UInt8:
    return film if film.ndim == 3 else np.repeat(film[:, :, None], 3, axis=2)
