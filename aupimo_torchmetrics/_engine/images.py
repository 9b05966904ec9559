"""Bring the maps and masks of a batch, as callers give them, into one form.

Conventions: images of the same size H, W in one tensor form a group of n images with P pixels each; in a list, each
image is a group of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._engine.checks import Maps

_MAX_GROUP_PIXELS = 2**30
"""Maximum number of pixels in a group of several images: torch before 2.6 cannot search 2**31 or more on CUDA."""


class Group(NamedTuple):
    """Images of one size. Their tensors are contiguous, so that all pixels of the group can be seen as one row."""

    maps: Tensor
    """(n, P) floating."""
    masks: Tensor
    """(n, P) bool, true in a defect; a true byte may have any bit set."""
    ignored: Tensor | None
    """(n, P) bool, true for a pixel that does not count; None if every pixel counts."""
    is_binary: Tensor
    """() bool, true if the target holds nothing but 0, 1 and `ignore_index`."""


def as_groups(preds: Maps, target: Maps, dtype: torch.dtype, ignore_index: int | None) -> list[Group]:
    """Put the images of a batch into groups; float64 maps are rounded to `dtype`."""
    return [as_group(*pair, dtype, ignore_index) for pair in in_pairs(preds, target, _MAX_GROUP_PIXELS)]


def in_pairs(preds: Maps, target: Maps, num_pixels: int) -> list[tuple[Tensor, Tensor]]:
    """Cut a batch into pairs of maps and target (n, ...) of one size, of at most `num_pixels` unless n is 1."""
    if isinstance(preds, Tensor) and isinstance(target, Tensor):
        num_images = max(1, num_pixels // max(1, preds[:1].numel()))
        parts = zip(torch.split(preds, num_images), torch.split(target, num_images), strict=True)
        return [(maps, masks) for maps, masks in parts if len(maps)]  # `split` turns no images into one empty part
    return [(maps[None], masks[None]) for maps, masks in zip(preds, target, strict=True)]


def as_group(preds: Tensor, target: Tensor, dtype: torch.dtype, ignore_index: int | None) -> Group:
    """Make a group of maps and target (n, ...)."""
    maps, flat_target = _flat(preds), _flat(target)
    masks, ignored = _split_target(flat_target, ignore_index)
    maps = maps.to(dtype) if maps.dtype == torch.float64 else maps
    return Group(maps, masks, ignored, _is_binary(flat_target, masks))


def _flat(batch: Tensor) -> Tensor:
    """(n, P) contiguous plain tensor without gradient, from a tensor (n, ...) of any class."""
    return plain(batch).reshape(len(batch), -1).contiguous()


def plain(tensor: Tensor) -> Tensor:
    """Return the same values without gradient, as a plain `Tensor` and not a subclass."""
    values = tensor.detach()
    # In torch 2.4 `as_subclass` fails for a plain tensor while operations are traced or profiled.
    return values if type(values) is Tensor else values.as_subclass(Tensor)


def _split_target(target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Mask pixels and ignored pixels of a target, both bool in its shape; None if no pixel can be ignored."""
    if target.dtype == torch.bool:
        return target, None
    masks = ~_is_equal(target, 0)
    if ignore_index is None:
        return masks, None
    limits = torch.finfo(target.dtype) if target.is_floating_point() else torch.iinfo(target.dtype)
    if not limits.min <= ignore_index <= limits.max:  # torch would compare with -1 as with 255
        return masks, None
    ignored = _is_equal(target, ignore_index)
    return masks & ~ignored, ignored


def _is_binary(target: Tensor, masks: Tensor) -> Tensor:
    """() bool, true if each mask pixel of a target has the value 1."""
    if target.dtype == torch.bool:
        return torch.ones((), dtype=torch.bool, device=target.device)
    differs = masks.view(torch.uint8) ^ _is_equal(target, 1).view(torch.uint8)
    return differs.amax() == 0


def _is_equal(target: Tensor, value: int) -> Tensor:
    """Whether each value of a target equals a value: bool of its shape."""
    if target.device.type == "cpu" and target.dtype != torch.bfloat16:  # NumPy is many times as fast
        return torch.from_numpy(np.asarray(target.numpy() == value))
    return target == value
