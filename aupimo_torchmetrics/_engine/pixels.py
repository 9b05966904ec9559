"""Part all pixels of images into those in masks and those outside.

Conventions: a normal pixel is one outside of all masks, of normal and of anomalous images; a pixel that is ignored is
neither that nor a mask pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import Group
from aupimo_torchmetrics._engine.kept import true_indices
from aupimo_torchmetrics._engine.regions import PackedMasks, pack_masks


class Pixels(NamedTuple):
    """The pixels of some images of one size."""

    normal: Tensor
    """(P,) scores of the normal pixels, in memory of their own."""
    mask: Tensor
    """(T,) scores of the mask pixels, in the order of the images and row by row, in memory of their own."""
    packed: PackedMasks
    """Where the mask pixels are."""
    num_ignored_images: int
    """Number of images whose every pixel is ignored."""


def part_pixels(group: Group, size: torch.Size) -> Pixels:
    """Part the pixels of images of a size (H, W); scores keep their dtype."""
    maps, masks, ignored, _ = group
    in_masks = true_indices(masks)
    packed = pack_masks(masks.cpu().numpy().reshape(-1, *size) if len(in_masks) else [])
    if ignored is None and len(in_masks) == 0:
        normal = maps.view(-1).clone()
    else:
        normal = _take(maps, ~masks if ignored is None else ~(masks | ignored))
    num_ignored_images = 0 if ignored is None else int(ignored.all(1).sum())
    return Pixels(normal, maps.view(-1).index_select(0, in_masks), packed, num_ignored_images)


def _take(scores: Tensor, flags: Tensor) -> Tensor:
    """Copy the scores at the true flags of the same shape, which are most: a row."""
    if scores.device.type != "cpu":
        return scores[flags]
    bits = scores.view(torch.int16) if scores.element_size() == torch.int16.itemsize else scores
    taken = bits.numpy()[flags.numpy()]  # NumPy is many times as fast, but has no bfloat16
    return torch.from_numpy(taken).view(scores.dtype)
