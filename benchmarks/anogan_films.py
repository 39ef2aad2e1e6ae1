"""Films prepared as a recipe of anogan says, and who of the train normals sees what; kept between runs.

The train normals of a set are dealt to three parts, patients kept whole where the set names them (RSNA's copy names
none: there films are drawn one by one): `train`, which the networks and terms learn
from; `calibration`, which sets p-values and thresholds; `fresh`, which nothing sees, to check the p-values on. The
template that films are registered to is that of `train`. What lies in build/benchmarks/anogan/films is not prepared
again: remove that folder after a change to the preparation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import registered
from common import WORK
from numpy.typing import NDArray
from registered import scan_files

from anomaly.config import PrepareConfig, Recipe
from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import NOT_REGISTERED, Template, fit_template, small_copy, template_sample
from anomaly.records import Float32, Float64, Int64, ScanFile
from anomaly.runs import read_tensors, write_tensors
from anomaly.scans.read import read_scan
from anomaly.scans.split import number_patients, split_normals

FOLDER = WORK / "anogan"
FRESH, CALIBRATION = 0.15, 0.2
"""Shares of the train normals that nothing sees, and of the rest that p-values are made of."""
SPLIT_SEED = 5


@dataclass(frozen=True, slots=True)
class Films:
    """N prepared films.

    `images` float32 (N, 1, S, S) in [-1, 1]; `inside` bool (N, S, S), which pixels show film; `matrices` float64
    (N, 3, 3), from prepared pixels to the film's; `refused` bool (N,), not registered; `groups` int64 (N,), patients;
    `labels` int64 (N,); `softness` float64 (N,), of the film registered at 224 px, whatever the recipe does.
    """

    images: Float32
    inside: NDArray[np.bool_]
    matrices: Float64
    refused: NDArray[np.bool_]
    groups: Int64
    labels: Int64
    softness: Float64
    classes: tuple[str, ...]
    scan_ids: tuple[str, ...]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def of(self, index: Int64 | NDArray[np.bool_]) -> Films:
        """Return some of the films."""
        places = np.arange(len(self))[index]
        return Films(
            self.images[places],
            self.inside[places],
            self.matrices[places],
            self.refused[places],
            self.groups[places],
            self.labels[places],
            self.softness[places],
            tuple(self.classes[i] for i in places),
            tuple(self.scan_ids[i] for i in places),
            tuple(self.paths[i] for i in places),
        )

    def of_classes(self, classes: tuple[str, ...]) -> Int64:
        """Return the places of the films of these classes."""
        return np.flatnonzero(np.isin(self.classes, classes))


def split(name: str) -> dict[str, Int64]:
    """Return the places of a set's train normals that are `train`, `calibration` and `fresh`, int64 each."""
    groups = _groups(scan_files(name, "train"))
    rest, fresh = split_normals(groups.tolist(), FRESH, SPLIT_SEED)
    train, calibration = split_normals(groups[rest].tolist(), CALIBRATION, SPLIT_SEED + 1)
    return {"train": rest[train], "calibration": rest[calibration], "fresh": fresh}


def films(name: str, part: str, recipe: Recipe) -> Films:
    """Return films of a set, prepared at the first call.

    Args:
        name: Of the set, "kermany" or "rsna".
        part: "train", "calibration" or "fresh", all normal, or "dev".
        recipe: Its preparation and size are followed.
    """
    which = "dev" if part == "dev" else "train"
    path = _file(name, which, recipe)
    if not path.is_file():
        _prepare(path, name, which, recipe)
    arrays, meta = read_tensors(path)
    if meta["prepare"] != recipe.prepare.model_dump(mode="json"):
        raise SystemExit(f"{path} was prepared with other settings: remove it to measure the recipe as it is now")
    names = {key: tuple(meta[key]) for key in ("classes", "scan_ids", "paths")}
    found = Films(**arrays, **names)
    return found if part == "dev" else found.of(split(name)[part])


def film_files(name: str, recipe: Recipe) -> list[Path]:
    """Return the files of a set's prepared train normals and dev films."""
    return [_file(name, which, recipe) for which in ("train", "dev")]


def _file(name: str, which: str, recipe: Recipe) -> Path:
    config = recipe.prepare
    clahe = "clahe" if config.clahe else "plain"
    way = f"{config.registration}-{config.central_crop:g}-{clahe}-{recipe.size}"
    return FOLDER / "films" / f"{name}-{which}-{way}.safetensors"


def _prepare(path: Path, name: str, which: str, recipe: Recipe) -> None:
    """Prepare the train normals or the dev films of a set."""
    preparation = _preparation(name, recipe)
    files = scan_files(name, which)
    told = registered.films(name, which)
    if told.scan_ids != tuple(file.scan_id for file in files):
        raise SystemExit("build/benchmarks/registered holds other films than the data: remove it")
    images, insides, matrices, refused = [], [], [], []
    for file in files:
        prepared = preparation(read_scan(file))
        shown = prepared.inside
        images.append(prepared.image)
        insides.append(np.ones(prepared.image.shape[1:], np.bool_) if shown is None else shown)
        matrices.append(prepared.geometry.matrix)
        refused.append(any(warning.startswith(NOT_REGISTERED) for warning in prepared.warnings))
    arrays = {
        "images": np.stack(images),
        "inside": np.stack(insides),
        "matrices": np.stack(matrices),
        "refused": np.array(refused, np.bool_),
        "groups": _groups(files),
        "labels": np.array([file.label for file in files], np.int64),
        "softness": told.softness,
    }
    meta = {
        "prepare": recipe.prepare.model_dump(mode="json"),
        "classes": [file.class_name for file in files],
        "scan_ids": [file.scan_id for file in files],
        "paths": [file.relative for file in files],
    }
    write_tensors(path, arrays, meta)


def _preparation(name: str, recipe: Recipe) -> Preparation:
    """Return a recipe's preparation, with the template of the part `train` where films are registered."""
    preparation = Preparation(recipe.prepare, recipe.size)
    if not preparation.registers:
        return preparation
    path = FOLDER / "films" / f"{name}-template-{_depth(recipe.prepare)}.safetensors"
    if not path.is_file():
        files = scan_files(name, "train")
        shrunk = [preparation.shrink(read_scan(files[place])) for place in split(name)["train"]]
        copies = np.stack([small_copy(shrunk[i].pixels) for i in template_sample(len(shrunk))])
        arrays, meta = fit_template(copies).to_entry()
        write_tensors(path, arrays, meta | {"shrinks_by": preparation.shrinks_by})
    arrays, meta = read_tensors(path)
    if meta["shrinks_by"] != preparation.shrinks_by:
        raise SystemExit(f"{path} is of films prepared with other settings: remove it to measure the recipe as it is")
    return preparation.with_template(Template.from_entry(arrays, meta))


def _depth(config: PrepareConfig) -> str:
    """Return how films are kept that wait to be registered: it is what a template is made of."""
    return "8-bit" if config.clahe else "16-bit"


def _groups(files: list[ScanFile]) -> Int64:
    return number_patients([file.patient for file in files], [file.relative for file in files])
