"""Check a batch of anomaly maps and masks, and select the scores on which a result can depend.

Each map is read once for its highest scores, and once more for the lowest if there are normal images; each mask is read
once. Only the few blocks that hold something to keep are then looked at pixel by pixel.

Conventions: N images of size H, W with P pixels, in groups of n images of the same size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.checks import Maps, check_form, check_values
from aupimo_torchmetrics._engine.image_ids import ImageIds, are_texts
from aupimo_torchmetrics._engine.images import Group, as_groups, plain
from aupimo_torchmetrics._engine.kept import (
    NO_ID,
    PixelScores,
    join_scores,
    kth_highest,
    no_scores,
    num_true,
    required_capacity,
    true_indices,
)
from aupimo_torchmetrics._engine.search import Found, Search, search_of

_SAMPLE_SIZE = 2**15
"""Number of pixels in the sample that suggests a floor."""

_GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Step of the sample, as a share of an image."""


class _Facts(NamedTuple):
    """What the host needs to know of a batch."""

    has_nan: bool
    is_binary: bool
    """Whether all targets hold only 0, 1 and `ignore_index`."""
    has_floor: bool
    has_normal: bool
    """Whether there is a normal image."""
    num_normal_found: list[int]
    """What the host has to know of each search."""


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

    The host waits for the device once for the facts of the batch, and then once for a tensor of images or for each map
    of a list. It waits a few times more if a floor is chosen, and once for image ids.
    """
    if validate_args:
        check_form(preds, target, image_ids)
    groups = as_groups(preds, target, floor.dtype, ignore_index)
    num_images = sum(len(group.maps) for group in groups)
    if image_ids is not None and len(image_ids) != num_images:  # also without checks: ids would move to other images
        raise ValueError(
            f"Expected `image_ids` to hold an id for each of {num_images} images, but got {len(image_ids)}."
        )
    if not groups:
        return no_scores(floor)
    floor = floor.to(groups[0].maps.device)
    searches = [search_of(group, _level(floor, group)) for group in groups]
    facts = _to_host(searches, floor)
    if validate_args:
        num_nan_maps = sum(int(group.maps.amin(1).isnan().sum()) for group in groups) if facts.has_nan else 0
        check_values(num_nan_maps, facts.is_binary, preds, target, ignore_index)

    capacity = math.inf
    if normal_buffer is not None:
        largest = max(group.maps.shape[1] for group in groups)
        capacity = required_capacity(num_images, largest, normal_buffer, upper_fpr)

    parts = None
    if not facts.has_floor and facts.has_normal and sum(group.maps.numel() for group in groups) > 2 * capacity:
        parts = _select_above_new_floor(searches, floor, int(capacity))
    if parts is None:
        parts = _select(searches, floor, facts.num_normal_found)
    kept = join_scores(parts)
    if image_ids is not None and not are_texts(image_ids):
        ids = torch.as_tensor(image_ids, dtype=torch.int64, device=floor.device)
        kept = kept._replace(image_ids=plain(ids).clone())  # not the memory of the caller
    return kept


def _level(floor: Tensor, group: Group) -> Tensor:
    """() the floor in the dtype of the maps. If it is rounded up, no score of that dtype lies between: none is lost."""
    return floor.to(group.maps.dtype)


def _to_host(searches: list[Search], floor: Tensor) -> _Facts:
    """Facts about a batch; the host waits for the device once."""
    has_nan = torch.stack([search.has_nan for search in searches]).any()
    is_binary = torch.stack([search.group.is_binary for search in searches]).all()
    has_normal = torch.stack([~search.is_anomalous.all() for search in searches]).any()
    counts = torch.stack([search.num_normal_found for search in searches])
    facts = torch.cat([torch.stack([has_nan, is_binary, floor > -math.inf, has_normal]), counts]).tolist()
    return _Facts(bool(facts[0]), bool(facts[1]), bool(facts[2]), bool(facts[3]), num_normal_found=facts[4:])


def _select(searches: list[Search], floor: Tensor, num_normal_found: list[int]) -> list[PixelScores]:
    """Keep the pixels of normal images and the mask pixels of anomalous images that are at or above the floor."""
    return [
        _kept(search, search.find(number), floor) for search, number in zip(searches, num_normal_found, strict=True)
    ]


def _kept(search: Search, found: Found, floor: Tensor) -> PixelScores:
    """What is kept of a group in which scores were found."""
    return PixelScores(
        normal_scores=found.normal_scores.to(floor.dtype),
        mask_scores=found.mask_scores.to(floor.dtype),
        num_kept=found.num_found,
        num_pixels=torch.where(search.is_anomalous, found.mask_sizes, _num_counted(search)),
        is_anomalous=search.is_anomalous,
        image_ids=torch.full_like(found.num_found, NO_ID),
        floor=floor,
        normal_min=_normal_min(search, floor),
    )


def _num_counted(search: Search) -> Tensor:
    """(n,) int64, number of pixels of each image that are not ignored."""
    num_images, num_pixels = search.group.maps.shape
    if search.group.ignored is None:
        return torch.full((num_images,), num_pixels, device=search.is_anomalous.device)
    return num_pixels - num_true(search.group.ignored)


def _normal_min(search: Search, floor: Tensor) -> Tensor:
    """() lowest score of the normal images, in the dtype of the floor; +inf without any."""
    if floor.device.type == "cpu" and bool(search.is_anomalous.all()):
        return torch.full_like(floor, math.inf)
    return torch.where(search.is_anomalous, math.inf, search.lowest()).amin().to(floor.dtype)


def _select_above_new_floor(searches: list[Search], floor: Tensor, capacity: int) -> list[PixelScores] | None:
    """Select at and above a floor that a sample suggests.

    Returns:
        What is kept of each group; None if the floor is too high: it keeps fewer than `capacity` normal scores, and not
        all of them.

    """
    num_pixels = sum(search.group.maps.numel() for search in searches)
    sample = torch.cat([_sample(search, _SAMPLE_SIZE / num_pixels).to(floor.dtype) for search in searches])
    expected = capacity * min(1, _SAMPLE_SIZE / num_pixels)
    rank = math.ceil(expected + 4 * math.sqrt(expected))  # four standard deviations to be safe
    if rank > len(sample):
        return None
    new_floor = kth_highest(sample, rank)
    for search in searches:
        search.begin(_level(new_floor, search.group))
    parts = _select(searches, new_floor, torch.stack([search.num_normal_found for search in searches]).tolist())
    num_normal = torch.stack([(~part.is_anomalous * part.num_pixels).sum() for part in parts]).sum()
    num_kept = sum(len(part.normal_scores) for part in parts)
    if num_kept >= min(int(num_normal), capacity):
        return parts
    for search in searches:
        search.begin(_level(floor, search.group))
    return None


def _sample(search: Search, share: float) -> Tensor:
    """Sample about a share of the pixels of each normal image: scores (S,).

    The step from one pixel to the next is the golden ratio times the number of pixels, which spreads the sample evenly
    over rows and columns. A step of one row and one pixel would stay on a diagonal and miss most peaks of a smooth map.
    """
    maps, _, ignored, _ = search.group
    num_pixels = maps.shape[1]
    step = round(num_pixels * _GOLDEN_RATIO) | 1  # odd, to reach every column of images of even width
    sample_size = min(num_pixels, max(1, round(share * num_pixels)))
    pixels = torch.arange(sample_size, device=maps.device) * step % num_pixels
    images = true_indices(~search.is_anomalous)
    sampled = (images[:, None] * num_pixels + pixels).view(-1)
    if ignored is not None:
        sampled = sampled[~ignored.view(-1).index_select(0, sampled)]
    return maps.view(-1).index_select(0, sampled)
