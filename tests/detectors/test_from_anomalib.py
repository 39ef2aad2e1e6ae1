"""anomalib's models behind the one interface: their own scores, our weights, nothing from a network, nothing left."""

from __future__ import annotations

import inspect
import logging
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomaly.config import load_recipe
from anomaly.detectors.base import WEIGHTS
from anomaly.detectors.from_anomalib.build import build, models, prepared, state_of
from anomaly.detectors.from_anomalib.catalogue import ENTRIES, catalogue, find_entry
from anomaly.detectors.from_anomalib.detector import AnomalibConfig, FromAnomalib
from anomaly.detectors.from_anomalib.fences import drawn_by, quiet
from anomaly.detectors.pooling import pool
from anomaly.errors import MissingError, ModelError, UsageError
from anomaly.nets.zoo import build as build_network
from anomaly.prepare.source import ArraySource
from anomaly.records import DetectorOutput, Float32
from anomaly.runs import Arrays, NullRecorder, read_tensors, write_tensors
from anomaly.weights import WeightsFacts, store_weights

SIZE = 32

SMALL: dict[str, dict[str, Any]] = {
    "Stfpm": {},
    "Fastflow": {"options": {"flow_steps": 2}},
    "Ganomaly": {"options": {"n_features": 8, "latent_vec_size": 8}},
}
"""Models whose fits the tests look at closely."""


class Told(NullRecorder):
    """Remembers everything it is told."""

    def __init__(self) -> None:
        self.scalars: list[tuple[int, str, float]] = []
        self.steps: list[tuple[int, int, str]] = []
        self.warnings: list[str] = []

    def scalar(self, step: int, name: str, value: float) -> None:
        self.scalars.append((step, name, value))

    def progress(self, done: int, total: int, what: str) -> None:
        self.steps.append((done, total, what))

    def warn(self, words: str) -> None:
        self.warnings.append(words)

    def trained(self) -> list[tuple[int, int]]:
        return [(done, total) for done, total, what in self.steps if what == "training"]


def new(model: str = "Stfpm", *, size: int = SIZE, seed: int = 0, **settings: Any) -> FromAnomalib:
    small = {"backbone_weights": "none", "steps": 3, "batch": 4, **SMALL.get(model, {}), **settings}
    return FromAnomalib(AnomalibConfig(model=model, **small), size=size, device="cpu", seed=seed)


@pytest.fixture(scope="module")
def films(phantom_images: Callable[..., Float32]) -> Float32:
    return phantom_images(20, SIZE)


@pytest.fixture(scope="module")
def fitted(films: Float32) -> dict[str, FromAnomalib]:
    return {model: new(model).fit(ArraySource(films[:12])) for model in SMALL}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a weights folder of the test's own, empty."""
    monkeypatch.setenv("ANOMALY_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def same(a: DetectorOutput, b: DetectorOutput) -> None:
    np.testing.assert_array_equal(a.scores, b.scores)
    for one, other in ((a.heatmaps, b.heatmaps), (a.twin, b.twin)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(one, other)


def test_the_catalogue_is_every_image_model_of_anomalib() -> None:
    names = [row["name"] for row in catalogue()]
    assert sorted(names) == sorted(models().__all__)
    assert names == sorted(names, key=str.lower)
    assert all(row["needs"] and row["status"] in ("tested", "tried", "refused") for row in catalogue())
    assert {row["name"] for row in catalogue() if row["status"] == "tested"} == set(SMALL)
    assert [row["needs"] for row in catalogue() if row["name"] == "Stfpm"] == ["weights of resnet18"]


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.refused is None])
def test_the_catalogue_knows_the_backbone_a_constructor_would_take(name: str) -> None:
    entry, takes = ENTRIES[name], inspect.signature(getattr(models(), name)).parameters
    naming = {"backbone", "encoder_name", "teacher_backbone"} & takes.keys()
    assert naming == ({entry.option} if entry.option else set())
    if entry.option:
        assert takes[entry.option].default == entry.default
        assert entry.backbones({entry.option: "resnet34"}) == ("resnet34",)


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys; from anomaly.detectors.from_anomalib.catalogue import catalogue; catalogue(); "
        "sys.exit(bool({'torch', 'anomalib', 'lightning', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_is_found_whatever_its_case_and_an_unknown_one_gets_a_hint() -> None:
    assert find_entry("STFPM").name == "Stfpm"
    with pytest.raises(UsageError, match=r"'stfmp'.*did you mean 'Stfpm'"):
        new("stfmp")
    with pytest.raises(UsageError, match="'xyz'; Stfpm is one"):
        new("xyz")


@pytest.mark.parametrize(
    ("model", "kind", "reason"),
    [
        ("EfficientAd", MissingError, "ImageNette"),
        ("Dsr", MissingError, "downloads"),
        ("WinClip", MissingError, "downloads"),
        ("AnomalyVFM", MissingError, "downloads"),
        ("VlmAd", MissingError, "network"),
        ("Dfkde", UsageError, "no map"),
        ("CFM", UsageError, "point clouds"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_before_a_film_is_read(
    model: str, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=rf"{model} cannot be had here: .*{reason}"):
        new(model)
    assert ENTRIES[model].status == "refused"


def test_options_are_checked_against_the_constructor() -> None:
    for wrong, hint in (("bakbone", "did you mean 'backbone'"), ("evaluator", "known: .*layers")):
        with pytest.raises(UsageError, match=f"Stfpm has no option '{wrong}'.*{hint}"):
            new(options={wrong: "resnet18"})
    with pytest.raises(UsageError, match="one of add, multiply, not 'sum'"):
        new("ReverseDistillation", options={"anomaly_map_mode": "sum"})
    with pytest.raises(UsageError, match="'pre_trained'"):
        new("Padim", options={"pre_trained": True})


def test_options_that_make_no_model_are_refused_with_anomalibs_reason(films: Float32) -> None:
    with pytest.raises(UsageError, match=r"Fastflow cannot be built.*Backbone resnet34 is not supported"):
        new("Fastflow", options={"backbone": "resnet34"}).fit(ArraySource(films))
    with pytest.raises(UsageError, match=r"Fre could not be trained on images of 32 pixels.*shapes"):
        new("Fre", options={"backbone": "resnet18"}).fit(ArraySource(films))


def test_pictures_for_textures_are_needed_in_the_fit_alone_and_never_downloaded(
    films: Float32, no_network: None
) -> None:
    options = {"dtd_dir": "nowhere"}
    with pytest.raises(MissingError, match="no folder nowhere"):
        new("Draem", options=options).fit(ArraySource(films))
    with drawn_by(0), quiet():
        assert build(find_entry("Draem"), options, SIZE, None, fitting=False).std == (1, 1, 1)


def test_an_option_that_yaml_reads_as_text_is_a_number(films: Float32) -> None:
    options = {"n_features": 8, "latent_vec_size": 8}
    text, number = (new("Ganomaly", options={**options, "lr": lr}).fit(ArraySource(films)) for lr in ("1e-3", 1e-3))
    same(text.score(films), number.score(films))


@pytest.mark.parametrize("model", SMALL)
def test_outputs_are_as_promised(model: str, fitted: dict[str, FromAnomalib], films: Float32) -> None:
    out = fitted[model].score(films)
    assert out.heatmaps is not None
    assert out.scores.shape == (20,)
    assert out.heatmaps.shape == (20, SIZE, SIZE)
    for array in (out.scores, out.heatmaps):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert out.heatmaps.min() >= 0
    assert (out.scores[1:] != out.scores[0]).all()
    assert fitted[model].score(films, heatmaps=False).heatmaps is None
    assert fitted[model].runs_on() == "cpu fp32"


@pytest.mark.parametrize("model", SMALL)
def test_raw_scores_and_maps_are_those_of_anomalibs_own_module(
    model: str, fitted: dict[str, FromAnomalib], films: Float32
) -> None:
    cls = getattr(models(), model)
    options = SMALL[model].get("options", {})
    with pytest.MonkeyPatch.context() as patch:
        import timm

        create = timm.create_model
        patch.setattr(timm, "create_model", lambda name, pretrained=False, **how: create(name, **how))
        own = cls(
            **options, pre_processor=cls.configure_pre_processor((SIZE, SIZE)), post_processor=False, visualizer=False
        )
    own.load_state_dict(
        {name: torch.from_numpy(array) for name, array in state_of(fitted[model]._built.module).items()}
    )
    own.eval()
    with torch.no_grad():
        pictures = torch.from_numpy((films + 1) / 2).repeat(1, 3, 1, 1)
        wanted = [own(picture[None]) for picture in pictures]
    out = fitted[model].score(films)
    np.testing.assert_allclose(out.scores, [float(found.pred_score) for found in wanted], rtol=1e-4)
    if model == "Ganomaly":
        return
    assert out.heatmaps is not None
    raw = np.stack([found.anomaly_map.numpy().reshape(SIZE, SIZE) for found in wanted])
    np.testing.assert_allclose(out.heatmaps, np.maximum(raw - fitted[model]._floor, 0), rtol=1e-3, atol=1e-5)


def test_maps_that_go_below_zero_are_lifted_by_what_training_normals_show(
    fitted: dict[str, FromAnomalib], films: Float32
) -> None:
    assert fitted["Stfpm"]._floor == 0
    assert fitted["Fastflow"]._floor < 0
    heat = fitted["Fastflow"].score(films[:12]).heatmaps
    assert heat is not None
    assert heat.min() == 0
    assert np.count_nonzero(heat == 0) < 12


def test_ganomaly_draws_a_twin_and_its_map_is_the_difference(
    fitted: dict[str, FromAnomalib], films: Float32, phantom_images: Callable[..., Float32]
) -> None:
    out = fitted["Ganomaly"].score(films)
    assert out.twin is not None
    assert out.heatmaps is not None
    assert out.twin.shape == films.shape
    np.testing.assert_array_equal(out.heatmaps, np.abs(films - out.twin)[:, 0])
    odd = phantom_images(6, 40)  # works on 64 x 64, with a border around
    detector = new("Ganomaly", size=40).fit(ArraySource(odd))
    module, border = detector._built.module, torch.nn.ConstantPad2d(12, 0.0)
    with torch.no_grad():
        drawn = module.model.generator(border(prepared(odd[:1], detector._built)))[0][0, :, 12:52, 12:52]
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    twin = detector.score(odd[:1]).twin
    assert twin is not None
    np.testing.assert_allclose(twin[0, 0], 2 * (drawn * std + mean).mean(dim=0) - 1, atol=1e-5)


def test_colour_films_fit_and_are_redrawn_in_colour(films: Float32) -> None:
    colour = np.concatenate([films, 0.5 * films, -films], axis=1).astype(np.float32)
    out = new("Ganomaly").fit(ArraySource(colour)).score(colour[:3])
    assert out.twin is not None
    assert out.twin.shape == (3, 3, SIZE, SIZE)
    assert (out.twin[:, 0] != out.twin[:, 1]).any()


@pytest.mark.parametrize("model", SMALL)
def test_the_same_seed_gives_the_same_fit_and_another_one_another(
    model: str, fitted: dict[str, FromAnomalib], films: Float32
) -> None:
    source = ArraySource(films[:12])
    same(fitted[model].score(films), new(model).fit(source).score(films))
    assert (new(model, seed=1).fit(source).score(films).scores != fitted[model].score(films).scores).all()


@pytest.mark.parametrize("model", SMALL)
def test_loading_needs_no_network_and_gives_the_same_bits(
    model: str, fitted: dict[str, FromAnomalib], films: Float32, tmp_path: Path, no_network: None
) -> None:
    fitted[model].save(tmp_path)
    loaded = FromAnomalib.load(tmp_path, device="cpu")
    same(fitted[model].score(films), loaded.score(films))
    assert loaded.made_of() == fitted[model].made_of()


def test_an_image_alone_scores_as_among_others_though_the_model_mixes_a_batch(films: Float32) -> None:
    """Cflow takes the largest probability of all images of a batch for its yardstick."""
    options = {"backbone": "resnet18", "layers": ["layer1"], "coupling_blocks": 1, "fiber_batch_size": 16}
    fitted = new("Cflow", options=options, score_batch=4).fit(ArraySource(films[:12]))
    among, alone = fitted.score(films[12:]), fitted.score(films[15:16])
    assert among.heatmaps is not None
    assert alone.heatmaps is not None
    np.testing.assert_array_equal(among.scores[3:4], alone.scores)
    np.testing.assert_array_equal(among.heatmaps[3:4], alone.heatmaps)


def test_a_memory_bank_is_made_in_one_pass_and_travels_with_the_model(
    films: Float32, tmp_path: Path, no_network: None
) -> None:
    told = Told()
    fitted = new("Padim", options={"n_features": 8}, steps=1).fit(ArraySource(films[:11]), recorder=told)
    assert told.trained() == [(1, 3), (2, 3), (3, 3)]
    assert told.scalars == []
    fitted.save(tmp_path)
    same(fitted.score(films), FromAnomalib.load(tmp_path, device="cpu").score(films))
    arrays, meta = read_tensors(tmp_path / WEIGHTS)
    bank = "module/model.gaussian.inv_covariance"
    write_tensors(tmp_path / WEIGHTS, {**arrays, bank: arrays[bank][:1, ..., :1]}, meta)
    with pytest.raises(ModelError, match="other shapes"):
        FromAnomalib.load(tmp_path, device="cpu")


@pytest.mark.parametrize(("steps", "batch"), [(2, 4), (7, 5), (3, 32)])
def test_it_trains_for_so_many_steps_and_the_recorder_hears_of_each(films: Float32, steps: int, batch: int) -> None:
    told = Told()
    new(steps=steps, batch=batch).fit(ArraySource(films), recorder=told)
    assert told.trained() == [(step, steps) for step in range(1, steps + 1)]
    assert [(step, name) for step, name, _ in told.scalars] == [(step, "train_loss") for step in range(1, steps + 1)]
    assert all(np.isfinite(value) for _, _, value in told.scalars)
    assert told.scalars[0][2] != told.scalars[-1][2]


def test_steps_are_batches_where_two_networks_take_turns(films: Float32) -> None:
    told = Told()
    new("Ganomaly", steps=4).fit(ArraySource(films), recorder=told)
    assert told.trained() == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {name for _, name, _ in told.scalars} == {"generator_loss", "discriminator_loss"}


def test_random_backbones_and_what_anomalib_warns_of_are_told(films: Float32) -> None:
    told = Told()
    new(options={"layers": ["layer1", "layer9"]}, steps=1).fit(ArraySource(films), recorder=told)
    assert any("random weights" in words for words in told.warnings)
    assert any("anomalib says" in words and "layer9" in words for words in told.warnings)
    silent = Told()
    new("Ganomaly", steps=1).fit(ArraySource(films), recorder=silent)
    assert silent.warnings == []


def test_a_fit_leaves_nothing_behind(
    films: Float32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import timm
    import tqdm

    def states() -> tuple[Any, ...]:
        loggers = [logging.getLogger(name) for name in ("anomalib", "lightning.pytorch", "lightning.fabric")]
        logs = [(log.level, log.propagate, list(log.handlers)) for log in loggers]
        legacy = np.random.get_state()  # noqa: NPY002
        return (
            timm.create_model,
            tqdm.tqdm.__init__,
            logs,
            random.getstate(),
            str(legacy),
            torch.get_rng_state().tolist(),
        )

    monkeypatch.chdir(tmp_path)
    options = {"backbone": "resnet18", "layers": ["layer1"]}
    new("Patchcore", options=options).fit(ArraySource(films[:4]))  # which shows a bar of its own
    new().fit(ArraySource(films[:4]))
    before = states()
    capfd.readouterr()
    new("Patchcore", options=options).fit(ArraySource(films[:4]))
    new().fit(ArraySource(films[:4]))
    assert states() == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_stops_a_fit_and_the_next_one_still_does(films: Float32) -> None:
    class Interrupts(Told):
        def progress(self, done: int, total: int, what: str) -> None:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        new().fit(ArraySource(films), recorder=Interrupts())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_that_ends_in_no_numbers_is_refused(films: Float32) -> None:
    with pytest.raises(UsageError, match="no numbers"):
        new("Ganomaly", options={"n_features": 8, "lr": 1e30}, steps=1).fit(ArraySource(films))


def test_pooling_takes_the_score_from_the_raw_map(films: Float32) -> None:
    inside = np.ones((20, SIZE, SIZE), np.bool_)
    inside[:, :10] = False
    own = new("Fastflow").fit(ArraySource(films)).score(films, inside=inside)
    for pooling in ("mean", "top", "max"):
        fitted = new("Fastflow", pooling=pooling).fit(ArraySource(films))
        out = fitted.score(films, inside=inside)
        raw = np.stack([fitted._look(film)[1] for film in films])
        np.testing.assert_array_equal(out.scores, pool(raw, inside, pooling, 0.1))
        assert (out.scores != own.scores).any()


def resnet18(*, without: str = "", seed: int = 3) -> Arrays:
    """Return random weights of resnet18 in half precision, cut off behind layer3 as the shared file is."""
    from anomaly.nets.device import seeded

    with seeded(seed):
        state = build_network("resnet18").state_dict()
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(("layer4", "fc"))}
    return {name: tensor.half().numpy() for name, tensor in kept.items() if not without or without not in name}


def test_without_weights_a_fit_says_how_to_get_them(films: Float32, folder: Path) -> None:
    with pytest.raises(MissingError, match="resnet18"):
        new(backbone_weights="pretrained").fit(ArraySource(films))


def test_only_the_teacher_takes_weights_from_the_folder(films: Float32, folder: Path, no_network: None) -> None:
    weights = resnet18()
    stored = store_weights(weights, WeightsFacts("resnet18", "a test"))
    told = Told()
    detector = new(backbone_weights="pretrained")
    assert detector.backbone == "resnet18"
    detector.fit(ArraySource(films), recorder=told)
    assert told.warnings == []
    state = state_of(detector._built.module)
    for name in ("conv1.weight", "layer3.1.conv2.weight"):
        teacher = state[f"model.teacher_model.feature_extractor.{name}"]
        np.testing.assert_array_equal(teacher, weights[name].astype(np.float32))
        assert (state[f"model.student_model.feature_extractor.{name}"] != teacher).mean() > 0.9
    assert detector.made_of() == {"model": "Stfpm", "backbone": "resnet18", "backbone_sha256": stored.sha256}


def test_networks_of_torchvision_take_weights_from_the_folder_too(
    films: Float32, folder: Path, tmp_path: Path, no_network: None
) -> None:
    weights = resnet18()
    stored = store_weights(weights, WeightsFacts("resnet18", "a test"))
    detector = new("Cfa", options={"backbone": "resnet18"}, backbone_weights="pretrained", steps=1)
    detector.fit(ArraySource(films))
    found = state_of(detector._built.module)["model.feature_extractor.conv1.weight"]
    np.testing.assert_array_equal(found, weights["conv1.weight"].astype(np.float32))
    detector.save(tmp_path)
    loaded = FromAnomalib.load(tmp_path, device="cpu")
    same(detector.score(films), loaded.score(films))
    assert loaded.made_of()["backbone_sha256"] == stored.sha256


def test_weights_that_do_not_serve_the_model_are_refused(films: Float32, folder: Path) -> None:
    whole = resnet18()
    wrong = {**whole, "conv1.weight": whole["conv1.weight"][:, :1]}
    for weights, reason in ((resnet18(without="layer3"), "lacks .*layer3"), (wrong, "conv1.weight has shape")):
        store_weights(weights, WeightsFacts("resnet18", "a test"), overwrite=True)
        with pytest.raises(ModelError, match=reason):
            new(backbone_weights="pretrained").fit(ArraySource(films))


def test_weights_that_want_another_input_are_told_of(films: Float32, folder: Path) -> None:
    half = (0.5, 0.5, 0.5)
    store_weights(resnet18(), WeightsFacts("resnet18", "a test", half, half))
    told = Told()
    new(backbone_weights="pretrained", steps=1).fit(ArraySource(films), recorder=told)
    assert any("resnet18 want pictures of mean (0.5, 0.5, 0.5)" in words for words in told.warnings)


def test_what_a_fit_takes_from_the_folder_and_what_it_is_made_of(fitted: dict[str, FromAnomalib]) -> None:
    assert new().backbone is None
    assert new("Ganomaly", backbone_weights="pretrained").backbone is None
    other = {"backbone_weights": "pretrained", "options": {"backbone": "wide_resnet50_2"}}
    assert new("Fastflow", **other).backbone == "wide_resnet50_2"
    assert new("Uflow", backbone_weights="pretrained").backbone == "cait_m48_448"
    assert new("FoundAD", backbone_weights="pretrained").backbone == "vit_base_patch14_dinov2.lvd142m"
    assert fitted["Ganomaly"].made_of() == {"model": "Ganomaly"}
    assert fitted["Stfpm"].made_of()["backbone_sha256"] == "none: random weights"


def lesioned(films: Float32) -> Float32:
    """Return films with a strong bright blob, a quarter of the width across."""
    size = films.shape[-1]
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(x - 0.3 * size, y - 0.45 * size)
    blob = 1.5 * np.exp(-0.5 * (distance / (size / 8 / 1.1774)) ** 2)
    return np.clip(films + blob, -1, 1).astype(np.float32)


def test_a_student_of_a_random_teacher_finds_a_planted_lesion(phantom_images: Callable[..., Float32]) -> None:
    films = phantom_images(34, SIZE)
    fitted = new(steps=15, batch=12).fit(ArraySource(films[:24]))
    without, with_lesion = fitted.score(films[24:]), fitted.score(lesioned(films[24:]))
    assert (with_lesion.scores > without.scores).sum() > 5


@pytest.fixture
def shared_weights(shared_data: Path, folder: Path) -> Arrays:
    file = shared_data / "weights" / "resnet18_imagenet_conv1-layer3.safetensors"
    if not file.is_file():
        pytest.skip(f"no {file}")
    from safetensors.numpy import load_file

    tensors = load_file(file)
    store_weights(tensors, WeightsFacts("resnet18", file.name))
    return tensors


@pytest.mark.real
@pytest.mark.slow
def test_a_student_of_a_real_teacher_finds_a_planted_lesion(
    shared_weights: Arrays, phantom_images: Callable[..., Float32], tmp_path: Path, no_network: None
) -> None:
    films = phantom_images(34, 64)
    fitted = new(size=64, backbone_weights="pretrained", steps=15, batch=12).fit(ArraySource(films[:24]))
    without, with_lesion = fitted.score(films[24:]), fitted.score(lesioned(films[24:]))
    assert (with_lesion.scores > without.scores).sum() > 8
    fitted.save(tmp_path / "model")
    same(with_lesion, FromAnomalib.load(tmp_path / "model", device="cpu").score(lesioned(films[24:])))


def test_the_recipe_holds_the_defaults_of_the_code() -> None:
    recipe = load_recipe("anomalib")
    assert recipe.method == "anomalib"
    assert AnomalibConfig(**recipe.detector) == AnomalibConfig()
    assert recipe.detector.keys() == AnomalibConfig.model_fields.keys()
