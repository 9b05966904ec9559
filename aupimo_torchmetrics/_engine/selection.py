"""Check a batch of anomaly maps and masks, and select the scores on which a result can depend.

This is the only module that looks at whole maps. It reads each map and each mask once, and the maps once more if there
are normal images among them. From these reads it knows the highest score of each block of pixels, the lowest normal
score, and which blocks hold mask pixels. Then it looks pixel by pixel at the few blocks that hold something to keep. It
copies whole maps only if pixels of them may be ignored.

Conventions: N images of size H, W with P pixels. Images of the same size in one tensor form a group (n, P); in a list,
each image is a group of its own. Each image of a group is cut into q blocks of B pixels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.checks import Maps, check_form, check_values
from aupimo_torchmetrics._engine.image_ids import ImageIds, are_texts
from aupimo_torchmetrics._engine.kept import (
    NO_ID,
    PixelScores,
    join_scores,
    kth_highest,
    no_scores,
    required_capacity,
    true_indices,
)

_SAMPLE_SIZE = 2**15
"""Number of pixels in the sample that suggests a floor."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Step of the sample, as a share of an image."""

_BLOCK_SIZES = (*range(128, 15, -1), *range(129, 2**14))
"""Sizes of a block in pixels, best first. Smaller blocks are slower on the CPU; larger ones hold more to drop."""

_MAX_COPIED_SHARE = 0.1
"""If at most this share of the blocks holds something to keep, only these are copied and searched, otherwise all."""

_MAX_GROUP_PIXELS = 2**30
"""Maximum number of pixels in a group of several images: torch before 2.6 cannot search 2**31 or more on CUDA."""


class _Group(NamedTuple):
    """Images of one size, cut into blocks, and what the first reads have found."""

    maps: Tensor
    """(n, q, B) floating."""
    masks: Tensor
    """(n, q, B) bool."""
    highest: Tensor
    """(n, q) highest score of each block; not defined for a block with a NaN."""
    is_masked: Tensor
    """(n, q) bool, true for a block with mask pixels."""
    has_nan: Tensor
    """(n,) bool, true for a map with NaN."""
    is_anomalous: Tensor
    """(n,) bool."""
    is_binary: Tensor
    """() bool, true if the target holds nothing but 0, 1 and `ignore_index`."""
    ignored: Tensor | None
    """(n, q, B) bool, true for a pixel that does not count; None if every pixel counts."""
    num_counted: Tensor | int
    """(n,) number of pixels of each image that are not ignored, or one number for all images."""

    @property
    def num_pixels(self) -> int:
        """Number of pixels of an image, ignored or not."""
        return self.maps.shape[1] * self.maps.shape[2]


class _Facts(NamedTuple):
    """What the host needs to know of a batch."""

    num_nan_maps: int
    is_binary: bool
    """Whether all targets hold only 0 and 1."""
    has_floor: bool
    has_normal: bool
    has_anomalous: bool
    """Whether there is an image of each class."""


def keep_scores(
    preds: Maps,
    target: Maps,
    image_ids: ImageIds | None = None,
    *,
    floor: Tensor,
    normal_buffer: int | None,
    upper_fpr: float,
    validate_args: bool,
    ignore_index: int | None = None,
) -> PixelScores:
    """Check one batch and return what is kept of it, in the dtype of `floor`; raise if the batch is not valid.

    Image ids are kept here only if they are integers; the caller keeps texts, as bytes beside the scores. An image
    whose every pixel is ignored is a normal image of 0 pixels here; the caller drops it.

    The host waits for the device once for the facts of the batch, and then, for a tensor of images or for each map of a
    list, once for each class that the batch holds. It waits once more if a floor is chosen, and once for image ids.
    """
    if validate_args:
        check_form(preds, target, image_ids)
    groups = [_look_at(maps, masks, ignore_index) for maps, masks in _as_groups(preds, target, floor.dtype)]
    num_images = sum(len(group.maps) for group in groups)
    if image_ids is not None and len(image_ids) != num_images:  # also without checks: ids would move to other images
        raise ValueError(
            f"Expected `image_ids` to hold an id for each of {num_images} images, but got {len(image_ids)}."
        )
    if not groups:
        return no_scores(floor)
    floor = floor.to(groups[0].maps.device)
    facts = _to_host(groups, floor)
    if validate_args:
        check_values(facts.num_nan_maps, facts.is_binary, preds, target, ignore_index)

    capacity = math.inf
    if normal_buffer is not None:
        largest = max(group.num_pixels for group in groups)
        capacity = required_capacity(num_images, largest, normal_buffer, upper_fpr)

    parts = None
    if not facts.has_floor and facts.has_normal and sum(group.maps.numel() for group in groups) > 2 * capacity:
        parts = _select_above_new_floor(groups, floor, int(capacity), facts)
    if parts is None:
        parts = [_select(group, floor, facts) for group in groups]
    kept = join_scores(parts)
    if image_ids is not None and not are_texts(image_ids):
        ids = torch.as_tensor(image_ids, dtype=torch.int64, device=floor.device)
        kept = kept._replace(image_ids=_plain(ids).clone())  # not the memory of the caller
    return kept


def as_images(
    preds: Maps, target: Maps, *, validate_args: bool, ignore_index: int | None = None
) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Check one batch and return its images; raise if not valid.

    Returns:
        Maps (H, W), float32 or float64; masks (H, W) bool; and (H, W) bool, true for a pixel that is ignored, or None
        if no pixel of the image can be.

    """
    if validate_args:
        check_form(preds, target, None)
    maps = [_plain(each).reshape(each.shape[-2:]) for each in preds]
    targets = [_plain(each).reshape(each.shape[-2:]) for each in target]
    split = [_split_target(each, ignore_index) for each in targets]
    if validate_args:
        num_nan_maps = sum(bool(each.isnan().any()) for each in maps)
        is_binary = all(bool(_is_binary(each, *parts)) for each, parts in zip(targets, split, strict=True))
        check_values(num_nan_maps, is_binary, preds, target, ignore_index)
    scores = [each if each.dtype == torch.float64 else each.float() for each in maps]
    return scores, [masks for masks, _ in split], [ignored for _, ignored in split]


def _as_groups(preds: Maps, target: Maps, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Maps and target of each group, both (n, P); float64 maps are rounded to `dtype`."""
    if isinstance(preds, Tensor) and isinstance(target, Tensor):
        num_images = max(1, _MAX_GROUP_PIXELS // max(1, preds[:1].numel()))
        parts = zip(torch.split(preds, num_images), torch.split(target, num_images), strict=True)
        pairs = [(maps, masks) for maps, masks in parts if len(maps)]  # `split` turns no images into one empty part
    else:
        pairs = [(maps[None], masks[None]) for maps, masks in zip(preds, target, strict=True)]
    groups = [(_flat(maps), _flat(masks)) for maps, masks in pairs]
    return [(maps.to(dtype) if maps.dtype == torch.float64 else maps, masks) for maps, masks in groups]


def _flat(batch: Tensor) -> Tensor:
    """(n, P) contiguous plain tensor without gradient, from a tensor (n, ...) of any class."""
    return _plain(batch).reshape(len(batch), -1).contiguous()


def _plain(tensor: Tensor) -> Tensor:
    """Return the same values without gradient, as a plain `Tensor` and not a subclass."""
    values = tensor.detach()
    # In torch 2.4 `as_subclass` fails for a plain tensor while operations are traced or profiled.
    return values if type(values) is Tensor else values.as_subclass(Tensor)


def _look_at(maps: Tensor, target: Tensor, ignore_index: int | None) -> _Group:
    """Cut maps and target (n, P) into blocks, and find what the blocks and images hold."""
    blocks = (len(maps), -1, _block_size(maps.shape[1]))
    masks, ignored = _split_target(target, ignore_index)
    is_masked = _is_any(masks, blocks[2])
    num_counted: Tensor | int = maps.shape[1]
    if ignored is None:
        highest = _highest(maps.view(blocks))
    else:
        highest = _highest(maps.masked_fill(ignored, -math.inf).view(blocks))
        num_counted = num_counted - _count(ignored.view(blocks))
    # A maximum is NaN where there is one, but not if it is found by the bits of 16-bit numbers, nor in ignored pixels.
    is_seen = ignored is None and maps.element_size() > torch.int16.itemsize
    has_nan = (highest.amax(1) if is_seen else maps.amin(1)).isnan()
    return _Group(
        maps=maps.view(blocks),
        masks=masks.view(blocks),
        highest=highest,
        is_masked=is_masked,
        has_nan=has_nan,
        is_anomalous=is_masked.any(1),
        is_binary=_is_binary(target, masks, ignored),
        ignored=None if ignored is None else ignored.view(blocks),
        num_counted=num_counted,
    )


def _split_target(target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor | None]:
    """Mask pixels and ignored pixels of a target, both bool in its shape; None if no pixel can be ignored."""
    if target.dtype == torch.bool:
        return target, None
    masks = target != 0
    if ignore_index is None:
        return masks, None
    limits = torch.finfo(target.dtype) if target.is_floating_point() else torch.iinfo(target.dtype)
    if not limits.min <= ignore_index <= limits.max:  # torch would compare with -1 as with 255
        return masks, None
    ignored = target == ignore_index
    return masks & ~ignored, ignored


def _is_binary(target: Tensor, masks: Tensor, ignored: Tensor | None) -> Tensor:
    """() bool, true if a target holds nothing but 0, 1 and the value that is ignored."""
    if target.dtype == torch.bool:
        return torch.ones((), dtype=torch.bool, device=target.device)
    is_valid = target == masks.to(target.dtype)
    if ignored is not None:
        is_valid |= ignored
    return is_valid.view(torch.uint8).amin() != 0


def _highest(blocks: Tensor) -> Tensor:
    """Highest score of each block of maps (n, q, B): (n, q), not defined for a block with NaN.

    The CPU finds maxima of integers five times faster than those of 16-bit floating point numbers. So the bits of such
    numbers are read as integers. These have the same order as positive numbers, and the reverse order of negative ones.
    """
    if blocks.element_size() != torch.int16.itemsize:
        return blocks.amax(2)
    bits = blocks.view(torch.int16)
    largest, smallest = bits.amax(2), bits.amin(2)
    return torch.where(largest >= 0, largest, smallest).view(blocks.dtype)


def _is_any(masks: Tensor, block_size: int) -> Tensor:
    """Whether each block of masks (n, P) holds a true pixel: (n, q) bool.

    The CPU finds maxima of 32-bit words several times faster than those of bytes; `any` is slowest. Other software may
    write true as a byte of 255. Then a word may be negative, so the minima count, too.
    """
    word_size = torch.int32.itemsize
    if block_size % word_size or masks.storage_offset() % word_size:
        return masks.view(torch.uint8).view(len(masks), -1, block_size).amax(2) != 0
    words = masks.view(torch.int32).view(len(masks), -1, block_size // word_size)
    return (words.amax(2) | words.amin(2)) != 0


def _count(blocks: Tensor) -> Tensor:
    """Number of true pixels of each image (n, q, B): (n,) int64; sums of bytes, where they suffice, are fastest."""
    small = torch.uint8 if blocks.shape[2] < 256 else torch.int64
    return blocks.view(torch.uint8).sum(2, dtype=small).sum(1, dtype=torch.int64)


@functools.cache
def _block_size(num_pixels: int) -> int:
    """Return the best size of a block that divides the number of pixels; if none does, a whole image is a block."""
    return next((size for size in _BLOCK_SIZES if num_pixels % size == 0), num_pixels)


def _to_host(groups: list[_Group], floor: Tensor) -> _Facts:
    """Facts about a batch; the host waits for the device once."""
    num_nan_maps = torch.stack([group.has_nan.sum() for group in groups]).sum()
    num_anomalous = torch.stack([group.is_anomalous.sum() for group in groups]).sum()
    is_binary = torch.stack([group.is_binary for group in groups]).all()
    facts = torch.stack([num_nan_maps, num_anomalous, is_binary.long(), (floor > -math.inf).long()]).tolist()
    num_images = sum(len(group.maps) for group in groups)
    return _Facts(
        num_nan_maps=facts[0],
        is_binary=bool(facts[2]),
        has_floor=bool(facts[3]),
        has_normal=facts[1] < num_images,
        has_anomalous=facts[1] > 0,
    )


def _select(group: _Group, floor: Tensor, facts: _Facts) -> PixelScores:
    """Keep the pixels of normal images and the mask pixels of anomalous images that are at or above the floor."""
    # If the floor is rounded up to a coarser dtype, there is no score of that dtype in between: none is lost.
    level = floor.to(group.maps.dtype)
    reaches_level = group.highest >= level
    normal_scores = mask_scores = group.maps.new_empty(0)
    num_normal = num_masked = torch.zeros_like(group.is_anomalous, dtype=torch.int64)
    normal_min, num_pixels = torch.full_like(floor, math.inf), torch.zeros_like(num_normal) + group.num_counted
    if facts.has_normal:
        normal_scores, num_normal = _take(group, reaches_level & ~group.is_anomalous[:, None], level, None)
        normal_min = _normal_min(group, floor)
    if facts.has_anomalous:
        mask_scores, num_masked = _take(group, reaches_level & group.is_masked, level, group.masks)
        num_pixels = torch.where(group.is_anomalous, _mask_sizes(group), num_pixels)
    return PixelScores(
        normal_scores=normal_scores.to(floor.dtype),
        mask_scores=mask_scores.to(floor.dtype),
        num_kept=num_normal + num_masked,
        num_pixels=num_pixels,
        is_anomalous=group.is_anomalous,
        image_ids=torch.full_like(num_normal, NO_ID),
        floor=floor,
        normal_min=normal_min,
    )


def _normal_min(group: _Group, floor: Tensor) -> Tensor:
    """() lowest score of the normal images, in the dtype of the floor; +inf without any."""
    maps = group.maps if group.ignored is None else group.maps.masked_fill(group.ignored, math.inf)
    lowest = maps.view(len(maps), -1).amin(1)
    return torch.where(group.is_anomalous, math.inf, lowest).amin().to(floor.dtype)


def _take(group: _Group, is_wanted: Tensor, level: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores (S,) at or above a level, in the masks or, without masks, of normal images; and how many of each image.

    Nothing is taken from blocks (n, q) that are not wanted. If these are most, only the others are read again.
    """
    num_images, num_blocks, block_size = group.maps.shape
    maps, ignored = group.maps.view(-1, block_size), _rows(group.ignored)
    masks = _rows(masks)
    ends = torch.arange(num_images + 1, device=maps.device) * num_blocks
    is_part = False
    if maps.device.type == "cpu":  # on other devices, waiting for the number of blocks costs more than reading all
        wanted = true_indices(is_wanted)
        is_part = len(wanted) <= _MAX_COPIED_SHARE * len(maps)
        if is_part:
            maps, masks, ignored = maps.index_select(0, wanted), _rows(masks, wanted), _rows(ignored, wanted)
            ends = torch.searchsorted(wanted, ends)
    if masks is not None:
        is_kept = _at_least(maps, level) & masks
    elif is_part:
        is_kept = _at_least(maps, level)
    else:  # no score of an anomalous image is at or above NaN
        levels = torch.where(group.is_anomalous, math.nan, level)
        is_kept = _at_least(maps.view(num_images, -1), levels[:, None]).view(maps.shape)
    if ignored is not None:
        is_kept &= ~ignored
    indices = true_indices(is_kept)
    return maps.view(-1).index_select(0, indices), torch.searchsorted(indices, ends * block_size).diff()


def _rows(blocks: Tensor | None, indices: Tensor | None = None) -> Tensor | None:
    """Blocks (..., B) as rows (b, B), all or those at the given indices; None if there are none."""
    if blocks is None:
        return None
    rows = blocks.view(-1, blocks.shape[-1])
    return rows if indices is None else rows.index_select(0, indices)


def _at_least(maps: Tensor, level: Tensor) -> Tensor:
    """Whether each score is at or above a level, which is broadcast: bool of the shape of the maps."""
    if maps.device.type == "cpu" and maps.element_size() >= torch.float32.itemsize:  # NumPy is three times as fast
        return torch.from_numpy(maps.numpy() >= level.numpy())
    return maps >= level


def _mask_sizes(group: _Group) -> Tensor:
    """(n,) int64, number of mask pixels of each image."""
    num_images, num_blocks, block_size = group.masks.shape
    if group.masks.device.type != "cpu":
        return group.masks.sum((1, 2))
    blocks = true_indices(group.is_masked)
    sizes = group.masks.view(-1, block_size).index_select(0, blocks).sum(1)
    return torch.zeros(num_images, dtype=torch.int64).index_add_(0, blocks // num_blocks, sizes)


def _select_above_new_floor(
    groups: list[_Group], floor: Tensor, capacity: int, facts: _Facts
) -> list[PixelScores] | None:
    """Select at and above a floor that a sample suggests.

    Returns:
        What is kept of each group; None if the floor is too high: it keeps fewer than `capacity` normal scores, and not
        all of them.

    """
    num_pixels = sum(group.maps.numel() for group in groups)
    sample = torch.cat([_sample(group, _SAMPLE_SIZE / num_pixels).to(floor.dtype) for group in groups])
    expected = capacity * len(sample) / num_pixels
    rank = min(len(sample), math.ceil(expected + 4 * math.sqrt(expected)))  # four standard deviations to be safe
    new_floor = kth_highest(sample, rank)
    parts = [_select(group, new_floor, facts) for group in groups]

    num_normal = torch.stack([(~group.is_anomalous * group.num_counted).sum() for group in groups]).sum()
    num_kept = sum(len(part.normal_scores) for part in parts)
    return parts if num_kept >= min(int(num_normal), capacity) else None


def _sample(group: _Group, share: float) -> Tensor:
    """Sample about a share of the pixels of each image: scores (S,), -inf in place of those that are not normal.

    The step from one pixel to the next is the golden ratio times the number of pixels, which spreads the sample evenly
    over rows and columns. A step of one row and one pixel would stay on a diagonal and miss most peaks of a smooth map.
    """
    step = round(group.num_pixels * _GOLDEN_RATIO) | 1  # odd, to reach every column of images of even width
    sample_size = min(group.num_pixels, max(1, round(share * group.num_pixels)))
    indices = torch.arange(sample_size, device=group.maps.device) * step % group.num_pixels
    sample = group.maps.view(len(group.maps), -1)[:, indices]
    is_dropped = group.is_anomalous[:, None]
    if group.ignored is not None:
        is_dropped = is_dropped | group.ignored.view(len(group.maps), -1)[:, indices]
    return torch.where(is_dropped, -math.inf, sample).flatten()
