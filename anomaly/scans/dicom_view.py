"""Which way the rays went: ViewPosition, or the code in ViewCodeSequence, as one of a few known terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LATERAL = frozenset({"LL", "RL", "LAT", "LATERAL", "LLD", "RLD"})
_FRONTAL = frozenset({"PA", "AP", "AP SUPINE", "AP ERECT", "AP AXIAL", "PA AXIAL", "FRONTAL"})
_OBLIQUE = frozenset({"LAO", "RAO", "LPO", "RPO", "RLO", "LLO"})
_CODES = {
    "272479007": "PA",
    "R-40888": "PA",
    "R-10214": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399033003": "FRONTAL",
    "R-10202": "FRONTAL",
    "399067008": "LATERAL",
    "R-102CD": "LATERAL",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399135007": "LAO",
    "R-10220": "LAO",
    "399356000": "RAO",
    "R-40985": "RAO",
    "399006002": "LPO",
    "R-10212": "LPO",
    "399038007": "RPO",
    "R-10210": "RPO",
}
"""SNOMED codes of the views of a chest (PS3.16 CID 4010), each as SCT and as the older SRT or SNM3."""


def view_of(dataset: Dataset) -> str | None:
    """Return the view as one of the known terms, else None: free text could name a person."""
    view = " ".join(str(dataset.get("ViewPosition") or "").upper().split())
    if view in _FRONTAL | LATERAL | _OBLIQUE:
        return view
    codes = dataset.get("ViewCodeSequence")
    return _CODES.get(str(codes[0].get("CodeValue") or "").strip()) if codes else None
