"""`anomaly demo`: fit -> score -> heatmaps -> evaluate -> report on generated phantoms, offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anomaly.config import load_recipe
from anomaly.runs import claim_folder, receipt
from anomaly.scans.phantom import write_phantoms
from anomaly.workflows.evaluate import evaluate
from anomaly.workflows.fit import fit
from anomaly.workflows.progress import Ticker, silent
from anomaly.workflows.report import write_report
from anomaly.workflows.score import score

DEMO_SETTINGS = ("detector.steps=600", "detector.encoder_steps=200")
"""What the demo changes of the default recipe, so that it takes minutes."""

Say = Callable[[str], None]


def demo(
    output: Path,
    *,
    detector: str = "anogan",
    overrides: tuple[str, ...] = (),
    normals: int = 320,
    test: int = 80,
    abnormal: int = 30,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    workers: int = 2,
    say: Say = print,
    on_progress: Ticker = silent,
) -> Path:
    """Run the main job on phantoms.

    Args:
        output: Where everything goes: phantoms/, run/, out/.
        detector: Recipe to fit.
        overrides: Of the recipe, `a.b=value`.
        normals: Phantoms to learn from.
        test: Phantoms to score, `abnormal` of them with a lesion, drawn from another seed.
        abnormal: See `test`.
        seed: Of the phantoms and the fit.
        overwrite: Replace an earlier demo.
        device: "auto", "cpu" or "cuda".
        workers: Reading processes.
        say: Told each command as it is run, so that the demo doubles as a tutorial.
        on_progress: Told how far along things are.

    Returns:
        The path of the report.
    """
    claim_folder(output, command="demo", overwrite=overwrite)
    with receipt(output, "demo", {"recipe": detector, "seed": seed}):
        recipe = load_recipe(detector, overrides=[f"seed={seed}", *overrides])
        train, unseen, run, out = (output / name for name in ("phantoms/train", "phantoms/test", "run", "out"))

        def drawing(total: int) -> Callable[[int], None]:
            return lambda done: on_progress(done, total, "drawing")

        say(f"anomaly phantom {train} --n {normals} --abnormal 0 --seed {seed}")
        write_phantoms(train, n=normals, abnormal=0, seed=seed, on_film=drawing(normals))
        say(f"anomaly phantom {unseen} --n {test} --abnormal {abnormal} --seed {seed + 1}")
        write_phantoms(unseen, n=test, abnormal=abnormal, seed=seed + 1, on_film=drawing(test))
        changed = "".join(f" --set {override}" for override in overrides)
        say(f"anomaly fit {train} --normal-only -d {detector} --seed {seed}{changed} -o {run}")
        fit(train, run, recipe, normal_only=True, device=device, workers=workers, on_progress=on_progress)
        say(f"anomaly score {unseen} -m {run} -o {out}")
        score(unseen, run, out, device=device, workers=workers, on_progress=on_progress)
        say(f"anomaly evaluate {out}")
        evaluate(out)
        say(f"anomaly report {out}")
        return write_report(out)
