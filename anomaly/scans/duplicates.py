"""Which films are the same film: exact copies by their pixels, near copies by a hash that only nominates.

Chest films look alike: a plain perceptual hash finds hundreds of "copies" among films of different people. So a pair
passes three sieves, each far finer than the one before: a 64-bit hash, signs of low cosine frequencies (Zauner,
Implementation and Benchmarking of Perceptual Image Hash Functions, 2010); the tangent distance, how well one film is
explained by the other and its small shifts, turns and zooms (Simard, LeCun & Denker, NeurIPS 1992); and the
correlation of the two once aligned (Evangelidis & Psarakis, IEEE TPAMI 30, 2008). The sieves' widths are measured by
`benchmarks/duplicates.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from anomaly.records import Float32, Int64, UInt8
from anomaly.scans.shrink import area_mean

THUMB_SIDE = 64
HASH_RADIUS = 18  # of 64 bits; a re-saved, re-windowed or slightly cropped film lies within
CONFIRMED = 0.995  # correlation of the aligned thumbs above which two films may be one; two people's reach 0.993
DETAIL = 0.98  # that of their details, which two people's films do not share, above which they are
_GLANCE, _LOOK = 0.96, 0.985  # tangent similarity: of the first film's tangents; the better of both films'
_COARSE = 12  # side of the pictures the tangents are compared on
_MARGIN = 4  # outer pixels of a thumb left out of the alignment: what a crop, a shift or a turn may have changed
_DIGEST_PIXELS = 1 << 16  # hashed at a time, so that the passes over them stay in the processor's cache
_BLOCK = 512

UInt64 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two films that are nearly one: their places in the list(s) given, and their `aligned` correlations."""

    first: int
    second: int
    correlation: float
    detail: float


def pixel_digest(pixels: Float32) -> str:
    """Return a hash of a decoded picture, float32 (H, W[, 3]) in [0, 1]: the same for every lossless format."""
    flat = np.ascontiguousarray(pixels).reshape(-1)
    digest = sha256(repr(pixels.shape).encode())
    for start in range(0, len(flat), _DIGEST_PIXELS):
        levels = flat[start : start + _DIGEST_PIXELS] * np.float32(65535)
        digest.update(np.rint(levels, out=levels).astype(np.uint16).data)
    return digest.hexdigest()


def thumbnail(pixels: Float32) -> UInt8:
    """Return a film float32 (H, W[, 3]) in [0, 1] stretched onto uint8 (64, 64), grey, for `near_copies`."""
    small = area_mean(pixels, THUMB_SIDE, THUMB_SIDE)
    grey = small.mean(axis=2) if small.ndim == 3 else small
    return np.asarray(np.clip(np.rint(grey * 255.0), 0, 255), dtype=np.uint8)


def exact_copies(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the groups of two and more equal digests as ascending indices, in the order of their first members."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        places[digest].append(index)
    return [tuple(group) for group in places.values() if len(group) > 1]


def near_copies(
    thumbs: UInt8, others: UInt8 | None = None, *, above: float = CONFIRMED, detail: float = DETAIL
) -> list[Pair]:
    """Find the films that are one film re-saved, resized, re-toned, cropped, shifted or turned a little.

    Exact copies are found too. A thumb of one grey value is nobody's copy. Memory grows with N + M only.

    Args:
        thumbs: uint8 (N, 64, 64), from `thumbnail`.
        others: uint8 (M, 64, 64), to find pairs between the two; None finds pairs within `thumbs`.
        above: The correlation that confirms a pair,
        detail: and that of its details, which it needs as well.

    Returns:
        Every confirmed `Pair`, ordered; `first` counts in `thumbs`, `second` in `others` (or later in `thumbs`).

    Raises:
        ValueError: thumbs of another shape or type.
    """
    for given in (thumbs, thumbs if others is None else others):
        if given.dtype != np.uint8 or given.shape[1:] != (THUMB_SIDE, THUMB_SIDE):
            raise ValueError(f"thumbs {given.shape} {given.dtype} must be uint8 (N, {THUMB_SIDE}, {THUMB_SIDE})")
    ours = _describe(thumbs)
    theirs = ours if others is None else _describe(others)
    seconds = thumbs if others is None else others
    found = []
    for first, candidates in _nominated(ours.hashes, theirs.hashes, within=others is None):
        for second in _alike(ours, first, theirs, candidates):
            whole, fine = aligned(thumbs[first], seconds[second])
            if whole > above and fine > detail:
                found.append(Pair(first, int(second), whole, fine))
    return found


def perceptual_hash(thumbs: UInt8) -> UInt64:
    """Return 64 bits a film, uint8 (N, 64, 64) -> uint64 (N,): signs of its lowest cosine frequencies.

    The tones are equalised first and the mean left out, so brightness, contrast and gamma change few bits.
    """
    return _describe(thumbs).hashes


def aligned(first: UInt8, second: UInt8) -> tuple[float, float]:
    """Correlate two thumbs, uint8 (64, 64), aligned and with their tones matched: the films, and their details.

    The one is laid onto the other by an affine motion, either way round, and the better counts. Films re-windowed or
    with another gamma are one film, so either's tones are mapped onto the other's in rank order before correlating.
    Details are what a blur of 3 pixels takes away. Both are 0 where the films cannot be aligned.
    """
    if np.array_equal(first, second):
        return 1.0, 1.0
    return max(_one_way(first, second), _one_way(second, first))


@dataclass(frozen=True, slots=True)
class _Described:
    """What the sieves compare: hashes uint64 (N,), coarse float32 (N, P) of length 1, tangents float32 (N, P, 5)."""

    hashes: UInt64
    coarse: Float32
    tangents: Float32


def _describe(thumbs: UInt8) -> _Described:
    cells = _COARSE * _COARSE
    out = _Described(
        np.zeros(len(thumbs), dtype=np.uint64),
        np.zeros((len(thumbs), cells), dtype=np.float32),
        np.zeros((len(thumbs), cells, 5), dtype=np.float32),
    )
    for start in range(0, len(thumbs), _BLOCK):
        part = slice(start, start + _BLOCK)
        equal = _equalised(thumbs[part])
        out.hashes[part] = _cosine_signs(equal)
        out.coarse[part], out.tangents[part] = _tangents(equal)
    return out


def _equalised(thumbs: UInt8) -> Float32:
    import cv2

    return np.stack([cv2.equalizeHist(thumb) for thumb in thumbs]).astype(np.float32)


def _cosine_signs(thumbs: Float32) -> UInt64:
    """Signs of the 64 lowest frequencies after the mean, taken along the diagonals, packed into one number."""
    frequency, place = np.arange(11)[:, None], np.arange(THUMB_SIDE)[None]
    basis = np.cos(np.pi / THUMB_SIDE * frequency * (place + 0.5)).astype(np.float32)
    spectrum = basis @ thumbs @ basis.T
    down, across = np.indices((11, 11))
    order = np.lexsort((down.ravel(), (down + across).ravel()))[1:65]
    bits = spectrum.reshape(len(thumbs), -1)[:, order] > 0
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]


def _tangents(thumbs: Float32) -> tuple[Float32, Float32]:
    """Coarse films, float32 (n, P), and an orthonormal basis of each with its small motions, float32 (n, P, 5)."""
    import cv2

    soft = np.stack([cv2.GaussianBlur(thumb, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT) for thumb in thumbs])
    dy, dx = np.gradient(soft, axis=(1, 2))
    y, x = np.mgrid[:THUMB_SIDE, :THUMB_SIDE].astype(np.float32) - (THUMB_SIDE - 1) / 2
    motions = np.stack([soft, dx, dy, x * dx + y * dy, y * dx - x * dy], axis=1)  # itself, 2 shifts, zoom, turn
    shrink = area_mean(np.eye(THUMB_SIDE, dtype=np.float32), _COARSE, THUMB_SIDE)
    coarse = (shrink @ motions @ shrink.T).reshape(len(thumbs), 5, -1)
    coarse -= coarse.mean(axis=2, keepdims=True)
    length = np.linalg.norm(coarse[:, 0], axis=1, keepdims=True)
    unit = np.divide(coarse[:, 0], length, out=np.zeros_like(coarse[:, 0]), where=length > 1e-3)
    return unit, np.linalg.qr(coarse.swapaxes(1, 2)).Q


def _nominated(ours: UInt64, theirs: UInt64, *, within: bool) -> Iterator[tuple[int, Int64]]:
    """Yield each film and those within the hash radius of it; `within` one list, only later ones."""
    for first, bits in enumerate(ours):
        rest = theirs[first + 1 :] if within else theirs
        near = np.flatnonzero(np.bitwise_count(rest ^ bits) <= HASH_RADIUS)
        if len(near):
            yield first, near + (first + 1 if within else 0)


def _alike(ours: _Described, first: int, theirs: _Described, candidates: Int64) -> Int64:
    """Keep the candidates that a small motion of one film explains: Simard's tangent distance as a cosine."""
    one = np.linalg.norm(theirs.coarse[candidates] @ ours.tangents[first], axis=1)
    candidates, one = candidates[one >= _GLANCE], one[one >= _GLANCE]
    other = np.linalg.norm(ours.coarse[first] @ theirs.tangents[candidates], axis=1)
    return np.asarray(candidates[np.maximum(one, other) >= _LOOK])


def _one_way(still: UInt8, moving: UInt8) -> tuple[float, float]:
    """Lay `moving` onto the inner part of `still` and correlate."""
    import cv2

    inner = slice(_MARGIN, -_MARGIN)
    template = np.ascontiguousarray(cv2.equalizeHist(still)[inner, inner])
    everywhere = np.full(moving.shape, 255, dtype=np.uint8)
    start = np.array([[1, 0, _MARGIN], [0, 1, _MARGIN]], dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        _, motion = cv2.findTransformECC(
            template, cv2.equalizeHist(moving), start, cv2.MOTION_AFFINE, stop, everywhere, 3
        )
    except cv2.error:  # how OpenCV says that nothing aligns
        return 0.0, 0.0
    # Blurred a little: the motion is not of whole pixels, and interpolation alone would cost the last thousandth.
    target, source = (cv2.GaussianBlur(thumb.astype(np.float32), (0, 0), 0.7) for thumb in (still, moving))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = np.asarray(cv2.warpAffine(source, motion, template.shape[::-1], flags=flags, borderValue=-1e6))
    seen = laid >= 0
    if seen.mean() < 0.8:
        return 0.0, 0.0
    a, b = target[inner, inner].astype(np.float32), laid.astype(np.float32)
    return max(_compared(_toned(a, b, seen), b, seen), _compared(_toned(b, a, seen), a, seen))


def _compared(a: Float32, b: Float32, seen: NDArray[np.bool_]) -> tuple[float, float]:
    """Correlate two aligned films float32 (h, w) where both are seen, bool (h, w), and then their details."""
    return _correlation(a[seen], b[seen]), _correlation(_detail(a, seen), _detail(b, seen))


def _detail(film: Float32, seen: NDArray[np.bool_]) -> Float32:
    """What a blur takes away, float32 (n,): blurred over the pixels seen alone (normalised convolution)."""
    import cv2

    weights = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 3.0)
    blurred = cv2.GaussianBlur(np.where(seen, film, np.float32(0)), (0, 0), 3.0)
    return np.asarray(film[seen] - blurred[seen] / weights[seen], dtype=np.float32)


def _toned(film: Float32, like: Float32, seen: NDArray[np.bool_]) -> Float32:
    """Give a film the tones of another, both float32 (h, w), rank by rank where seen; equal values stay equal."""
    grey, wanted = (np.clip(np.rint(values), 0, 255).astype(np.int64) for values in (film, like))
    counts, theirs = np.bincount(grey[seen], minlength=256), np.bincount(wanted[seen], minlength=256)
    tones = np.flatnonzero(theirs)
    ranks, known = np.cumsum(counts) - counts / 2, np.cumsum(theirs) - theirs / 2
    return np.interp(ranks, known[tones], tones)[grey].astype(np.float32)


def _correlation(a: Float32, b: Float32) -> float:
    """Pearson's, of float32 (n,) and (n,); 0 where either is constant."""
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length > 0 else 0.0
