"""The house rules that a machine can hold: layers, a light front door, help, README."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import anomaly
from anomaly.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "anomaly"
MODULES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

LAYERS = (
    {"errors"},
    {"records"},
    {"config"},
    {"registry", "runs"},
    {"weights"},
    {"scans"},
    {"prepare"},
    {"nets"},
    {"detectors", "segmenters"},
    {"calibrate", "heatmaps", "evaluate"},
    {"workflows"},
    {"options"},
    {"cli_segment", "cli_weights"},
    {"cli"},
)
"""Lowest first; a module imports from below and from its own sub-package, never from a neighbour on its level."""

FREE = {"__init__", "__main__"}
"""The front doors: `__init__` names things as strings and holds the version, `__main__` starts the CLI."""

FENCES = {
    "torch": {"nets/", "detectors/", "segmenters/", "workflows/doctor.py"},
    "torchvision": {"nets/", "detectors/", "segmenters/"},
    "timm": {"nets/", "detectors/from_anomalib/"},
    "lightning": {"nets/", "detectors/", "segmenters/"},
    "segmentation_models_pytorch": {"segmenters/"},
    "pydicom": {"scans/dicom"},
    "anomalib": {"detectors/from_anomalib/"},
}
"""Who may import what: prefixes of paths in anomaly/."""

HEAVY = (
    *("torch", "torchvision", "lightning", "anomalib", "sklearn", "cv2", "matplotlib", "pydicom", "scipy", "skimage"),
    *("pandas", "PIL", "numpy"),
)


def imports(module: Path) -> Iterator[str]:
    """Yield every dotted name a module imports, anywhere in it: in functions and for type checkers too."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def unit_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level_of(unit: str) -> int:
    return next(level for level, units in enumerate(LAYERS) if unit in units)


def test_every_module_has_a_layer() -> None:
    units = {unit_of(module) for module in MODULES} - FREE
    assert units == set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_point_down(module: Path) -> None:
    unit = unit_of(module)
    if unit in FREE:
        return
    for name in imports(module):
        package, _, rest = name.partition(".")
        wanted = rest.split(".")[0]
        if package != "anomaly" or wanted in ("", unit, "__version__"):
            continue
        assert level_of(wanted) < level_of(unit), f"{name_of(module)} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_fences(module: Path) -> None:
    for name in imports(module):
        allowed = FENCES.get(name.split(".")[0])
        where = name_of(module)
        assert allowed is None or any(where.startswith(prefix) for prefix in allowed), f"{where} imports {name}"


FORBIDDEN = {
    r"(?<![\w.])print\(": set[str](),
    r"torch\.load\b": set[str](),
    r"\b(?:import|from) +pickle\b|\bpickle\.\w": set[str](),
    r"except *:": set[str](),
    r"allow_pickle *= *True": set[str](),
    r"warnings\.filterwarnings\(": set[str](),
    r"(?:np|numpy)\.random\.seed\b": set[str](),
    r"torch\.manual_seed\b": {"nets/device.py"},
    r"\*\*kwargs\b": set[str](),
}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_words_that_are_not_used_here(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    for word, allowed in FORBIDDEN.items():
        assert name_of(module) in allowed or not re.search(word, text), f"{name_of(module)}: {word}"


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_modules_are_short_and_say_what_they_are(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    limit = 600 if name_of(module) == "cli.py" else 400  # one place for all commands
    assert len(text.splitlines()) <= limit
    assert ast.get_docstring(ast.parse(text)) or name_of(module) == "__main__.py"


def python(code: str, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    "start",
    [
        "import anomaly",
        *(
            f"from anomaly.cli import app; app({words.split()}, standalone_mode=False)"
            for words in ("--help", "fit --help", "--version")
        ),
    ],
)
def test_the_front_door_is_light(start: str) -> None:
    ran = python(f"{start}\nimport sys, json; sys.stderr.write(json.dumps(sorted(sys.modules)))")
    assert ran.returncode == 0, ran.stderr
    assert not set(json.loads(ran.stderr)) & set(HEAVY)


def test_public_names_resolve() -> None:
    for name in anomaly.__all__:
        assert getattr(anomaly, name) is not None
    assert set(dir(anomaly)) == set(anomaly.__all__)
    with pytest.raises(AttributeError, match="load_model"):
        anomaly.load_modle  # noqa: B018


def command_names(group: Any = None, before: str = "") -> Iterator[str]:
    """Yield the words of every command, those of groups included but not the groups: "fit", "weights list"."""
    for name, command in (get_command(app) if group is None else group).commands.items():
        if hasattr(command, "commands"):
            yield from command_names(command, f"{before}{name} ")
        else:
            yield before + name


COMMANDS = sorted(command_names())


def command_of(line: str) -> str:
    """Return the words of a command that a line starts with: its first, or its first two for a command of a group."""
    words = line.split()
    return next((name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS), words[0])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    ran = CliRunner().invoke(app, [*command.split(), "--help"])
    assert ran.exit_code == 0
    assert f"Example: anomaly {command}" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_readme_and_commands_agree() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `anomaly ")]
    listed = {command_of(words) for row in rows for words in re.findall(r"`(?:anomaly )?([^`]+)`", row)}
    assert listed == set(COMMANDS)
    used = {command_of(line) for line in re.findall(r"^anomaly (\w.*)", README, re.MULTILINE)}
    assert used <= set(COMMANDS)


def test_root_cli_is_a_launcher() -> None:
    assert len((ROOT / "cli.py").read_text().splitlines()) <= 12
    ran = subprocess.run([sys.executable, ROOT / "cli.py", "--version"], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == anomaly.__version__


COMMANDS_IN_TURN = """
import json, sys
from anomaly.cli import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as end:
        if end.code:
            sys.exit(f"anomaly {' '.join(words)}: exit code {end.code}")
"""
"""A program that runs commands one after the other and stops where one fails; torch is imported once for all."""


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "anomalib"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Refuse())
"""


def test_pixel_stats_works_without_torch(tmp_path: Path) -> None:
    commands = (
        "phantom p --n 17 --abnormal 1",
        "fit p --normal-only -d pixel-stats -o r",
        "score p -m r -o o --panels top:3",
        "evaluate o",
        "report o",
        "models",
    )
    words = json.dumps([command.split() for command in commands])
    ran = python(WITHOUT_TORCH + COMMANDS_IN_TURN, words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "o/report.html").is_file()


def blocks(language: str) -> list[str]:
    """Return the README's fenced blocks of a language, but for those marked `<!-- not run: reason -->`."""
    found = re.findall(rf"(<!-- not run: [^>]+ -->\n)?^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for not_run, text in found if not not_run]


FAST = (
    "detector.steps=20",
    "detector.encoder_steps=5",
    "detector.width=8",
    "detector.components=1",
    "detector.holdout=0.7",
)
MARK = "--- Python ---"
NOT_HERE = re.compile(r"\.\./shared|NORMALS|SCANS|\.\.\.|…|--device cuda")


def test_readme_runs(tmp_path: Path) -> None:
    """Run the README's commands in order in one folder, on few films and with tiny networks, then its Python."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    commands = [line.split("#")[0] for line in lines if line.startswith("anomaly ") and not NOT_HERE.search(line)]
    assert len(commands) >= 5
    words = [_on_few_films(shlex.split(command)[1:]) for command in commands]
    then = "".join(f"print({MARK!r})\n{code}" for code in blocks("python"))
    ran = python(COMMANDS_IN_TURN + then, json.dumps(words), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    shown = ran.stdout.split(MARK)[1:]
    assert len(shown) == len(blocks("python")) >= 1
    assert all(text.strip() for text in shown)


def _on_few_films(words: list[str]) -> list[str]:
    """Return a command with a fifth of its phantoms, and with tiny networks."""
    few = [str(int(word) // 5) if before in ("--n", "--abnormal") else word for before, word in pairwise(["", *words])]
    if words[0] in ("fit", "demo") and not {"pixel-stats", "atlas"} & set(words):
        few += [part for setting in FAST for part in ("--set", setting)]
    return few
