"""The fingerprint of a set of scans: what was there, in a form that can be compared and kept with a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from anomaly.records import ABNORMAL, NORMAL
from anomaly.scans.walk import Listing
from anomaly.workflows.selection import data_digest

FINGERPRINT = "fingerprint.json"


def fingerprint(listing: Listing) -> dict[str, Any]:
    """Describe the files of SCANS without decoding any.

    Returns:
        `sha256` over the relative paths and sizes of all files, which `fit` stores with the model, and counts of
        layout, labels and splits that say what it stood for.
    """
    files = listing.files
    named = {NORMAL: "normal", ABNORMAL: "abnormal", None: "unknown"}
    return {
        "sha256": data_digest(files),
        "files": len(files),
        "layout": listing.layout,
        "labels": dict(sorted(Counter(named[file.label] for file in files).items())),
        "splits": dict(sorted(Counter(file.split or "none" for file in files).items())),
    }


def content_digest(hashes: Iterable[str]) -> str:
    """Return one hash for the contents of many files, whatever their order."""
    return sha256("\n".join(sorted(hashes)).encode()).hexdigest()
