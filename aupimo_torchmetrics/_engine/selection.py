"""Check a batch of anomaly maps and masks, and select the scores on which a result can depend.

This is the only module that looks at whole maps. It reads each map twice and each mask once, and copies neither. From
these reads it knows the highest score of each block of pixels, the lowest score of each map, and which blocks hold mask
pixels. Then it looks pixel by pixel at the few blocks that hold something to keep.

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
from aupimo_torchmetrics._engine.kept import NO_ID, PixelScores, join_scores, kth_highest, no_scores, required_capacity

_SAMPLE_SIZE = 2**15
"""Number of pixels in the sample that suggests a floor."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Step of the sample, as a share of an image."""

_BLOCK_SIZES = (*range(128, 15, -1), *range(129, 4097))
"""Sizes of a block in pixels, best first. Smaller blocks are slower on the CPU; larger ones hold more to drop."""

_MAX_COPIED_SHARE = 0.25
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
    lowest: Tensor
    """(n,) lowest score of each map; NaN for a map with a NaN."""
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

    The host waits for the device twice. It waits once more if a floor is chosen, once more for image ids, and once more
    for each further map of a list.
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
    num_nan_maps, is_binary, has_floor = _to_host(groups, floor)
    if validate_args:
        check_values(num_nan_maps, is_binary, preds, target, ignore_index)

    capacity = math.inf
    if normal_buffer is not None:
        largest = max(group.num_pixels for group in groups)
        capacity = required_capacity(num_images, largest, normal_buffer, upper_fpr)

    parts = None
    if not has_floor and sum(group.maps.numel() for group in groups) > 2 * capacity:
        parts = _select_above_new_floor(groups, floor, int(capacity))
    if parts is None:
        parts = [_select(group, floor) for group in groups]
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
    lowest = maps.amin(1)
    num_counted: Tensor | int = maps.shape[1]
    if ignored is None:
        highest = _highest(maps.view(blocks))
    else:
        counted = maps.masked_fill(ignored, math.inf)
        lowest = torch.where(lowest.isnan(), lowest, counted.amin(1))  # NaN is an error in an ignored pixel, too
        highest = _highest(counted.masked_fill_(ignored, -math.inf).view(blocks))
        num_counted = num_counted - _count(ignored.view(blocks))
    return _Group(
        maps=maps.view(blocks),
        masks=masks.view(blocks),
        highest=highest,
        is_masked=is_masked,
        lowest=lowest,
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
    """Return the best block size that divides the number of pixels; 1, which is slow, if there is none."""
    return next((size for size in _BLOCK_SIZES if num_pixels % size == 0), 1)


def _to_host(groups: list[_Group], floor: Tensor) -> tuple[int, bool, bool]:
    """Number of maps with NaN, whether all targets are binary, and whether there is a floor, in one wait."""
    num_nan_maps = torch.stack([group.lowest.isnan().sum() for group in groups]).sum()
    is_binary = torch.stack([group.is_binary for group in groups]).all()
    facts = torch.stack([num_nan_maps, is_binary.long(), (floor > -math.inf).long()]).tolist()
    return facts[0], bool(facts[1]), bool(facts[2])


def _select(group: _Group, floor: Tensor) -> PixelScores:
    """Keep the mask pixels of anomalous images, and the pixels of normal images at or above the floor."""
    num_images, num_blocks, block_size = group.maps.shape
    # A comparison with NaN is false, so in an anomalous image only the mask decides. A coarser dtype may round the
    # floor up, but it has no score between the two floors, so none is lost.
    image_levels = torch.where(group.is_anomalous, math.nan, floor.to(group.maps.dtype))
    levels = image_levels[:, None].expand(num_images, num_blocks).reshape(-1)
    maps, masks = group.maps.view(-1, block_size), group.masks.view(-1, block_size)
    ignored = None if group.ignored is None else group.ignored.view(-1, block_size)

    blocks = torch.arange(len(maps), device=maps.device)
    if maps.device.type == "cpu":  # on other devices, waiting for the number of blocks costs more than reading all
        wanted = ((group.highest.view(-1) >= levels) | group.is_masked.view(-1)).nonzero().squeeze(1)
        if len(wanted) <= _MAX_COPIED_SHARE * len(maps):
            blocks, levels = wanted, levels[wanted]
            maps, masks = maps.index_select(0, wanted), masks.index_select(0, wanted)
            ignored = None if ignored is None else ignored.index_select(0, wanted)

    is_kept = maps >= levels[:, None]
    is_kept |= masks
    if ignored is not None:
        is_kept &= ~ignored
    indices = is_kept.view(-1).nonzero().squeeze(1)
    first_blocks = torch.arange(num_images + 1, device=indices.device) * num_blocks
    num_kept = torch.searchsorted(blocks[indices // block_size], first_blocks).diff()
    return PixelScores(
        scores=maps.view(-1).index_select(0, indices).to(floor.dtype),
        num_kept=num_kept,
        num_pixels=torch.where(group.is_anomalous, num_kept, group.num_counted),
        is_anomalous=group.is_anomalous,
        image_ids=torch.full_like(num_kept, NO_ID),
        floor=floor,
        normal_min=torch.where(group.is_anomalous, math.inf, group.lowest).amin().to(floor.dtype),
    )


def _select_above_new_floor(groups: list[_Group], floor: Tensor, capacity: int) -> list[PixelScores] | None:
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
    parts = [_select(group, new_floor) for group in groups]

    num_normal = torch.stack([(~group.is_anomalous * group.num_counted).sum() for group in groups]).sum()
    num_kept = torch.stack([torch.where(part.is_anomalous, 0, part.num_kept).sum() for part in parts]).sum()
    return parts if bool(num_kept >= num_normal.clamp(max=capacity)) else None


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
