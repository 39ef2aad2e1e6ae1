"""The shortcut audit: how well single numbers that know nothing of chests tell the classes, and the splits, apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anomaly.evaluate.baselines import one_number_audit
from anomaly.records import ABNORMAL, NORMAL
from anomaly.workflows.selection import Look, is_train

Measured = Sequence[tuple[Look, Mapping[str, float]]]
"""Films with their trivial statistics."""


def audit_labels(films: Measured) -> dict[str, Any]:
    """Audit abnormal against normal films: of the published test (or dev, or val) split if it has both, else of all.

    Returns:
        `shortcut_audit`, a list of {name, auroc, ci, direction, normals, abnormals}, the strongest first, and
        `shortcut_audit_on`, what the films were; [] and None where two labels are not to be had.
    """
    labelled = [film for film in films if film[0].file.label is not None and film[0].file.set_aside is None]
    named = {film[0].file.split for film in labelled}
    split = next((name for name in ("test", "dev", "val") if name in named), None)
    test = [film for film in labelled if split and film[0].file.split == split]
    for chosen, what in ((test, f"of the {split} split"), (labelled, "of all labelled scans")):
        labels = [film[0].file.label for film in chosen]
        if {NORMAL, ABNORMAL} <= set(labels):
            rows = audit_numbers(chosen, [int(label == ABNORMAL) for label in labels])
            told = f"{labels.count(ABNORMAL)} abnormal against {labels.count(NORMAL)} normal {what}"
            return {"shortcut_audit": rows, "shortcut_audit_on": told}
    return {"shortcut_audit": [], "shortcut_audit_on": None}


def audit_splits(films: Measured) -> dict[str, Any]:
    """Audit the normals of a published test set against the normals to train on: what a model sees as new in both.

    Returns:
        `split_audit` and `split_audit_on`, in the form of `audit_labels`; "abnormals" are then the test normals.
    """
    normals = [film for film in films if film[0].file.label == NORMAL and film[0].file.set_aside is None]
    held = [int(not is_train(film[0].file)) for film in normals]
    if len(set(held)) < 2:
        return {"split_audit": [], "split_audit_on": None}
    told = f"{sum(held)} normals not for training against {len(held) - sum(held)} normals to train on"
    return {"split_audit": audit_numbers(normals, held), "split_audit_on": told}


def audit_numbers(films: Measured, labels: Sequence[int]) -> list[dict[str, Any]]:
    """Return what each trivial number alone tells of films of two labels, 0 and 1, the strongest first."""
    names = sorted(films[0][1])
    table = {name: [film[1][name] for film in films] for name in names}
    groups = [film[0].patient or f"scan:{film[0].file.scan_id}" for film in films]
    return sorted(one_number_audit(labels, table, groups), key=lambda row: -row["auroc"])
