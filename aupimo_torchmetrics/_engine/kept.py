"""What is kept of the images seen so far: how it is joined and pruned, and how repeated images are dropped.

Of the normal images together, every score at or above a *floor* is kept. Of an anomalous image, the scores of its mask
pixels at or above the floor are kept; the others are only counted. The floor may rise while data comes in. This is why:

- Only the highest `U * P` of the P normal pixels in all can change a result (U: upper FPR bound).
- A score outside the highest k of a part of the data is outside the highest k of all data.
- A mask pixel below the floor adds 0 to a score, whatever follows, because the floor never falls.

So a pruning keeps at least as many of the highest normal scores as `required_capacity` says.

Conventions: N images, S kept scores in all. An image is *normal* iff its mask is empty.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DEFAULT_NORMAL_BUFFER = 2**16
"""Lowest number of normal scores to keep (256 KiB): enough for 655 million normal pixels at the default FPR bounds."""

HEADROOM = 10
"""Normal scores to keep, as a multiple of `U * P`: a reserve for data whose highest scores come first."""

SAMPLE_SIZE = 2**13
"""Scores of a sample that suggests a floor."""

NO_ID = -1
"""Stands for the id of an image without one."""


class PixelScores(NamedTuple):
    """What is kept of N images: S scores of normal images and T mask scores, each in the order of the images."""

    normal_scores: Tensor
    """(S,) scores of normal images, all that are at or above the floor."""
    mask_scores: Tensor
    """(T,) scores of the mask pixels of anomalous images, all that are at or above the floor."""
    num_kept: Tensor
    """(N,) int64, how many of either belong to each image."""
    num_pixels: Tensor
    """(N,) int64, number of pixels of a normal image, of mask pixels of an anomalous one; ignored ones do not count."""
    is_anomalous: Tensor
    """(N,) bool, class of each image."""
    image_ids: Tensor
    """(N,) int64, the caller's ids, `NO_ID` for an image without one."""
    max_scores: Tensor
    """(N,) highest score of each image, of all its pixels that are not ignored; NaN where it is not known."""
    floor: Tensor
    """() every score at or above this is kept."""
    normal_min: Tensor
    """() lowest score of all normal pixels where thresholds are sampled, else of those kept; +inf without any."""

    @property
    def num_normal_kept(self) -> Tensor:
        """(N,) int64, how many of the normal scores belong to each image; 0 for an anomalous one."""
        return torch.where(self.is_anomalous, 0, self.num_kept)

    @property
    def num_mask_kept(self) -> Tensor:
        """(N,) int64, how many of the mask scores belong to each image; 0 for a normal one."""
        return torch.where(self.is_anomalous, self.num_kept, 0)

    def image_of_normal_score(self) -> Tensor:
        """(S,) int64, index of the image that each normal score belongs to."""
        return _repeated_indices(self.num_normal_kept, len(self.normal_scores))

    def image_of_mask_score(self) -> Tensor:
        """(T,) int64, index of the image that each mask score belongs to."""
        return _repeated_indices(self.num_mask_kept, len(self.mask_scores))


def _repeated_indices(lengths: Tensor, total: int) -> Tensor:
    """(total,) int64, each index of the lengths (N,) as often as its length says."""
    return torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths, output_size=total)


def true_indices(flags: Tensor) -> Tensor:
    """Indices (S,) of the true ones of flags of any shape, as of a flat tensor."""
    if flags.device.type == "cpu":  # NumPy is three times as fast
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.view(-1).nonzero().squeeze(1)


def indices_at_least(scores: Tensor, threshold: Tensor) -> Tensor:
    """Indices (S,) of the scores at or above a threshold ()."""
    if scores.device.type == "cpu":  # NumPy compares several times as fast
        return torch.from_numpy(np.flatnonzero(scores.numpy() >= threshold.numpy()))
    return true_indices(scores >= threshold)


def count_per_segment(indices: Tensor, lengths: Tensor) -> Tensor:
    """Count how many of the ascending indices (S,) lie in each of the consecutive segments of lengths (N,): (N,)."""
    ends = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return torch.searchsorted(indices, ends).diff()


def lowest_of(scores: Tensor) -> Tensor:
    """Lowest of the scores (S,): (), +inf if there are none."""
    return scores.amin() if len(scores) else scores.new_full((), math.inf)


def required_capacity(num_images: int, num_pixels: int, normal_buffer: int, upper_fpr: float) -> int:
    """Return how many of the highest normal scores to keep of `num_images` normal images of at most `num_pixels`.

    A result needs at most `upper_fpr * num_images * num_pixels` of them: that many false positives give a shared FPR
    of at least `upper_fpr`, whichever images they lie in.
    """
    return max(normal_buffer, math.ceil(HEADROOM * upper_fpr * num_images * num_pixels))


def kth_highest(scores: Tensor, k: int) -> Tensor:
    """Return the k-th highest of the scores (S,), counted from 1."""
    if scores.device.type != "cpu":
        return scores.sort(descending=True).values[k - 1]  # CUDA's `kthvalue` takes ten times as long
    values = scores.numpy()  # NumPy is many times as fast
    if len(values) > 2 * SAMPLE_SIZE:
        high = values[values >= bound_of(scores, k).numpy()]
        values = high if len(high) >= k else values
    return torch.from_numpy(np.partition(values, len(values) - k))[len(values) - k]


def bound_of(scores: Tensor, k: int) -> Tensor:
    """Return a score that likely at least k of the scores (S,) are at or above, and few more, as a sample suggests."""
    sample = scores[:: max(1, len(scores) // SAMPLE_SIZE)]
    return kth_highest(sample, min(len(sample), safe_rank(k * len(sample) / len(scores))))


def safe_rank(expected: float) -> int:
    """Rank, from the highest, of the score of a sample above which `expected` scores are needed: so more are there."""
    return math.ceil(expected + 4 * math.sqrt(expected))  # four standard deviations


def prune_scores(kept: PixelScores, normal_buffer: int, upper_fpr: float) -> PixelScores:
    """Raise the floor as far as the required capacity allows, and drop all scores below it."""
    num_pixels = kept.num_pixels[~kept.is_anomalous]
    largest = int(num_pixels.amax()) if len(num_pixels) else 0
    capacity = required_capacity(len(num_pixels), largest, normal_buffer, upper_fpr)
    if len(kept.normal_scores) <= capacity:
        return kept
    floor = torch.maximum(kept.floor, bound_of(kept.normal_scores, capacity))
    normal_stays = indices_at_least(kept.normal_scores, floor)
    if len(normal_stays) < capacity:
        floor = torch.maximum(kept.floor, kth_highest(kept.normal_scores, capacity))
        normal_stays = indices_at_least(kept.normal_scores, floor)
    mask_stays = indices_at_least(kept.mask_scores, floor)
    num_normal = count_per_segment(normal_stays, kept.num_normal_kept)
    return kept._replace(
        normal_scores=kept.normal_scores.index_select(0, normal_stays),
        mask_scores=kept.mask_scores.index_select(0, mask_stays),
        num_kept=num_normal + count_per_segment(mask_stays, kept.num_mask_kept),
        floor=floor,
    )


def with_ids(kept: PixelScores, image_ids: Tensor | None) -> PixelScores:
    """Replace the ids (N,) of the images; None for no ids."""
    if image_ids is None:
        return kept._replace(image_ids=torch.full_like(kept.image_ids, NO_ID))
    return kept._replace(image_ids=image_ids.to(kept.image_ids))


def take_images(kept: PixelScores, images: Tensor) -> PixelScores:
    """Return what is kept of the images at the given indices (n,), in that order."""
    return kept._replace(
        normal_scores=_take_segments(kept.normal_scores, kept.num_normal_kept, images),
        mask_scores=_take_segments(kept.mask_scores, kept.num_mask_kept, images),
        num_kept=kept.num_kept[images],
        num_pixels=kept.num_pixels[images],
        is_anomalous=kept.is_anomalous[images],
        image_ids=kept.image_ids[images],
        max_scores=kept.max_scores[images],
    )


def _take_segments(scores: Tensor, lengths: Tensor, indices: Tensor) -> Tensor:
    """Join the segments at the given indices (n,) of scores (S,), which consist of segments of lengths (N,)."""
    starts, new_lengths = (lengths.cumsum(0) - lengths)[indices], lengths[indices]
    new_starts = new_lengths.cumsum(0) - new_lengths
    shift = (starts - new_starts).repeat_interleave(new_lengths)
    return scores[torch.arange(len(shift), device=shift.device) + shift]


def drop_repeats(kept: PixelScores) -> tuple[PixelScores, int]:
    """Keep the first image of each id, in the order of the ids; images without an id follow in their order.

    The lowest normal score is that of the distinct images if all scores were kept; else it may be that of a repeat.

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
    distinct = take_images(in_order, true_indices(~repeats_previous))
    if bool(kept.floor == -math.inf):
        distinct = distinct._replace(normal_min=lowest_of(distinct.normal_scores))
    return distinct, num_conflicts


def _differs_from_previous(kept: PixelScores) -> Tensor:
    """(N,) bool, true where an image differs from the one before in class, number of pixels or highest score.

    Two highest scores count as equal if they differ by at most 1 % of the largest magnitude of all scores: a model
    gives slightly different scores for the same image in batches of different sizes and in half precision.
    """
    highest = kept.floor.repeat(len(kept.num_kept))  # what is not kept is lower
    highest = highest.scatter_reduce(0, kept.image_of_normal_score(), kept.normal_scores, "amax")
    highest = highest.scatter_reduce(0, kept.image_of_mask_score(), kept.mask_scores, "amax")
    finite = torch.cat([kept.normal_scores, kept.mask_scores])
    finite = finite[finite.isfinite()]
    tolerance = 0.01 * float(finite.abs().amax()) if len(finite) else 0.0
    differs = torch.zeros_like(kept.is_anomalous)
    differs[1:] = (
        (kept.is_anomalous[1:] != kept.is_anomalous[:-1])
        | (kept.num_pixels[1:] != kept.num_pixels[:-1])
        | ~torch.isclose(highest[1:], highest[:-1], rtol=0.0, atol=tolerance)
    )
    return differs
