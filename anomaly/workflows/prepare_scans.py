"""Files -> prepared scans, several at a time, in order; a file that cannot be read becomes a reason, never a stop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from anomaly.config import ReadConfig
from anomaly.errors import ScanError
from anomaly.prepare.prepare import Preparation
from anomaly.records import Prepared, Scan, ScanFile
from anomaly.scans.read import read_scan


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: a scan and its prepared form, or the reason why not."""

    file: ScanFile
    scan: Scan | None = None
    prepared: Prepared | None = None
    error: str | None = None


def prepare_scans(
    files: Iterable[ScanFile], preparation: Preparation, read: ReadConfig, *, workers: int = 2
) -> Iterator[Outcome]:
    """Read and prepare files on `workers` threads (decoders release the GIL), yielding them in the order given.

    At most a few scans a worker are in memory at once.
    """

    def one(file: ScanFile) -> Outcome:
        try:
            scan = read_scan(file, max_megapixels=read.max_megapixels, channels=preparation.config.channels)
        except ScanError as error:
            return Outcome(file, error=str(error))
        return Outcome(file, scan, preparation(scan))

    waiting: deque[Future[Outcome]] = deque()
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
