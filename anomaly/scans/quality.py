"""What is wrong with a scan as a picture: flags with a sentence each, judged without any model."""

from __future__ import annotations

from dataclasses import dataclass

from anomaly.records import Scan


@dataclass(frozen=True, slots=True)
class Flag:
    """One finding: `name` from a fixed list, `detail` one plain sentence without the file's name."""

    name: str
    detail: str


def quality_flags(scan: Scan) -> tuple[Flag, ...]:
    """Return what is wrong with a scan, or ()."""
    return ()
