"""Phantoms: procedural chest radiographs, normal or with one lesion and its pixel mask, for demos and tests.

A patient's chest is summed along the beam (phantom_anatomy), the beam weakened by it (Beer-Lambert), blurred
scatter and counting noise added, and the logarithm shown bone-bright through an S-shaped curve. Film `index` of
a `seed` depends on nothing else, and an abnormal film is the normal film of the same patient plus its lesion.
Phantoms show that a method runs and finds what was planted; they say nothing about accuracy on patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import UsageError
from anomaly.records import Float32, Int64
from anomaly.runs import write_bytes
from anomaly.scans.phantom_anatomy import build_chest
from anomaly.scans.phantom_body import Body, Grid, draw_body, smooth_noise, soften
from anomaly.scans.phantom_files import check_order, mask_png, png, population_rng, table
from anomaly.scans.phantom_lesions import LESIONS, MASK_SHARE, SHARES, build_lesion

MU_SOFT = 0.0185
"""Attenuation of soft tissue per mm at a chest film's effective energy (120 kV, hardened by the patient)."""
MU_BONE = 0.038
"""What a mm of cortical bone adds to the mm of soft tissue it replaces."""
COLUMNS = ("path", "patient", "label", "class", "view", "split", "mask", "boxes")
BOXES, BOX_COLUMNS = "boxes.csv", ("path", "x", "y", "w", "h")
"""The table of boxes, and its columns."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """One imaginary film.

    `pixels`: float32 (H, W) in [0, 1], bone bright, as processed for display; H and W vary between patients.
    `lung_mask`: bool (H, W), the lungs as a reader outlines them. `lesion_mask`: bool (H, W), all False on a
    normal. `lesion`: "consolidation", "nodule", "effusion" or None. `spacing_mm`: side of a square pixel.
    """

    pixels: Float32
    lung_mask: NDArray[np.bool_]
    lesion_mask: NDArray[np.bool_]
    lesion: str | None
    spacing_mm: float
    view: str = "PA"


@dataclass(frozen=True, slots=True)
class _Technique:
    """How one film is taken and shown; the same distribution for normal and abnormal films."""

    scatter: float  # share of the once-scattered light that passes the grid
    photons: float  # counted per mm^2 where nothing stands in the beam
    dark: float  # line integrals shown near black and near white
    bright: float
    contrast: float  # steepness of the S-curve
    levelling: float  # share of the broad differences the display takes out
    detail: float  # gain of the unsharp mask


def make_phantom(index: int, *, seed: int = 0, abnormal: bool = False, lesion: str | None = None) -> Phantom:
    """Draw film `index` of `seed`.

    Args:
        index: Which patient, >= 0.
        seed: Which population, >= 0.
        abnormal: Add one lesion; the rest of the film stays that of the same normal patient.
        lesion: The kind of lesion; None draws it (60 % consolidation, 20 % nodule, 20 % effusion).

    Returns:
        The film, about 420 to 560 pixels tall, with its masks.

    Raises:
        UsageError: If `lesion` is unknown or asked for on a normal film, or `index` or `seed` is negative.
    """
    if index < 0 or seed < 0:
        raise UsageError(f"A phantom's index and seed count from 0, not {min(index, seed)}. Pass 0 or more.")
    if lesion is not None and not abnormal:
        raise UsageError(f"A normal phantom has no {lesion}. Pass abnormal=True to plant one.")
    if lesion is not None and lesion not in LESIONS:
        raise UsageError(f"No lesion is called {lesion!r}. Choose one of {', '.join(LESIONS)}.")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, index]).spawn(6)]
    of_body, of_tissue, of_film, of_noise, of_lesion, of_marker = streams
    body = draw_body(of_body)
    grid, shape = _frame(body, of_film)
    chest = build_chest(body, grid, of_tissue)
    move = _placement(grid, shape, of_film)
    path: Float32 = (MU_SOFT * chest.soft + MU_BONE * chest.bone).astype(np.float32)
    lung_level, centre_level = _levels(path, chest.lung, body, grid)
    technique = _draw_technique(lung_level, centre_level, of_film)
    lungs = move(chest.lung.astype(np.float32)) > 0.5
    mask = np.zeros(shape, np.bool_)
    kind = None
    if abnormal:
        drawn = str(of_lesion.choice(LESIONS, p=SHARES))
        kind = lesion or drawn
        full = (centre_level - lung_level) / MU_SOFT
        added = build_lesion(kind, body, grid, chest, full, of_lesion)
        mask = move((added > MASK_SHARE * added.max()).astype(np.float32)) > 0.5
        path = path + MU_SOFT * added
    opaque = _marker(shape, grid.spacing, of_marker)
    noise = of_noise.standard_normal(shape, dtype=np.float32)
    pixels = _expose(move(path) + opaque, noise, technique, grid.spacing)
    return Phantom(pixels, lungs, mask, kind, round(grid.spacing, 4))


def write_phantoms(
    out: Path, *, n: int = 64, abnormal: int = 16, seed: int = 0, on_film: Callable[[int], None] | None = None
) -> list[dict[str, str]]:
    """Write `n` films as a labelled data set: OUT/{normal,abnormal,masks,lung_masks}/, OUT/{boxes,manifest}.csv.

    Each film is an 8-bit PNG, a 16-bit PNG, or a 12-bit DICOM of either photometric interpretation, drawn from
    the film's own seed and so independent of its label. `masks` holds lesions, `lung_masks` the lungs of every film,
    laid out and named as the films; `boxes.csv` has a row for each connected region of a lesion (see `find_boxes`).
    The manifest, which names masks and boxes of lesions, is written last.

    Args:
        out: A folder that is absent or empty.
        n: How many films in all.
        abnormal: How many of them carry a lesion; which ones is drawn from `seed`.
        seed: Which population.
        on_film: Called with the index of each film once it is on disk.

    Returns:
        The manifest's rows, in order of index, with the columns `COLUMNS`.

    Raises:
        UsageError: If the counts make no sense.
        DataError: If `out` holds anything already.
    """
    check_order(out, n=n, abnormal=abnormal, seed=seed)
    for folder in ("normal", "abnormal", "masks", "lung_masks/normal", "lung_masks/abnormal"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    sick = set(population_rng(seed).permutation(n)[:abnormal].tolist())
    rows, boxes = [], []
    for index in range(n):
        film = make_phantom(index, seed=seed, abnormal=index in sick)
        kind, name, mask = "abnormal" if index in sick else "normal", f"phantom-{index:04d}", ""
        path = _write_film(out / kind, name, film, index, seed).relative_to(out).as_posix()
        write_bytes(out / f"lung_masks/{kind}/{name}.png", mask_png(film.lung_mask))
        if film.lesion is not None:
            mask = f"masks/{name}.png"
            write_bytes(out / mask, mask_png(film.lesion_mask))
            boxes += [(path, *box) for box in find_boxes(film.lesion_mask).tolist()]
        fields = (
            path,
            _patient(index),
            str(int(index in sick)),
            film.lesion or "normal",
            film.view,
            "",
            mask,
            BOXES if mask else "",
        )
        rows.append(dict(zip(COLUMNS, fields, strict=True)))
        if on_film is not None:
            on_film(index)
    write_bytes(out / BOXES, table(BOX_COLUMNS, boxes))
    write_bytes(out / "manifest.csv", table(COLUMNS, [row.values() for row in rows]))
    return rows


def find_boxes(mask: NDArray[np.bool_]) -> Int64:
    """Return the tight box around each connected region of a mask.

    Args:
        mask: bool (H, W). Pixels that touch, corners included, are one region.

    Returns:
        int64 (n, 4), x, y, w, h in pixels, from the top down: (x, y) is the upper left corner, that of the picture
        being (0, 0), so the one pixel of row r and column c has the box (c, r, 1, 1).
    """
    import cv2

    _, _, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    regions = np.asarray(found, np.int64)[1:, :4]  # the first is the background
    return regions[np.lexsort((regions[:, 0], regions[:, 1]))]


def _frame(body: Body, rng: np.random.Generator) -> tuple[Grid, tuple[int, int]]:
    """The collimated field as (H, W), and the anatomy's canvas: that field and a margin to move it about in."""
    above, beneath, beside = rng.uniform(46, 74), rng.uniform(58, 104), rng.uniform(8, 36)
    tall = body.lung_height + above + beneath
    wide = 2 * (body.half_width + body.wall + beside)
    rows = int(rng.integers(420, 561))
    spacing = tall / rows
    columns = round(wide / spacing)
    pad = int(np.ceil(14 / spacing))
    x = (np.arange(-pad, columns + pad) - (columns - 1) / 2) * spacing
    y = np.arange(-pad, rows + pad) * spacing - above
    return Grid(x.astype(np.float32)[None], y.astype(np.float32)[:, None], float(spacing)), (rows, columns)


def _placement(grid: Grid, shape: tuple[int, int], rng: np.random.Generator) -> Callable[[Float32], Float32]:
    """How the patient stands: a small turn and shift, and the smooth unevenness every body has.

    Returns:
        A function taking a canvas map to the film, float32 (H, W).
    """
    import cv2

    turn = float(np.clip(rng.normal(0, 0.016), -0.04, 0.04))
    aside, down = rng.normal(0, 3.5), rng.normal(0, 2.0)
    pad = (grid.shape[0] - shape[0]) // 2
    x = (np.arange(shape[1], dtype=np.float32) - (shape[1] - 1) / 2)[None]
    y = (np.arange(shape[0], dtype=np.float32) - (shape[0] - 1) / 2)[:, None]
    waves = [
        1.5 * smooth_noise(rng, shape, 75 / grid.spacing) + 0.5 * smooth_noise(rng, shape, 28 / grid.spacing)
        for _ in range(2)
    ]
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    columns = c * x - s * y + (waves[0] + np.float32(aside)) / grid.spacing + (shape[1] - 1) / 2 + pad
    rows = s * x + c * y + (waves[1] + np.float32(down)) / grid.spacing + (shape[0] - 1) / 2 + pad
    at_column, at_row = columns.astype(np.float32), rows.astype(np.float32)

    def move(image: Float32) -> Float32:
        moved = cv2.remap(image, at_column, at_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32)

    return move


def _levels(path: Float32, lung: NDArray[np.bool_], body: Body, grid: Grid) -> tuple[float, float]:
    """Median line integral of the lungs and of the mediastinum (spine, heart and great vessels on the midline)."""
    rows = (grid.y[:, 0] > 0.2 * body.lung_height) & (grid.y[:, 0] < 0.9 * body.lung_height)
    centre = path[np.ix_(rows, np.abs(grid.x[0]) < 18)]
    return float(np.median(path[lung])), float(np.median(centre))


def _draw_technique(lung: float, centre: float, rng: np.random.Generator) -> _Technique:
    """Draw how the film is taken; the display's window follows the normal anatomy, never the lesion."""
    span = centre - lung
    return _Technique(
        scatter=float(rng.uniform(0.10, 0.17)),
        photons=float(1.5e5 * np.exp(rng.normal(0, 0.35))),
        dark=lung - span * float(rng.uniform(0.45, 0.75)),
        bright=lung + span * float(rng.uniform(1.05, 1.35)),
        contrast=float(rng.uniform(3.6, 4.8)),
        levelling=float(rng.uniform(0.12, 0.34)),
        detail=float(rng.uniform(0.25, 0.6)),
    )


def _marker(shape: tuple[int, int], spacing: float, rng: np.random.Generator) -> Float32:
    """A lead L or R in an upper corner, as line integral, float32 (H, W)."""
    import cv2

    ink = np.zeros(shape, np.uint8)
    letter = "L" if rng.random() < 0.7 else "R"
    size = rng.uniform(10, 15) / spacing
    aside, down = rng.uniform(14, 30) / spacing, rng.uniform(16, 40) / spacing
    corner = (int(shape[1] - aside - 0.8 * size) if letter == "L" else int(aside), int(down + size))
    cv2.putText(ink, letter, corner, cv2.FONT_HERSHEY_DUPLEX, size / 22, 255, max(1, round(size / 9)), cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((float(corner[0]), float(corner[1])), float(rng.normal(0, 5)), 1.0)
    turned = cv2.warpAffine(ink, turn, (shape[1], shape[0]), flags=cv2.INTER_LINEAR)
    return turned.astype(np.float32) * np.float32(3.2 / 255)


def _expose(path: Float32, noise: Float32, technique: _Technique, spacing: float) -> Float32:
    """Line integrals to a displayed film, both float32 (H, W).

    Beer-Lambert `I = exp(-path)`; scatter is a wide blur of `path * I`, what one scattering leaves over; counts
    have variance `I * photons`; a detector blurs both; then the logarithm, an unsharp mask and an S-curve.
    """
    primary = np.exp(-path)
    light = primary + technique.scatter * soften(primary * np.minimum(path, 6), 38 / spacing)
    grain = np.sqrt(light / np.float32(technique.photons * spacing**2))
    counts = soften(light, 0.35 / spacing) + soften(noise, 0.45) * grain
    shown = -np.log(np.maximum(counts, 1e-4))
    shown = shown + technique.detail * (shown - soften(shown, 5 / spacing))
    shown = shown - technique.levelling * (soften(shown, 65 / spacing) - (technique.dark + technique.bright) / 2)
    middle = np.float32((technique.bright + technique.dark) / 2)
    steep = np.float32(technique.contrast / (technique.bright - technique.dark))
    curve = 1 / (1 + np.exp(-steep * (shown - middle)))
    low = np.float32(1 / (1 + np.exp(0.625 * technique.contrast)))
    stretched: Float32 = np.clip((curve - low) / (1 - 2 * low), 0, 1).astype(np.float32)
    return stretched


def _patient(index: int) -> str:
    return f"P{index:04d}"


def _write_film(folder: Path, name: str, film: Phantom, index: int, seed: int) -> Path:
    """Write one film in the format its own seed draws, and return where."""
    draw = np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=(99,)))
    kind = ("png8", "png16", "MONOCHROME2", "MONOCHROME1")[int(draw.integers(4))]
    if kind.startswith("png"):
        path = folder / f"{name}.png"
        eight = np.rint(film.pixels * 255).astype(np.uint8)
        sixteen = np.rint(film.pixels * 65535).astype(np.uint16)
        write_bytes(path, png(eight if kind == "png8" else sixteen))
        return path
    from anomaly.scans.dicom_write import write_dicom

    path = folder / f"{name}.dcm"
    values = np.rint(film.pixels * 4095).astype(np.uint16)
    write_dicom(
        path, values, bits=12, photometric=kind, patient=_patient(index), spacing_mm=film.spacing_mm, view=film.view
    )
    return path
