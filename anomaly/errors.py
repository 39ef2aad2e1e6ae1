"""What can go wrong for a user: one sentence saying what, one saying what to do, and an exit code.

Exit codes: 0 ok, 1 bug, 2 usage, 3 finished but some files failed, 4 data or manifest invalid,
5 model artefact invalid, 130 interrupted.
"""

from __future__ import annotations

EXIT_BUG = 1
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class AnomalyError(Exception):
    """A mistake the user can mend; its text names the file and the fix, and is printed without a traceback."""

    exit_code = 1


class UsageError(AnomalyError):
    """A wrong flag, setting or combination of them (exit 2)."""

    exit_code = 2


class DataError(AnomalyError):
    """A scan, folder or manifest that cannot be used (exit 4)."""

    exit_code = 4


class ScanError(DataError):
    """One file cannot be read as a scan; callers turn it into one `failed` row and go on."""


class OutputError(AnomalyError):
    """A result that cannot be written: disk full, no permission (exit 4)."""

    exit_code = 4


class ModelError(AnomalyError):
    """A model folder that is incomplete, damaged or made by a newer version (exit 5)."""

    exit_code = 5


class MissingError(AnomalyError):
    """Something optional that this needs is not there: weights of a backbone, an extra package (exit 6)."""

    exit_code = 6
