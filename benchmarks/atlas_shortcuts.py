"""How much of the atlas is anatomy: its AUROC with borders, sharpness, or all but the lungs taken away.

    OMP_NUM_THREADS=1 python benchmarks/atlas_shortcuts.py

Dev films are changed and scored by the model as it is ("test"), or by one whose normals were changed alike ("train and
test"). Human lung masks exist for Kermany alone. Scores are kept in build/benchmarks/atlas_shortcuts: remove that
folder after a change to the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from atlas_grid import Terms, reader, score
from atlas_looks import DEFAULT, SETTINGS, Seen, Values, air_seen, check_against, combined, mean_of, positive_where, see
from common import WORK, parser, shared_data, write_result
from numpy.typing import NDArray
from registered import CHANGES, FOLDERS, TASKS, Films, films, minus, row, within
from scipy.stats import spearmanr

from anomaly.detectors.atlas.detector import Atlas
from anomaly.detectors.atlas.looks import Look, grey
from anomaly.detectors.base import Detector
from anomaly.detectors.normality import patient_folds
from anomaly.detectors.pixel_stats import PixelStats
from anomaly.evaluate.baselines import one_number_audit
from anomaly.evaluate.perturb import mask_outside
from anomaly.evaluate.strata import residualised_auroc
from anomaly.prepare.source import ArraySource
from anomaly.records import Float32, Float64, Int64
from anomaly.runs import read_tensors, write_tensors

Masks = Callable[[Films], NDArray[np.bool_]]
METHODS: dict[str, Callable[[], Detector]] = {
    "atlas": lambda: Atlas(SETTINGS, size=DEFAULT.size),
    "pixel-stats": lambda: PixelStats(size=DEFAULT.size),
}
TERMS = ("opacity", "deficit", "darker")
TESTED, TRAINED = "test", "train and test"
SIZES = ("width", "height", "aspect")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a detector sees: `images` float32 (N, 1, S, S) in [-1, 1] and `inside` bool (N, S, S)."""

    images: Float32
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to take something away; `train` and `dev` make what is shown when it is asked for."""

    name: str
    when: str
    fitted: str
    """Conditions of one name here share a fitted detector."""
    train: Callable[[], Shown]
    dev: Callable[[], Shown]
    region: Masks | None = None
    """Which pixels of prepared films count, bool (N, S, S), where not all do."""


def conditions(name: str) -> list[Condition]:
    """Return what is measured on a set; the first is the films as they are."""

    def shown(part: str, change: str = "untouched", fitted: str = "untouched") -> Shown:
        found = films(name, part, change=change, fitted=fitted)
        return Shown(found.images, found.inside)

    def painted(part: str, keep: bool) -> Shown:
        found = films(name, part)
        masks = lungs(name, found) == keep
        pixels = (found.images[:, 0] + np.float32(1.0)) / np.float32(2.0)
        bare = np.stack([mask_outside(film, mask) for film, mask in zip(pixels.clip(0.0, 1.0), masks, strict=True)])
        return Shown((bare * np.float32(2.0) - np.float32(1.0))[:, None].clip(-1.0, 1.0), found.inside & masks)

    def air(found: Films) -> NDArray[np.bool_]:
        look = Look(1.0, SETTINGS.tiles[0], SETTINGS.clips[0], found.inside.shape[1])
        held = air_seen(look, grey(films(name, "train").images)) >= 0.5
        return np.broadcast_to(held, found.inside.shape)

    def human(found: Films) -> NDArray[np.bool_]:
        return lungs(name, found)

    def as_is() -> Shown:
        return shown("train")

    found = [Condition("untouched", TESTED, "untouched", as_is, lambda: shown("dev"))]
    for change, told in (("masked", "borders and markers masked"), ("equalised", "sharpness drawn by lot")):
        found += [
            Condition(told, TESTED, "untouched", as_is, lambda change=change: shown("dev", change)),
            Condition(
                told,
                TRAINED,
                change,
                lambda change=change: shown("train", change, change),
                lambda change=change: shown("dev", change, change),
            ),
        ]
    regions = [("where normal chests hold air", "where they hold none", air)]
    if name == "kermany":
        regions.append(("inside the lungs (human masks)", "outside the lungs (human masks)", human))
    for inner, outer, masks in regions:
        for told, keep in ((inner, True), (outer, False)):

            def region(found: Films, keep: bool = keep, masks: Masks = masks) -> NDArray[np.bool_]:
                return found.inside & (masks(found) == keep)

            def counted(part: str, region: Masks = region) -> Shown:
                found = films(name, part)
                return Shown(found.images, region(found))

            found.append(
                Condition(f"heat counted only {told}", TRAINED, "untouched", as_is, partial(counted, "dev"), region)
            )
    if name == "kermany":
        for told, keep in (("all but the lungs painted over", True), ("the lungs painted over", False)):
            found.append(
                Condition(
                    told,
                    TRAINED,
                    told.replace(" ", "-"),
                    lambda keep=keep: painted("train", keep),
                    lambda keep=keep: painted("dev", keep),
                )
            )
    return found


def lungs(name: str, found: Films) -> NDArray[np.bool_]:
    """Return the human lung masks of films as they were prepared: bool (N, S, S)."""
    import cv2

    root = shared_data() / FOLDERS[name]
    size = found.inside.shape[1]
    masks = np.empty_like(found.inside)
    for path, matrix, mask in zip(found.paths, found.matrices, masks, strict=True):
        own = root.with_name(f"{root.name}_lung_masks") / Path(path).relative_to(root).with_suffix(".png")
        drawn = cv2.imread(str(own), cv2.IMREAD_GRAYSCALE)
        if drawn is None:
            raise SystemExit(f"{own.name}: no lung mask of this film")
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        mask[:] = cv2.warpAffine(drawn, matrix[:2], (size, size), flags=flags) > 0
    return masks


def scored(name: str, method: str, condition: Condition, detectors: dict[str, Detector]) -> dict[str, Float64]:
    """Return score and terms of the dev films under a condition, from disk where they are there already."""
    told = f"{condition.name} {condition.when}".replace(" ", "-").replace("(", "").replace(")", "")
    path = WORK / "atlas_shortcuts" / f"{name}-{method}-{told}.safetensors"
    if not path.is_file() and method == "atlas" and condition.region is not None:
        write_tensors(path, regional(name, condition.region), {})
        print(f"wrote {path.stem}", flush=True)
    elif not path.is_file():
        if condition.fitted not in detectors:
            seen = condition.train()
            groups = films(name, "train").groups
            detectors[condition.fitted] = METHODS[method]().fit(ArraySource(seen.images, groups))
        asked = condition.dev()
        output = detectors[condition.fitted].score(asked.images, inside=asked.inside, heatmaps=False)
        write_tensors(path, {"score": output.scores, **output.terms}, {})
        print(f"wrote {path.stem}", flush=True)
    return {key: value.astype(np.float64) for key, value in read_tensors(path)[0].items()}


def regional(name: str, region: Masks) -> dict[str, Float64]:
    """Return the atlas's score and terms of dev films when only a region's heat counts, on train normals and on dev.

    The films are seen whole: what a region hid from the detector would change what it finds inside.
    """
    masks = [region(films(name, part)) for part in ("train", "dev")]
    terms: dict[str, list[Values]] = {term: [] for term in TERMS}
    for seen in _seen(name):
        counted = [seen.look.film(mask) for mask in masks]
        for term, sign, maps in (
            ("opacity", 1, seen.residual.values()),
            ("darker", -1, seen.residual.values()),
            ("deficit", -1, seen.contrast),
        ):
            terms[term] += [positive_where(part, *counted, sign=sign) for part in maps]
    found = {term: mean_of(values) for term, values in terms.items()}
    score_ = combined(found["opacity"], found["deficit"])
    return {"score": score_.dev, **{term: values.dev for term, values in found.items()}}


@cache
def _seen(name: str) -> list[Seen]:
    train, dev = films(name, "train"), films(name, "dev")
    folds, greys = patient_folds(train.groups, SETTINGS.folds, 0), (grey(train.images), grey(dev.images))
    return [see(look, *greys, dev.inside, folds) for look in DEFAULT.looks]


def changed(told: dict[str, Any], labels: Int64, values: Float64, untouched: Float64, groups: Int64) -> dict[str, Any]:
    """Return a row with the difference to the untouched films, and how far the scores of either class moved."""
    sd = untouched[labels == 0].std()
    gap = (untouched[labels == 1].mean() - untouched[labels == 0].mean()) / sd
    moved = [float((values[labels == label] - untouched[labels == label]).mean() / sd) for label in (0, 1)]
    base = row("", labels, untouched, groups)["auroc"]
    return {
        **{key: value for key, value in told.items() if key != "name"},
        "minus_untouched": minus(labels, values, untouched, groups),
        "stays": (told["auroc"] - 0.5) / (base - 0.5),
        "moved_in_sd_of_normals": {"normal": moved[0], "abnormal": moved[1], "gap_untouched": float(gap)},
    }


def nuisances(dev: Films) -> dict[str, Float64]:
    return {"softness": dev.softness, "file_size": dev.statistics["file_size"]}


def strata_rows(at: Int64, dev: Films, columns: dict[str, Float64]) -> list[dict[str, Any]]:
    """Return AUROC within strata of each nuisance, of each score."""
    labels, groups = dev.labels[at], dev.groups[at]
    return [
        {"within": nuisance, "name": name, **within(labels, values[at], told[at], groups)}
        for nuisance, told in nuisances(dev).items()
        for name, values in columns.items()
    ]


def residual_rows(looks: Sequence[Terms], at: Int64, train: Films, dev: Films) -> list[dict[str, Any]]:
    """Return the atlas's AUROC less the trend that train normals' scores, out of fold, follow over a nuisance."""
    found = []
    for term, weight in (("score", SETTINGS.deficit_weight), ("opacity", 0.0)):
        values = score(looks, SETTINGS.components, weight)
        for nuisance, told in nuisances(dev).items():
            line = residualised_auroc(
                dev.labels[at],
                values.dev[at],
                told[at],
                dev.groups[at],
                normal_scores=values.train,
                normal_nuisance=nuisances(train)[nuisance],
            )
            area = {"auroc": line.auroc, "low": line.interval.low, "high": line.interval.high}
            normals = float(spearmanr(values.train, nuisances(train)[nuisance]).statistic)
            found.append({"less_the_trend_over": nuisance, "name": term, **area, "spearman_train_normals": normals})
    return found


def correlations(at: Int64, dev: Films, columns: dict[str, Float64]) -> list[dict[str, Any]]:
    """Return how each score goes with each nuisance within a class of dev films (Spearman; softer: negative)."""
    found = []
    for nuisance, told in nuisances(dev).items():
        for name, values in columns.items():
            entry: dict[str, Any] = {"with": nuisance, "name": name}
            for label, kind in ((0, "normal"), (1, "abnormal")):
                own = at[dev.labels[at] == label]
                entry[kind] = float(spearmanr(values[own], told[own]).statistic)
            found.append(entry)
    return found


def softness_left(name: str, at: Int64) -> list[dict[str, Any]]:
    """Return what softness alone tells of the prepared films once changed: whether a change did its work."""
    found = []
    for change in CHANGES:
        dev = films(name, "dev", change=change)
        table = {f"softness of the films, {change}": dev.softness[at]}
        found += one_number_audit(dev.labels[at], table, dev.groups[at])
    return found


def audit(name: str, at: Int64, dev: Films) -> list[dict[str, Any]]:
    """Return what single numbers tell the classes apart, the strongest first."""
    table = {key: value[at] for key, value in dev.statistics.items() if key not in SIZES}
    table["softness of the prepared film"] = dev.softness[at]
    if name == "kermany":
        table["area of the human lung mask"] = lungs(name, dev).mean(axis=(1, 2))[at]
    return sorted(one_number_audit(dev.labels[at], table, dev.groups[at]), key=lambda entry: -entry["auroc"])


def main() -> None:
    parser(__doc__).parse_args()
    figures: dict[str, Any] = {}
    for name, tasks in TASKS.items():
        train, dev = films(name, "train"), films(name, "dev")
        every = conditions(name)
        found: dict[str, dict[tuple[str, str], dict[str, Float64]]] = {}
        for method in METHODS:
            detectors: dict[str, Detector] = {}
            found[method] = {(c.name, c.when): scored(name, method, c, detectors) for c in every}
        read = reader(name, train, dev)
        looks = [read(look) for look in DEFAULT.looks]
        plain = {method: by[every[0].name, every[0].when] for method, by in found.items()}
        ours = score(looks, SETTINGS.components, SETTINGS.deficit_weight)
        check_against(ours.dev, plain["atlas"]["score"])
        columns = {
            "atlas": plain["atlas"]["score"],
            **{f"atlas, {term} alone": plain["atlas"][term] for term in TERMS},
            "pixel-stats, registered": plain["pixel-stats"]["score"],
        }
        for task, classes in tasks.items():
            at = dev.of_classes(classes)
            labels, groups = dev.labels[at], dev.groups[at]
            rows = []
            for condition in every:
                entry: dict[str, Any] = {"name": condition.name, "when": condition.when}
                for method, by in found.items():
                    told = by[condition.name, condition.when]
                    for term in told:
                        values, untouched = told[term][at], plain[method][term][at]
                        what = method if term == "score" else term
                        entry[what] = changed(row(what, labels, values, groups), labels, values, untouched, groups)
                rows.append(entry)
            figures[task] = {
                "conditions": rows,
                "strata": strata_rows(at, dev, columns),
                "residualised": residual_rows(looks, at, train, dev),
                "spearman": correlations(at, dev, columns),
                "softness_after_the_change": softness_left(name, at),
                "audit": audit(name, at, dev),
            }
    write_result(
        "atlas_shortcuts",
        {
            "data": "Kermany dev and RSNA dev, registered to the template of all train normals",
            "reading": {
                "stays": "share of what AUROC had above 0.5 on the untouched films",
                "lung masks": "drawn by people on the very films: their outline may itself know the disease",
                "heat counted only ...": "the films are seen whole and their heat is counted in a region alone",
                "painted over": "outside is a smooth continuation of the inside: nothing of it enters anything",
                "file_size, softness": "the softer a film, the fewer bytes it takes; an opacity makes it softer",
            },
            "comparisons": figures,
        },
    )


if __name__ == "__main__":
    main()
