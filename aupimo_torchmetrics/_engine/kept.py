"""What is kept of the images seen so far: how it is joined and pruned, and how repeated images are dropped.

Of an anomalous image, the scores of its mask pixels are kept. Of the normal images together, every score at or above a
*floor* is kept. The floor may rise while data comes in. This is why:

- Only the highest `U * P` of the P normal pixels in all can change a result (U: upper FPR bound).
- A score outside the highest k of a part of the data is outside the highest k of all data.

So a pruning keeps at least as many of the highest normal scores as :func:`required_capacity` says.

Conventions: N images, S kept scores in all. An image is *normal* iff its mask is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

DEFAULT_NORMAL_BUFFER = 2**16
"""Lowest number of normal scores to keep (256 KiB): enough for 655 million normal pixels at the default FPR bounds."""

HEADROOM = 10
"""Normal scores to keep, as a multiple of `U * P`: a reserve for data whose highest scores come first."""

NO_ID = -1
"""Stands for the id of an image without one."""


class PixelScores(NamedTuple):
    """What is kept of N images. The scores are in the order of the images."""

    scores: Tensor
    """(S,) kept scores."""
    num_kept: Tensor
    """(N,) int64, how many of the scores belong to each image."""
    num_pixels: Tensor
    """(N,) int64, number of pixels of a normal image, of mask pixels of an anomalous one; ignored ones do not count."""
    is_anomalous: Tensor
    """(N,) bool, class of each image."""
    image_ids: Tensor
    """(N,) int64, the caller's ids, `NO_ID` for an image without one."""
    floor: Tensor
    """() every normal score at or above this is kept."""
    normal_min: Tensor
    """() lowest score of all normal pixels, kept or not; +inf without normal pixels."""

    def image_of_score(self) -> Tensor:
        """(S,) int64, index of the image that each score belongs to."""
        images = torch.arange(len(self.num_kept), device=self.scores.device)
        return images.repeat_interleave(self.num_kept, output_size=len(self.scores))

    def of_normal_images(self) -> Tensor:
        """(S,) bool, true where the score belongs to a normal image."""
        return ~self.is_anomalous.repeat_interleave(self.num_kept, output_size=len(self.scores))


def no_scores(floor: Tensor) -> PixelScores:
    """Return what is kept when there is no image, on the device and in the dtype of the floor."""
    return PixelScores(
        scores=floor.new_empty(0),
        num_kept=floor.new_empty(0, dtype=torch.int64),
        num_pixels=floor.new_empty(0, dtype=torch.int64),
        is_anomalous=floor.new_empty(0, dtype=torch.bool),
        image_ids=floor.new_empty(0, dtype=torch.int64),
        floor=floor,
        normal_min=torch.full_like(floor, math.inf),
    )


def join_scores(parts: Sequence[PixelScores]) -> PixelScores:
    """Join what was kept of one or more sets of images, in their order."""
    return PixelScores(
        scores=torch.cat([part.scores for part in parts]),
        num_kept=torch.cat([part.num_kept for part in parts]),
        num_pixels=torch.cat([part.num_pixels for part in parts]),
        is_anomalous=torch.cat([part.is_anomalous for part in parts]),
        image_ids=torch.cat([part.image_ids for part in parts]),
        floor=torch.stack([part.floor for part in parts]).amax(),
        normal_min=torch.stack([part.normal_min for part in parts]).amin(),
    )


def on_float64_device(kept: PixelScores) -> PixelScores:
    """Move what is kept to the CPU if its device cannot compute in float64 (Apple's MPS); it is a few megabytes."""
    if kept.scores.device.type != "mps":
        return kept
    return PixelScores(*(part.cpu() for part in kept))


def required_capacity(num_images: int, num_pixels: int, normal_buffer: int, upper_fpr: float) -> int:
    """Return how many of the highest normal scores to keep of `num_images` normal images of at most `num_pixels`.

    A result needs at most `upper_fpr * num_images * num_pixels` of them: that many false positives give a shared FPR
    of at least `upper_fpr`, whichever images they lie in.
    """
    return max(normal_buffer, math.ceil(HEADROOM * upper_fpr * num_images * num_pixels))


def kth_highest(scores: Tensor, k: int) -> Tensor:
    """Return the k-th highest of the scores (S,), counted from 1."""
    if torch.are_deterministic_algorithms_enabled():  # CUDA's `kthvalue` raises then: its index is not deterministic
        return scores.sort(descending=True).values[k - 1]
    return scores.kthvalue(len(scores) - k + 1).values


def prune_scores(kept: PixelScores, normal_buffer: int, upper_fpr: float) -> PixelScores:
    """Raise the floor as far as the required capacity allows, and drop the normal scores below it."""
    num_pixels = kept.num_pixels[~kept.is_anomalous]
    largest = int(num_pixels.amax()) if len(num_pixels) else 0
    capacity = required_capacity(len(num_pixels), largest, normal_buffer, upper_fpr)
    score_is_normal = kept.of_normal_images()
    normal_scores = kept.scores[score_is_normal]
    if len(normal_scores) <= capacity:
        return kept
    floor = torch.maximum(kept.floor, kth_highest(normal_scores, capacity))
    stays = ~score_is_normal | (kept.scores >= floor)
    num_kept = torch.zeros_like(kept.num_kept).index_add_(0, kept.image_of_score(), stays.long())
    return kept._replace(scores=kept.scores[stays], num_kept=num_kept, floor=floor)


def take_images(kept: PixelScores, images: Tensor) -> PixelScores:
    """Return what is kept of the images at the given indices (n,), in that order."""
    num_kept = kept.num_kept[images]
    starts = (kept.num_kept.cumsum(0) - kept.num_kept)[images]
    new_starts = num_kept.cumsum(0) - num_kept
    shift = (starts - new_starts).repeat_interleave(num_kept)
    return kept._replace(
        scores=kept.scores[torch.arange(len(shift), device=shift.device) + shift],
        num_kept=num_kept,
        num_pixels=kept.num_pixels[images],
        is_anomalous=kept.is_anomalous[images],
        image_ids=kept.image_ids[images],
    )


def drop_ignored(kept: PixelScores, image_ids: Any) -> tuple[PixelScores, Any, int]:
    """Drop the images of which every pixel is ignored, with their ids.

    Returns:
        The other images, their ids if these are a list, and the number of dropped images.

    """
    indices = kept.num_pixels.nonzero().squeeze(1)
    num_dropped = len(kept.num_pixels) - len(indices)
    if num_dropped and isinstance(image_ids, list):
        image_ids = [image_ids[index] for index in indices.tolist()]
    return (take_images(kept, indices) if num_dropped else kept), image_ids, num_dropped


def drop_repeats(kept: PixelScores) -> tuple[PixelScores, int]:
    """Keep the first image of each id, in the order of the ids; images without an id follow in their order.

    Returns:
        The distinct images, and the number of ids that were given to images with different content.

    """
    has_id = kept.image_ids != NO_ID
    if not bool(has_id.any()):
        return kept, 0
    # Ids less 1, so that even the largest possible id comes before the images without one.
    sort_keys = torch.where(has_id, kept.image_ids - 1, torch.iinfo(torch.int64).max)
    sorted_keys, order = sort_keys.sort(stable=True)
    repeats_previous = torch.zeros_like(has_id)
    repeats_previous[1:] = (sorted_keys[1:] == sorted_keys[:-1]) & has_id[order[1:]]
    in_order = take_images(kept, order)
    conflicts = repeats_previous & _differs_from_previous(in_order)
    num_conflicts = len(torch.unique_consecutive(in_order.image_ids[conflicts]))
    return take_images(in_order, (~repeats_previous).nonzero().squeeze(1)), num_conflicts


def _differs_from_previous(kept: PixelScores) -> Tensor:
    """(N,) bool, true where an image differs from the one before in class, number of pixels or highest score.

    Two highest scores count as equal if they differ by at most 1 % of the largest magnitude of all scores: a model
    gives slightly different scores for the same image in batches of different sizes and in half precision.
    """
    highest = torch.full((len(kept.num_kept),), -math.inf, dtype=kept.scores.dtype, device=kept.scores.device)
    highest = highest.scatter_reduce(0, kept.image_of_score(), kept.scores, "amax")
    highest = torch.where(kept.is_anomalous, highest, highest.maximum(kept.floor))
    finite = kept.scores[kept.scores.isfinite()]
    tolerance = 0.01 * float(finite.abs().amax()) if len(finite) else 0.0
    differs = torch.zeros_like(kept.is_anomalous)
    differs[1:] = (
        (kept.is_anomalous[1:] != kept.is_anomalous[:-1])
        | (kept.num_pixels[1:] != kept.num_pixels[:-1])
        | ~torch.isclose(highest[1:], highest[:-1], rtol=0.0, atol=tolerance)
    )
    return differs
