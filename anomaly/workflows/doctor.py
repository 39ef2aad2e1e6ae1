"""`anomaly doctor`: what is installed, what this machine has, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
from typing import Any

from anomaly.runs import versions
from anomaly.weights import weights_files, weights_folder

_NEEDED = {
    "torch": "the anogan method",
    "lightning": "the anogan method",
    "cv2": "reading and preparing scans",
    "pydicom": "DICOM",
    "gdcm": "JPEG-Lossless DICOM",
    "openjpeg": "JPEG 2000 DICOM",
    "rle": "RLE DICOM",
    "sklearn": "evaluation",
    "skimage": "evaluation",
    "matplotlib": "reports",
}


def examine() -> dict[str, Any]:
    """Return versions, the devices torch sees, processor features that matter, missing packages and the weights folder.

    Imports torch, so it takes seconds.
    """
    missing = {name: use for name, use in _NEEDED.items() if importlib.util.find_spec(name) is None}
    facts: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "missing": missing,
        "weights": {"folder": str(weights_folder()), "files": len(weights_files())},
    }
    if "torch" not in missing:
        import torch

        from anomaly.nets.device import has_fast_bf16, resolve_device

        facts["device"] = resolve_device("auto")
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["threads"] = torch.get_num_threads()
        facts["bf16"] = has_fast_bf16(facts["device"])
    return facts


def render(facts: dict[str, Any]) -> str:
    """Return what `examine` found as text, one fact a line."""
    lines = [f"{name:24} {version}" for name, version in facts["versions"].items()]
    lines.append(f"{'platform':24} {facts['platform']}, {facts['cores']} cores")
    if "device" in facts:
        gpus = ", ".join(facts["gpus"]) or "none"
        bf16 = "yes" if facts["bf16"] else "no"
        lines.append(
            f"{'device':24} {facts['device']} (GPUs: {gpus}; bf16 in hardware: {bf16}; {facts['threads']} threads)"
        )
    files = facts["weights"]["files"]
    lines.append(
        f"{'weights of backbones':24} {facts['weights']['folder']}: {files} {'file' if files == 1 else 'files'}"
    )
    for name, use in facts["missing"].items():
        lines.append(f"{'missing':24} {name}: needed for {use}; install anomaly again (in a checkout: `make install`)")
    return "\n".join(lines if facts["missing"] else [*lines, "nothing is missing"])
