"""`report`: one page that needs nothing but itself."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from running import anomaly, table

from anomaly.runs import read_json, write_json, write_table
from anomaly.workflows.panels import load_panel, save_panel


class Links(HTMLParser):
    """Gathers what a page loads or runs."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_the_page_stands_alone(results: Path) -> None:
    assert anomaly("evaluate", results).code == 0
    ran = anomaly("report", results)
    assert ran.out.strip() == str(results / "report.html")
    page = (results / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert links.loaded
    assert all(link.startswith(("data:image/", "#")) for link in links.loaded)
    assert not links.tags & {"script", "iframe", "link", "object", "embed"}
    assert not links.handlers
    assert not re.search(r"url\((?!#)", page)
    assert "AUROC" in page
    assert "not a\nmedical device" in page
    assert page.count("<article") == 24
    assert "Where it is unusual" in page
    assert "Heat</b>" in page
    worst = next(iter(table(results)))
    assert worst in page


def registered_by_hand(out: Path) -> None:
    """Make the first scan look as a registering method with maps of its terms, in sigma, leaves it.

    The second could not be registered; the third has no twin and no maps of terms.
    """
    receipt = read_json(out / "receipt.json")
    write_json(out / "receipt.json", receipt | {"heat_unit": "σ"})
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    lines[0] += ["opacity", "contrast_deficit"]
    lines[1:] = [[*line, "2.5", "0.25"] for line in lines[1:]]
    first, second, third = (dict(zip(lines[0], line, strict=True))["scan_id"] for line in lines[1:4])
    lines[2][lines[0].index("warnings")] = "not registered: correlation 0.31 with the mean normal chest"
    write_table(out / "scores.csv", lines)
    turn = np.array([[0.98, 0.07, -0.5], [-0.07, 1.02, 0.8], [0.0, 0.0, 1.0]])
    for scan_id, way in ((first, turn), (second, np.eye(3))):
        panel = load_panel(out / "panels" / f"{scan_id}.npz")
        geometry = replace(panel.geometry, matrix=panel.geometry.matrix @ way)
        halves = {"opacity": panel.heatmap, "contrast_deficit": panel.heatmap[::-1] / 2}
        made = replace(panel, geometry=geometry, twin=panel.prepared[::-1], term_maps=halves)
        save_panel(out / "panels" / f"{scan_id}.npz", made)
    panel = load_panel(out / "panels" / f"{third}.npz")
    save_panel(out / "panels" / f"{third}.npz", replace(panel, twin=None))


def test_a_card_says_what_its_pictures_are(results: Path) -> None:
    registered_by_hand(results)
    assert anomaly("report", results, "--top", 3).code == 0
    page = (results / "report.html").read_text(encoding="utf-8")
    first, second, third = page.split("<article")[1:]
    order = [
        "The film",
        "Registered: ",
        "Its normal twin",
        "Where it is unusual",
        "opacity 2.5",
        "contrast_deficit 0.25",
    ]
    assert [first.index(words) for words in order] == sorted(first.index(words) for words in order)
    assert first.count("<img") == 6
    assert "warning" not in first
    assert "Registered: " not in second
    assert second.index('<p class="warning">not registered: correlation 0.31') < second.index("<img")
    assert third.count("<img") == 3
    assert "Where it is unusual" in third.split("</article")[0]
    assert "opacity 2.5" in third
    assert "Heat in σ" in page
    assert " σ (99.9 %)" in page


def test_top_and_alpha(results: Path) -> None:
    assert anomaly("report", results, "--top", 3, "--alpha", 1).code == 0
    page = (results / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3
    assert "<b>48</b>flagged" in page


@pytest.mark.parametrize("gone", ["receipt.json", "calibration.safetensors"])
def test_a_folder_with_a_file_missing(gone: str, results: Path) -> None:
    (results / gone).unlink()
    ran = anomaly("report", results)
    assert ran.code in (4, 5)
    assert gone in ran.err


def test_a_damaged_panel_is_named(results: Path) -> None:
    panel = results / "panels" / (next(iter(table(results).values()))["scan_id"] + ".npz")
    panel.write_bytes(b"half")
    ran = anomaly("report", results)
    assert ran.code == 4
    assert panel.name in ran.err


def test_without_pictures_there_is_still_a_page(results: Path) -> None:
    shutil.rmtree(results / "panels")
    assert anomaly("report", results).code == 0
    assert "<article" not in (results / "report.html").read_text()
