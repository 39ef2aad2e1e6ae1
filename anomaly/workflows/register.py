"""Registration in a fit: the template of the training normals, then every kept film brought onto it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from anomaly.prepare.prepare import Preparation
from anomaly.prepare.register import NOT_REGISTERED, fit_template, small_copy, template_sample
from anomaly.prepare.source import FilmSpool, ImageSpool
from anomaly.records import Geometry, Prepared
from anomaly.workflows.progress import Ticker

_MANY = 0.1
_CHUNK = 64


def refusal_notes(refused: Sequence[bool], which: str) -> list[str]:
    """Say how many of which films were not registered, and what to do where they are many; nothing if none."""
    count = sum(refused)
    if not count:
        return []
    said = f"{count} of {len(refused)} {which} could not be registered and are used as they are"
    advice = (
        "look whether they are turned or no chests (--exclude-flagged leaves out most such films), or have wide "
        "borders (--set prepare.crop=auto)"
    )
    return [f"{said}: {advice}." if count > _MANY * len(refused) else f"{said}."]


def was_refused(prepared: Prepared) -> bool:
    """Tell whether a film was to be registered and was not."""
    return any(warning.startswith(NOT_REGISTERED) for warning in prepared.warnings)


def fit_preparation(
    preparation: Preparation, films: FilmSpool, normals: Sequence[int], on_progress: Ticker
) -> Preparation:
    """Return the preparation with a template made of the films at these places, or of 2,000 of them.

    Raises:
        DataError: The films are too unlike one another.
    """
    copies = np.stack([small_copy(films[normals[i]].pixels) for i in template_sample(len(normals))])
    return preparation.with_template(fit_template(copies, lambda done, of: on_progress(done, of, "mean chest")))


def finish_films(
    preparation: Preparation,
    films: FilmSpool,
    places: Sequence[int],
    images: ImageSpool,
    workers: int,
    on_progress: Ticker,
) -> list[tuple[bool, Geometry]]:
    """Prepare the films at these places to the end, in this order, into `images`.

    Returns:
        Of each whether it was not registered, and its geometry.
    """
    finished: list[tuple[bool, Geometry]] = []
    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="register") as threads:
        for start in range(0, len(places), _CHUNK):
            part = [films[place] for place in places[start : start + _CHUNK]]
            for prepared in threads.map(preparation.finish, part):
                images.append(prepared.image, prepared.inside)
                finished.append((was_refused(prepared), prepared.geometry))
            on_progress(len(finished), len(places), "registering")
    return finished
