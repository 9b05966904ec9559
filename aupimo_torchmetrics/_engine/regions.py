"""The connected regions of masks, for AUPRO: masks packed to bits, and the number of the region of each mask pixel.

Conventions: R regions, T mask pixels, in the order of the images and row by row. Mask pixels that touch at an edge or
at a corner belong to the same region. What is packed of an image is the rectangle around its mask pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._extras import require


class PackedMasks(NamedTuple):
    """The masks of the anomalous images of a set, packed to bits."""

    bits: Tensor
    """(B,) uint8, the pixels of each rectangle, row by row, in whole bytes."""
    sizes: Tensor
    """(2A,) int64, height and width of the rectangle of each of A anomalous images."""


def pack_masks(masks: Iterable[NDArray[np.bool_]]) -> PackedMasks:
    """Pack masks (H, W), those without any pixel into nothing."""
    bits = [np.empty(0, dtype=np.uint8)]
    sizes: list[int] = []
    for mask in masks:
        if mask.any():
            rows = np.flatnonzero(mask.any(1))
            band = mask[rows[0] : rows[-1] + 1]
            columns = np.flatnonzero(band.any(0))
            rectangle = band[:, columns[0] : columns[-1] + 1]
            bits.append(np.packbits(rectangle))
            sizes += rectangle.shape
    return PackedMasks(torch.from_numpy(np.concatenate(bits)), torch.tensor(sizes, dtype=torch.int64, device="cpu"))


def number_regions(masks: PackedMasks) -> Tensor:
    """Give the number of its region, from 0 to R - 1, to each mask pixel: (T,) int64, on the CPU.

    Raises:
        ModuleNotFoundError: If scipy is not installed.

    """
    if len(masks.sizes) == 0:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    require("scipy", extra="stats", needed_by="AUPRO")
    from scipy import ndimage  # noqa: PLC0415

    bits, num_regions, start = masks.bits.cpu().numpy(), 0, 0
    numbers = []
    for height, width in masks.sizes.view(-1, 2).tolist():
        num_bytes = -(-height * width // 8)
        mask = np.unpackbits(bits[start : start + num_bytes], count=height * width).view(bool).reshape(height, width)
        labels, num_found = ndimage.label(mask, structure=np.ones((3, 3)))
        numbers.append(labels[mask].astype(np.int64) - 1 + num_regions)
        num_regions, start = num_regions + num_found, start + num_bytes
    return torch.from_numpy(np.concatenate(numbers))


def shares_of_pixels(numbers: Tensor) -> tuple[Tensor, int]:
    """Give each mask pixel its share of its region, one over the size: (T,) float64; and the number of regions."""
    sizes = torch.bincount(numbers)
    return sizes.double().reciprocal()[numbers], len(sizes)
