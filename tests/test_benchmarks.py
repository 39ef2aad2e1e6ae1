"""Figures in the text are those of the committed results: nothing quoted can drift from its file."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anomaly.detectors.anogan.detector import AnoGan
from anomaly.detectors.anogan.scoring.match import Match
from anomaly.detectors.anogan.settings import AnoGanConfig
from anomaly.nets.dcgan import Discriminator, Generator, recompute_batch_norm
from anomaly.nets.device import seeded
from anomaly.records import ScanFile

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmark_of(monkeypatch):
    """Return a function that imports a benchmark's module afresh."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for path in (ROOT / "benchmarks").glob("*.py"):
        sys.modules.pop(path.stem, None)
    return importlib.import_module


@pytest.fixture
def figures(benchmark_of):
    return benchmark_of("figures")


def test_results_page_is_what_the_results_say(figures):
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == figures.results_page()


def test_figures_of_the_recipes_are_what_the_results_say(figures):
    assert json.loads((ROOT / "configs" / "dev_auroc.json").read_text(encoding="utf-8")) == figures.dev_auroc()


def test_times_of_the_recipes_are_what_the_results_say(figures):
    told = json.loads((ROOT / "configs" / "times.json").read_text(encoding="utf-8"))
    assert told == figures.figures_compare.times()


def test_figures_in_the_readme_are_what_the_results_say(figures):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert figures.readme_block() in readme


def test_every_result_names_its_command_and_versions():
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert results
    for path in results:
        found = json.loads(path.read_text(encoding="utf-8"))
        script = found["command"].split()[1]
        assert (ROOT / script).is_file(), path
        assert {"torch", "numpy", "anomaly"} <= set(found["versions"])


def test_draws_of_normals_keep_patients_whole_and_nest(benchmark_of):
    draw = benchmark_of("atlas_transfer").draw
    films = [
        ScanFile(f"{patient}-{n}", Path("x"), "x", patient=f"p{patient}")
        for patient in range(40)
        for n in range(1 + patient % 3)
    ]
    small, large, other = draw(films, 20, 0), draw(films, 40, 0), draw(films, 40, 1)
    assert [len({file.scan_id for file in drawn}) for drawn in (small, large, other)] == [20, 40, 40]
    for drawn in (small, large):
        patients = {file.patient for file in drawn}
        assert {file.scan_id for file in drawn} == {file.scan_id for file in films if file.patient in patients}
    assert {file.patient for file in small[:15]} <= {file.patient for file in large}
    assert {file.scan_id for file in large} != {file.scan_id for file in other}
    with pytest.raises(SystemExit, match="only"):
        draw(films, len(films) + 1, 0)


@pytest.mark.real
@pytest.mark.parametrize("name", ["kermany", "rsna"])
def test_parts_of_the_normals_share_no_patient(benchmark_of, shared_data, name):
    module = benchmark_of("anogan_films")
    files, parts = module.scan_files(name, "train"), module.split(name)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(files)))
    patients = [{files[place].patient or place for place in part} for part in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))
    shares = [len(part) / len(files) for part in parts.values()]
    assert shares == pytest.approx([0.68, 0.17, 0.15], abs=0.01)


def test_settings_of_search_and_score_ask_for_no_other_training(benchmark_of):
    module = benchmark_of("anogan_runs")
    assert set(module.SCORING) <= set(AnoGanConfig.model_fields)
    run, cut = module.Run.parse("kermany-default"), module.Run.parse("kermany-default", 100)
    asked = run._networks()["detector"]
    assert not set(asked) & {"search_steps", "terms", "components", "score_batch"}
    assert {"objective", "latent", "steps", "redraw", "encoder_steps"} <= set(asked)
    assert cut.config.encoder_steps == run.config.encoder_steps * 100 / run.config.steps
    assert run.folder != cut.folder
    assert module.Run.parse("rsna-latent-64-seed2") == module.Run("rsna", "latent-64", 2)
    assert module.Run.parse("kermany-untrained").config.steps == 10
    for wrong in ("kermany", "adults-default", "kermany-latent-9", "kermany-default-seedx"):
        with pytest.raises(SystemExit, match="SET-CELL"):
            module.Run.parse(wrong)


def test_swapped_twins_are_other_patients(benchmark_of):
    module = benchmark_of("anogan_twins")
    groups = np.repeat(np.arange(6), 2)
    films = np.random.default_rng(0).uniform(-1, 1, (12, 1, 4, 4)).astype(np.float32)
    inside, features = np.ones((12, 4, 4), bool), (films[:, :, :2, :2],)
    given = Match(films, films, inside, features, features)
    swapped = module.other_twins(given, groups)
    owner = [int(np.flatnonzero((films == twin).all(axis=(1, 2, 3)))[0]) for twin in swapped.twin]
    assert sorted(owner) == list(range(12))
    assert not np.any(groups[owner] == groups)
    assert np.array_equal(swapped.twin_features[0], features[0][owner])
    assert np.array_equal(swapped.scan, films)
    assert not np.array_equal(module.other_twins(given, groups, 1).twin, swapped.twin)
    with pytest.raises(SystemExit, match="too few"):
        module.other_twins(given, np.zeros(12, int))


def test_naive_search_in_batches_is_that_of_the_loop(benchmark_of, monkeypatch):
    module = benchmark_of("search_time")
    monkeypatch.setattr(module, "STEPS", 2)  # over more of them rounding grows
    detector = AnoGan(AnoGanConfig(latent=4, width=4, precision="fp32"), size=32, device="cpu")
    shape = {"channels": 1, "size": 32, "width": 4}
    with seeded(0):
        nets = {"generator": Generator(latent=4, **shape), "discriminator": Discriminator(**shape, norm="none")}
    recompute_batch_norm(nets["generator"], torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    detector._generator, detector._discriminator = (net.eval() for net in nets.values())
    films = np.random.default_rng(1).uniform(-1, 1, (3, 1, 32, 32)).astype(np.float32)
    film = torch.from_numpy(films[:1])
    frozen, kept = (module.naive(*nets.values(), film, weight=0.0, frozen=still) for still in (True, False))
    assert torch.equal(frozen, kept)  # gradients nobody asked for cost time and nothing else
    batched = module.batched(detector, films, 2)
    alone = [module.naive(*nets.values(), torch.from_numpy(film[None]), weight=0.1)[0].numpy() for film in films]
    assert np.abs(batched).min() > 0
    assert batched == pytest.approx(np.stack(alone), abs=1e-3)


def test_figures_are_kept_until_a_source_changes(benchmark_of, tmp_path, monkeypatch):
    module = benchmark_of("anogan_kept")
    method, own = tmp_path / "anomaly/detectors/anogan/scoring", tmp_path / "benchmarks"
    method.mkdir(parents=True)
    own.mkdir()
    names = [*module.SHARED, "measures", "measures_else"]
    files = [method / "terms.py", *(method.parent.parent / f"{name}.py" for name in ("normality", "lungs"))]
    files += [own / f"{name}.py" for name in names]
    for file in files:
        file.write_text("def measure(run):\n    return run\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(str(own))
    measure = importlib.import_module("measures").measure
    before = module.sources(measure)
    for file in files:
        text = file.read_text()
        file.write_text(text + "# changed\n")
        assert (module.sources(measure) == before) == (file.stem == "measures_else"), file
        file.write_text(text)
    assert module.sources(measure) == before


def test_warnings_and_seconds_of_a_training_outlive_an_interruption(benchmark_of, tmp_path):
    module = benchmark_of("anogan_runs")
    before = {"seconds": {"wall": 100.0, "processor": 50.0}, "warnings": ["collapsed", "slow"]}
    watch = module._Clock(tmp_path / "run.json", {"networks": {}}, before)
    watch.warned = ["slow", "late"]
    watch.save({})
    told = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert told["warnings"] == ["collapsed", "slow", "late"]
    assert told["seconds"]["wall"] >= 100


def test_a_map_leads_the_usual_place_by_the_difference_of_their_rows(benchmark_of):
    module = benchmark_of("pointing")
    rng, shape, patients = np.random.default_rng(0), (20, 20), list(range(12))
    truths = [np.array([[rng.integers(0, 14), rng.integers(0, 14), 5, 5]], float) for _ in range(8)]
    truths += [np.zeros((0, 4))] * 4
    scores, sick = rng.uniform(size=12), range(8)
    masks = [module.box_mask(truths[i], shape) for i in sick]
    heat = [mask.astype(np.float32) for mask in masks]
    lead = module.hit_lead(heat, masks, patients[:8])
    ours, prior, _ = module.hit_rates(heat, masks, [np.ones(shape, bool)] * 8, groups=patients[:8])
    assert lead["difference"] == pytest.approx(ours.rate - prior.rate)
    assert lead["low"] > 0
    found = [module.boxes_of_map(heatmap, 0.5) for heatmap in heat] + [(np.zeros((0, 4)), np.zeros(0))] * 4
    rows = {(row.name, row.overlap): row for row in module.box_table(found, truths, scores, shape, patients)}
    names = {"mean lesion location": "mean lesion location of the others"}
    leads = module.precision_leads(found, truths, scores, shape, patients)
    assert len(leads) == 6
    for told in leads:
        overlap = told["overlap"]
        usual = rows[names.get(told["name"], told["name"]), overlap].average_precision
        assert told["difference"] == pytest.approx(rows["map", overlap].average_precision - usual)
        assert told["low"] <= told["difference"] <= told["high"]


@pytest.mark.parametrize(
    ("low", "high", "says"), [(0.01, 0.1, "beats"), (-0.1, 0.1, "cannot be told from"), (-0.1, -0.01, "worse")]
)
def test_what_is_said_of_the_twin_is_what_the_interval_says(benchmark_of, low, high, says):
    assert says in benchmark_of("figures_ablation").verdict({"low": low, "high": high})


def test_whether_the_lungs_alone_help_is_what_the_intervals_say(benchmark_of):
    rows = {lungs: {"registered": lungs != "crop"} for lungs in ("none", "mask", "crop")}
    apart = {"mask": (0.02, 0.01, 0.03), "crop": (-0.1, -0.2, -0.05)}
    minus = {lungs: dict(zip(("difference", "low", "high"), told, strict=True)) for lungs, told in apart.items()}
    unsure = {**minus, "mask": {"difference": 0.02, "low": -0.01, "high": 0.05}}
    recipes = {"a": {"rows": rows, "minus_whole": minus}, "b": {"rows": rows, "minus_whole": unsure}}
    said = benchmark_of("figures_segment")._answer(recipes)
    assert "Of 4 comparisons" in said
    assert "helps in 1 (`a` masked +0.020" in said
    assert "harms in 2 (`a` cropped and unregistered -0.100" in said
    assert "can be told in 1 (`b` masked" in said


def test_what_was_not_measured_is_said(benchmark_of, tmp_path, monkeypatch):
    module = benchmark_of("figures_ablation")
    area = {"auroc": 0.9, "low": 0.8, "high": 1.0}
    times = {"median": 0.01, "runs_on": "cpu fp32", "threads": 1, "search": {"median": 0.008}}
    cell = {"score": {"kermany": area}, "within_softness": {"kermany": area}, "steps": 10, "seconds": {"processor": 60}}
    cell |= {"seconds_per_image": times, "weights": {}, "terms": {}, "pooling": {}}
    cells = {f"{name}-{cell}": {"missing": "not trained yet"} for name in module.SETS for cell in module.CELLS}
    cells["kermany-untrained"] = cell
    result = {"command": "x", "steps": None, "cells": cells, "longer": {}} | {part: {} for part in module.PARTS}
    monkeypatch.setattr(sys.modules["common"], "RESULTS", tmp_path)
    (tmp_path / "anogan_ablation.json").write_text(json.dumps(result))
    page = "\n".join(module.page())
    assert "networks stopped after 10 steps" in page
    assert page.count("not trained yet") == len(cells) - 1
    assert page.count("Not measured") == len(module.PARTS)
    assert module.in_short() == []
