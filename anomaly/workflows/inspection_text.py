"""The inspection in a terminal: what a reader needs before training, in a screenful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WIDTH = 22
_SHOWN = 6


def render(facts: Mapping[str, Any]) -> str:
    """Return what inspection.json says as aligned lines, no trailing newline."""
    patients, copies = facts["patients"], facts["duplicates"]
    ids = f"{patients['scans_with_id']} scans with an id, {patients['scans_without_id']} without"
    lines = [
        _line("files", f"{facts['files']} images ({facts['readable']} readable), {facts['other_files']} other files"),
        _line("layout", facts["layout"] or "none recognised"),
        _line("labels", _counts(facts["labels"]) + f" (from: {', '.join(facts['label_sources'])})"),
        _line("classes", _counts(facts["classes"])),
        *(_line(f"split {name}", _counts(classes)) for name, classes in facts["splits"].items() if name != "none"),
        _line("patients", f"{patients['patients']} ({ids})"),
        _line("views", _counts(facts["views"])),
        _line("formats", _counts(facts["formats"])),
        _line("bits", _counts(facts["bits"])),
    ]
    if set(facts["photometric"]) != {"not DICOM"}:
        lines.append(_line("photometric", _counts(facts["photometric"])))
        lines.append(_line("transfer syntaxes", _counts(facts["transfer_syntaxes"])))
    if facts["sizes"]:
        width, height = facts["sizes"]["width"], facts["sizes"]["height"]
        sides = f"{width['least']}-{width['most']} x {height['least']}-{height['most']}"
        lines.append(_line("width x height", f"{sides}; {_counts(facts['sizes']['commonest'])}"))
    across = f"{copies['groups_across_labels']} across labels, {copies['groups_across_splits']} across splits"
    lines.append(_line("copies", f"{copies['extra_copies']} extra in {copies['groups']} groups ({across})"))
    lines.append(_line("quality flags", _counts({name: q["count"] for name, q in facts["quality"].items()})))
    lines += ["", "fit --normal-only would"]
    lines += _fit(facts["fit"])
    for title, who, rows, on in (
        ("shortcut audit", "abnormal", facts["shortcut_audit"], facts["shortcut_audit_on"]),
        ("test against training", "test normals", facts["split_audit"], facts["split_audit_on"]),
    ):
        if rows:
            lines += ["", f"{title}: AUROC of single numbers, {on}", *(_audit(row, who) for row in rows)]
    if facts["failed"]:
        lines += ["", f"cannot be read ({len(facts['failed'])})"]
        lines += [f"  {row['reason']}" for row in facts["failed"][:_SHOWN]]
        if len(facts["failed"]) > _SHOWN:
            lines.append(f"  and {len(facts['failed']) - _SHOWN} more in scans.csv")
    return "\n".join(lines)


def _line(name: str, told: str) -> str:
    return f"{name:<{_WIDTH}}{told or 'none'}"


def _counts(values: Mapping[str, int]) -> str:
    shown = [f"{name} {number}" for name, number in list(values.items())[:_SHOWN]]
    more = [f"and {len(values) - _SHOWN} more"] if len(values) > _SHOWN else []
    return ", ".join([*shown, *more])


def _fit(plan: Mapping[str, Any]) -> list[str]:
    if "would_refuse" in plan:
        return [f"  refuse: {plan['would_refuse']}"]
    lines = [
        f"  train on {plan['train']}, hold out {plan['calibration']} to calibrate, keep {plan['test']} for testing"
    ]
    lines += [f"  leave out {number}: {reason}" for reason, number in plan["left_out"].items()]
    lines += [f"  skip {plan['unreadable']} that cannot be read"] if plan["unreadable"] else []
    return lines + [f"  note: {note}" for note in plan["notes"]]


def _audit(row: Mapping[str, Any], who: str) -> str:
    interval = f" [{row['ci'][0]:.3f}, {row['ci'][1]:.3f}]" if row["ci"] else ""
    return f"  {row['name']:<{_WIDTH - 2}}{row['auroc']:.3f}{interval}  {who} {row['direction']}"
