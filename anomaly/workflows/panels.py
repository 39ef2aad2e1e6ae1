"""What a picture of a scored scan is drawn from: a small copy of the film, its prepared form, its twin and its map."""

from __future__ import annotations

import heapq
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DataError, UsageError
from anomaly.prepare.geometry import on_shape, to_film
from anomaly.records import DetectorOutput, Float32, Geometry, Prepared, UInt8
from anomaly.runs import writing
from anomaly.scans.shrink import area_mean

FILM_SIDE = 512
_ROUNDING = 1e-9  # what multiplying matrices may leave where nothing turns
TERM = "term."
"""Before the name of a term's map in a panel's file."""


@dataclass(frozen=True, slots=True)
class Panel:
    """What to draw.

    `film` uint8 (h, w) or (h, w, 3), longer side <= 512; `prepared` and `twin` uint8 (S, S[, 3]), twin None where the
    method has none; `heatmap` float32 (S, S) >= 0; `geometry` leads from the square to `film`'s pixels; `term_maps`
    like `heatmap`, of each term that has a map of its own; `boxes` as in `DetectorOutput`, None where there are none.
    """

    film: UInt8
    prepared: UInt8
    twin: UInt8 | None
    heatmap: Float32
    geometry: Geometry
    term_maps: dict[str, Float32] = field(default_factory=dict)
    boxes: Float32 | None = None

    @property
    def registered(self) -> bool:
        """Whether the square was laid on a template: a crop or a resize alone turns and shears nothing."""
        return bool(np.any(np.abs(self.geometry.matrix[[0, 1], [1, 0]]) > _ROUNDING))

    def heat_on_film(self) -> Float32:
        """Return the map on the film's grid, float32 (h, w) >= 0."""
        return to_film(self.heatmap, self.geometry)


def small_film(pixels: Float32) -> UInt8:
    """Return a film, float32 (H, W) or (H, W, 3) in [0, 1], as uint8 with its longer side at most 512."""
    height, width = pixels.shape[:2]
    scale = min(1.0, FILM_SIDE / max(height, width))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    film = area_mean(pixels, *shape) if scale < 1 else pixels
    eight_bit: UInt8 = np.clip(np.rint(np.asarray(film) * 255.0), 0, 255).astype(np.uint8)
    return eight_bit


def make_panel(film: UInt8, prepared: Prepared, output: DetectorOutput, index: int) -> Panel:
    """Build the panel of image `index` of a detector's output, on the film of `small_film`."""
    if output.heatmaps is None:
        raise ValueError("a panel needs a map")
    return Panel(
        film,
        _picture(prepared.image),
        None if output.twin is None else _picture(output.twin[index]),
        output.heatmaps[index],
        on_shape(prepared.geometry, (film.shape[0], film.shape[1])),
        {name: maps[index] for name, maps in output.term_maps.items()},
        None if output.boxes is None else output.boxes[index],
    )


def _picture(image: Float32) -> UInt8:
    values = np.clip(np.rint((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
    return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


def save_panel(path: Path, panel: Panel) -> None:
    """Write a panel as .npz, whole or not at all; maps are kept as float16."""
    arrays = {
        "film": panel.film,
        "prepared": panel.prepared,
        "heatmap": _halved(panel.heatmap),
        "matrix": panel.geometry.matrix,
        "size": np.int64(panel.geometry.size),
    }
    if panel.twin is not None:
        arrays["twin"] = panel.twin
    if panel.boxes is not None:
        arrays["boxes"] = panel.boxes
    arrays |= {TERM + name: _halved(heatmap) for name, heatmap in panel.term_maps.items()}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    with writing(path) as file:
        file.write(packed.getvalue())


def load_panel(path: Path) -> Panel:
    """Read a panel.

    Raises:
        DataError: Missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            film = kept["film"]
            geometry = Geometry(kept["matrix"], film.shape[:2], int(kept["size"]))
            terms = {
                name.removeprefix(TERM): kept[name].astype(np.float32) for name in kept.files if name.startswith(TERM)
            }
            heatmap = kept["heatmap"].astype(np.float32)
            return Panel(film, kept["prepared"], kept.get("twin"), heatmap, geometry, terms, kept.get("boxes"))
    except Exception as error:  # a damaged zip raises half a dozen kinds
        raise DataError(f"Cannot read the panel {path}: {error}. Score again with --overwrite.") from error


def _halved(heatmap: Float32) -> NDArray[np.float16]:
    """Return a map as float16, the hottest of it at what that can hold."""
    return np.minimum(heatmap, np.finfo(np.float16).max).astype(np.float16)


class PanelShelf:
    """Keeps panels on disk: of all scans, of none, or of the `limit` highest scores met so far.

    Args:
        folder: `out/panels`.
        limit: How many; None for all.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.folder = folder
        self.limit = limit
        self._kept: list[tuple[float, str]] = []

    def already_kept(self, score: float, scan_id: str) -> None:
        """Take note of a panel an earlier, interrupted run left on disk."""
        if self.path(scan_id).is_file():
            heapq.heappush(self._kept, (score, scan_id))

    def wants(self, score: float) -> bool:
        """Return whether a scan of this score would be kept."""
        if self.limit is None or len(self._kept) < self.limit:
            return True
        return self.limit > 0 and score > self._kept[0][0]

    def put(self, score: float, scan_id: str, panel: Panel) -> None:
        """Write the panel, and drop the one that no longer belongs to the highest."""
        save_panel(self.path(scan_id), panel)
        heapq.heappush(self._kept, (score, scan_id))
        if self.limit is not None and len(self._kept) > self.limit:
            dropped = heapq.heappop(self._kept)[1]
            self.path(dropped).unlink(missing_ok=True)
            (self.folder.parent / "heatmaps" / f"{dropped}.png").unlink(missing_ok=True)

    def path(self, scan_id: str) -> Path:
        """Return where the panel of a scan is, or would be."""
        return self.folder / f"{scan_id}.npz"


def parse_limit(text: str) -> int | None:
    """Read `--panels top:200|all|none` as a number, or None for all.

    Raises:
        UsageError: Anything else.
    """
    if text == "all":
        return None
    if text == "none":
        return 0
    kind, _, number = text.partition(":")
    if kind == "top" and number.isdigit():
        return int(number)
    raise UsageError(f"--panels takes top:N, all or none, not {text!r}.")
