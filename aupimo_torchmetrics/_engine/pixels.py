"""Check a batch of anomaly maps and masks, and part all of its pixels into those in masks and those outside.

Conventions: a normal pixel is one outside of all masks, of normal and of anomalous images; a pixel that is ignored is
neither that nor a mask pixel. Maps are taken in slices of few images, so that little is held beside what is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.checks import Maps, check_form, check_values
from aupimo_torchmetrics._engine.images import Group, as_group, in_pairs
from aupimo_torchmetrics._engine.kept import true_indices
from aupimo_torchmetrics._engine.regions import PackedMasks, pack_masks

SLICE_SIZE = 2**18
"""Most pixels of a slice of several images on the CPU: the arrays of one step fit into the cache."""
_LARGE_SLICE_SIZE = 2**28
"""The same on other devices, where the host waits for each slice."""


class Pixels(NamedTuple):
    """The pixels of some images of one size."""

    normal: Tensor
    """(P,) scores of the normal pixels, in memory of their own."""
    mask: Tensor
    """(T,) scores of the mask pixels, in the order of the images and row by row, in memory of their own."""
    packed: PackedMasks
    """Where the mask pixels are."""
    num_ignored_images: Tensor
    """() int64, number of images whose every pixel is ignored."""


def part_pixels(
    preds: Maps,
    target: Maps,
    *,
    validate_args: bool,
    ignore_index: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Pixels]:
    """Check one batch and part its pixels, slice by slice; raise at the end if maps or masks hold invalid values.

    Scores keep their dtype, but those of float64 are rounded to `dtype`.
    """
    if validate_args:
        check_form(preds, target, None)
    slices = in_pairs(preds, target, SLICE_SIZE if _is_on_cpu(preds) else _LARGE_SLICE_SIZE)
    num_nan_maps, is_binary = [], []
    for maps, masks in slices:
        group = as_group(maps, masks, dtype, ignore_index)
        if validate_args:
            num_nan_maps.append(group.maps.amax(1).isnan().sum())
            is_binary.append(group.is_binary)
        yield _part(group, maps.shape[-2:])
    if is_binary:
        facts = torch.stack([torch.stack(num_nan_maps).sum(), torch.stack(is_binary).all().long()]).tolist()
        check_values(facts[0], bool(facts[1]), preds, target, ignore_index)


def _is_on_cpu(maps: Maps) -> bool:
    """Whether maps, a tensor or a list of tensors on one device, are on the CPU."""
    return all(each.device.type == "cpu" for each in maps[:1])


def _part(group: Group, size: torch.Size) -> Pixels:
    """Part the pixels of images of a size (H, W)."""
    maps, masks, ignored, _ = group
    masks = _as_flags(masks)
    normal = ~masks
    num_ignored_images = torch.zeros((), dtype=torch.int64, device=maps.device)
    if ignored is not None:
        normal &= ~ignored
        num_ignored_images = ignored.all(1).sum()
    in_masks = true_indices(masks)
    packed = pack_masks(masks.cpu().numpy().reshape(-1, *size) if len(in_masks) else [])
    return Pixels(_take(maps, normal), maps.view(-1).index_select(0, in_masks), packed, num_ignored_images)


def _as_flags(masks: Tensor) -> Tensor:
    """Masks of bool whose true bytes are 1; in those of a caller any bit of a true byte may be set."""
    as_bytes = masks.view(torch.uint8)
    if masks.device.type == "cpu":  # NumPy is many times as fast
        return torch.from_numpy(as_bytes.numpy() != 0)
    return as_bytes != 0


def _take(scores: Tensor, flags: Tensor) -> Tensor:
    """Copy the scores at the true flags of the same shape, which are most: a row."""
    if scores.device.type != "cpu":
        return scores[flags]
    bits = scores.view(torch.int16) if scores.element_size() == torch.int16.itemsize else scores
    taken = bits.numpy()[flags.numpy()]  # NumPy is many times as fast, but has no bfloat16
    return torch.from_numpy(taken).view(scores.dtype)
