"""`report`: one page that needs nothing but itself."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from running import anomaly, table


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
    assert "Where they differ" in page
    worst = next(iter(table(results)))
    assert worst in page


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
