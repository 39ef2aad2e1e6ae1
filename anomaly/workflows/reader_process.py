"""The process that decodes: bytes in on stdin, what was made of them out on stdout, one file at a time.

A codec that crashes or hangs takes only this process with it. It is started as a plain program (see `readers`), so it
runs nothing of the caller's script, holds no thread of torch's, and ends when its stdin does, however its parent died.
"""

from __future__ import annotations

import faulthandler
import json
import os
import struct
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from anomaly.config import PrepareConfig
from anomaly.errors import DataError, ScanError
from anomaly.prepare.prepare import Preparation, pack_prepared
from anomaly.records import ScanFile
from anomaly.runs import Arrays
from anomaly.scans.read import decode_scan, printable
from anomaly.workflows.examine import examine

_PACKAGE = Path(__file__).parents[1]
_LENGTHS = struct.Struct("<QQ")


def send(stream: IO[bytes], header: Mapping[str, Any], body: bytes = b"") -> None:
    """Write one message: a JSON header and raw bytes."""
    text = json.dumps(header).encode("ascii")
    stream.write(_LENGTHS.pack(len(text), len(body)) + text)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read one message of `send`.

    Raises:
        EOFError: The other side is gone.
    """
    head, body = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    return json.loads(_exactly(stream, head)), _exactly(stream, body)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def main() -> None:
    """Serve requests until stdin ends."""
    import cv2

    requests, replies = _private_streams()
    cv2.setNumThreads(1)  # the processes themselves fill the cores
    send(replies, {"ready": True})
    while True:
        try:
            request, data = receive(requests)
        except EOFError:
            return
        faulthandler.dump_traceback_later(request["seconds"], exit=True)  # acts while native code holds the GIL, too
        reply, body = _answer(request, data)
        faulthandler.cancel_dump_traceback_later()
        del data
        try:
            send(replies, reply, body)
        except BrokenPipeError:
            return


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Keep stdin and stdout for messages alone: what a codec prints must not land among them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return requests, replies


def _answer(request: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what becomes of one file; an exception becomes a word of it, so that the process lives on."""
    try:
        return _work(request, data)
    except ScanError as error:
        return {"failed": str(error)}, b""
    except MemoryError:
        name = printable(request["relative"])
        return {"failed": f"{name}: does not fit in this machine's memory; make the picture smaller"}, b""
    except DataError as error:
        return {"stop": str(error)}, b""
    except Exception as error:  # a bug of ours, but one file's: its text may hold what the file says of a person
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)][-1]
        where = f"{Path(ours.filename).relative_to(_PACKAGE).as_posix()}, line {ours.lineno}"
        text = f"{printable(request['relative'])}: met a bug of anomaly ({type(error).__name__} in {where}); report it"
        return {"failed": text, "traceback": traceback.format_exc()}, b""


def _work(request: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    from safetensors.numpy import save

    file = ScanFile("", Path(request["path"]), request["relative"], member=request["member"])
    scan = decode_scan(file, data, max_megapixels=request["max_megapixels"], channels=request["channels"])
    reply: dict[str, Any] = {}
    arrays: Arrays = {}
    if {"prepared", "shrunk"} & set(request["kinds"]):
        preparation = Preparation(PrepareConfig(**request["prepare"]), request["size"])
        shrunk = preparation.shrink(scan)
        if "prepared" in request["kinds"]:
            made, reply["prepared"] = pack_prepared(preparation.finish(shrunk))
            arrays |= {f"prepared.{name}": array for name, array in made.items()}
        if "shrunk" in request["kinds"]:
            made, reply["shrunk"] = shrunk.to_entry()
            arrays |= {f"shrunk.{name}": array for name, array in made.items()}
    if "findings" in request["kinds"]:
        found, reply["findings"] = examine(scan, request["content_sha256"]).to_entry()
        arrays |= {f"findings.{name}": array for name, array in found.items()}
    return reply, save(arrays)
