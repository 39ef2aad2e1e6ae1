"""What every plot needs: names as it can show them, and a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anomaly.runs import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 26


def shown(name: str) -> str:
    """Return a name as a picture can show it: one line, not too long, and no character that the drawing acts on."""
    line = " ".join(name.encode("utf-8", errors="replace").decode("utf-8").split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST - 10]}…{line[-9:]}"  # both ends: long names often differ in the last word
    return f"{' ' if line.startswith('_') else ''}{line}".replace("$", r"\$")


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all."""
    with writing(path) as file:  # "tight": beside axes of equal sides the layout can cut words off
        figure.savefig(file, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
