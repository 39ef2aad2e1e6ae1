"""Quiet decoders: pydicom, Pillow and OpenCV talk to stderr about every oddity; what matters becomes a Scan warning.

Their log records quote header values, so they must not reach whatever log the application keeps.

Warning filters and log levels belong to the whole process, and scans are read on several threads, so the first thread
in sets them and the last one out puts them back.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_readers = 0
_restore = ExitStack()
_TALKERS = ("pydicom", "PIL")


@contextmanager
def hushed() -> Iterator[None]:
    """Silence decoders while any thread is inside."""
    global _readers  # noqa: PLW0603 (a count for the process, as what it guards is)
    with _lock:
        _readers += 1
        if _readers == 1:
            _silence()
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                _restore.close()


def _silence() -> None:
    import cv2

    _restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for name in _TALKERS:
        logger = logging.getLogger(name)
        _restore.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
    log = cv2.utils.logging
    _restore.callback(log.setLogLevel, log.getLogLevel())
    log.setLogLevel(log.LOG_LEVEL_SILENT)
