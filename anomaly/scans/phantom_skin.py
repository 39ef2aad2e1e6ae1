"""Phantoms of skin: procedural dermoscopy in colour, a naevus or a melanoma under hair, with its pixel mask.

Skin and mole are layers of pigment that light passes (Beer-Lambert, each colour by itself), under uneven light and
hair. Whatever may give a class away without looking at the mole (skin tone, light, hair, ruler, bubbles, size) is
drawn from the picture's own stream, so it does not know the class. Picture `index` of a `seed` depends on nothing else;
of every four, the last shows the third's lesion once more, as HAM10000 has several pictures of one lesion.
Phantoms show that a method runs and finds what was planted; they say nothing about accuracy on patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import UsageError
from anomaly.records import Float32
from anomaly.runs import write_bytes
from anomaly.scans.phantom_body import ramp, smooth_noise, soften
from anomaly.scans.phantom_files import check_order, mask_png, population_rng, table
from anomaly.scans.phantom_mole import SIDE, Mole, draw_melanoma, draw_naevus

CLASSES = ("naevus", "melanoma")
"""What is normal here, and what is abnormal."""
DX = {"naevus": "nv", "melanoma": "mel"}
"""The classes as HAM10000 writes them."""
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
PICTURES, MASKS, TABLE = "HAM10000_images_part_1", "HAM10000_segmentations_lesion_tschandl", "HAM10000_metadata.csv"

_Shape = tuple[int, int]


def _rgb(colour: list[float]) -> Float32:
    """Return a colour as float32 (3, 1, 1): pictures are made plane by plane."""
    return np.array(colour, np.float32)[:, None, None]


_BROWN = _rgb([0.42, 0.80, 1.22])
"""How melanin takes red, green and blue out of the light; all colours are RGB."""
_RED = _rgb([0.10, 0.86, 0.74])
_BARE = _rgb([0.96, 0.91, 0.88])  # skin without any pigment
_DEEP = _rgb([0.36, 0.41, 0.52])
_SCAR = _rgb([0.84, 0.73, 0.72])
_BLACK, _BLOND = _rgb([0.10, 0.07, 0.06]), _rgb([1.0, 0.72, 0.5])  # of hair
_EVERY = 4  # of so many pictures the last is a second one of the lesion before


@dataclass(frozen=True, slots=True)
class SkinPhantom:
    """One imaginary picture.

    `pixels`: float32 (H, W, 3), RGB in [0, 1]; H and W vary between pictures. `lesion_mask`: bool (H, W), the
    pigmented lesion inside its border, also where hair hides it; every picture has one. `hair_mask`: bool (H, W),
    where hair lies on top. `lesion`: "naevus" or "melanoma". `lesion_index`: the index of the first picture of it.
    """

    pixels: Float32
    lesion_mask: NDArray[np.bool_]
    hair_mask: NDArray[np.bool_]
    lesion: str
    lesion_index: int


def make_skin(index: int, *, seed: int = 0, abnormal: bool = False) -> SkinPhantom:
    """Draw picture `index` of `seed`.

    Args:
        index: Which picture, >= 0.
        seed: Which population, >= 0.
        abnormal: Draw a melanoma rather than a naevus; skin, light, hair and size stay the same.

    Returns:
        The picture, 300 to 380 pixels wide and three quarters as high, with its masks.

    Raises:
        UsageError: If `index` or `seed` is negative.
    """
    if index < 0 or seed < 0:
        raise UsageError(f"A phantom's index and seed count from 0, not {min(index, seed)}. Pass 0 or more.")
    first = lesion_of(index)
    of_mole = np.random.default_rng(np.random.SeedSequence([seed, first], spawn_key=(96,)))
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence([seed, index], spawn_key=(97,)).spawn(6)]
    of_frame, of_skin, of_light, of_hair, of_extras, of_noise = streams
    wide = int(of_frame.integers(300, 381))
    shape = (round(0.75 * wide), wide)
    mole = _place(draw_melanoma(of_mole) if abnormal else draw_naevus(of_mole), shape, of_frame)
    skin = _colour(mole, shape, of_skin)
    hair, colour = _hair(shape, of_hair)
    shadow = 1 - 0.16 * soften(np.roll(hair, (2, 2), (0, 1)), 1.6)
    planes = skin * (_light(shape, of_light) * shadow)
    planes = _extras(planes + hair * (colour - planes), of_extras)
    pixels = soften(np.ascontiguousarray(planes.transpose(1, 2, 0)), 0.6)
    pixels = pixels + 0.008 * of_noise.standard_normal(pixels.shape, dtype=np.float32)
    return SkinPhantom(np.clip(pixels, 0, 1), mole.shape > 0.5, hair > 0.2, CLASSES[int(abnormal)], first)


def lesion_of(index: int) -> int:
    """Return the index of the first picture that shows the same lesion as picture `index`."""
    return index - 1 if index % _EVERY == _EVERY - 1 else index


def write_skin_phantoms(
    out: Path, *, n: int = 64, abnormal: int = 16, seed: int = 0, on_film: Callable[[int], None] | None = None
) -> list[dict[str, str]]:
    """Write `n` pictures as HAM10000 lies on disk: JPEGs, a mask of each, and the table, which is written last.

    Ids say picture, lesion and the last two figures of `seed`, so that sets of two seeds share no lesion.

    Args:
        out: A folder that is absent or empty.
        n: How many pictures in all.
        abnormal: How many of them show a melanoma; which ones is drawn from `seed`, two pictures of a lesion alike.
        seed: Which population.
        on_film: Called with the index of each picture once it is on disk.

    Returns:
        The table's rows, in order of index, with the columns `COLUMNS`.

    Raises:
        UsageError: If the counts make no sense.
        DataError: If `out` holds anything already.
    """
    check_order(out, n=n, abnormal=abnormal, seed=seed)
    for folder in (PICTURES, MASKS):
        (out / folder).mkdir(parents=True, exist_ok=True)
    sick = draw_sick(n, abnormal, population_rng(seed))
    number, rows = seed % 100 * 100_000, []
    for index in range(n):
        picture = make_skin(index, seed=seed, abnormal=index in sick)
        name = f"ISIC_{number + index:07d}"
        write_bytes(out / PICTURES / f"{name}.jpg", _jpeg(picture.pixels))
        write_bytes(out / MASKS / f"{name}_segmentation.png", mask_png(picture.lesion_mask))
        lesion = f"HAM_{number + picture.lesion_index:07d}"
        fields = (lesion, name, DX[picture.lesion], "phantom", "", "unknown", "unknown")
        rows.append(dict(zip(COLUMNS, fields, strict=True)))
        if on_film is not None:
            on_film(index)
    write_bytes(out / TABLE, table(COLUMNS, [row.values() for row in rows]))
    return rows


def draw_sick(n: int, abnormal: int, rng: np.random.Generator) -> set[int]:
    """Draw which of `n` pictures show a melanoma: exactly so many, and both pictures of a lesion or neither."""
    pictures: dict[int, list[int]] = {}
    for index in range(n):
        pictures.setdefault(lesion_of(index), []).append(index)
    rest, singles = n, sum(len(of_one) == 1 for of_one in pictures.values())
    sick: set[int] = set()
    for lesion in rng.permutation(list(pictures)).tolist():
        size = len(pictures[lesion])
        rest, singles = rest - size, singles - (size == 1)
        left = abnormal - len(sick) - size
        if 0 <= left <= rest and (singles or left % 2 == 0):  # those not drawn yet can fill up what is left
            sick.update(pictures[lesion])
    return sick


def _place(mole: Mole, shape: _Shape, rng: np.random.Generator) -> Mole:
    """Bring a mole from its canvas to the picture, every map float32 (H, W): turned, sized and shifted a little."""
    import cv2

    scale = shape[0] / 255 * rng.uniform(0.92, 1.06)
    turn = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), float(rng.uniform(0, 360)), float(scale))
    shift = np.clip(rng.normal(0, 0.04 * shape[0], 2), -0.09 * shape[0], 0.09 * shape[0])
    turn = turn + np.pad(((np.array(shape[::-1]) - SIDE) / 2 + shift)[:, None], ((0, 0), (2, 0)))

    def move(image: Float32) -> Float32:
        moved = cv2.warpAffine(image, turn, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(moved, np.float32)

    return Mole(move(mole.shape), move(mole.brown), move(mole.red), move(mole.deep), move(mole.scar))


def _colour(mole: Mole, shape: _Shape, rng: np.random.Generator) -> Float32:
    """Skin of some tone, with pores and fine lines, and the mole in it, float32 (3, H, W)."""
    tone = 0.05 + 0.55 * rng.beta(1.2, 2.6)
    blood = rng.uniform(0.14, 0.36)
    lines = np.minimum(np.abs(smooth_noise(rng, shape, 9)), np.abs(smooth_noise(rng, shape, 13)))
    furrows = np.exp(-((lines / 0.10) ** 2))
    brown = tone * (1 + 0.12 * smooth_noise(rng, shape, 60) + 0.07 * smooth_noise(rng, shape, 9) + 0.10 * furrows)
    red = blood * (1 + 0.13 * smooth_noise(rng, shape, 42) + 0.09 * smooth_noise(rng, shape, 6) - 0.12 * furrows)
    brown = brown + 0.09 * _pores(shape, rng) + mole.brown
    grain = 1 + 0.018 * smooth_noise(rng, shape, 2.2)
    colour = _BARE * np.exp(-(np.maximum(brown, 0) * _BROWN + np.maximum(red + mole.red, 0) * _RED))
    if mole.deep.any():
        colour = colour + mole.deep * (_DEEP * np.sqrt(np.sqrt(colour.mean(axis=0))) - colour)
    if mole.scar.any():
        colour = colour + mole.scar * (_SCAR - colour)
    return np.asarray(colour * grain, np.float32)


def _pores(shape: _Shape, rng: np.random.Generator) -> Float32:
    """Dark specks where hairs leave the skin, about one every 14 pixels each way, in [0, 1]."""
    spots = np.zeros(shape, np.float32)
    count = shape[0] * shape[1] // 200
    spots[rng.integers(shape[0], size=count), rng.integers(shape[1], size=count)] = rng.uniform(0.3, 1, count)
    return np.minimum(9 * soften(spots, 1.3), 1)


def _light(shape: _Shape, rng: np.random.Generator) -> Float32:
    """The lamp: white balance, a slope, and darker corners, in one picture of four black ones; float32 (3, H, W)."""
    half = shape[0] / 2
    y = np.arange(shape[0], dtype=np.float32)[:, None] / half - 1
    x = np.arange(shape[1], dtype=np.float32) / half - shape[1] / shape[0]
    way, steep = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.07)
    away = np.hypot(x - rng.normal(0, 0.08), y - rng.normal(0, 0.08))
    light = (1 + steep * (math.cos(way) * x + math.sin(way) * y)) * (1 - rng.uniform(0.04, 0.16) * away**2)
    reach = rng.uniform(1.32, 1.5)
    if rng.random() < 0.25:  # the round end of the dermatoscope shows
        light = light * (0.02 + 0.98 * (1 - ramp((away - reach) / 0.05)))
    balance = rng.uniform(0.92, 1.06) * (1 + rng.normal(0, 0.018, 3))
    return np.asarray(light * balance.astype(np.float32)[:, None, None], np.float32)


def _hair(shape: _Shape, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """A few to many curved hairs that lie much the same way: how much of each pixel they cover, and their colours.

    Returns:
        float32 (H, W) in [0, 1] and float32 (3, H, W).
    """
    import cv2

    fine = 2  # drawn larger, so that a hair may be a pixel and a half wide
    cover = np.zeros((fine * shape[0], fine * shape[1]), np.uint8)
    shine = np.zeros_like(cover)
    size = np.array(cover.shape[::-1], np.float32)
    lie = rng.uniform(0, 2 * np.pi)
    thick = rng.uniform(1.4, 4.2)
    t = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    for _ in range(int(np.clip(np.exp(rng.normal(2.4, 0.8)), 2, 50))):
        way, length = lie + rng.normal(0, 0.42), rng.uniform(0.25, 1.0) * size[0]
        along = np.array([np.cos(way), np.sin(way)], np.float32) * length
        across = np.array([-along[1], along[0]], np.float32)
        middle = rng.uniform(-0.05, 1.05, 2).astype(np.float32) * size
        bow, twist = rng.normal(0, 0.14), rng.normal(0, 0.06)
        bend = bow * (4 * t * (1 - t) - 0.5) + twist * np.sin(2 * np.pi * t)
        points = middle + (t - 0.5) * along + np.asarray(bend, np.float32) * across
        width = max(1, round(thick * rng.uniform(0.7, 1.3)))
        for part, wide in ((points, max(1, width - 1)), (points[:14], width)):  # thinner towards the tip
            cv2.polylines(cover, [np.rint(part * 16).astype(np.int32)], False, 255, wide, cv2.LINE_AA, 4)
        if width > 2:
            cv2.polylines(shine, [np.rint((points - 0.6) * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    covered, shining = (
        cv2.resize(ink, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for ink in (cover, shine)
    )
    colour = _BLACK + rng.uniform(0, 0.22) * _BLOND
    glossy = np.float32(rng.uniform(0.05, 0.3))
    return np.asarray(0.95 * covered, np.float32), np.asarray(colour + glossy * shining, np.float32)


def _extras(planes: Float32, rng: np.random.Generator) -> Float32:
    """What lies on some pictures whatever they show: a ruler along an edge, bubbles in the gel; float32 (3, H, W)."""
    has_ruler, has_bubbles = rng.random() < 0.18, rng.random() < 0.28
    if has_ruler:
        planes = planes * (1 - 0.8 * _ruler(planes.shape[1:], rng))
    return planes + _bubbles(planes.shape[1:], rng) * (1 - planes) if has_bubbles else planes


def _ruler(shape: _Shape, rng: np.random.Generator) -> Float32:
    """Ticks along one edge, float32 (H, W) in [0, 1]."""
    import cv2

    ink = np.zeros(shape, np.uint8)
    h, w = ink.shape
    step, start, below = rng.uniform(8, 13), rng.uniform(0, 10), rng.random() < 0.5
    edge = rng.uniform(-2, 8)
    for tick in range(int(w / step) + 1):
        x = round(start + tick * step)
        long = (18 if tick % 10 == 0 else 13 if tick % 5 == 0 else 8) + edge
        y0, y1 = (h - 1, round(h - 1 - long)) if below else (0, round(long))
        cv2.line(ink, (x, y0), (x, y1), 255, 1, cv2.LINE_AA)
    return ink.astype(np.float32) / np.float32(255)


def _bubbles(shape: _Shape, rng: np.random.Generator) -> Float32:
    """Bubbles in the gel: a bright rim, brightest towards the lamp, and a glint, float32 (H, W) in [0, 1]."""
    h, w = shape
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)
    lamp = rng.uniform(0, 2 * np.pi)
    towards = math.cos(lamp), math.sin(lamp)
    glow = np.zeros((h, w), np.float32)
    for _ in range(int(rng.integers(1, 6))):
        radius, cx, cy = rng.uniform(3, 11), rng.uniform(0, w), rng.uniform(0, h)
        dx, dy = x - cx, y - cy
        away = np.hypot(dx, dy)
        facing = 0.5 + 0.5 * (towards[0] * dx + towards[1] * dy) / np.maximum(away, 1)
        rim = np.exp(-(((away - radius) / 1.1) ** 2)) * (0.12 + 0.4 * facing**3)
        gx, gy = dx + 0.4 * radius * towards[0], dy + 0.4 * radius * towards[1]
        glow = np.maximum(glow, rim + 0.7 * np.exp(-(gx**2 + gy**2) / (0.16 * radius) ** 2))
    return np.asarray(np.minimum(glow, 1), np.float32)


def _jpeg(pixels: Float32) -> bytes:
    """Encode RGB, float32 (H, W, 3) in [0, 1], as a JPEG of quality 95."""
    import cv2

    values = np.rint(pixels[..., ::-1] * 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", values, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
