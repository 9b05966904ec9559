"""What is kept of the images seen so far, and how it is joined, pruned and freed of repeated images.

Of an anomalous image the scores of its mask pixels are kept. Of the normal images together every score at or above a
*floor* is kept. The floor leaves at least `capacity` normal scores above it. Only the highest `U * P` of all P normal
pixels can change a score (U: upper FPR bound), and what is not among the highest scores of a part of the data is not
among the highest of all of it, so the floor may rise while the data comes in.

Conventions: N images, S kept scores in all, P pixels of an image. An image is *normal* iff its mask is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

DEFAULT_NORMAL_BUFFER = 2**16
"""Normal scores that are kept at least (256 KiB), enough for 655 million normal pixels at the default FPR bounds."""

HEADROOM = 10
"""How many times the top `U * P` normal scores are kept, for data whose highest scores come first."""

NO_ID = -1
"""Image id of an image that was given none."""


class PixelScores(NamedTuple):
    """Scores kept of N images, image after image."""

    scores: Tensor
    """(S,) kept scores."""
    num_kept: Tensor
    """(N,) int64, how many of the scores belong to each image."""
    num_pixels: Tensor
    """(N,) int64, all pixels of a normal image, the mask pixels of an anomalous one."""
    is_anomalous: Tensor
    """(N,) bool, class of each image."""
    image_ids: Tensor
    """(N,) int64, the caller's ids, `NO_ID` without."""
    floor: Tensor
    """() every normal pixel with at least this score is kept."""
    normal_min: Tensor
    """() lowest score of all normal pixels, kept or not; +inf without normal pixels."""

    def image_of_score(self) -> Tensor:
        """(S,) index of the image that each score belongs to."""
        images = torch.arange(len(self.num_kept), device=self.scores.device)
        return images.repeat_interleave(self.num_kept, output_size=len(self.scores))

    def of_normal_images(self) -> Tensor:
        """(S,) bool, true where the score belongs to a normal image."""
        return ~self.is_anomalous.repeat_interleave(self.num_kept, output_size=len(self.scores))


def no_scores(floor: Tensor) -> PixelScores:
    """Return what is kept of no image at all, on the device and in the dtype of the floor."""
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
    """Move what is kept, a few megabytes, to the CPU if its device cannot compute in float64 (Apple's MPS)."""
    if kept.scores.device.type != "mps":
        return kept
    return PixelScores(*(part.cpu() for part in kept))


def required_capacity(num_images: int, num_pixels: int, normal_buffer: int, upper_fpr: float) -> int:
    """Return how many of the highest normal scores to keep of `num_images` normal images of at most `num_pixels`.

    The shared FPR of `upper_fpr * num_images * num_pixels` pixels is at least `upper_fpr`, whatever images they lie in.
    """
    return max(normal_buffer, math.ceil(HEADROOM * upper_fpr * num_images * num_pixels))


def kth_highest(scores: Tensor, k: int) -> Tensor:
    """Return the k-th highest of the scores (S,), counted from 1."""
    if torch.are_deterministic_algorithms_enabled():  # then CUDA's `kthvalue` raises, as the index it finds may be any
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
    """Return the images at the given indices (n,), in that order."""
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


def drop_repeats(kept: PixelScores) -> tuple[PixelScores, int]:
    """Count each image id once and sort by id; images without an id follow in their order.

    Returns:
        The distinct images, and the number of ids under which images with different content were given.
    """
    has_id = kept.image_ids != NO_ID
    if not bool(has_id.any()):
        return kept, 0
    sort_keys = torch.where(has_id, kept.image_ids - 1, torch.iinfo(torch.int64).max)  # behind the largest id
    sorted_keys, order = sort_keys.sort(stable=True)
    repeats_previous = torch.zeros_like(has_id)
    repeats_previous[1:] = (sorted_keys[1:] == sorted_keys[:-1]) & has_id[order[1:]]
    in_order = take_images(kept, order)
    conflicts = repeats_previous & _differs_from_previous(in_order)
    num_conflicts = len(torch.unique_consecutive(in_order.image_ids[conflicts]))
    return take_images(in_order, (~repeats_previous).nonzero().squeeze(1)), num_conflicts


def _differs_from_previous(kept: PixelScores) -> Tensor:
    """(N,) bool, true where an image differs from the one before in class, pixels or highest score.

    Highest scores within 1 % of the largest magnitude are the same: one image passed through a model twice, in batches
    of different sizes or in half precision, does not give the same bits.
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
