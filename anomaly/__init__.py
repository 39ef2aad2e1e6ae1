"""Unsupervised anomaly detection on chest X-rays. Research software, never a diagnosis.

    from anomaly import load_model, score_paths

Public names are resolved on first use (PEP 562), so `import anomaly` imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load_model": "anomaly.workflows.model",
    "score_paths": "anomaly.workflows.score",
    "list_scans": "anomaly.scans.walk",
    "read_scan": "anomaly.scans.read",
    "make_phantom": "anomaly.scans.phantom",
}

__all__ = ["__version__", "list_scans", "load_model", "make_phantom", "read_scan", "score_paths"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'anomaly' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
