"""`anomaly segment evaluate`: how well masks lie on those that people drew, beside a guess that looks at no film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.errors import DataError
from anomaly.evaluate.overlap import MeasureRow, Overlap, lead, overlap, summarise, to_markdown
from anomaly.runs import RECEIPT, read_json, write_json, write_table, write_text
from anomaly.segmenters.curve import Counts, IouCurve, count, cut, mean_curve
from anomaly.workflows.lung_masks import Mask, Matched, find_masks, match_masks
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.segment_masks import mask_of, refuse_masks, stranger_notes
from anomaly.workflows.segment_pictures import Judged, draw_curves, draw_worst
from anomaly.workflows.segment_results import (
    SEEN,
    SEGMENTED,
    Cut,
    MaskRow,
    chances_on_film,
    files_of,
    load_chances,
    load_cut,
    read_masks,
)

EVALUATION, TABLES, DICE = "evaluation.json", "evaluation.md", "dice.csv"
FIGURE, WORST = "figures/iou_curve.png", "worst.png"
EVALUATED = (EVALUATION, TABLES, DICE, FIGURE, WORST)
"""Every file that `evaluate` writes."""
COLUMNS = (
    *("scan_id", "path", "patient", "label", "dice", "iou", "sensitivity", "precision", "area", "true_area"),
    "dice_of_the_mean_mask",
)
OURS, GUESS = "the network's", "mean training mask"
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ScanOverlap:
    """One scan: how its mask lies, how the mean training mask would, and what both come to over thresholds."""

    row: MaskRow
    ours: Overlap
    guess: Overlap
    counts: Counts
    guess_counts: Counts
    true_area: float


@dataclass(frozen=True, slots=True)
class MaskEvaluation:
    """What the masks of a run come to: scans worst first, and out of how many that were segmented."""

    scans: tuple[ScanOverlap, ...]
    rows: dict[str, list[MeasureRow]]
    lead: MeasureRow
    threshold: float
    validation: IouCurve
    here: IouCurve
    segmented: int
    failed: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what evaluation.json holds."""
        return {
            "threshold": self.threshold,
            "measured": len(self.scans),
            "segmented": self.segmented,
            "failed": self.failed,
            "rows": {name: [asdict(row) for row in rows] for name, rows in self.rows.items()},
            "dice_lead": asdict(self.lead),
            "iou_over_thresholds": {
                "thresholds": self.here.thresholds.tolist(),
                "validation": self.validation.iou.tolist(),
                "here": self.here.iou.tolist(),
                "best_here": self.here.best,
            },
            "notes": list(self.notes),
        }

    def to_markdown(self) -> str:
        """Return what evaluation.md holds, and what a terminal is shown."""
        own = float(np.interp(self.threshold, self.here.thresholds, self.here.iou))
        between = f" [{self.lead.interval.low:+.3f}, {self.lead.interval.high:+.3f}]" if self.lead.interval else ""
        return "\n".join(
            [
                f"{len(self.scans)} scans with a mask, of {self.segmented} segmented; means over scans.",
                "",
                to_markdown(self.rows),
                "",
                f"Dice of {OURS} masks minus that of the {GUESS}: {self.lead.mean:+.3f}{between}.",
                f"Threshold {self.threshold:.2f}, chosen on validation films (mean IoU {self.validation.highest:.3f} "
                f"there): IoU {own:.3f} here; the best for these films would have been {self.here.best:.2f} with "
                f"{self.here.highest:.3f}.",
            ]
        )


def evaluate_masks(out: Path, masks: Path, *, n_boot: int = 2000, on_progress: Ticker = silent) -> MaskEvaluation:
    """Measure the masks of a run against true ones; write dice.csv, evaluation.json and .md, and two pictures.

    Args:
        out: A folder written by `anomaly segment apply`.
        masks: A folder of true masks, laid out and named as the scans (see `match_masks`).
        n_boot: Bootstrap replicates, resampling whole patients.
        on_progress: Told how far along things are.

    Raises:
        DataError: Not such a folder, no mask that fits a scan, or masks that cannot be used. Nothing is written then.
    """
    rows = read_masks(out)
    used = load_cut(out)
    matched = match_masks(find_masks(masks), {row.scan_id: row.path for row in rows})
    segmented = [row for row in rows if row.status == SEGMENTED]
    looked_at = [row for row in segmented if row.scan_id in matched.of]
    _enough(out, masks, matched, len(looked_at))
    scans, wrong = [], []
    for done, row in enumerate(looked_at, start=1):
        try:
            scans.append(_measure(out, row, matched.of[row.scan_id], used))
        except DataError as error:
            wrong.append(str(error))
        on_progress(done, len(looked_at), "measuring")
    refuse_masks(wrong)
    scans.sort(key=lambda scan: (scan.ours.dice, scan.row.scan_id))
    patients = [scan.row.patient or scan.row.scan_id for scan in scans]
    ours, guesses = ([each.dice for each in part] for part in ([s.ours for s in scans], [s.guess for s in scans]))
    found = MaskEvaluation(
        scans=tuple(scans),
        rows={
            OURS: summarise([scan.ours for scan in scans], patients, n_boot=n_boot),
            GUESS: summarise([scan.guess for scan in scans], patients, n_boot=n_boot),
        },
        lead=lead(ours, guesses, patients, n_boot=n_boot),
        threshold=used.threshold,
        validation=used.curve,
        here=mean_curve(scan.counts for scan in scans),
        segmented=len(segmented),
        failed=len(rows) - len(segmented),
        notes=_notes(scans, matched, len(segmented), len(rows) - len(segmented)),
    )
    write_table(out / DICE, [COLUMNS, *(_cells(scan) for scan in scans)])
    write_json(out / EVALUATION, found.to_dict())
    write_text(out / TABLES, found.to_markdown() + "\n")
    guess = mean_curve(scan.guess_counts for scan in scans)
    draw_curves(out / FIGURE, used.threshold, used.curve, found.here, guess)
    draw_worst(out / WORST, [_judged(out, scan, matched.of[scan.row.scan_id], used) for scan in scans[:_SHOWN]])
    return found


def _enough(out: Path, masks: Path, matched: Matched, looked_at: int) -> None:
    if looked_at:
        return
    if matched.of:
        raise DataError(f"The masks in {masks} fit {len(matched.of)} scans of {out}, none of which could be segmented.")
    hashed = bool(read_json(out / RECEIPT).get("hashed_paths"))
    reason = "their names are hashed, so apply the model without --hash-paths" if hashed else "name them as the scans"
    several = f" ({matched.unclear} fit several by name: lay them out in the scans' folders)"
    raise DataError(f"No mask in {masks} fits a scan of {out}: {reason}{several if matched.unclear else ''}.")


def _measure(out: Path, row: MaskRow, path: Path, used: Cut) -> ScanOverlap:
    kept = load_chances(files_of(out, row.scan_id)["chances"])
    truth = mask_of(path, kept.geometry.film_shape, row.path)
    films = (
        chances_on_film(kept.chances.astype(np.float32), kept.geometry),
        chances_on_film(used.mean_mask, kept.geometry),
    )
    ours, guess = (overlap(cut(chances, used.threshold), truth) for chances in films)
    counted = [count(chances, truth) for chances in films]
    return ScanOverlap(row, ours, guess, counted[0], counted[1], float(truth.mean()))


def _judged(out: Path, scan: ScanOverlap, path: Path, used: Cut) -> Judged:
    kept = load_chances(files_of(out, scan.row.scan_id)["chances"])
    truth: Mask = mask_of(path, kept.geometry.film_shape, scan.row.path)
    found = cut(chances_on_film(kept.chances.astype(np.float32), kept.geometry), used.threshold)
    return Judged(kept.film, found, truth, scan.row.scan_id, scan.ours)


def _cells(scan: ScanOverlap) -> list[object]:
    row, ours = scan.row, scan.ours
    label = "" if row.label is None else row.label
    told = (ours.dice, ours.iou, ours.sensitivity, ours.precision, row.area, scan.true_area, scan.guess.dice)
    numbers = ["" if value is None else f"{value:.6f}" for value in told]
    return [row.scan_id, row.path, row.patient or "", label, *numbers]


def _notes(scans: Sequence[ScanOverlap], matched: Matched, segmented: int, failed: int) -> tuple[str, ...]:
    notes = stranger_notes(matched.strangers, matched.unclear)
    if segmented > len(scans):
        notes.insert(0, f"{segmented - len(scans)} scans have no mask and are left out.")
    if failed:
        notes.append(f"{failed} files could not be read and count in nothing.")
    seen = sum(SEEN in scan.row.warnings for scan in scans)
    if seen:
        notes.append(f"The model was trained or validated on {seen} of these scans: expect less on others.")
    blank = sum(scan.ours.precision is None for scan in scans)
    if blank:
        notes.append(f"Nothing was found on {blank} of these scans: their Dice is 0, and they have no precision.")
    without = sum(scan.row.patient is None for scan in scans)
    if without:
        notes.append(f"{without} scans carry no patient id and count as their own patient in the intervals.")
    return tuple(notes)
