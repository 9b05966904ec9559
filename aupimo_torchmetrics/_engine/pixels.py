"""Check a batch of anomaly maps and masks, and part all of its pixels into those in masks and those outside.

Conventions: a normal pixel is one outside of all masks, of normal and of anomalous images; a pixel that is ignored is
neither that nor a mask pixel. Maps are taken in slices of few images, so that little is held beside what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import Group, Maps, checked_groups
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


def part_pixels(
    preds: Maps, target: Maps, *, validate_args: bool, ignore_index: int | None, dtype: torch.dtype
) -> Iterator[Pixels]:
    """Check one batch and part its pixels, slice by slice; raise at the end if maps or masks hold invalid values.

    Scores keep their dtype, but those of float64 are rounded to `dtype`.
    """
    groups = checked_groups(preds, target, validate_args=validate_args, ignore_index=ignore_index, dtype=dtype)
    return (_part(group, size) for group, size in groups)


def _part(group: Group, size: torch.Size) -> Pixels:
    """Part the pixels of images of a size (H, W)."""
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
