"""Files -> prepared scans, several at a time, in order; a file that cannot be read becomes a reason, never a stop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from anomaly.config import ReadConfig
from anomaly.errors import ScanError
from anomaly.prepare.prepare import Preparation
from anomaly.records import Prepared, Scan, ScanFile
from anomaly.scans.read import read_scan

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Kept]):
    """What became of one file: its prepared form and what the caller keeps of the scan, or the reason why not."""

    file: ScanFile
    prepared: Prepared | None = None
    kept: Kept | None = None
    error: str | None = None


def prepare_scans(
    files: Iterable[ScanFile],
    preparation: Preparation,
    read: ReadConfig,
    keep: Callable[[Scan], Kept],
    *,
    workers: int = 2,
) -> Iterator[Outcome[Kept]]:
    """Read and prepare files on `workers` threads (decoders release the GIL), yielding them in the order given.

    Args:
        files: What to read.
        preparation: Of the model.
        read: Limits of reading.
        keep: Called on the reading thread with each scan at full size; only what it returns stays in memory.
        workers: Threads; each holds one scan at full size.
    """

    def one(file: ScanFile) -> Outcome[Kept]:
        try:
            scan = read_scan(file, max_megapixels=read.max_megapixels, channels=preparation.config.channels)
        except ScanError as error:
            return Outcome(file, error=str(error))
        return Outcome(file, preparation(scan), keep(scan))

    waiting: deque[Future[Outcome[Kept]]] = deque()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        try:
            for file in files:
                waiting.append(pool.submit(one, file))
                if len(waiting) > 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
