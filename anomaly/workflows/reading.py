"""Files -> prepared films and findings, several at a time, in order; an unreadable file is a reason, never a stop.

Bytes are read and hashed on threads of this process, which look into the cache; what is not there is decoded, prepared
and examined in processes of its own (`readers`), because decoders crash and hang on damaged files and much of the work
holds Python's lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as once
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine
from typing import Any

import anomaly
from anomaly.config import ReadConfig
from anomaly.errors import DataError, ScanError
from anomaly.prepare.cache import Cache, key_of
from anomaly.prepare.prepare import Preparation, Shrunk, unpack_prepared
from anomaly.records import Prepared, ScanFile
from anomaly.runs import Arrays
from anomaly.scans.magic import HEAD, sniff
from anomaly.scans.patients import hash_patient
from anomaly.scans.read import file_bytes, printable
from anomaly.workflows.examine import Findings
from anomaly.workflows.readers import ReaderDied, ReaderPool

log = logging.getLogger("anomaly")

SECONDS = 60.0
"""What one file may take before it is given up; the slowest real film takes a few."""

_INSTEAD = "convert it to PNG or remove it"
_Part = tuple[Arrays, Any]
_FILES_A_READER = 8  # worth a process of their own, which takes half a second to start
_AHEAD = 4  # files under way for each worker
_CODE = (
    *("scans/*.py", "prepare/*.py", "records.py", "evaluate/baselines.py", "workflows/examine.py"),
    *("workflows/panels.py", "workflows/reader_process.py"),
)
_LIBRARIES = (
    *("numpy", "scipy", "scikit-image", "pillow", "pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg"),
    *("pylibjpeg-rle", "opencv-python-headless", "opencv-python", "opencv-contrib-python"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: its prepared form and what was found, as far as asked for, or the reason why not.

    `shrunk` stands in for `prepared` where the preparation is not fitted yet.
    """

    file: ScanFile
    prepared: Prepared | None = None
    findings: Findings | None = None
    error: str | None = None
    shrunk: Shrunk | None = None

    @property
    def patient(self) -> str | None:
        """Hashed key of the patient: what the folder or manifest says overrules the file itself."""
        return self.file.patient or (self.findings.patient if self.findings else None)

    @property
    def view(self) -> str | None:
        """Projection: what the manifest says overrules the file itself."""
        return self.file.view or (self.findings.view if self.findings else None)


def read_files(
    files: Sequence[ScanFile],
    *,
    read: ReadConfig,
    channels: int,
    preparation: Preparation | None,
    examine: bool = True,
    workers: int = 2,
    cache: Cache | None = None,
    seconds: float = SECONDS,
) -> Iterator[Outcome]:
    """Read, prepare and examine files in `workers` processes, yielding outcomes in the order given.

    A file that crashes its process is tried once more, as the blame may be another's (a full memory); then it is an
    outcome with an error, as is one that takes too long or meets a bug of ours (-v shows its traceback). Memory does
    not grow with the number of files.

    Args:
        files: What to read.
        read: Limits of reading.
        channels: 1 turns real colour to grey, 3 keeps it.
        preparation: Of the model; None to prepare nothing. One that is not fitted leaves films `shrunk`.
        examine: Also report `Findings`; without them a DICOM file's own patient and view are not known.
        workers: Processes at most; few files start fewer, and files found in the cache none.
        cache: From `open_cache`; None to do without.
        seconds: What one file may take.

    Raises:
        DataError: Patients cannot be hashed on this machine.
        AnomalyError: No process can be started.
    """
    task = _Task(read, channels, preparation, examine, cache, seconds, ReaderPool())
    workers = max(1, min(workers, -(-len(files) // _FILES_A_READER)))
    waiting: deque[Future[Outcome]] = deque()
    threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read")
    try:
        for file in files:
            waiting.append(threads.submit(task.outcome, file))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        task.pool.close()
        threads.shutdown()


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be done to every file."""

    read: ReadConfig
    channels: int
    preparation: Preparation | None
    examine: bool
    cache: Cache | None
    seconds: float
    pool: ReaderPool

    def outcome(self, file: ScanFile) -> Outcome:
        """Read one file; runs on a thread."""
        try:
            data = file_bytes(file)
            content = sha256(data).hexdigest() if self.examine or self.cache else ""
            keys = self._keys(file, data, content) if self.cache else {}
            parts = self._recall(keys)
            missing = [kind for kind in self._wanted() if kind not in parts]
            if missing:
                parts |= self._decode(file, data, content, missing)
        except ScanError as error:
            return Outcome(file, error=str(error))
        if self.cache:
            for kind in missing:
                self.cache.put(keys[kind], *parts[kind])
        findings = Findings.from_entry(*parts["findings"]) if self.examine else None
        if self.preparation is None:
            return Outcome(file, findings=findings)
        if "prepared" in parts:
            return Outcome(file, unpack_prepared(*parts["prepared"]), findings)
        shrunk = Shrunk.from_entry(*parts["shrunk"])
        if not self.preparation.fitted:
            return Outcome(file, findings=findings, shrunk=shrunk)
        return Outcome(file, self.preparation.finish(shrunk), findings)

    def _wanted(self) -> list[str]:
        """Return the parts that the cache keeps."""
        return ["shrunk"] * (self.preparation is not None) + ["findings"] * self.examine

    def _keys(self, file: ScanFile, data: bytes, content: str) -> dict[str, str]:
        """Return the key in the cache of each part that is wanted."""
        facts: dict[str, Any] = {
            "content": content,
            "member": file.member,
            "read": self.read.model_dump(mode="json"),
            "channels": self.channels,
            "made_by": _made_by(),
            "salt": hash_patient("whose hashes are these") if sniff(data[:HEAD]) == "dicom" else None,
        }
        settings = {"findings": {}, "shrunk": self.preparation.shrinks_by if self.preparation else {}}
        return {kind: key_of({**facts, "kind": kind, **settings[kind]}) for kind in self._wanted()}

    def _recall(self, keys: Mapping[str, str]) -> dict[str, _Part]:
        found = {kind: self.cache.get(key) for kind, key in keys.items()} if self.cache else {}
        return {kind: part for kind, part in found.items() if part is not None}

    def _decode(self, file: ScanFile, data: bytes, content: str, kinds: Sequence[str]) -> dict[str, _Part]:
        """Have a file decoded, once more if its process dies of it.

        Raises:
            ScanError: It cannot be read, or not without harm.
            DataError: Patients cannot be hashed on this machine.
        """
        from safetensors.numpy import load

        request: dict[str, Any] = {
            "path": str(file.path),
            "relative": file.relative,
            "member": file.member,
            "max_megapixels": self.read.max_megapixels,
            "channels": self.channels,
            "content_sha256": content,
            "seconds": self.seconds,
            "kinds": kinds,
        }
        # a film just decoded is prepared to the end there where settings are enough; to be kept, it travels as well
        if "shrunk" in kinds and self.preparation is not None and self.preparation.finishes_anywhere:
            kinds = ["prepared", *(kind for kind in kinds if kind != "shrunk" or self.cache)]
            request["kinds"] = kinds
        if self.preparation is not None:
            request |= {"prepare": self.preparation.config.model_dump(mode="json"), "size": self.preparation.size}
        name = printable(file.relative)
        for _ in range(2):
            try:
                reply, body = self.pool.ask(request, data)
            except ReaderDied as died:
                if died.overran:
                    raise ScanError(f"{name}: took longer than {self.seconds:g} s; {_INSTEAD}") from died
                continue
            if "traceback" in reply:
                log.debug("%s", reply["traceback"])
            if "failed" in reply:
                raise ScanError(reply["failed"])
            if "stop" in reply:
                raise DataError(reply["stop"])
            arrays = load(body)
            return {kind: (_of(arrays, kind), reply[kind]) for kind in kinds}
        raise ScanError(f"{name}: crashed the decoder; {_INSTEAD}")


def _of(arrays: Arrays, kind: str) -> Arrays:
    """Return the arrays of one part, by their own names."""
    return {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{kind}.")}


@once
def _made_by() -> dict[str, str]:
    """Return what an entry of the cache also depends on: our code, the libraries, the kind of processor."""
    package = Path(anomaly.__file__).parent
    code = sha256()
    for path in sorted(path for pattern in _CODE for path in package.glob(pattern)):
        code.update(path.name.encode() + sha256(path.read_bytes()).digest())
    found = {"anomaly": anomaly.__version__, "code": code.hexdigest(), "machine": machine()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
