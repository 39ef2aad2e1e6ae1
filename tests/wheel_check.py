"""Build the wheel, install it with the locked packages into a bare environment, and do the main job from there.

    python tests/wheel_check.py

Run from any folder; what it installs comes from uv's cache where that holds it. Exit 0 when all is well.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).parent / "uv"

COMMANDS = (
    "--help",
    "config anogan",
    "models",
    "phantom p --n 24 --abnormal 4",
    "fit p --normal-only -d pixel-stats -o r",
    "score p -m r -o o",
)


def run(*command: object, cwd: Path) -> str:
    """Run a command, say how long it took, and return its stdout."""
    started = time.monotonic()
    # the checkout must not be found: neither by PYTHONPATH nor by the current folder
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"ANOMALY_SALT": "wheel"}
    ran = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    shown = " ".join([Path(str(command[0])).name, *(str(c) for c in command[1:])])
    print(f"{time.monotonic() - started:6.1f} s  {shown if len(shown) < 100 else shown[:97] + '...'}", flush=True)
    if ran.returncode != 0:
        sys.exit(f"exit {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
    return ran.stdout


def check(what: str, holds: bool) -> None:
    """Stop with a word when something is not as it must be."""
    if not holds:
        sys.exit(f"wheel check failed: {what}")


def check_contents(wheel: Path) -> None:
    """Hold what must be in the wheel, and what must not."""
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    for recipe in (ROOT / "configs").glob("*.yaml"):
        check(f"no anomaly/configs/{recipe.name}", f"anomaly/configs/{recipe.name}" in names)
    for source in (ROOT / "anomaly").rglob("*"):
        if source.suffix in (".py", ".j2"):
            name = source.relative_to(ROOT).as_posix()
            check(f"no {name}", name in names)
    check("no LICENSE", any(name.endswith("/licenses/LICENSE") for name in names))
    tops = {name.split("/")[0] for name in names}
    check(f"strangers at the top: {tops}", all(top == "anomaly" or top.endswith(".dist-info") for top in tops))
    check("tests or caches inside", not any("test" in name or "__pycache__" in name for name in names))
    print(f"          {wheel.name}: {len(names)} files, {wheel.stat().st_size // 1024} KiB", flush=True)


def main() -> None:
    """Run every step."""
    with tempfile.TemporaryDirectory(prefix="anomaly-wheel-") as temporary:
        aside = Path(temporary)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", aside / "dist", ROOT, cwd=aside)
        (wheel,) = (aside / "dist").glob("*.whl")
        check_contents(wheel)

        venv = aside / "venv"
        run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=aside)
        install = (UV, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "--no-deps")
        run(*install, "-r", ROOT / "requirements.lock", cwd=aside)
        run(*install, wheel, cwd=aside)

        work = aside / "work"
        work.mkdir()
        where = run(venv / "bin" / "python", "-c", "import anomaly; print(anomaly.__file__)", cwd=work)
        check(f"anomaly comes from {where}", where.startswith(str(venv)))
        said = {words: run(venv / "bin" / "anomaly", *words.split(), cwd=work) for words in COMMANDS}
        recipe = (ROOT / "configs" / "anogan.yaml").read_text(encoding="utf-8")
        check("config anogan prints another recipe", said["config anogan"].strip() == recipe.strip())
        with (work / "o" / "scores.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        check(f"scores.csv has {len(rows)} rows, not 24", len(rows) == 24)
        check("a film was not scored", all(row["status"] == "scored" for row in rows))
    print("the wheel works", flush=True)


if __name__ == "__main__":
    main()
