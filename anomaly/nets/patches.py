"""Feature maps -> one vector a patch, and a map of patches -> a smooth map of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from anomaly.errors import UsageError

Resize = Literal["nearest", "bilinear"]


def join(maps: Sequence[Tensor], how: Resize) -> Tensor:
    """Bring maps (N, C_l, h_l, w_l) to the size of the first and put their channels together: (N, sum C_l, h, w)."""
    first = maps[0]
    return torch.cat([first, *(resize(other, (first.shape[2], first.shape[3]), how) for other in maps[1:])], dim=1)


def resize(maps: Tensor, size: tuple[int, int], how: Resize) -> Tensor:
    """Bring maps (N, C, h, w) to another size; pixels are areas, as in `align_corners=False`."""
    if maps.shape[2:] == size:
        return maps
    return functional.interpolate(maps, size=size, mode=how)


def spreader(patches: int, size: int, how: Resize, sigma: float) -> Tensor:
    """Return the matrix, float32 (size, patches), that enlarges a line of patches to pixels and blurs it.

    Enlarging and the Gaussian blur of Roth et al. (2022) and Defard et al. (2021) are linear and act on rows and
    columns alike, so both are `spread(maps, matrix)`: 2 small products in place of a convolution with a kernel of 33 x
    33 pixels. The kernel ends at 4 sigma and the border is mirrored, as in anomalib.

    Raises:
        UsageError: The blur is wider than the image.
    """
    line = torch.eye(patches, dtype=torch.float64)[:, None]  # every patch in turn, (patches, 1, patches)
    large = functional.interpolate(line, size=size, mode="linear" if how == "bilinear" else how)
    reach = int(4.0 * sigma + 0.5)
    if reach >= size:
        raise UsageError(f"A smoothing of {sigma:g} pixels is too wide for images of {size} pixels a side: lessen it.")
    if reach == 0:
        return large[:, 0].T.to(torch.float32)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    mirrored = functional.pad(large, (reach, reach), mode="reflect")
    return functional.conv1d(mirrored, kernel)[:, 0].T.to(torch.float32)


def spread(maps: Tensor, matrix: Tensor) -> Tensor:
    """Enlarge and blur square maps of patches, float32 (N, p, p), by the matrix (size, p): float32 (N, size, size)."""
    return matrix @ maps @ matrix.T
