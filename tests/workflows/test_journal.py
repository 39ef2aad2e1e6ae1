"""The journal: append-only, and whole lines only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anomaly.errors import OutputError
from anomaly.workflows.journal import Journal, read_journal


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"scan_id": name, "score": 0.1, **more}


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([entry("a", score=0.1 + 0.2), entry("b")])
    journal.append([])
    journal.append([entry("caf\udce9\n")])
    assert Journal(tmp_path).entries == journal.entries
    assert list(Journal(tmp_path).entries) == ["a", "b", "caf\udce9\n"]


def test_a_later_line_overrules(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([entry("a")])
    journal.append([entry("a", score=2.0)])
    assert Journal(tmp_path).entries == {"a": entry("a", score=2.0)}


@pytest.mark.parametrize("tail", [b'{"scan_id": "c", "sc', b'{"scan_id": "c"}', b"\0\0\0\n", b"[1]\n", b"\xff\xfe\n"])
def test_a_line_cut_short_is_dropped_and_writing_goes_on(tail: bytes, tmp_path: Path) -> None:
    Journal(tmp_path).append([entry("a"), entry("b")])
    whole = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(whole + tail)
    journal = Journal(tmp_path)
    assert list(journal.entries) == ["a", "b"]
    journal.append([entry("c")])
    assert (tmp_path / "journal.jsonl").read_bytes().startswith(whole)
    assert list(Journal(tmp_path).entries) == ["a", "b", "c"]


def test_reading_a_journal_never_changes_it_and_passes_over_damage(tmp_path: Path) -> None:
    Journal(tmp_path).append([entry("a"), entry("b"), entry("c")])
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    damaged = lines[0] + b"\0\0\n" + lines[2] + b'{"scan_id": "d"'
    (tmp_path / "journal.jsonl").write_bytes(damaged)
    assert list(read_journal(tmp_path)) == ["a", "c"]
    assert (tmp_path / "journal.jsonl").read_bytes() == damaged
    assert list(Journal(tmp_path).entries) == ["a", "c"]


def test_a_failed_append_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    journal.append([entry("a")])
    whole = (tmp_path / "journal.jsonl").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"journal\.jsonl: No space left on device.*--resume"):
        journal.append([entry("b")])
    assert (tmp_path / "journal.jsonl").read_bytes() == whole
    assert list(journal.entries) == ["a"]
