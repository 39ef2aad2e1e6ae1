"""One suite for every registered method: what the interface promises, whoever keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomaly.detectors.base import WEIGHTS, Detector
from anomaly.errors import DataError, ModelError, UsageError
from anomaly.prepare.source import ArraySource
from anomaly.records import DetectorOutput, Float32, Target
from anomaly.registry import METHODS, SUPERVISED, detector_class
from anomaly.runs import read_tensors, write_tensors

SIZE = 32
BATCH = 4

RANDOM = {"backbone_weights": "none", "precision": "fp32", "score_batch": BATCH}

SMALL: dict[str, dict[str, Any]] = {
    "anogan": {
        "latent": 8,
        "width": 8,
        "steps": 6,
        "batch": 8,
        "holdout": 0.5,
        "encoder_steps": 4,
        "variance_steps": 2,
        "search_steps": 4,
        "slots": BATCH,
        "terms": {"residual_pca": 1.0, "structure_deficit": 0.3, "features": 0.1, "uncertainty": 0.1, "ssim": 0.0},
        "components": 1,
        "score_batch": BATCH,
        "precision": "fp32",
    },
    "atlas": {
        "crops": (0.75, 0.85),
        "tiles": (2, 4),
        "clips": (1.5, 2.5),
        "components": (2, 4),
        "side": 16,
        "score_batch": BATCH,
    },
    "anomalib": {"model": "Ganomaly", "steps": 2, "batch": 4, "score_batch": BATCH},
    "classifier": {
        "arch": "mobilenet_v3_small",
        "backbone_weights": "none",
        "epochs": 1,
        "frozen_epochs": 0,
        "batch": 8,
        "precision": "fp32",
        "score_batch": BATCH,
    },
    "feature-gaussian": {**RANDOM, "layers": ("layer1",)},
    "padim": {**RANDOM, "layers": ("layer1", "layer2"), "features": 20},
    "patchcore": {**RANDOM, "layers": ("layer1", "layer2"), "bank_mb": 0.1},
    "pixel-stats": {"score_batch": BATCH},
    "retinanet": {
        "backbone": "test_resnet",
        "backbone_weights": "none",
        "width": 8,
        "epochs": 1,
        "warmup": 0,
        "score_threshold": 0.0,
        "precision": "fp32",
        "score_batch": BATCH,
    },
}
"""Every registered method, shrunk to about a second or less."""

OTHERS: dict[str, dict[str, Any]] = {"classifier, another network": {"arch": "squeezenet1_1", "stages": 2}}
"""Further cases: a method's name, what is after the comma to tell it by, and what else is set."""


@dataclass(frozen=True)
class Case:
    """One method with its films and one fitted detector; tests must not fit this one again."""

    method: str
    train: Float32
    films: Float32
    fitted: Detector

    settings: dict[str, Any]

    def new(self, *, seed: int = 0, **settings: Any) -> Detector:
        return build(self.method, seed=seed, **{**self.settings, **settings})


def fit(detector: Detector, films: Float32, groups: Any = None) -> Detector:
    """Fit, with every other film called abnormal, in a box of its own, where a method needs labels or boxes."""
    boxes = np.array([[8, 8, 24, 20]], np.float32)
    labels = [Target(i % 2, ("normal", "sick")[i % 2], boxes[: i % 2]) for i in range(len(films))]
    return detector.fit(ArraySource(films, groups), labels if detector.supervised else None)


def build(method: str, *, seed: int = 0, **settings: Any) -> Detector:
    cls = detector_class(method)
    detector: Detector = cls(cls.Config(**{**SMALL[method], **settings}), size=SIZE, device="cpu", seed=seed)
    return detector


def coloured(grey: Float32) -> Float32:
    return np.concatenate([grey, 0.8 * grey, -0.5 * grey], axis=1).astype(np.float32)


def same(a: DetectorOutput, b: DetectorOutput) -> None:
    np.testing.assert_array_equal(a.scores, b.scores)
    for one, other in ((a.heatmaps, b.heatmaps), (a.twin, b.twin), (a.features, b.features)):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)
    assert (a.boxes is None) == (b.boxes is None)
    for boxes, others in zip(a.boxes or (), b.boxes or (), strict=True):
        np.testing.assert_array_equal(boxes, others)
    assert a.terms.keys() == b.terms.keys()
    assert a.term_maps.keys() == b.term_maps.keys()
    for name in a.terms:
        np.testing.assert_array_equal(a.terms[name], b.terms[name])
    for name in a.term_maps:
        np.testing.assert_array_equal(a.term_maps[name], b.term_maps[name])


def rows(output: DetectorOutput, index: Any) -> DetectorOutput:
    return DetectorOutput(
        output.scores[index],
        None if output.heatmaps is None else output.heatmaps[index],
        None if output.twin is None else output.twin[index],
        {name: values[index] for name, values in output.terms.items()},
        {name: values[index] for name, values in output.term_maps.items()},
        None if output.features is None else output.features[index],
        None if output.boxes is None else output.boxes[index],
    )


@pytest.fixture(scope="module", params=[*sorted(METHODS), *OTHERS])
def case(request: pytest.FixtureRequest, phantom_images: Callable[..., Float32]) -> Case:
    images = phantom_images(30, SIZE)
    train, films = images[:20], images[20:]
    method, settings = request.param.partition(",")[0], OTHERS.get(request.param, {})
    return Case(method, train, films, fit(build(method, **settings), train), settings)


def test_every_registered_method_is_in_this_suite() -> None:
    assert set(SMALL) == set(METHODS)


def test_a_method_is_registered_under_its_own_name(case: Case) -> None:
    assert detector_class(case.method).name == case.method
    assert detector_class(case.method).supervised == (case.method in SUPERVISED)


def test_outputs_have_the_promised_shapes_types_and_ranges(case: Case) -> None:
    out = case.fitted.score(case.films)
    n = len(case.films)
    assert out.scores.shape == (n,)
    assert out.heatmaps is not None
    assert out.heatmaps.shape == (n, SIZE, SIZE)
    assert out.heatmaps.min() >= 0
    arrays = {"scores": out.scores, "heatmaps": out.heatmaps, **out.terms}
    if out.twin is not None:
        assert out.twin.shape == case.films.shape
        assert np.abs(out.twin).max() <= 1
        arrays["twin"] = out.twin
    if out.features is not None:
        assert out.features.shape[0] == n
        assert 2 <= out.features.shape[1] <= 64
        arrays["features"] = out.features
    if out.boxes is not None:
        assert len(out.boxes) == n
        for boxes, score in zip(out.boxes, out.scores, strict=True):
            assert boxes.shape[1] == 5
            assert (np.diff(boxes[:, 4]) <= 0).all(), "the most confident first"
            assert boxes[0, 4] == score
        arrays["boxes"] = np.concatenate(out.boxes)
    for name, array in arrays.items():
        assert array.dtype == np.float32, name
        assert np.isfinite(array).all(), name
    assert all(term.shape == (n,) for term in out.terms.values())


def test_scoring_twice_gives_the_same_bits(case: Case) -> None:
    same(case.fitted.score(case.films), case.fitted.score(case.films))


def test_one_image_one_answer_whatever_the_others_are(case: Case) -> None:
    """Alone, in another order, among others, at every place of a chunk, with a padded last chunk."""
    together = case.fitted.score(case.films)
    assert len(case.films) % BATCH, "the last chunk is padded"
    backwards = case.fitted.score(case.films[::-1])
    same(together, rows(backwards, slice(None, None, -1)))
    for i in range(len(case.films)):
        same(rows(together, slice(i, i + 1)), case.fitted.score(case.films[i : i + 1]))
    probe, others = case.films[:1], np.ones_like(case.films[1:])
    for place in range(2 * BATCH):
        among = np.concatenate([others[:place], probe, others[place:]])
        same(rows(together, slice(0, 1)), rows(case.fitted.score(among), slice(place, place + 1)))


def test_scoring_leaves_its_input_alone(case: Case) -> None:
    films = case.films.copy()
    films.setflags(write=False)
    case.fitted.score(films)
    np.testing.assert_array_equal(films, case.films)


def test_fitting_leaves_its_input_and_the_global_random_states_alone(case: Case) -> None:
    train = case.train.copy()
    train.setflags(write=False)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    fit(case.new(), train)
    np.testing.assert_array_equal(train, case.train)
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_no_heatmaps_means_none_and_the_same_scores(case: Case) -> None:
    out = case.fitted.score(case.films, heatmaps=False)
    assert out.heatmaps is None
    assert out.twin is None
    shown = case.fitted.score(case.films)
    np.testing.assert_array_equal(out.scores, shown.scores)
    assert (out.features is None) == (shown.features is None)


@pytest.mark.parametrize("heatmaps", [True, False])
def test_no_images_give_empty_outputs_of_the_usual_form(case: Case, heatmaps: bool) -> None:
    usual = case.fitted.score(case.films, heatmaps=heatmaps)
    same(rows(usual, slice(0, 0)), case.fitted.score(case.films[:0], heatmaps=heatmaps))


def test_saved_and_loaded_it_scores_the_same_bits(case: Case, tmp_path: Path) -> None:
    case.fitted.save(tmp_path)
    loaded = type(case.fitted).load(tmp_path, device="cpu")
    assert (loaded.config, loaded.size, loaded.seed) == (case.fitted.config, SIZE, case.fitted.seed)
    same(case.fitted.score(case.films), loaded.score(case.films))


def test_what_is_saved_is_safetensors_and_json_only(case: Case, tmp_path: Path) -> None:
    case.fitted.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert {path.suffix for path in files} <= {".safetensors", ".json"}
    for path in files:  # each is what its name says
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            assert read_tensors(path)[0]


def test_saving_twice_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    case.fitted.save(tmp_path / "a")
    case.fitted.save(tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_the_same_seed_gives_the_same_fit(case: Case) -> None:
    same(case.fitted.score(case.films), fit(case.new(), case.train).score(case.films))


def test_a_second_fit_forgets_the_first(case: Case) -> None:
    twice = fit(fit(case.new(), -case.train), case.train)
    same(case.fitted.score(case.films), twice.score(case.films))


def test_a_failed_fit_leaves_nothing_fitted(case: Case) -> None:
    detector = fit(case.new(), case.train)
    with pytest.raises(DataError):
        fit(detector, case.train + 3)
    with pytest.raises(ModelError):
        detector.score(case.films)


def test_unfitted_it_neither_scores_nor_saves(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"fit"):
        case.new().score(case.films)
    with pytest.raises(ModelError, match=r"fit"):
        case.new().save(tmp_path)
    assert not list(tmp_path.iterdir())


WRONG: dict[str, Callable[[Float32], Any]] = {
    "above the range": lambda films: films + 2,
    "below the range": lambda films: films - 2,
    "NaN": lambda films: np.where(films > films.mean(), np.float32(np.nan), films),
    "infinity": lambda films: np.where(films > films.mean(), np.float32(np.inf), films),
    "float64": lambda films: films.astype(np.float64),
    "uint8": lambda films: films.astype(np.uint8),
    "no channels": lambda films: films[:, 0],
    "two channels": lambda films: np.repeat(films, 2, axis=1),
    "another size": lambda films: films[..., :-1],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_images_that_break_the_contract_are_refused(case: Case, wrong: str) -> None:
    films = WRONG[wrong](case.films)
    with pytest.raises(DataError, match=str(SIZE)):
        case.fitted.score(films)
    with pytest.raises(DataError, match=str(SIZE)):
        fit(case.new(), films)


def test_one_wrong_image_late_in_the_source_is_refused(case: Case) -> None:
    films = case.train.copy()
    films[-1, 0, 3, 3] = np.nan
    with pytest.raises(DataError):
        fit(case.new(), films)


def test_images_with_other_channels_than_fitted_are_refused(case: Case) -> None:
    with pytest.raises(DataError, match="1"):
        case.fitted.score(coloured(case.films))


def test_a_fit_on_no_images_is_refused(case: Case) -> None:
    with pytest.raises(DataError, match="at least one"):
        fit(case.new(), case.train[:0])


def test_labels_are_refused_by_an_unsupervised_method_and_needed_by_a_supervised_one(case: Case) -> None:
    labels = [Target(i % 2) for i in range(len(case.train))]
    given = None if case.fitted.supervised else labels
    with pytest.raises(UsageError, match="label"):
        case.new().fit(ArraySource(case.train), given)


HOLDS_OUT = {"anogan", "atlas", "classifier", "retinanet"}
"""Methods that hold part of the films out inside fit, by patient."""


def test_patient_groups_move_only_a_fit_that_holds_part_of_the_films_out(case: Case) -> None:
    if case.method in HOLDS_OUT:
        pairs = np.arange(len(case.train), dtype=np.int64) // 2
        paired = fit(case.new(), case.train, pairs).score(case.films)
        assert (paired.scores != case.fitted.score(case.films).scores).any()
        return
    groups = np.zeros(len(case.train), np.int64)
    same(case.fitted.score(case.films), fit(case.new(), case.train, groups).score(case.films))


def test_colour_images_fit_save_and_score(case: Case, tmp_path: Path) -> None:
    detector = fit(case.new(), coloured(case.train))
    films = coloured(case.films)
    out = detector.score(films)
    assert out.heatmaps is not None
    assert out.heatmaps.shape == (len(films), SIZE, SIZE)
    assert out.twin is None or out.twin.shape == films.shape
    detector.save(tmp_path)
    same(out, type(detector).load(tmp_path, device="cpu").score(films))
    same(rows(out, slice(3, 4)), detector.score(films[3:4]))


def test_another_methods_weights_are_refused(case: Case, tmp_path: Path) -> None:
    case.fitted.save(tmp_path)
    other = next(method for method in METHODS if method != case.method)
    with pytest.raises(ModelError, match=case.method):
        detector_class(other).load(tmp_path, device="cpu")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(case: Case, tmp_path: Path, share: float) -> None:
    case.fitted.save(tmp_path)
    file = tmp_path / WEIGHTS
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=WEIGHTS):
        type(case.fitted).load(tmp_path, device="cpu")


def test_missing_weights_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=WEIGHTS):
        type(case.fitted).load(tmp_path, device="cpu")


def test_weights_that_lack_an_array_or_have_it_in_another_shape_are_refused(case: Case, tmp_path: Path) -> None:
    case.fitted.save(tmp_path)
    arrays, meta = read_tensors(tmp_path / WEIGHTS)
    largest = max(arrays, key=lambda name: arrays[name].size)
    for damaged in (
        {k: v for k, v in arrays.items() if k != largest},
        {**arrays, largest: arrays[largest][:1, ..., :1]},
    ):
        write_tensors(tmp_path / WEIGHTS, damaged, meta)
        with pytest.raises(ModelError, match=WEIGHTS):
            type(case.fitted).load(tmp_path, device="cpu")


@pytest.mark.parametrize("lacking", ["config", "size", "channels", "seed"])
def test_weights_that_do_not_describe_themselves_are_refused(case: Case, tmp_path: Path, lacking: str) -> None:
    case.fitted.save(tmp_path)
    arrays, meta = read_tensors(tmp_path / WEIGHTS)
    write_tensors(tmp_path / WEIGHTS, arrays, {k: v for k, v in meta.items() if k != lacking})
    with pytest.raises(ModelError, match=WEIGHTS):
        type(case.fitted).load(tmp_path, device="cpu")


def test_weights_with_an_unknown_setting_are_refused(case: Case, tmp_path: Path) -> None:
    case.fitted.save(tmp_path)
    arrays, meta = read_tensors(tmp_path / WEIGHTS)
    write_tensors(tmp_path / WEIGHTS, arrays, {**meta, "config": {**meta["config"], "of_the_future": 1}})
    with pytest.raises(ModelError, match="of_the_future"):
        type(case.fitted).load(tmp_path, device="cpu")


def strange_inside(case: Case) -> tuple[Float32, Any]:
    """Return a mask of each film, all but a corner of its own size, and other values for what it leaves out."""
    inside = np.ones((len(case.films), SIZE, SIZE), np.bool_)
    for i, mask in enumerate(inside):
        mask[: 2 * i, : 3 + i] = False
    noise = np.random.default_rng(1).uniform(-1, 1, case.films.shape).astype(np.float32)
    return inside, np.where(inside[:, None], case.films, noise)


def test_all_inside_is_the_same_as_no_mask(case: Case) -> None:
    inside = np.ones((len(case.films), SIZE, SIZE), np.bool_)
    same(case.fitted.score(case.films), case.fitted.score(case.films, inside=inside))


def test_a_map_is_nothing_outside_the_film_and_the_mask_is_each_images_own(case: Case) -> None:
    inside, _ = strange_inside(case)
    out = case.fitted.score(case.films, inside=inside)
    assert out.heatmaps is not None
    for heat in (out.heatmaps, *out.term_maps.values()):
        assert not heat[~inside].any()
        assert heat[inside].any()
    for i in (0, len(case.films) - 1):
        same(rows(out, slice(i, i + 1)), case.fitted.score(case.films[i : i + 1], inside=inside[i : i + 1]))


BLIND_OUTSIDE: dict[str, dict[str, Any]] = {"pixel-stats": {}}
"""Methods, with settings, whose answer does not depend to the last bit on what lies outside the film."""


@pytest.mark.parametrize("method", BLIND_OUTSIDE)
def test_what_lies_outside_the_film_cannot_move_the_answer(method: str, phantom_images: Callable[..., Float32]) -> None:
    images = phantom_images(30, SIZE)
    fitted = build(method, **BLIND_OUTSIDE[method]).fit(ArraySource(images[:20]))
    case = Case(method, images[:20], images[20:], fitted, {})
    inside, other = strange_inside(case)
    one, two = (fitted.score(films, inside=inside) for films in (case.films, other))
    same(one, two)
    assert (one.scores[1:] != fitted.score(case.films).scores[1:]).any()


WRONG_INSIDE: dict[str, Callable[[int], Any]] = {
    "numbers": lambda n: np.ones((n, SIZE, SIZE), np.uint8),
    "too few": lambda n: np.ones((n - 1, SIZE, SIZE), np.bool_),
    "with channels": lambda n: np.ones((n, 1, SIZE, SIZE), np.bool_),
    "another size": lambda n: np.ones((n, SIZE, SIZE + 1), np.bool_),
    "no film at all": lambda n: np.zeros((n, SIZE, SIZE), np.bool_),
}


@pytest.mark.parametrize("wrong", WRONG_INSIDE)
def test_a_mask_that_breaks_the_contract_is_refused(case: Case, wrong: str) -> None:
    with pytest.raises(DataError, match="inside"):
        case.fitted.score(case.films, inside=WRONG_INSIDE[wrong](len(case.films)))


LESION_FINDERS: dict[str, dict[str, Any]] = {
    "pixel-stats": {},
    "atlas": {"score_batch": 20},
    "padim": {"layers": ("layer1",)},
    "patchcore": {"layers": ("layer1",)},
    "anogan": {
        "latent": 8,
        "width": 8,
        "steps": 200,
        "batch": 16,
        "holdout": 0.5,
        "encoder_steps": 40,
        "search_steps": 10,
        "terms": {"residual_pca": 1.0, "structure_deficit": 0.3},
        "score_batch": 20,
        "slots": 20,
    },
}


@pytest.mark.parametrize("method", LESION_FINDERS)
def test_a_planted_lesion_scores_higher_and_the_map_peaks_on_it(
    method: str, phantom_images: Callable[..., Float32]
) -> None:
    images = phantom_images(68, SIZE)
    train, held_out = images[:48], images[48:]
    y, x = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(x - 0.3 * SIZE, y - 0.45 * SIZE)
    blob = 1.5 * np.exp(-0.5 * (distance / (SIZE / 8 / 1.1774)) ** 2)  # half its height a quarter of the width apart
    planted = np.clip(held_out + blob, -1, 1).astype(np.float32)
    detector = build(method, **LESION_FINDERS[method]).fit(ArraySource(train))
    without, with_lesion = detector.score(held_out), detector.score(planted)
    assert with_lesion.heatmaps is not None
    peaks = with_lesion.heatmaps.reshape(len(planted), -1).argmax(axis=1)
    assert len(planted) == 20
    assert (with_lesion.scores > without.scores).sum() > 10
    assert (distance.ravel()[peaks] <= SIZE / 8).sum() > 10
