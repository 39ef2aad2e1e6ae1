"""What `anomaly segment apply` writes and reads back: masks.csv, the chances of each film, and what they rest on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError
from anomaly.prepare.geometry import to_film
from anomaly.records import Float32, Geometry, UInt8
from anomaly.runs import Arrays, read_tensors, write_table, write_tensors, writing
from anomaly.segmenters.curve import IouCurve
from anomaly.workflows.journal import JOURNAL

if TYPE_CHECKING:
    from anomaly.segmenters.unet import UNet

MASKS, MODEL = "masks.csv", "segmenter.safetensors"
SEGMENTED, FAILED = "segmented", "failed"
APPLY = "segment apply"
"""The command that the receipt of a results folder names."""
SEEN = "the model was trained or validated on this film"
"""The warning of such a film: its mask is better than others will be."""
COLUMNS = ("scan_id", "path", "patient", "label", "status", "area", "warnings", "error", "mask", "overlay")


@dataclass(frozen=True, slots=True)
class MaskRow:
    """One line of masks.csv: `area` is the share of the film that is inside, in [0, 1], None for a file that failed."""

    scan_id: str
    path: str
    status: str
    patient: str | None = None
    label: int | None = None
    area: float | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Chances:
    """What is kept of a film: `chances` float16 (S, S) in [0, 1] and the way from them to the film.

    `film` uint8 (h, w) or (h, w, 3), longer side <= 512, is for pictures.
    """

    chances: NDArray[np.float16]
    geometry: Geometry
    film: UInt8


@dataclass(frozen=True, slots=True)
class Cut:
    """How the chances of a results folder were cut, and what its model knew: see `UNet`."""

    threshold: float
    curve: IouCurve
    mean_mask: Float32


def files_of(out: Path, scan_id: str) -> dict[str, Path]:
    """Return where the mask, the overlay and the chances of a scan are, or would be."""
    return {
        "mask": out / "masks" / f"{scan_id}.png",
        "overlay": out / "overlays" / f"{scan_id}.png",
        "chances": out / "chances" / f"{scan_id}.npz",
    }


def write_masks(out: Path, rows: Sequence[MaskRow]) -> None:
    """Write masks.csv, in the order of the rows. The same rows give the same bytes."""
    table: list[list[object]] = [list(COLUMNS)]
    for row in rows:
        files = files_of(Path(), row.scan_id)
        named = [files[kind].as_posix() if row.status == SEGMENTED else "" for kind in ("mask", "overlay")]
        label = "" if row.label is None else row.label
        area = "" if row.area is None else f"{row.area:.6f}"
        said = ["; ".join(row.warnings), row.error or ""]
        table.append([row.scan_id, row.path, row.patient or "", label, row.status, area, *said, *named])
    write_table(out / MASKS, table)


def read_masks(out: Path) -> list[MaskRow]:
    """Read masks.csv back, in its order.

    Raises:
        DataError: Missing, or not written by `anomaly segment apply`.
    """
    path = out / MASKS
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        table = csv.DictReader(io.StringIO(text, newline=""))
        if not text.endswith("\n") or tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError("it is cut short, or its columns are not the expected ones")
        return [_row(record) for record in table]
    except OSError as error:
        begun = (out / JOURNAL).is_file()
        fix = f"finish it with `anomaly {APPLY} … --resume`" if begun else f"give a folder written by `anomaly {APPLY}`"
        raise DataError(f"{out} holds no {MASKS}: {fix}.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # the last two: lines with too few cells
        raise DataError(f"{path} is damaged ({error}): apply the model again.") from error


def _row(record: dict[str, str]) -> MaskRow:
    return MaskRow(
        record["scan_id"],
        record["path"],
        record["status"],
        record["patient"] or None,
        int(record["label"]) if record["label"] else None,
        float(record["area"]) if record["area"] else None,
        tuple(word for word in record["warnings"].split("; ") if word),
        record["error"] or None,
    )


def chances_on_film(chances: Float32, geometry: Geometry) -> Float32:
    """Bring chances, float32 (S, S) in [0, 1], onto the film, (H, W); 0 where the film was cropped away."""
    return np.minimum(to_film(chances, geometry), np.float32(1.0))


def save_chances(path: Path, kept: Chances) -> None:
    """Write what is kept of a film as .npz, whole or not at all."""
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        chances=kept.chances,
        matrix=kept.geometry.matrix,
        film_shape=np.array(kept.geometry.film_shape, np.int64),
        film=kept.film,
    )
    with writing(path) as file:
        file.write(packed.getvalue())


def load_chances(path: Path) -> Chances:
    """Read what `save_chances` wrote.

    Raises:
        DataError: Missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            chances, film = kept["chances"], kept["film"]
            height, width = (int(side) for side in kept["film_shape"])
            return Chances(chances, Geometry(kept["matrix"], (height, width), len(chances)), film)
    except Exception as error:  # a damaged zip raises half a dozen kinds
        raise DataError(f"Cannot read {path}: {error}. Apply the model again with --overwrite.") from error


def save_cut(out: Path, unet: UNet) -> None:
    """Write into a results folder what `evaluate` will want to know of the model."""
    arrays: Arrays = {"thresholds": unet.curve.thresholds, "iou": unet.curve.iou, "mean_mask": unet.mean_mask}
    write_tensors(out / MODEL, arrays, {"threshold": unet.threshold})


def load_cut(out: Path) -> Cut:
    """Read what `save_cut` wrote.

    Raises:
        DataError: Missing or damaged.
    """
    try:
        arrays, meta = read_tensors(out / MODEL)
        return Cut(float(meta["threshold"]), IouCurve(arrays["thresholds"], arrays["iou"]), arrays["mean_mask"])
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"Cannot read {out / MODEL}: {error} Apply the model again with --overwrite.") from error
