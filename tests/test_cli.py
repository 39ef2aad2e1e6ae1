"""The command line: exit codes, what goes to which stream, and words that help."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import anomaly
from anomaly import cli
from anomaly.config import recipe_names, recipe_text


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def run(*args: object) -> Ran:
    """Run a command in this process."""
    result = CliRunner().invoke(cli.app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def run_apart(*args: object) -> Ran:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "anomaly", *map(str, args)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def write_films(folder: Path, count: int) -> Path:
    """Write small smooth pictures; nothing says what they show."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        rough = rng.integers(0, 255, (6, 6)).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"film-{index:02}.png"), cv2.resize(rough, (64, 64)))
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("cli") / "films", 20)


@pytest.fixture(scope="module")
def model(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_folder = tmp_path_factory.mktemp("cli") / "run"
    assert run("fit", films, "--normal-only", "-d", "pixel-stats", "-o", run_folder).code == 0
    return run_folder


def test_version_and_help() -> None:
    assert run("--version").out.strip() == anomaly.__version__
    assert "never a diagnosis" in run("--help").out
    assert run().code == 2


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("scor",), 2, "score"),
        (("score", "x"), 2, "--model"),
        (("fit", "x", "-o", "y", "--sed", "3"), 2, "--seed"),
        (("fit", "nowhere", "-o", "y"), 4, "does not exist"),
        (("fit", "nowhere", "-o", "y", "-d", "anogn"), 2, "did you mean 'anogan'"),
        (("fit", "nowhere", "-o", "y", "-c", "nowhere.yaml"), 2, "nowhere.yaml"),
        (("fit", "nowhere", "-o", "y", "-c", "a.yaml", "-d", "anogan"), 2, "exclude each other"),
        (("fit", "nowhere", "-o", "y", "--seed", "-1"), 2, "seed"),
        (("fit", "nowhere", "-o", "y", "--device", "gpu"), 2, "cuda"),
        (("config", "anogann"), 2, "did you mean 'anogan'"),
        (("phantom", "nowhere", "--n", "2", "--abnormal", "3"), 2, "3 of 2"),
        (("evaluate", "nowhere"), 4, "anomaly score"),
        (("report", "nowhere"), 4, "anomaly score"),
        (("heatmaps", "nowhere"), 4, "anomaly score"),
        (("calibrate", "nowhere", "nowhere", "-o", "y"), 5, "anomaly fit"),
        (("score", ".", "-m", "nowhere", "-o", "y", "--alpha", "1.5"), 2, "alpha"),
    ],
)
def test_mistakes_are_one_sentence_and_a_code(
    args: tuple[str, ...], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*args)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not list(tmp_path.iterdir())


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    args = ("evaluate", tmp_path / "nowhere")
    assert "Traceback" not in run_apart(*args).err
    verbose = run_apart(*args, "-v")
    assert verbose.code == 4
    assert "Traceback" in verbose.err


def test_json_is_all_there_is_on_stdout(films: Path, tmp_path: Path) -> None:
    fit = run_apart("fit", films, "--normal-only", "-d", "pixel-stats", "-o", tmp_path / "r", "--json")
    assert json.loads(fit.out)["trained"] == 12
    score = run_apart("score", films, "-m", tmp_path / "r", "-o", tmp_path / "o", "--json")
    assert json.loads(score.out)["scored"] == 20
    assert json.loads(run("evaluate", tmp_path / "o", "--json").out)["rows"] == []
    named = [model["name"] for model in json.loads(run("models", "--json").out)]
    assert {name for name in named if ":" not in name} == set(recipe_names())
    assert "anomalib:Stfpm" in named
    assert json.loads(run("doctor", "--json").out)["versions"]["anomaly"] == anomaly.__version__
    for ran in (fit, score):
        assert ran.code == 0
        assert "\x1b" not in ran.out + ran.err
        assert "\r" not in ran.err


def test_quiet_says_only_the_result(films: Path, model: Path, tmp_path: Path) -> None:
    ran = run_apart("score", films, "-m", model, "-o", tmp_path / "o", "-q")
    assert ran.err == ""
    assert ran.out.startswith(str(tmp_path / "o/scores.csv"))


def test_some_failed_is_3_and_still_json(films: Path, model: Path, tmp_path: Path) -> None:
    mixed = write_films(tmp_path / "films", 2)
    (mixed / "bad.png").write_bytes(b"")
    ran = run("score", mixed, "-m", model, "-o", tmp_path / "o", "--json")
    assert ran.code == 3
    assert json.loads(ran.out)["failed"] == 1


def test_config_prints_a_recipe_that_can_be_fed_back(films: Path, tmp_path: Path) -> None:
    for name in recipe_names():
        ran = run("config", name)
        assert ran.code == 0
        assert ran.out.strip() == recipe_text(name).strip()
    (tmp_path / "my.yaml").write_text(run("config", "pixel-stats").out)
    args = ("-c", tmp_path / "my.yaml", "-o", tmp_path / "r")
    assert run("fit", films, "--normal-only", *args).code == 0


def test_models_and_doctor() -> None:
    listed = run("models")
    assert all(name in listed.out for name in recipe_names())
    examined = run("doctor")
    assert examined.code == 0
    assert "torch" in examined.out


def test_a_name_the_terminal_cannot_show(model: Path, tmp_path: Path) -> None:
    strange = write_films(tmp_path / "films", 2).rename(tmp_path / "caf\udce9")
    ran = run_apart("score", strange, "-m", model, "-o", str(tmp_path) + "/o\udce9")
    assert ran.code == 0, ran.err
    gone = run_apart("score", str(tmp_path) + "/n\udce9", "-m", model, "-o", tmp_path / "p")
    assert gone.code == 4
    assert "does not exist" in gone.err


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m anomaly config anogan | head -n 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("# anogan")
    assert "Traceback" not in ran.stderr


def test_ctrl_c_says_resume_only_where_there_is_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "anomaly", "phantom", str(tmp_path / "p"), "--n", "500", "--abnormal", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("p/normal/*")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted." in err
    assert "--resume" not in err
    assert "Traceback" not in err
