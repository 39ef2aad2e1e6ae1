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
    for wrong in ("kermany", "adults-default", "kermany-latent-9", "kermany-default-seedx"):
        with pytest.raises(SystemExit, match="SET-CELL"):
            module.Run.parse(wrong)


def test_swapped_twins_are_other_patients(benchmark_of):
    module = benchmark_of("anogan_twins")
    groups = np.repeat(np.arange(6), 2)
    films = np.random.default_rng(0).uniform(-1, 1, (12, 1, 4, 4)).astype(np.float32)
    inside, features = np.ones((12, 4, 4), bool), (films[:, :, :2, :2],)
    swapped = module.other_twins(Match(films, films, inside, features, features), groups)
    owner = [int(np.flatnonzero((films == twin).all(axis=(1, 2, 3)))[0]) for twin in swapped.twin]
    assert sorted(owner) == list(range(12))
    assert not np.any(groups[owner] == groups)
    assert np.array_equal(swapped.twin_features[0], features[0][owner])
    assert np.array_equal(swapped.scan, films)
    with pytest.raises(SystemExit, match="too few"):
        module.other_twins(Match(films, films, inside, features, features), np.zeros(12, int))


def test_naive_search_in_batches_is_that_of_the_loop(benchmark_of, monkeypatch):
    module = benchmark_of("search_time")
    monkeypatch.setattr(module, "STEPS", 2)  # over more of them rounding grows
    detector = AnoGan(AnoGanConfig(latent=4, width=4, precision="fp32"), size=16, device="cpu")
    shape = {"channels": 1, "size": 16, "width": 4}
    with seeded(0):
        nets = {"generator": Generator(latent=4, **shape), "discriminator": Discriminator(**shape, norm="none")}
    recompute_batch_norm(nets["generator"], torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    detector._generator, detector._discriminator = (net.eval() for net in nets.values())
    films = np.random.default_rng(1).uniform(-1, 1, (3, 1, 16, 16)).astype(np.float32)
    batched = module.batched(detector, films, 2)
    alone = [module.naive(*nets.values(), torch.from_numpy(film[None]), weight=0.1)[0].numpy() for film in films]
    assert np.abs(batched).min() > 0
    assert batched == pytest.approx(np.stack(alone), abs=1e-3)
