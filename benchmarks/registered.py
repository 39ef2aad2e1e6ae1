"""The registered 224 px films of Kermany and RSNA, prepared by the library as the atlas recipe says, kept between runs.

Templates are fitted on all train normals of a set. What lies in build/benchmarks/registered is not prepared again:
remove that folder after a change to the preparation. Films are kept at 16 bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, shared_data
from numpy.typing import NDArray

from anomaly.config import load_recipe
from anomaly.evaluate.baselines import softness, trivial_statistics
from anomaly.evaluate.intervals import PairedDifference, bootstrap, paired_difference
from anomaly.evaluate.metrics import auroc, auroc_of
from anomaly.evaluate.perturb import film_rng, mask_borders_and_markers, randomise_sharpness
from anomaly.evaluate.strata import stratified_auroc, stratified_difference
from anomaly.prepare.prepare import Preparation, Shrunk
from anomaly.prepare.register import Template, fit_template, small_copy, template_sample
from anomaly.records import Float32, Float64, Int64, Scan, ScanFile
from anomaly.runs import read_tensors, write_tensors
from anomaly.scans.read import read_scan
from anomaly.scans.split import number_patients
from anomaly.scans.walk import list_scans

FOLDERS = {"kermany": "kermany", "rsna": "rsna_adult"}
TASKS = {
    "kermany": {"kermany": ("NORMAL", "PNEUMONIA")},
    "rsna": {
        "rsna_opacity": ("normal", "lung_opacity"),
        "rsna_all": ("normal", "lung_opacity", "abnormal_no_opacity"),
    },
}
"""Of each set: name of a comparison -> the classes of dev films that take part."""

Change = Callable[[Scan], Float32]
CHANGES: dict[str, Change] = {
    "untouched": lambda scan: scan.pixels,
    "masked": lambda scan: mask_borders_and_markers(scan.pixels),
    "equalised": lambda scan: randomise_sharpness(scan.pixels, film_rng(scan.scan_id)),
}


@dataclass(frozen=True, slots=True)
class Films:
    """Prepared films of one set and part: train normals, or dev.

    `levels` uint16 (N, 1, S, S); `inside` bool (N, S, S); `matrices` float64 (N, 3, 3), from prepared pixels to the
    film's; `refused` bool (N,), not registered; `groups` int64 (N,), patients; `labels` int64 (N,); `softness` float64
    (N,), of the prepared film; `statistics` name -> float64 (N,), of the film as read.
    """

    levels: NDArray[np.uint16]
    inside: NDArray[np.bool_]
    matrices: Float64
    refused: NDArray[np.bool_]
    scan_ids: tuple[str, ...]
    paths: tuple[str, ...]
    groups: Int64
    labels: Int64
    classes: tuple[str, ...]
    softness: Float64
    statistics: dict[str, Float64]

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def images(self) -> Float32:
        """Return float32 (N, 1, S, S) in [-1, 1]."""
        return self.levels.astype(np.float32) * np.float32(2 / 65535) - np.float32(1.0)

    def of_classes(self, classes: tuple[str, ...]) -> Int64:
        """Return the places of the films of these classes."""
        return np.flatnonzero(np.isin(self.classes, classes))


def scan_files(name: str, part: str) -> list[ScanFile]:
    """List the train normals ("train") or the dev films ("dev") of a set."""
    listing = list_scans(shared_data() / FOLDERS[name])
    files = [file for file in listing.files if file.split == part and (part == "dev" or file.label == 0)]
    return [file for file in files if file.set_aside is None]


def films(
    name: str, part: str, *, register: bool = True, change: str = "untouched", fitted: str = "untouched"
) -> Films:
    """Return films, prepared at the first call.

    Args:
        name: Of the set, one of `FOLDERS`.
        part: "train" (normals) or "dev".
        register: Onto the template; without it the films as they are.
        change: What is done to each film before it is prepared, one of `CHANGES`.
        fitted: What was done to the train normals that the template is made of, one of `CHANGES`.
    """
    how = f"affine-{fitted}" if register else "none"
    path = WORK / "registered" / f"{name}-{part}-{how}-{change}.safetensors"
    if path.is_file():
        return _load(path)
    preparation = _preparation(name, register, fitted)
    kept: list[tuple[Any, ...]] = []
    files = scan_files(name, part)
    for scan in _scans(files, change):
        prepared = preparation(scan)
        image = (prepared.image[0] + 1.0) / 2.0
        inside = np.ones(image.shape, np.bool_) if prepared.inside is None else prepared.inside
        levels = np.rint(image[None] * 65535.0).astype(np.uint16)
        refused = len(prepared.warnings) > len(scan.warnings)
        told = trivial_statistics(scan.pixels, scan.file_size)
        kept.append((levels, inside, prepared.geometry.matrix, refused, softness(np.clip(image, 0.0, 1.0)), told))
    levels, inside, matrices, refused, soft = (np.stack([film[i] for film in kept]) for i in range(5))
    arrays = {"levels": levels, "inside": inside, "matrices": matrices, "refused": refused, "softness": soft}
    arrays["groups"] = number_patients([file.patient for file in files], [file.relative for file in files])
    arrays["labels"] = np.array([file.label for file in files], np.int64)
    arrays |= {f"statistics.{key}": np.array([film[5][key] for film in kept]) for key in kept[0][5]}
    meta = {"scan_ids": [file.scan_id for file in files], "paths": [str(file.path) for file in files]}
    write_tensors(path, arrays, meta | {"classes": [file.class_name for file in files]})
    return _load(path)


def row(name: str, labels: Int64, scores: Float64, groups: Int64) -> dict[str, Any]:
    """Return the name of a score, its AUROC with interval, and how many films of either kind there were."""
    interval = bootstrap(auroc_of, labels, scores, groups)
    counts = {"normal": int(np.sum(labels == 0)), "abnormal": int(np.sum(labels == 1))}
    return {"name": name, "auroc": auroc(labels, scores), "low": interval.low, "high": interval.high, **counts}


def minus(labels: Int64, scores: Float64, other: Float64, groups: Int64) -> dict[str, Any]:
    """Return AUROC(scores) - AUROC(other) on the same films, patients resampled together."""
    return _difference(paired_difference(labels, scores, other, groups))


def minus_within(labels: Int64, scores: Float64, other: Float64, nuisance: Float64, groups: Int64) -> dict[str, Any]:
    """Return the same difference of the AUROCs within five strata of a nuisance."""
    return _difference(stratified_difference(labels, scores, other, nuisance, groups))


def within(labels: Int64, scores: Float64, nuisance: Float64, groups: Int64) -> dict[str, Any]:
    """Return the AUROC within five strata of a nuisance, with interval, and that of the nuisance itself there."""
    found = stratified_auroc(labels, scores, nuisance, groups)
    low, high = found.interval.low, found.interval.high
    return {"auroc": found.auroc, "low": low, "high": high, "nuisance_itself": found.leftover}


def _difference(found: PairedDifference) -> dict[str, Any]:
    return {"difference": found.difference, "low": found.interval.low, "high": found.interval.high, "p": found.p_value}


def _preparation(name: str, register: bool, fitted: str) -> Preparation:
    recipe = load_recipe("atlas")
    if not register:
        return Preparation(recipe.prepare.model_copy(update={"registration": "none"}), recipe.size)
    preparation = Preparation(recipe.prepare, recipe.size)
    path = WORK / "registered" / f"{name}-template-{fitted}.safetensors"
    if not path.is_file():
        shrunk: list[Shrunk] = [preparation.shrink(scan) for scan in _scans(scan_files(name, "train"), fitted)]
        copies = np.stack([small_copy(shrunk[i].pixels) for i in template_sample(len(shrunk))])
        write_tensors(path, *fit_template(copies).to_entry())
    return preparation.with_template(Template.from_entry(*read_tensors(path)))


def _scans(files: list[ScanFile], change: str) -> Iterator[Scan]:
    for file in files:
        scan = read_scan(file)
        yield replace(scan, pixels=CHANGES[change](scan))


def _load(path: Path) -> Films:
    arrays, meta = read_tensors(path)
    statistics = {key.partition(".")[2]: value for key, value in arrays.items() if key.startswith("statistics.")}
    own = {key: value for key, value in arrays.items() if not key.startswith("statistics.")}
    ids, paths, classes = (tuple(meta[key]) for key in ("scan_ids", "paths", "classes"))
    return Films(**own, scan_ids=ids, paths=paths, classes=classes, statistics=statistics)
