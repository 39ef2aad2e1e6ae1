"""`anomaly attention`: how much of each map's heat lies inside the lungs, and the scans where least of it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.evaluate.attention import HeatShares, heat_share, summarise
from anomaly.heatmaps import HeatScale
from anomaly.prepare.geometry import to_film
from anomaly.records import UInt8
from anomaly.runs import RECEIPT, read_json, write_json, write_table
from anomaly.workflows.attention_pictures import Shown, draw_shares, draw_worst
from anomaly.workflows.draw import heat_scale, panel_path
from anomaly.workflows.journal import read_journal
from anomaly.workflows.lung_masks import Mask, Matched, Size, find_masks, match_masks, on_film, read_mask
from anomaly.workflows.panels import Panel, load_panel
from anomaly.workflows.pictures import data_uri, png_uri
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.results import ScoreLine, read_scores

ATTENTION = "attention.json"
TABLE = "attention.csv"
FIGURE = "figures/attention.png"
WORST = "attention_worst.png"
ATTENDED = (ATTENTION, TABLE, FIGURE, WORST)
"""Every file that `attention` writes."""
COLUMNS = ("scan_id", "path", "label", "class", "score", "share", "lung_area")


@dataclass(frozen=True, slots=True)
class ScanAttention:
    """One scan: share of its heat inside the lungs, None without heat, and `lung_area`, what an even map would have.

    Both in [0, 1]. The film that was not looked at (cropped away) counts in neither.
    """

    line: ScoreLine
    class_name: str | None
    share: float | None
    lung_area: float
    hottest: float
    """Of the map: one that the pictures' scale leaves uncoloured says little, wherever it lies."""


@dataclass(frozen=True, slots=True)
class Attention:
    """What a run's maps look at: scans worst first, what they come to, and out of how many.

    `scored` scans have a score, `kept` of them a panel, and those in `scans` a mask too.
    """

    scans: tuple[ScanAttention, ...]
    rows: tuple[HeatShares, ...]
    scored: int
    kept: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what attention.json holds."""
        return {
            "scored": self.scored,
            "panels": self.kept,
            "measured": len(self.scans),
            "rows": [asdict(row) for row in self.rows],
            "notes": list(self.notes),
        }


def attention(out: Path, masks: Path, *, top: int = 24, n_boot: int = 2000, on_progress: Ticker = silent) -> Attention:
    """Measure a scoring run's maps against lung masks; write attention.csv, attention.json and two pictures into it.

    Args:
        out: A folder written by `anomaly score`.
        masks: A folder of lung masks, laid out and named as the scans (see `match_masks`).
        top: How many of the worst scans to draw, of those whose maps are hot enough to be coloured at all.
        n_boot: Bootstrap replicates, resampling whole patients.
        on_progress: Told how far along things are.

    Raises:
        DataError: Not a results folder, no panel kept, no mask that fits a scan, a mask that cannot be used, or no
            heat in any map. Nothing is written then.
    """
    lines = read_scores(out)
    scored = [line for line in lines if line.row.score is not None]
    kept = [line for line in scored if panel_path(out, line).is_file()]
    matched = match_masks(find_masks(masks), {line.row.scan_id: line.row.path for line in lines})
    looked_at = [line for line in kept if line.row.scan_id in matched.of]
    _enough(out, masks, matched, scored=len(scored), kept=len(kept), looked_at=len(looked_at))
    journal = read_journal(out)
    scans = []
    for done, line in enumerate(looked_at, start=1):
        scans.append(_measure(out, line, matched.of[line.row.scan_id], journal.get(line.row.scan_id, {})))
        on_progress(done, len(looked_at), "looking")
    scans.sort(key=lambda scan: (2.0 if scan.share is None else scan.share, scan.line.row.scan_id))
    rows = summarise(
        [scan.share for scan in scans],
        [scan.lung_area for scan in scans],
        [scan.line.row.label for scan in scans],
        [scan.line.row.patient or scan.line.row.scan_id for scan in scans],
        n_boot=n_boot,
    )
    found = Attention(tuple(scans), tuple(rows), len(scored), len(kept), _notes(scans, matched, len(scored), len(kept)))
    scale = heat_scale(out)
    write_table(out / TABLE, [COLUMNS, *(_cells(scan) for scan in scans)])
    write_json(out / ATTENTION, found.to_dict())
    warm = [(scan.share, scan.lung_area, scan.line.row.label) for scan in scans if scan.share is not None]
    draw_shares(out / FIGURE, warm)
    coloured = [scan for scan in scans if scan.hottest > scale.low]
    _draw_worst(out, (coloured or scans)[:top], matched.of, journal, scale)
    return found


def render(found: Attention) -> str:
    """Return the summary as lines for a terminal."""
    counts = f"{len(found.scans)} maps with a lung mask, of {found.kept} with a panel kept, of {found.scored} scored"
    heads = ("share of heat in the lungs", "scans", "median", "quartiles", "mean [95 %]", "even map", "below it")
    table = [heads, *(_words(row) for row in found.rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in table]
    return "\n".join([counts, *(line.rstrip() for line in lines)])


def _words(row: HeatShares) -> tuple[str, ...]:
    interval = f" [{row.interval.low:.3f}, {row.interval.high:.3f}]" if row.interval else ""
    quartiles = f"{row.low_quartile:.3f} to {row.high_quartile:.3f}"
    mean = f"{row.mean:.3f}{interval}"
    return row.name, str(row.n), f"{row.median:.3f}", quartiles, mean, f"{row.lung_area:.3f}", f"{row.below:.1%}"


def _enough(out: Path, masks: Path, matched: Matched, *, scored: int, kept: int, looked_at: int) -> None:
    """Refuse where there is nothing to look at, saying which of the three things is missing."""
    if not kept:
        raise DataError(f"No panel of the {scored} scans scored is kept in {out}: score again with --panels all.")
    if not matched.of:
        hashed = bool(read_json(out / RECEIPT).get("hashed_paths"))
        reason = "their names are hashed, so score without --hash-paths" if hashed else "name them as the scans"
        several = f" ({matched.unclear} fit several by name: lay them out in the scans' folders)"
        raise DataError(f"No mask in {masks} fits a scan of {out}: {reason}{several if matched.unclear else ''}.")
    if not looked_at:
        raise DataError(
            f"The masks in {masks} fit {len(matched.of)} scans of {out}, none of them among the {kept} whose panel was "
            "kept: score again with --panels all."
        )


def _measure(out: Path, line: ScoreLine, file: Path, entry: Mapping[str, Any]) -> ScanAttention:
    panel = load_panel(panel_path(out, line))
    mask = _mask(line, panel, file, entry)
    even = to_film(np.ones_like(panel.heatmap), panel.geometry)
    class_name = line.row.class_name or entry.get("class_name")
    heat = panel.heat_on_film()
    return ScanAttention(line, class_name, heat_share(heat, mask), heat_share(even, mask) or 0.0, float(heat.max()))


def _mask(line: ScoreLine, panel: Panel, file: Path, entry: Mapping[str, Any]) -> Mask:
    film = (panel.film.shape[0], panel.film.shape[1])
    return on_film(read_mask(file), film, _size(entry), (file, line.row.path))


def _size(entry: Mapping[str, Any]) -> Size | None:
    """Return (H, W) of a film as it was read, which the journal knows among its trivial statistics, or None."""
    trivial = entry.get("trivial") or {}
    return (int(trivial["height"]), int(trivial["width"])) if {"height", "width"} <= trivial.keys() else None


def _notes(scans: Sequence[ScanAttention], matched: Matched, scored: int, kept: int) -> tuple[str, ...]:
    notes = []
    if kept < scored:
        notes.append(
            f"Only {kept} of the {scored} scans scored have their panel kept, those of the highest scores, and can be "
            "looked at; `anomaly score … --panels all` keeps all."
        )
    if kept > len(scans):
        notes.append(f"{kept - len(scans)} scans have no mask and are left out.")
    if matched.strangers:
        notes.append(f"{matched.strangers} masks fit no scan.")
    if matched.unclear:
        notes.append(f"{matched.unclear} masks fit several scans by their name and none by their folder.")
    cold = sum(scan.share is None for scan in scans)
    if cold:
        notes.append(f"{cold} maps have no heat at all and count in nothing.")
    without = sum(scan.line.row.patient is None for scan in scans)
    if without:
        notes.append(f"{without} scans carry no patient id and count as their own patient in the intervals.")
    return tuple(notes)


def _cells(scan: ScanAttention) -> list[object]:
    row = scan.line.row
    label = "" if row.label is None else row.label
    share = "" if scan.share is None else f"{scan.share:.6f}"
    score = "" if row.score is None else f"{row.score:.9g}"
    return [row.scan_id, row.path, label, scan.class_name or "", score, share, f"{scan.lung_area:.6f}"]


def _draw_worst(
    out: Path,
    scans: Sequence[ScanAttention],
    masks: Mapping[str, Path],
    journal: Mapping[str, Mapping[str, Any]],
    scale: HeatScale,
) -> None:
    """Draw the gallery; where it is to hold nothing, remove an earlier one."""
    if not scans:
        (out / WORST).unlink(missing_ok=True)
        return
    shown = []
    for scan in scans:
        scan_id = scan.line.row.scan_id
        panel = load_panel(panel_path(out, scan.line))
        mask = _mask(scan.line, panel, masks[scan_id], journal.get(scan_id, {}))
        shown.append(Shown(panel, mask, scan_id, scan.share, scan.lung_area))
    draw_worst(out / WORST, shown, scale)


def attention_on_page(out: Path) -> dict[str, Any] | None:
    """Return what a page shows: attention.json and its pictures as data URIs; None where there is no such file.

    Raises:
        DataError: attention.json or its figure is missing or damaged.
    """
    if not (out / ATTENTION).is_file():
        return None
    if not (out / FIGURE).is_file():
        raise DataError(f"{out / FIGURE} is missing: run `anomaly attention` again.")
    worst = data_uri(_picture(out / WORST)) if (out / WORST).is_file() else None
    return {**read_json(out / ATTENTION), "figure": png_uri(out / FIGURE), "worst": worst}


def _picture(path: Path) -> UInt8:
    """Read a picture of our own, uint8 (H, W, 3): a page holds it as JPEG, a fraction of the PNG."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error}. Run `anomaly attention` again.") from error
