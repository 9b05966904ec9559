"""Find the scores of a group of images that are at or above a level: all of normal images, those in masks of others.

The CPU looks at whole maps as seldom as it can. It reads each map once for the highest score of each block of pixels,
and the masks once for the blocks with mask pixels. Then it copies the few blocks that hold something to find, and
searches these pixel by pixel. Other devices look at each pixel, because waiting for the number of blocks costs more.
There a search begins with what needs no waiting, so that the host can wait for its outcome together with other facts.

Conventions: a group of n images with P pixels each is one row of `M = n * P` pixels. It is cut into q blocks of B
pixels; the last pixels, fewer than B, are in none of them. A block may hold pixels of several images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._engine.images import Group
from aupimo_torchmetrics._engine.kept import num_true, true_indices

BLOCK_SIZE = 128
"""Pixels of a block. Smaller blocks are slower to read; larger ones hold more that is not searched for."""

_MAX_COPIED_SHARE = 0.1
"""If more than this share of the blocks may hold something to find, none is copied, and all pixels are searched."""


class Found(NamedTuple):
    """Scores of a group of n images that are at or above a level, image after image."""

    normal_scores: Tensor
    """(S,) scores of normal images."""
    mask_scores: Tensor
    """(T,) scores in the masks of anomalous images."""
    num_found: Tensor
    """(n,) int64, how many of either belong to each image."""
    mask_sizes: Tensor
    """(n,) int64 mask pixels of each anomalous image, 0 for a normal one."""


class BlockSearch:
    """Search on the CPU, by blocks.

    Attributes:
        group: The images.
        is_anomalous: (n,) bool.
        has_nan: () bool, whether a map holds NaN.
        num_normal_found: () int64, always 0: nothing is found before `find`.

    """

    def __init__(self, group: Group, level: Tensor) -> None:
        self.group = group
        self.is_anomalous = group.masks.view(torch.uint8).amax(1) != 0
        self._highest = highest_of_blocks(group.maps)
        self._lowest = None
        if group.maps.element_size() == torch.int16.itemsize:  # the highest ones were found by bits, and hide NaN
            self._lowest = group.maps.amin(1)
            self.has_nan = self._lowest.isnan().any()
        else:
            self.has_nan = self._highest.isnan().any() | _rest(group.maps).isnan().any()
        self.num_normal_found = torch.zeros((), dtype=torch.int64)
        self.begin(level)

    def begin(self, level: Tensor) -> None:
        """Begin to search for the scores at or above a level."""
        self._level = level

    def lowest(self) -> Tensor:
        """(n,) lowest score of each image, of pixels that are not ignored."""
        return lowest_counted(self.group) if self._lowest is None or self.group.ignored is not None else self._lowest

    def find(self, num_normal_found: int) -> Found:  # noqa: ARG002  what another device has to know
        """Find the scores at or above the level."""
        maps, is_anomalous = self.group.maps, self.is_anomalous
        normal_scores = mask_scores = maps.new_empty(0)
        num_normal = num_masked = mask_sizes = torch.zeros(len(maps), dtype=torch.int64)
        if not bool(is_anomalous.all()):
            normal_scores, num_normal = self._find_normal()
        if bool(is_anomalous.any()):
            mask_scores, num_masked, mask_sizes = self._find_masked()
        return Found(normal_scores, mask_scores, num_normal + num_masked, mask_sizes)

    def _find_normal(self) -> tuple[Tensor, Tensor]:
        """Scores (S,) of normal images, and how many of each image."""
        maps, _, ignored, _ = self.group
        blocks = self._with_normal_pixels(true_indices(~(self._highest < self._level)))  # NaN too: it may be ignored
        is_part = len(blocks) <= _MAX_COPIED_SHARE * len(self._highest)
        if is_part:
            scores = _take(maps, blocks)
            is_found = _at_least(scores, self._level)
        else:  # no score of an anomalous image is at or above NaN
            scores = maps.view(-1)
            is_found = _at_least(maps, torch.where(self.is_anomalous, math.nan, self._level)[:, None]).view(-1)
        if ignored is not None:
            is_found &= ~(_take(ignored, blocks) if is_part else ignored.view(-1))
        found = true_indices(is_found)
        counts = _count_per_image(found, maps.shape, blocks if is_part else None)
        if bool(counts[self.is_anomalous].any()):  # of blocks that hold pixels of images of either class
            found = found[(~self.is_anomalous).repeat_interleave(counts)]
            counts = torch.where(self.is_anomalous, 0, counts)
        return scores.index_select(0, found), counts

    def _with_normal_pixels(self, blocks: Tensor) -> Tensor:
        """Indices, of those given (b,), of the blocks that hold pixels of normal images."""
        if not bool(self.is_anomalous.any()):
            return blocks
        num_pixels, first_pixels = self.group.maps.shape[1], blocks.numpy() * BLOCK_SIZE
        first, last = first_pixels // num_pixels, (first_pixels + BLOCK_SIZE - 1) // num_pixels
        num_normal = np.append(0, np.cumsum(~self.is_anomalous.numpy(), dtype=np.int64))  # before each image
        return blocks[torch.from_numpy(num_normal[last + 1] > num_normal[first])]

    def _find_masked(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (T,) in masks, how many of each image, and the mask pixels of each image."""
        maps, masks = self.group.maps, self.group.masks.view(torch.uint8)
        blocks = true_indices(_is_any_in_blocks(masks))
        if len(blocks) > _MAX_COPIED_SHARE * len(self._highest):
            found = true_indices(_at_least(maps, self._level) & (masks != 0))
            return maps.view(-1).index_select(0, found), _count_per_image(found, maps.shape, None), num_true(masks != 0)
        inside = true_indices(_take(masks, blocks) != 0)
        scores = _take(maps, blocks).index_select(0, inside)
        found = true_indices(_at_least(scores, self._level))
        counts = _count_per_image(inside.index_select(0, found), maps.shape, blocks)
        return scores.index_select(0, found), counts, _count_per_image(inside, maps.shape, blocks)


def lowest_counted(group: Group) -> Tensor:
    """Lowest score of each image among the pixels that are not ignored: (n,), +inf if all are."""
    maps, ignored = group.maps, group.ignored
    if ignored is None:
        return maps.amin(1)
    if maps.device.type == "cpu" and maps.dtype != torch.bfloat16:  # NumPy needs no copy
        return torch.from_numpy(maps.numpy().min(1, where=~ignored.numpy(), initial=math.inf))
    return maps.masked_fill(ignored, math.inf).amin(1)


def highest_of_blocks(maps: Tensor) -> Tensor:
    """Highest score of each block of maps (n, P): (q,), NaN for a block with NaN unless the numbers have 16 bits.

    The CPU finds maxima of integers five times faster than those of 16-bit floating point numbers. So the bits of such
    numbers are read as integers. These have the same order as positive numbers, and the reverse order of negative ones.
    """
    blocks = _blocks(maps)
    if blocks.element_size() != torch.int16.itemsize:
        return blocks.amax(1)
    bits = blocks.view(torch.int16)
    largest, smallest = bits.amax(1), bits.amin(1)
    return torch.where(largest >= 0, largest, smallest).view(blocks.dtype)


def _is_any_in_blocks(masks: Tensor) -> Tensor:
    """Whether each block of masks (n, P) uint8 holds a pixel other than 0: (q,) bool.

    The CPU finds maxima of 32-bit words several times faster than those of bytes. A word may be negative, so the minima
    count, too.
    """
    blocks = _blocks(masks)
    if masks.storage_offset() % torch.int32.itemsize:
        return blocks.amax(1) != 0
    words = blocks.view(torch.int32)
    return (words.amax(1) | words.amin(1)) != 0


def _at_least(scores: Tensor, level: Tensor) -> Tensor:
    """Whether each score is at or above a level, which is broadcast: bool of the shape of the scores."""
    if scores.element_size() >= torch.float32.itemsize:  # NumPy is three times as fast, but cannot read bfloat16
        return torch.from_numpy(scores.numpy() >= level.numpy())
    return scores >= level


def _blocks(pixels: Tensor) -> Tensor:
    """(q, B) view of the blocks of pixels (n, P)."""
    row = pixels.view(-1)
    return row[: len(row) // BLOCK_SIZE * BLOCK_SIZE].view(-1, BLOCK_SIZE)


def _rest(pixels: Tensor) -> Tensor:
    """Those last of the pixels (n, P) that are in no block."""
    row = pixels.view(-1)
    return row[len(row) // BLOCK_SIZE * BLOCK_SIZE :]


def _take(pixels: Tensor, blocks: Tensor) -> Tensor:
    """Copy the blocks with the given indices (b,), and the pixels that are in no block: a row."""
    rest, size = _rest(pixels), len(blocks) * BLOCK_SIZE
    taken = pixels.new_empty(size + len(rest))
    torch.index_select(_blocks(pixels), 0, blocks, out=taken[:size].view(-1, BLOCK_SIZE))
    taken[size:] = rest
    return taken


def _count_per_image(found: Tensor, shape: torch.Size, blocks: Tensor | None) -> Tensor:
    """Count how many of the pixels that were found lie in each image: (n,).

    Args:
        found: Ascending indices of pixels, in what `_take` gives for these blocks, or in all pixels.
        shape: The number n of images, and the number P of their pixels.
        blocks: Ascending indices (b,) of the blocks that were taken; None if all pixels were searched.

    """
    num_images, num_pixels = shape
    ends = np.arange(num_images + 1) * num_pixels  # NumPy takes less time for few numbers
    if blocks is not None:
        block_of_end, num_blocks = ends // BLOCK_SIZE, num_images * num_pixels // BLOCK_SIZE
        num_before = np.searchsorted(blocks.numpy(), block_of_end)
        following = np.append(blocks.numpy(), num_blocks)  # what is in no block was taken, too
        is_taken = following[num_before] == block_of_end
        ends = num_before * BLOCK_SIZE + np.where(is_taken, ends % BLOCK_SIZE, 0)
    return torch.from_numpy(np.diff(np.searchsorted(found.numpy(), ends)))


class FullSearch:
    """Search on another device than the CPU, pixel by pixel.

    Attributes:
        group: The images.
        is_anomalous: (n,) bool.
        has_nan: () bool, whether a map holds NaN.
        num_normal_found: () int64, how many scores of normal images are at or above the level.

    """

    def __init__(self, group: Group, level: Tensor) -> None:
        self.group = group
        self._masks = group.masks.view(torch.uint8) != 0  # each true byte is 1
        self._mask_sizes = num_true(self._masks)
        self._lowest = group.maps.amin(1)
        self.is_anomalous = self._mask_sizes > 0
        self.has_nan = self._lowest.isnan().any()
        self.begin(level)

    def begin(self, level: Tensor) -> None:
        """Begin to search for the scores at or above a level, as far as the host need not wait."""
        maps, _, ignored, _ = self.group
        is_searched = self._masks | ~self.is_anomalous[:, None]
        if ignored is not None:
            is_searched &= ~ignored
        self._is_found = is_searched.logical_and_(maps >= level)
        self._counts = num_true(self._is_found)
        self.num_normal_found = torch.where(self.is_anomalous, 0, self._counts).sum()

    def lowest(self) -> Tensor:
        """(n,) lowest score of each image, of pixels that are not ignored."""
        return self._lowest if self.group.ignored is None else lowest_counted(self.group)

    def find(self, num_normal_found: int) -> Found:
        """Find the scores at or above the level; the host, which has waited for one number, waits once more."""
        found = self._is_found.view(-1).nonzero().squeeze(1)
        is_masked = self.is_anomalous.repeat_interleave(self._counts, output_size=len(found))
        scores = self.group.maps.view(-1).index_select(0, found[is_masked.sort(stable=True).indices])
        return Found(scores[:num_normal_found], scores[num_normal_found:], self._counts, self._mask_sizes)


Search = BlockSearch | FullSearch


def search_of(group: Group, level: Tensor) -> Search:
    """Begin to search images for scores at or above a level, as is best on their device."""
    return BlockSearch(group, level) if group.maps.device.type == "cpu" else FullSearch(group, level)
