"""Pictures inside an HTML page."""

from __future__ import annotations

import base64
import io

from anomaly.records import UInt8


def data_uri(picture: UInt8, *, lossless: bool = False) -> str:
    """Return a picture, uint8 (h, w) or (h, w, 3) RGB, as a data URI: PNG if lossless, else JPEG."""
    from PIL import Image

    data = io.BytesIO()
    if lossless:
        Image.fromarray(picture).save(data, format="PNG")
    else:
        Image.fromarray(picture).save(data, format="JPEG", quality=88)
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{base64.b64encode(data.getvalue()).decode()}"
