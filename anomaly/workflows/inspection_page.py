"""inspection.html: the inspection as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anomaly
from anomaly.records import UInt8
from anomaly.runs import write_text
from anomaly.workflows.pictures import data_uri

PAGE = "inspection.html"


def write_page(output: Path, facts: Mapping[str, Any], tiles: Mapping[str, UInt8]) -> Path:
    """Write inspection.html.

    Args:
        output: The inspection's folder.
        facts: What inspection.json says.
        tiles: scan_id -> uint8 (h, w, 3), for the films that `facts["contact_sheet"]` names.

    Returns:
        The page's path.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    groups: dict[str, list[dict[str, Any]]] = {}
    for shown in facts["contact_sheet"]:
        groups.setdefault(shown["group"], []).append({**shown, "picture": data_uri(tiles[shown["scan_id"]])})
    page = Environment(loader=PackageLoader("anomaly", "workflows"), autoescape=True, undefined=StrictUndefined)
    text = page.get_template("inspection.html.j2").render(version=anomaly.__version__, facts=facts, groups=groups)
    write_text(output / PAGE, text.encode("utf-8", errors="replace").decode("utf-8"))
    return output / PAGE
