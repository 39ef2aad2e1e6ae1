"""Pictures inside an HTML page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from anomaly.records import UInt8


def data_uri(picture: UInt8, *, lossless: bool = False) -> str:
    """Return a picture, uint8 (h, w) or (h, w, 3) RGB, as a data URI: PNG if lossless, else JPEG."""
    from PIL import Image

    data = io.BytesIO()
    if lossless:
        Image.fromarray(picture).save(data, format="PNG")
    else:
        Image.fromarray(picture).save(data, format="JPEG", quality=88)
    return _uri("png" if lossless else "jpeg", data.getvalue())


def png_uri(path: Path) -> str:
    """Return a PNG file as a data URI."""
    return _uri("png", path.read_bytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
