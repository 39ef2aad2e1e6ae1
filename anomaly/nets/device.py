"""Where networks run and in which precision, through Lightning Fabric."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from anomaly.errors import UsageError

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises:
        UsageError: An unknown name, or "cuda" where torch finds no GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device takes auto, cpu or cuda, not {device!r}.")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError("--device cuda: torch finds no GPU here; use --device cpu, or see `anomaly doctor`.")
    return "cuda" if device != "cpu" and available else "cpu"


def has_fast_bf16(device: str) -> bool:
    """Return whether bfloat16 is computed in hardware on "cpu" or "cuda"."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def uses_bf16(device: str, precision: str) -> bool:
    """Return what "auto", "fp32" or "bf16" comes to on "cpu" or "cuda": auto takes bf16 where it is in hardware."""
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def open_fabric(device: str, precision: str, *, every: bool = False) -> Fabric:
    """Return a Fabric on one device, or on every GPU there is.

    Args:
        device: "auto", "cpu" or "cuda".
        precision: "auto" (bf16 where the hardware has it), "fp32" or "bf16".
        every: Share each batch out over all GPUs, where there are several.
    """
    from lightning.fabric import Fabric

    where = resolve_device(device)
    bf16 = uses_bf16(where, precision)
    with _quiet("lightning.pytorch.utilities.rank_zero"):  # Fabric speaks through it
        number_format: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if bf16 else "32-true"
        if every and where == "cuda" and torch.cuda.device_count() > 1:
            return Fabric(accelerator=where, devices="auto", strategy="dp", precision=number_format)
        return Fabric(accelerator=where, devices=1, precision=number_format)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block only; the caller's random state is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def freeze(module: nn.Module) -> None:
    """Put a module in eval mode and stop its gradients."""
    module.eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
