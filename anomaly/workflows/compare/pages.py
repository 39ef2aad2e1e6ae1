"""What a comparison leaves in its folder: tables, figures, and one self-contained HTML page of both."""

from __future__ import annotations

import json
from pathlib import Path

import anomaly
from anomaly.runs import write_text
from anomaly.workflows.compare.figures import DENSITIES, FROC, P_VALUES, ROC, draw_figures
from anomaly.workflows.compare.pictures import SIDE_BY_SIDE, draw_pictures, worst_name
from anomaly.workflows.compare.results import Results
from anomaly.workflows.compare.summary import Summary
from anomaly.workflows.compare.tables import (
    TITLES,
    audited,
    localised,
    p_told,
    prevalence,
    size_told,
    subgroups,
    told,
    write_tables,
)
from anomaly.workflows.pictures import png_uri
from anomaly.workflows.progress import Ticker, seconds

REPORT, FIGURES = "report.html", "figures"


def write_pages(output: Path, summary: Summary, results: Results, on_progress: Ticker) -> None:
    """Write tables, figures/ and report.html."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    write_tables(output, summary, results)
    folder = output / FIGURES
    on_progress(1, 3, "drawing")
    draw_figures(folder, summary, results)
    on_progress(2, 3, "drawing")
    draw_pictures(folder, summary, results)
    page = Environment(loader=PackageLoader("anomaly", "workflows"), autoescape=True, undefined=StrictUndefined)
    page.globals |= {"told": told, "p_told": p_told, "size_told": size_told, "seconds": seconds}
    text = page.get_template("compare.html.j2").render(
        version=anomaly.__version__,
        summary=summary,
        table=summary.table,
        titles=TITLES,
        prevalence=prevalence(summary),
        places=localised(summary),
        groups=subgroups(summary),
        audit=audited(summary),
        figures=_pictures(folder, summary),
        record=json.dumps(summary.to_dict(), indent=2, ensure_ascii=False),
    )
    write_text(output / REPORT, text.encode("utf-8", errors="replace").decode("utf-8"))
    on_progress(3, 3, "drawing")


def _pictures(folder: Path, summary: Summary) -> list[tuple[str, str]]:
    """Return what each picture shows and its data URI, in the order of the page."""
    said = {
        ROC: "ROC curves",
        FROC: "Sensitivity against false positives per 100 normals, first seed",
        DENSITIES: "Scores by class",
        P_VALUES: "p-values of test normals",
        SIDE_BY_SIDE: "The same films through every method",
        **{worst_name(entry.name): f"What {entry.name} gets most wrong" for entry in summary.entries},
    }
    return [(caption, png_uri(folder / name)) for name, caption in said.items() if (folder / name).is_file()]
