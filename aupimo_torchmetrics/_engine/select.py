"""Select the scores of a batch on which a result can depend: those at or above a floor.

Of normal images all pixels count, of anomalous ones those in the mask. The CPU looks at whole maps as seldom as it
can: it reads each map once for the highest score of each block of pixels, and each mask once for its size. Only the few
blocks with a score at or above the floor are looked at pixel by pixel. Other devices look at each pixel, because to
wait for the number of blocks costs more; the host waits once, for the facts of all images together.

Conventions: N images, in groups of n images of one size with P pixels each. Each image is cut into blocks of B
pixels; a group has q of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import Group, Pair, as_group, check_values, in_slices
from aupimo_torchmetrics._engine.kept import (
    NO_ID,
    SAMPLE_SIZE,
    PixelScores,
    kth_highest,
    required_capacity,
    safe_rank,
    true_indices,
)

_BLOCK_SIZE = 128
"""Pixels of a block, about. Smaller blocks are slower to read; larger ones hold more that is not searched for."""
_MAX_COPIED_SHARE = 0.1
"""If more than this share of the blocks may hold something to find, none is copied, and all pixels are searched."""
_MAX_GROUP_PIXELS = 2**30
"""Maximum number of pixels in a group of several images: torch before 2.6 cannot search 2**31 or more on CUDA."""
_GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Step of the sample, as a share of an image."""
_WORD = torch.int64.itemsize
_BITS_OF_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}

_Array = NDArray[Any]


class _Found(NamedTuple):
    """Scores of a group of n images at or above the floor, image after image."""

    normal_scores: Tensor
    """(S,) of normal images."""
    mask_scores: Tensor
    """(T,) in the masks of anomalous images."""
    num_found: Tensor
    """(n,) int64, how many of either belong to each image."""


class _Facts(NamedTuple):
    """What the host has to know of a search.

    The last two are the numbers of scores at or above the floor, of normal images and of all; 0 where these are not
    known before they are found.
    """

    has_nan: int
    is_binary: int
    has_normal: int
    has_floor: int
    num_normal: int
    num_found: int


def select_scores(
    pairs: Sequence[Pair],
    floor: Tensor,
    *,
    normal_buffer: int | None,
    upper_fpr: float,
    ignore_index: int | None,
    validate_args: bool,
    with_lowest: bool,
) -> PixelScores:
    """Return what is kept of one batch, in the dtype of `floor`; raise if it holds values that it may not.

    Images have no ids yet. An image whose every pixel is ignored is a normal image of 0 pixels; the caller drops it.
    Without a floor so far, a large batch gets one, which the scores kept of it bring with them.
    """
    searches = []
    for maps, target in in_slices(pairs, _MAX_GROUP_PIXELS):
        floor = floor.to(maps.device)
        searches.append(search_of(as_group(maps, target, floor.dtype, ignore_index), floor))
    if not searches:
        return _nothing(floor)
    facts = _to_host(searches)
    has_nan, is_binary, has_normal, has_floor, _, _ = zip(*facts, strict=True)
    if validate_args and (any(has_nan) or not all(is_binary)):
        check_values(pairs, ignore_index)
    found = None
    if normal_buffer is not None and any(has_normal) and not all(has_floor):
        shapes = [search.group.maps.shape for search in searches]
        counts, sizes = zip(*shapes, strict=True)
        num_pixels = sum(map(math.prod, shapes))
        capacity = required_capacity(sum(counts), max(sizes), normal_buffer, upper_fpr)
        if num_pixels > 2 * capacity:
            floor, found = _find_above_new_floor(searches, floor, num_pixels, capacity)
    if found is None:
        found = [search.find(fact) for search, fact in zip(searches, facts, strict=True)]
    return _kept(searches, found, floor, with_lowest=with_lowest)


def _kept(searches: list[PixelSearch], found: list[_Found], floor: Tensor, *, with_lowest: bool) -> PixelScores:
    """What is kept of groups in which scores were found."""
    lowest = torch.full_like(floor, math.inf)
    if with_lowest:
        lowest = torch.stack([search.lowest_normal().to(floor) for search in searches]).amin()
    rows = []
    for search, each in zip(searches, found, strict=True):
        ids = torch.full_like(each.num_found, NO_ID)
        highest = search.highest_of_images().to(floor)
        rows.append((*each, search.num_pixels(), search.is_anomalous, ids, highest))
    columns = rows[0] if len(rows) == 1 else map(torch.cat, zip(*rows, strict=True))
    return PixelScores._make([*columns, floor, lowest])


def _nothing(floor: Tensor) -> PixelScores:
    """What is kept if there is no image."""
    dtypes = (floor.dtype, floor.dtype, torch.int64, torch.int64, torch.bool, torch.int64, floor.dtype)
    empty = [floor.new_empty(0, dtype=dtype) for dtype in dtypes]
    return PixelScores._make([*empty, floor, torch.full_like(floor, math.inf)])


def _to_host(searches: list[PixelSearch]) -> list[_Facts]:
    """Facts of each search; the host waits for a device once."""
    rows = [search.facts() for search in searches]
    if isinstance(rows[0], Tensor):
        rows = [_Facts._make(row) for row in torch.stack(rows).tolist()]
    return rows


def _find_above_new_floor(
    searches: list[PixelSearch], floor: Tensor, num_pixels: int, capacity: int
) -> tuple[Tensor, list[_Found] | None]:
    """Find the scores at or above a floor that a sample of `num_pixels` in all suggests.

    Returns:
        The new floor and what was found in each group; or the old floor and None if there is no new one, or if it would
        be too high: it would keep fewer than `capacity` normal scores, and not all of them.

    """
    sample = torch.cat([_sample(search, SAMPLE_SIZE / num_pixels).to(floor.dtype) for search in searches])
    rank = safe_rank(capacity * min(1, SAMPLE_SIZE / num_pixels))
    if rank > len(sample):
        return floor, None
    new_floor = kth_highest(sample, rank)
    for search in searches:
        search.begin(new_floor)
    found, num_kept = [], 0
    for search, facts in zip(searches, _to_host(searches), strict=True):
        found.append(search.find(facts))
        num_kept += len(found[-1].normal_scores)
    if num_kept >= capacity or num_kept == sum(
        int(search.num_pixels()[~search.is_anomalous].sum()) for search in searches
    ):
        return new_floor, found
    for search in searches:
        search.begin(floor)
    return floor, [search.find(facts) for search, facts in zip(searches, _to_host(searches), strict=True)]


def _sample(search: PixelSearch, share: float) -> Tensor:
    """Sample about a share of the pixels of each normal image: scores (S,)."""
    maps, _, ignored, _ = search.group
    num_pixels = maps.shape[1]
    pixels = spread_places(num_pixels, max(1, round(share * num_pixels)), maps.device)
    images = true_indices(~search.is_anomalous)
    sampled = (images[:, None] * num_pixels + pixels).view(-1)
    if ignored is not None:
        sampled = sampled[~ignored.view(-1).index_select(0, sampled)]
    sample: Tensor = maps.view(-1).index_select(0, sampled)
    return sample


def spread_places(num_pixels: int, number: int, device: torch.device | None = None) -> Tensor:
    """Places of some pixels of an image, evenly spread over its rows and columns: (S,) int64, `number` at most.

    The step from one to the next is the golden ratio times the number of pixels. A step of one row and one pixel would
    stay on a diagonal and miss most peaks of a smooth map.
    """
    step = round(num_pixels * _GOLDEN_RATIO)
    while math.gcd(step, num_pixels) > 1:  # it would come back to a place, and never reach some rows or columns
        step += 1
    return torch.arange(min(num_pixels, number), device=device or "cpu") * step % num_pixels


class PixelSearch:
    """Search pixel by pixel, on any device."""

    def __init__(self, group: Group, floor: Tensor) -> None:
        self.group = group
        self.mask_sizes = _count_true(group.masks)
        self.is_anomalous = self.mask_sizes > 0
        self._highest: Any = group.maps.amax(1)
        self._has_nan: Any = self._highest.isnan().any()
        self.begin(floor)

    def begin(self, floor: Tensor) -> None:
        """Begin to search for the scores at or above a floor, as far as the host need not wait."""
        maps, masks, ignored, _ = self.group
        is_searched = masks | ~self.is_anomalous[:, None]
        if ignored is not None:
            is_searched &= ~ignored
        # A floor that is rounded up leaves no score of the dtype of the maps between: none is lost.
        self._is_found = is_searched.logical_and_(maps >= floor.to(maps.dtype))
        self._num_found = _count_true(self._is_found)
        self._floor = floor

    def facts(self) -> Any:
        """Facts (6,) int64, in the order of `_Facts`."""
        num_normal = torch.where(self.is_anomalous, 0, self._num_found).sum()
        flags = torch.stack([self._has_nan, self.group.is_binary, ~self.is_anomalous.all(), self._floor > -math.inf])
        return torch.cat([flags, torch.stack([num_normal, self._num_found.sum()])])

    def find(self, facts: _Facts) -> _Found:
        """Find the scores at or above the floor; the host knows how many, and need not wait."""
        found = _true_indices_of_number(self._is_found, facts.num_found)
        is_masked = self.is_anomalous.repeat_interleave(self._num_found, output_size=facts.num_found)
        scores = self.group.maps.view(-1).index_select(0, found[is_masked.sort(stable=True).indices])
        scores = scores.to(self._floor.dtype)
        return _Found(scores[: facts.num_normal], scores[facts.num_normal :], self._num_found)

    def num_pixels(self) -> Tensor:
        """(n,) int64, number of mask pixels of an anomalous image, of pixels that count of a normal one."""
        ignored, num_pixels = self.group.ignored, self.group.maps.shape[1]
        num_counted = num_pixels if ignored is None else num_pixels - _count_true(ignored)
        return torch.where(self.is_anomalous, self.mask_sizes, num_counted)

    def highest_of_images(self) -> Tensor:
        """(n,) highest score of each image, of pixels that are not ignored; -inf without any."""
        maps, _, ignored, _ = self.group
        highest: Tensor = self._highest if ignored is None else maps.masked_fill(ignored, -math.inf).amax(1)
        return highest

    def lowest_normal(self) -> Tensor:
        """() lowest score of the normal images, of pixels that are not ignored; +inf without any."""
        maps, ignored = self.group.maps, self.group.ignored
        maps = maps if ignored is None else maps.masked_fill(ignored, math.inf)
        return torch.where(self.is_anomalous, math.inf, maps.amin(1)).amin()


class BlockSearch(PixelSearch):
    """Search by blocks, on the CPU. NumPy compares and finds several times as fast as torch."""

    def __init__(self, group: Group, floor: Tensor) -> None:
        self.group = group
        num_images, num_pixels = group.maps.shape
        self._starts = np.arange(num_images + 1) * num_pixels
        self._blocks = group.maps.view(-1, _block_size(num_pixels))
        self._highest, self._has_nan = highest_of_blocks(self._blocks)
        self._mask_places = _true_places(group.masks)
        self.mask_sizes = torch.from_numpy(self._count_per_image(self._mask_places))
        self.is_anomalous = self.mask_sizes > 0
        self._floor = floor
        if group.ignored is not None:
            self._leave_out(group.ignored.view(self._blocks.shape))

    def _leave_out(self, ignored: Tensor) -> None:
        """Find the highest scores of the blocks anew, without pixels that are ignored (q, B)."""
        places = np.flatnonzero(ignored.amax(1).numpy())
        changed = torch.from_numpy(places)
        scores = self._blocks.index_select(0, changed).to(self._floor.dtype)
        self._highest[places] = scores.masked_fill(ignored.index_select(0, changed), -math.inf).amax(1).numpy()

    def begin(self, floor: Tensor) -> None:
        """Begin to search for the scores at or above a floor."""
        self._floor = floor

    def facts(self) -> Any:
        """Facts; nothing is known to be found before `find`."""
        is_binary, has_normal = bool(self.group.is_binary), not bool(self.is_anomalous.all())
        return _Facts(self._has_nan, is_binary, has_normal, float(self._floor) > -math.inf, 0, 0)

    def find(self, facts: _Facts) -> _Found:
        """Find the scores at or above the floor."""
        in_masks = self.group.maps.view(-1).index_select(0, torch.from_numpy(self._mask_places))
        mask_scores = in_masks.to(self._floor.dtype).numpy()
        is_high = mask_scores >= self._floor.numpy()
        mask_scores, num_found = mask_scores[is_high], self._count_per_image(self._mask_places[is_high])
        normal_scores = mask_scores[:0]
        if facts.has_normal:
            normal_scores, num_normal = self._find_normal()
            num_found += num_normal
        return _Found(*map(torch.from_numpy, (normal_scores, mask_scores, num_found)))

    def highest_of_images(self) -> Tensor:
        """(n,) highest score of each image, of pixels that are not ignored; -inf without any."""
        return torch.from_numpy(self._highest.reshape(len(self.mask_sizes), -1).max(1))

    def _find_normal(self) -> tuple[_Array, _Array]:
        """Scores (S,) of normal images at or above the floor, and how many of each image (n,)."""
        floor, is_normal, size = self._floor.numpy(), ~self.is_anomalous.numpy(), self._blocks.shape[1]
        is_found = ~(self._highest.reshape(len(is_normal), -1) < floor)  # NaN too, where nobody asked to check for it
        blocks = np.flatnonzero(is_found & is_normal[:, None])
        if len(blocks) > _MAX_COPIED_SHARE * np.count_nonzero(is_normal) * is_found.shape[1]:
            return self._find_in_images(np.flatnonzero(is_normal))
        scores = self._blocks.index_select(0, torch.from_numpy(blocks)).view(-1).to(self._floor.dtype).numpy()
        found = np.flatnonzero(scores >= floor)
        places = blocks[found // size] * size + found % size
        if self.group.ignored is not None:
            counts = ~self.group.ignored.view(-1).numpy()[places]
            found, places = found[counts], places[counts]
        return scores[found], self._count_per_image(places)

    def _find_in_images(self, images: _Array) -> tuple[_Array, _Array]:
        """Do as `_find_normal` does, by a look at each pixel of the images with the given indices."""
        maps, _, ignored, _ = self.group
        floor, found, num_found = self._floor.numpy(), [], np.zeros(len(maps), dtype=np.int64)
        for image in images:
            scores = maps[image].to(self._floor.dtype).numpy()
            is_high = scores >= floor
            if ignored is not None:
                is_high &= ~ignored[image].numpy()
            found.append(scores[is_high])
            num_found[image] = len(found[-1])
        return np.concatenate(found), num_found

    def _count_per_image(self, places: _Array) -> _Array:
        """Count how many of the ascending places, in the row of all pixels, lie in each image: (n,)."""
        return np.diff(places.searchsorted(self._starts))


@cache
def _block_size(num_pixels: int) -> int:
    """Pixels of a block: a divisor of the pixels of an image near `_BLOCK_SIZE`; all of them if there is none.

    The CPU reads 32 pixels at once, and what is left of a block one by one.
    """
    sizes = np.arange(_BLOCK_SIZE // 2, 4 * _BLOCK_SIZE)
    divisors = sizes[num_pixels % sizes == 0]
    best_first = np.lexsort((abs(divisors - _BLOCK_SIZE), divisors % 32 / divisors))
    return int(divisors[best_first[0]]) if len(divisors) else num_pixels


def search_of(group: Group, floor: Tensor) -> PixelSearch:
    """Begin to search images for scores at or above a floor, as is best on their device."""
    return BlockSearch(group, floor) if group.maps.device.type == "cpu" else PixelSearch(group, floor)


def highest_of_blocks(blocks: Tensor) -> tuple[_Array, bool]:
    """Highest score of each block (q, B): (q,), at least float32; and whether there is NaN in one.

    The CPU finds maxima of integers five times faster than those of 16-bit floating point numbers. So the bits of such
    numbers are read as integers. These have the same order as positive numbers, and the reverse order of negative ones.
    """
    if blocks.element_size() > torch.int16.itemsize:
        highest = blocks.amax(1).numpy()
        return highest, bool(np.isnan(highest.max()))
    bits = blocks.view(torch.int16)
    largest, smallest = bits.amax(1), bits.amin(1)
    highest = torch.where(largest >= 0, largest, smallest).view(blocks.dtype).float().numpy()
    infinity, unsigned = _BITS_OF_INFINITY[blocks.dtype], bits.numpy().view(np.uint16)
    return highest, bool(largest.amax() > infinity or unsigned.max() > infinity + 2**15)


def _true_places(flags: Tensor) -> _Array:
    """Places, in the row of all flags (n, P), of the true ones; their bytes are 0 and 1.

    Eight bytes at once are a word, and most words are 0.
    """
    row = flags.view(-1).numpy()
    size = len(row) // _WORD * _WORD
    words = row[:size].view(np.int64)
    used = np.flatnonzero(words != 0)
    found = np.flatnonzero(words[used].view(np.bool_))
    places = used[found // _WORD] * _WORD + found % _WORD
    return np.concatenate([places, size + np.flatnonzero(row[size:])]) if size < len(row) else places


def _count_true(flags: Tensor) -> Tensor:
    """Count the true ones of each row of flags (n, P), which are bytes of 0 and 1: (n,) int64.

    Eight flags are the bytes of a word. A byte of a sum of up to 255 words is the number of true ones among as many
    flags. A sum of the flags themselves would first make a word of each of them.
    """
    num_rows, num_flags = flags.shape
    if num_flags % _WORD or flags.storage_offset() % _WORD:
        if flags.device.type != "cpu":
            return flags.sum(1)
        return torch.from_numpy(np.array([np.count_nonzero(row) for row in flags.numpy()]))
    length = math.gcd(num_flags // _WORD, 128)
    return flags.view(torch.int64).view(num_rows, -1, length).sum(2).view(torch.uint8).sum(1)


def _true_indices_of_number(flags: Tensor, number: int) -> Tensor:
    """Indices (number,) of the true ones of flags of any shape, of which there are `number`."""
    try:
        return torch.nonzero_static(flags.view(-1), size=number).squeeze(1)
    except (AttributeError, NotImplementedError):  # torch before 2.6 on CUDA; the host then waits
        return true_indices(flags)
