"""`anomaly cache`: what is kept of films already read, and clearing it."""

from __future__ import annotations

from typing import Any

from anomaly.prepare.cache import open_cache


def describe_cache() -> dict[str, Any]:
    """Say where the cache is and how much it holds.

    Returns:
        folder (None when it is switched off), entries, bytes, limit_bytes.

    Raises:
        UsageError: ANOMALY_CACHE_GB is no positive number.
    """
    cache = open_cache()
    if cache is None:
        return {"folder": None, "entries": 0, "bytes": 0, "limit_bytes": 0}
    usage = cache.usage()
    return {
        "folder": str(cache.folder),
        "entries": usage.entries,
        "bytes": usage.bytes,
        "limit_bytes": cache.limit_bytes,
    }


def clear_cache() -> dict[str, Any]:
    """Remove every entry of the cache.

    Returns:
        As `describe_cache`, of what is left, with cleared_entries and cleared_bytes.

    Raises:
        OutputError: An entry cannot be removed.
        UsageError: ANOMALY_CACHE_GB is no positive number.
    """
    cache = open_cache()
    if cache is None:
        return describe_cache()
    cleared = cache.clear()
    return {**describe_cache(), "cleared_entries": cleared.entries, "cleared_bytes": cleared.bytes}


def render(facts: dict[str, Any]) -> str:
    """Return what `describe_cache` or `clear_cache` found as lines for people."""
    if facts["folder"] is None:
        return "The cache is switched off (ANOMALY_CACHE=off): every run decodes its films again."
    lines = [
        f"{facts['folder']}: {facts['entries']} entries, {_size(facts['bytes'])} of at most "
        f"{_size(facts['limit_bytes'])}"
    ]
    if "cleared_entries" in facts:
        lines.insert(0, f"Cleared {facts['cleared_entries']} entries, {_size(facts['cleared_bytes'])}.")
    if facts["entries"]:
        lines.append(
            "It holds small pictures of the films that were read, without names: treat it like the films themselves. "
            "Only you may open it; `anomaly cache --clear` empties it."
        )
    lines.append('ANOMALY_CACHE names another folder, or is "off"; ANOMALY_CACHE_GB is its size.')
    return "\n".join(lines)


def _size(count: int) -> str:
    """Return a number of bytes as people say it."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
