"""Which subgroups of films a set lets one look at: kinds of abnormal film, views, sexes, ages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anomaly.evaluate.subgroups import age_bands

CLASS, VIEW, SEX, AGE = "class", "view", "sex", "age"
_NAMES = {
    VIEW: ("view", "view position", "viewposition"),
    SEX: ("sex", "gender", "patient sex", "patient gender", "patientsex"),
    AGE: ("age", "patient age", "patientage", "age years", "age_approx"),
}
_KIND = "kind"
"""A layout's own further column: what kind of film of its class one is, such as bacteria or virus."""


def columns_of(
    class_names: Sequence[str | None], views: Sequence[str | None], extras: Sequence[Mapping[str, str]]
) -> dict[str, tuple[list[str | None], bool]]:
    """Return the columns that tell films apart: name -> the value of each film, and whether it is of abnormal kinds.

    Args:
        class_names: N, from folders or a manifest.
        views: N, such as PA or AP.
        extras: N, what a manifest or a set says beside, by the names of its own columns.

    Returns:
        Columns of at least two values; ages in bands.
    """
    kinds: dict[str, list[str | None]] = {
        CLASS: list(class_names),
        _KIND: [extra.get(_KIND) or None for extra in extras],
    }
    lower = [{name.lower().replace("_", " "): value for name, value in extra.items()} for extra in extras]
    parts: dict[str, list[str | None]] = {}
    for column, names in _NAMES.items():
        known = [name.replace("_", " ") for name in names]
        values = [next((own[name] for name in known if own.get(name)), None) for own in lower]
        parts[column] = values
    parts[VIEW] = [view or other for view, other in zip(views, parts[VIEW], strict=True)]
    parts[AGE] = age_bands(parts[AGE])
    found = {name: (values, True) for name, values in kinds.items()} | {n: (v, False) for n, v in parts.items()}
    return {name: (values, kind) for name, (values, kind) in found.items() if len(set(values) - {None}) > 1}
