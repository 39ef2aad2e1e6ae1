"""history.png: what a fit recorded, drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from running import FLOOR, anomaly

from anomaly.detectors.pixel_stats import PixelStats
from anomaly.errors import DataError
from anomaly.runs import RunRecorder
from anomaly.workflows.history import PICTURE, draw_history


def record(run: Path, fill: Callable[[RunRecorder], None]) -> Path:
    recorder = RunRecorder(run, resume=False)
    fill(recorder)
    recorder.flush()
    return run


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures as they are saved."""
    kept: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: object, **options: object) -> None:
        kept.append(self)
        save(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def epochs(recorder: RunRecorder) -> None:
    for epoch in range(1, 13):
        for name, value in (("train_loss", 1 / epoch), ("val_loss", 2 / epoch), ("val_accuracy", 1 - 1 / epoch)):
            recorder.scalar(epoch, name, value)
        recorder.scalar(epoch, "learning_rate", 10.0**-epoch)


def test_training_and_validation_share_an_axis(tmp_path: Path, figures: list[Figure]) -> None:
    assert draw_history(record(tmp_path, epochs)) == tmp_path / PICTURE
    axes = figures[0].axes
    assert [own.get_title(loc="left") for own in axes] == ["loss", "accuracy", "learning_rate"]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["train_loss", "val_loss"]
    assert axes[0].lines[1].get_ydata()[0] == 2.0
    assert [own.get_yscale() for own in axes] == ["linear", "linear", "log"], "only what spans decades is logarithmic"
    assert axes[2].get_legend() is None, "its title says it all"
    first = (tmp_path / PICTURE).read_bytes()
    draw_history(tmp_path)
    assert (tmp_path / PICTURE).read_bytes() == first


def test_many_points_are_smoothed_and_few_are_marked(tmp_path: Path, figures: list[Figure]) -> None:
    values = np.random.default_rng(0).normal(5.0, 1.0, 5000)

    def fill(recorder: RunRecorder) -> None:
        for step, value in enumerate(values):
            recorder.scalar(step, "g_loss", value)
        recorder.scalar(5000, "kept_step", 4500)

    draw_history(record(tmp_path, fill))
    noisy, alone = figures[0].axes
    raw, smooth = (np.asarray(line.get_ydata()) for line in noisy.lines)
    assert len(raw) == len(smooth) <= 2000
    assert smooth.std() < 0.2 * raw.std()
    assert smooth[0] == pytest.approx(values[:63].mean(), abs=1e-9)  # 125 points around each, fewer at the ends
    assert smooth.mean() == pytest.approx(values.mean(), abs=0.01)
    assert [text.get_text() for text in noisy.get_legend().get_texts()] == ["mean of 125 points"]
    assert alone.lines[0].get_marker() == "."


def test_at_most_twelve_axes_and_the_rest_by_name(tmp_path: Path, figures: list[Figure]) -> None:
    def fill(recorder: RunRecorder) -> None:
        for number in range(13):
            recorder.scalar(1, f"train_n{number}", 1.0)
            recorder.scalar(1, f"val_n{number}", 1.0)
        recorder.scalar(2, "last", 1.0)

    draw_history(record(tmp_path, fill))
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert titles == [f"n{number}" for number in range(12)]
    assert figures[0].get_supxlabel() == "Not drawn: train_n12, val_n12, last"


def test_no_history_no_picture(tmp_path: Path) -> None:
    assert draw_history(tmp_path) is None
    record(tmp_path, epochs)
    draw_history(tmp_path)
    record(tmp_path, lambda recorder: None)
    assert draw_history(tmp_path) is None
    assert not (tmp_path / PICTURE).exists(), "an earlier fit's picture is not left behind"
    record(tmp_path, lambda recorder: recorder.scalar(1, "loss", float("nan")))
    assert draw_history(tmp_path) is None


def test_what_is_not_finite_is_left_out(tmp_path: Path, figures: list[Figure]) -> None:
    def fill(recorder: RunRecorder) -> None:
        for step, value in enumerate((1.0, float("inf"), 3.0)):
            recorder.scalar(step, "loss", value)

    draw_history(record(tmp_path, fill))
    assert list(figures[0].axes[0].lines[0].get_ydata()) == [1.0, 3.0]


@pytest.mark.parametrize("text", ["step,name,value\n1,loss,x\n", "a,b\n1,2\n", "step,name,value\n1,loss\n"])
def test_a_damaged_history_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(DataError, match=r"history\.csv is damaged"):
        draw_history(tmp_path)


def test_a_fit_draws_it(phantoms: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not (model / PICTURE).exists(), "pixel-stats records nothing"
    fit = PixelStats._fit

    def telling(self: PixelStats, *given: Any) -> None:
        given[-1].scalar(1, "loss", 2.0)  # the recorder
        fit(self, *given)

    monkeypatch.setattr(PixelStats, "_fit", telling)
    fitted = anomaly("fit", phantoms, "--normal-only", *FLOOR, "-o", tmp_path / "run")
    assert fitted.code == 0, fitted.err
    assert cv2.imread(str(tmp_path / "run" / PICTURE)) is not None
