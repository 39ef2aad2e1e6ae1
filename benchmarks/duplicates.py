"""What near copies are found among real films, and how many different films are taken for one.

    python benchmarks/duplicates.py

Recall: 300 films (seeded, Kermany and RSNA) against themselves re-saved, resized, re-toned, cropped, shifted, turned;
and the full-resolution Kermany films against their small copies. False pairs: every pair of films of each set, exact
copies apart; what is confirmed is listed with what came closest to it. Chance: how many pairs of clean films, not
copies, lie within so many bits of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import parser, shared_data, write_result

from anomaly.records import Float32, ScanFile, UInt8
from anomaly.scans.duplicates import (
    CONFIRMED,
    DETAIL,
    HASH_RADIUS,
    exact_copies,
    near_copies,
    perceptual_hash,
    pixel_digest,
    thumbnail,
)
from anomaly.scans.read import read_scan
from anomaly.scans.walk import list_scans

NEARBY = 0.98
"""Pairs above this correlation are listed, to show how close different films come."""

SHOWN = 8


@dataclass(frozen=True, slots=True)
class Films:
    """Films of a set: names for the result file, patients (None: unknown), digests, thumbs uint8 (N, 64, 64)."""

    files: tuple[ScanFile, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...]
    thumbs: UInt8

    def only(self, wanted: Callable[[ScanFile], bool]) -> Films:
        """Return those of the films that are wanted."""
        at = [i for i, file in enumerate(self.files) if wanted(file)]
        picked = (tuple(column[i] for i in at) for column in (self.files, self.names, self.digests))
        return Films(*picked, thumbs=self.thumbs[at])


def read(folder: Path, root: Path) -> Films:
    """Read every film of a folder the way the tool does."""
    files = list_scans(folder).files
    pixels = [read_scan(file).pixels for file in files]
    names = tuple(file.path.relative_to(root).as_posix() for file in files)
    return Films(files, names, tuple(map(pixel_digest, pixels)), np.stack([thumbnail(p) for p in pixels]))


def moved(film: Float32, matrix: Sequence[Sequence[float]]) -> Float32:
    """Warp by a matrix (2, 3); what comes into the picture from outside is black."""
    return np.asarray(cv2.warpAffine(film, np.array(matrix, dtype=np.float32), film.shape[::-1]), dtype=np.float32)


def shifted(film: Float32, share: float) -> Float32:
    return moved(film, [[1, 0, share * film.shape[1]], [0, 1, share * film.shape[0]]])


def turned(film: Float32, degrees: float) -> Float32:
    centre = ((film.shape[1] - 1) / 2, (film.shape[0] - 1) / 2)
    return moved(film, cv2.getRotationMatrix2D(centre, degrees, 1.0).tolist())


def cropped(film: Float32, share: float, *, all_sides: bool) -> Float32:
    down, across = (round(share * side) for side in film.shape)
    far = (-down, -across) if all_sides else (None, None)
    return np.ascontiguousarray(film[down : far[0], across : far[1]])


def resized(film: Float32, factor: float) -> Float32:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.clip(cv2.resize(film, None, fx=factor, fy=factor, interpolation=how), 0, 1).astype(np.float32)


def saved(film: Float32, quality: int) -> Float32:
    levels = np.rint(film * 255).astype(np.uint8)
    stream = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_GRAYSCALE), dtype=np.float32) / np.float32(255)


def windowed(film: Float32, low: float, high: float) -> Float32:
    """Window between two quantiles of the film, what lies outside clipped."""
    bottom, top = np.quantile(film, [low, high])
    return np.clip((film - bottom) / (top - bottom), 0, 1).astype(np.float32)


DISTORTIONS: dict[str, Callable[[Float32], Float32]] = {
    "JPEG quality 50": lambda film: saved(film, 50),
    "half the size": lambda film: resized(film, 0.5),
    "one and a half times the size": lambda film: resized(film, 1.5),
    "gamma 0.7": lambda film: film ** np.float32(0.7),
    "gamma 1.4": lambda film: film ** np.float32(1.4),
    "brightness and contrast (0.8 x + 0.1)": lambda film: film * np.float32(0.8) + np.float32(0.1),
    "contrast 1.2, clipped": lambda film: np.clip(film * np.float32(1.2) - np.float32(0.1), 0, 1),
    "window 5 to 95 % of the pixels": lambda film: windowed(film, 0.05, 0.95),
    "window 10 to 98 % of the pixels": lambda film: windowed(film, 0.1, 0.98),
    "crop 2 % on every side": lambda film: cropped(film, 0.02, all_sides=True),
    "crop 2 % at the top and left": lambda film: cropped(film, 0.02, all_sides=False),
    "shift 1 % down and right": lambda film: shifted(film, 0.01),
    "shift 2 % down and right": lambda film: shifted(film, 0.02),
    "turn 1 degree": lambda film: turned(film, 1),
    "crop 2 %, gamma 1.3, JPEG quality 70": lambda film: saved(
        cropped(film, 0.02, all_sides=True) ** np.float32(1.3), 70
    ),
}


def recall(sets: Sequence[Films], each: int, seed: int) -> dict[str, Any]:
    """Distort films and look for each among the undistorted."""
    rng = np.random.default_rng(seed)
    files = [films.files[i] for films in sets for i in rng.choice(len(films.files), each, replace=False)]
    originals = [read_scan(file).pixels for file in files]
    thumbs = np.stack([thumbnail(film) for film in originals])
    hashes = perceptual_hash(thumbs)
    found: dict[str, Any] = {}
    for name, distort in DISTORTIONS.items():
        others = np.stack([thumbnail(distort(film)) for film in originals])
        pairs = near_copies(thumbs, others)
        own = [pair for pair in pairs if pair.first == pair.second]
        bits = np.bitwise_count(hashes ^ perceptual_hash(others))
        found[name] = {
            "films": len(files),
            "nominated": float(np.mean(bits <= HASH_RADIUS)),
            "confirmed": len(own) / len(files),
            "lowest_correlation": min((pair.correlation for pair in own), default=None),
            "lowest_detail": min((pair.detail for pair in own), default=None),
            "pairs_of_other_films": len(pairs) - len(own),
        }
        print(f"{name}: {len(own)} of {len(files)} found, {len(pairs) - len(own)} others", flush=True)
    return found


def originals(data: Path, small: Films) -> dict[str, Any]:
    """Look for the full-resolution Kermany films among the small ones."""
    full = read(data / "kermany_fullres", data)
    stem = {file.path.stem: i for i, file in enumerate(small.files)}
    pairs = near_copies(full.thumbs, small.thumbs)
    own = [pair for pair in pairs if stem.get(full.files[pair.first].path.stem) == pair.second]
    return {
        "films": sum(file.path.stem in stem for file in full.files),
        "confirmed": len(own),
        "lowest_correlation": min((pair.correlation for pair in own), default=None),
        "lowest_detail": min((pair.detail for pair in own), default=None),
        "pairs_of_other_films": [[full.names[p.first], small.names[p.second]] for p in pairs if p not in own],
    }


def pairs_between(ours: Films, theirs: Films | None = None) -> dict[str, Any]:
    """Confirmed pairs of films that are not exact copies, and how near the others come."""
    second = ours if theirs is None else theirs
    listed = []
    exact = 0
    for pair in near_copies(ours.thumbs, None if theirs is None else theirs.thumbs, above=NEARBY, detail=0.0):
        if ours.digests[pair.first] == second.digests[pair.second]:
            exact += 1
            continue
        patients = ours.files[pair.first].patient, second.files[pair.second].patient
        same = None if None in patients else patients[0] == patients[1]
        names = [ours.names[pair.first], second.names[pair.second]]
        listed.append({"films": names, "correlation": round(pair.correlation, 5)})
        listed[-1] |= {"detail": round(pair.detail, 5), "same_patient": same}
    listed.sort(key=lambda row: -row["correlation"])
    confirmed = [row for row in listed if row["correlation"] > CONFIRMED and row["detail"] > DETAIL]
    others = [row for row in listed if row not in confirmed]
    n = len(ours.files)
    return {
        "films": n if theirs is None else [n, len(theirs.files)],
        "pairs": n * (n - 1) // 2 if theirs is None else n * len(theirs.files),
        "exact_pairs": exact,
        "confirmed": confirmed,
        "closest_others": others[:SHOWN],
    }


def chance(films: Films) -> dict[str, Any]:
    """How close the hashes of films are that are no exact copies of each other."""
    copies = {i for group in exact_copies(films.digests) for i in group[1:]}
    keep = [i for i in range(len(films.files)) if i not in copies]
    hashes = perceptual_hash(films.thumbs[keep])
    counts, nearest = np.zeros(65, dtype=np.int64), np.full(len(keep), 64)
    for i, bits in enumerate(hashes):
        distance = np.bitwise_count(np.delete(hashes, i) ^ bits)
        counts += np.bincount(distance, minlength=65)
        nearest[i] = distance.min()
    within = np.cumsum(counts) / counts.sum()
    return {
        "films": len(keep),
        "share_of_pairs_within": {str(bits): float(within[bits]) for bits in (6, 10, 14, HASH_RADIUS)},
        "share_of_films_with_another_within": {str(bits): float(np.mean(nearest <= bits)) for bits in (6, HASH_RADIUS)},
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--films", type=int, default=300, help="films to distort")
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    cv2.setNumThreads(1)
    data = shared_data()
    kermany, rsna, montgomery = (read(data / name, data) for name in ("kermany", "rsna_adult", "montgomery/images"))
    normals = kermany.only(lambda file: file.split == "train" and file.label == 0)
    kermany_train = kermany.only(lambda file: file.split == "train")
    kermany_dev = kermany.only(lambda file: file.split == "dev")
    rsna_train, rsna_dev = rsna.only(lambda file: file.split == "train"), rsna.only(lambda file: file.split == "dev")
    groups = exact_copies(kermany.digests)
    figures = {
        "radius": HASH_RADIUS,
        "correlation": CONFIRMED,
        "detail": DETAIL,
        "kermany_exact_copies": {
            "groups": len(groups),
            "extra": sum(len(group) - 1 for group in groups),
            "across_splits_or_classes": sum(
                len({(kermany.files[i].split, kermany.files[i].label) for i in group}) > 1 for group in groups
            ),
        },
        "recall": recall((kermany, rsna), chosen.films // 2, chosen.seed),
        "recall_of_originals": originals(data, kermany),
        "pairs": {
            "kermany train normals": pairs_between(normals),
            "kermany train": pairs_between(kermany_train),
            "kermany dev": pairs_between(kermany_dev),
            "kermany train normals against dev": pairs_between(normals, kermany_dev),
            "kermany train against dev": pairs_between(kermany_train, kermany_dev),
            "rsna train normals": pairs_between(rsna_train),
            "rsna train normals against dev": pairs_between(rsna_train, rsna_dev),
            "montgomery": pairs_between(montgomery),
            "kermany against rsna and montgomery": {
                "confirmed": sum(len(near_copies(kermany.thumbs, other.thumbs)) for other in (rsna, montgomery)),
            },
        },
        "chance": {"kermany": chance(kermany), "rsna": chance(rsna), "montgomery": chance(montgomery)},
    }
    for name, found in figures["pairs"].items():
        print(f"{name}: {found['confirmed']}")
    write_result("duplicates", figures)


if __name__ == "__main__":
    main()
