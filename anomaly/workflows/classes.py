"""Which class a scan belongs to, and which scans a supervised fit may learn from: decided before anything is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from anomaly.config import did_you_mean
from anomaly.detectors.base import SupervisedConfig
from anomaly.errors import DataError, UsageError
from anomaly.records import ABNORMAL, NORMAL, ScanFile
from anomaly.scans.layouts.names import label_of_name
from anomaly.scans.walk import Listing
from anomaly.workflows.selection import Selection, parted

FEWEST_OF_A_CLASS = 8
_TWO = {NORMAL: "normal", ABNORMAL: "abnormal"}


@dataclass(frozen=True, slots=True)
class Naming:
    """How scans are put into classes for a fit: `by` as in `SupervisedConfig.classes`, and which is normal."""

    by: str
    normal: str

    def named(self, file: ScanFile) -> ScanFile:
        """Return the file under its class and the label that goes with it; both None where its class is unknown."""
        name = _class_of(file, self.by)
        label = None if name is None else NORMAL if name == self.normal else ABNORMAL
        return replace(file, class_name=name, label=label)


def as_known(file: ScanFile, by: str, classes: Sequence[str]) -> ScanFile:
    """Return a file to be scored under one of the classes that a model knows, the normal one first.

    Names are compared without regard to case. A file of no such class keeps what its folder or manifest says of it
    being normal or not, and has no class.
    """
    name = _class_of(file, by)
    known = {each.lower(): each for each in classes}.get((name or "").lower())
    if known is None:
        return replace(file, class_name=None)
    return replace(file, class_name=known, label=NORMAL if known == classes[0] else ABNORMAL)


def _class_of(file: ScanFile, by: str) -> str | None:
    if by == "two":
        return None if file.label is None else _TWO[file.label]
    own = file.extra.get(by) if by != "class" else None
    return own or file.class_name or (None if file.label is None else _TWO[file.label])


def naming(files: Sequence[ScanFile], config: SupervisedConfig) -> Naming:
    """Return how scans are put into classes, as a fit's settings and the scans themselves have it.

    Raises:
        DataError: No class is known to be the normal one, or several are.
        UsageError: The settings name a class or a column that no scan has.
    """
    by = config.classes
    if by not in ("class", "two") and not any(file.extra.get(by) for file in files):
        columns = sorted({name for file in files for name in file.extra})
        raise UsageError(
            f"No scan has a column {by!r} to take its class from{did_you_mean(by, ['class', 'two', *columns])}"
        )
    found = {name: file.label for file in files if (name := _class_of(file, by)) is not None}
    if config.normal_class is not None:
        if config.normal_class not in found:
            raise UsageError(
                f"No scan is of the class {config.normal_class!r} that detector.normal_class names"
                f"{did_you_mean(config.normal_class, found)}"
            )
        return Naming(by, config.normal_class)
    normal = sorted(name for name, label in found.items() if label == NORMAL or label_of_name(name) == NORMAL)
    if len(normal) != 1:
        known = f"{', '.join(normal)} all sound normal" if normal else "none of their names says so"
        raise DataError(
            f"Which of the classes {', '.join(sorted(found))} is the normal one is not clear ({known}): add "
            f"--set detector.normal_class={sorted(found)[0] if found else 'NAME'} or whichever it is."
            if found
            else "No scan is labelled: put scans into class folders (NORMAL, PNEUMONIA, …) or give a manifest with a "
            "class or label column; to learn without labels take an unsupervised recipe, `anomaly models` lists them."
        )
    return Naming(by, normal[0])


def select_labelled(listing: Listing, config: SupervisedConfig) -> Selection:
    """Choose the scans a supervised fit may see: those of known class, of the train split where there is one.

    Args:
        listing: Of the folder or manifest.
        config: The method's settings.

    Raises:
        DataError: No labels, a single class, a class of too few scans, or a test split with classes of its own.
        UsageError: See `naming`.
    """
    aside = [(file, file.set_aside) for file in listing.files if file.set_aside is not None]
    usable = [file for file in listing.files if file.set_aside is None]
    rule = naming(usable, config)
    for_training, held, test = parted([rule.named(file) for file in usable])
    unknown = [file for file in for_training if file.class_name is None]
    chosen = [file for file in for_training if file.class_name is not None]
    _check(chosen, test, rule)
    aside += [(file, "class unknown") for file in unknown]
    aside += [(file, "in the calibration split, not of the normal class") for file in held if file.label != NORMAL]
    counts = Counter(file.class_name for file in chosen)
    told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: str(item[0])))
    return Selection(
        tuple(chosen),
        tuple(file for file in held if file.label == NORMAL),
        tuple(test),
        tuple(aside),
        f"labelled ({told}; normal: {rule.normal})",
        supervised=True,
    )


def _check(chosen: Sequence[ScanFile], test: Sequence[ScanFile], rule: Naming) -> None:
    counts = Counter(str(file.class_name) for file in chosen)
    if len(counts) < 2:
        raise DataError(
            f"There is one class alone to learn from ({_listed(counts)}): a classifier needs scans of at least one "
            "other; to learn from normal scans alone take an unsupervised recipe with --normal-only."
        )
    if rule.normal not in counts:
        raise DataError(f"No scan to train on is of the normal class {rule.normal!r}; there are: {_listed(counts)}.")
    few = {name: count for name, count in counts.items() if count < FEWEST_OF_A_CLASS}
    if few:
        raise DataError(
            f"At least {FEWEST_OF_A_CLASS} scans of every class are needed, and there are too few of {_listed(few)}: "
            "give more, leave the class out, or join classes (--set detector.classes=two)."
        )
    strange = {str(file.class_name) for file in test if file.class_name is not None} - set(counts)
    if strange:
        raise DataError(
            f"The test split has classes that the training split has not ({', '.join(sorted(strange))}; training: "
            f"{', '.join(sorted(counts))}): name folders alike in both, or leave those scans out."
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
