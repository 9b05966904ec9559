"""What is counted of each image in bins that are common to all, from which metrics of any choice of them follow.

Conventions: N images, b bins in ascending order of their scores. Counts are on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._engine.kept import PixelScores
from aupimo_torchmetrics._engine.regions import number_regions, pack_masks, shares_of_pixels

NUM_BINS = 1024
MIN_BINS = 64
MAX_COUNTS = 2**25
"""Numbers of a matrix (images, bins), 256 MiB: so many that with very many images there are fewer bins."""


class ImageCounts(NamedTuple):
    """What is counted of N images in b bins."""

    normal: Tensor
    """(N, b) number of normal pixels; for AUPIMO, shares of the pixels of normal images."""
    num_normal: Tensor
    """(N,) number of normal pixels; for AUPIMO, 1 for a normal image."""
    mask: Tensor
    """(N, b) number of mask pixels."""
    shares: Tensor
    """(N, b) sum of the shares that mask pixels have in their regions; for AUPIMO, in the mask of their image."""
    num_regions: Tensor
    """(N,) number of regions; for AUPIMO, 1 for an anomalous image."""
    is_single: Tensor
    """(b,) bool, true for a bin whose pixels have one score. These are tied indeed."""


class PixelCounts(NamedTuple):
    """What is counted of the pixels of N images in b bins, in little memory."""

    normal: Tensor
    """(N, b) int32, number of normal pixels."""
    mask: Tensor
    """(N, b) int32, number of mask pixels."""
    shares: Tensor
    """(N, b) float64, sum of the shares that mask pixels have in their connected regions."""
    num_regions: Tensor
    """(N,) int32, number of these regions."""
    annotated_shares: Tensor
    """(N, b) float64, the same of the regions of an annotation, of each of which its saturation area counts."""
    num_annotated: Tensor
    """(N,) int32, number of these regions."""
    is_single: Tensor
    """(b,) bool, true for a bin whose pixels have one score."""

    def of_regions(self, *, is_annotated: bool) -> ImageCounts:
        """Counts for metrics of all pixels, and of connected regions or those of the annotation."""
        shares, number = (
            (self.annotated_shares, self.num_annotated) if is_annotated else (self.shares, self.num_regions)
        )
        normal = self.normal.double()
        return ImageCounts(normal, normal.sum(1), self.mask.double(), shares, number.double(), self.is_single)


def bin_edges(normal: Tensor, mask: Tensor, num_images: int) -> Tensor:
    """Choose the edges (m,) of bins for counts of some images; bin j holds the scores from edge j - 1 to below edge j.

    Each distinct score has its bin if they are few. Else half of the edges are quantiles of the mask scores (T,), and
    half are normal scores (S,) at ranks that are evenly spaced in log. A score that is chosen twice has a bin of its
    own, as it is that of many pixels.
    """
    num_bins = min(NUM_BINS, max(MIN_BINS, MAX_COUNTS // max(1, num_images)))
    normal, mask = normal.sort(descending=True).values, mask.sort().values
    distinct = _distinct(torch.cat([torch.unique_consecutive(each) for each in (normal, mask)]))
    if len(distinct) < num_bins:
        return distinct
    num_each = num_bins // 2 - 1  # and a score that is chosen twice takes one more edge
    ranks = torch.logspace(0, math.log10(max(len(normal), 1)), num_each, dtype=torch.float64, device="cpu")
    places = torch.linspace(0, max(len(mask) - 1, 0), num_each, dtype=torch.float64, device="cpu")
    chosen = [
        scores[_distinct(at.round().long()).clamp(max=len(scores) - 1)] if len(scores) else scores
        for scores, at in ((normal, ranks - 1), (mask, places))
    ]
    repeated = torch.cat([scores[1:][scores[1:] == scores[:-1]] for scores in chosen])
    above_repeated = torch.nextafter(repeated, torch.full_like(repeated, math.inf))
    return _distinct(torch.cat([*chosen, above_repeated]))


def _distinct(values: Tensor) -> Tensor:
    """The distinct values (m,), ascending."""
    distinct: Tensor = torch.unique_consecutive(values.sort().values)
    return distinct


class PixelCounter:
    """Counts the pixels of images that come one after the other.

    Args:
        edges: Edges (b - 1,) of the bins.
        has_regions: Whether connected regions of the masks are found.

    """

    def __init__(self, edges: Tensor, *, has_regions: bool = True) -> None:
        self._edges, self._has_regions = edges, has_regions
        self._rows: list[tuple[Tensor, ...]] = []
        self._lowest = torch.full((len(edges) + 1,), math.inf, device="cpu")
        self._highest = -self._lowest

    def add(self, scores: Tensor, mask: Tensor, ignored: Tensor | None, highest: Sequence[Tensor]) -> None:
        """Count the pixels of an image.

        Args:
            scores: Its map (H, W).
            mask: Its mask (H, W) bool.
            ignored: Pixels (H, W) bool that do not count; None if all do.
            highest: Scores that decide of each region of the annotation.

        """
        num_bins = len(self._lowest)
        in_mask = bins_of(scores[mask], self._edges)
        found = torch.bincount(in_mask, minlength=num_bins)
        of_pixels, num_regions = shares_of_pixels(number_regions(pack_masks([mask.numpy()] * self._has_regions)))
        shares = torch.bincount(in_mask[: len(of_pixels)], of_pixels, num_bins)
        shares = shares.double()  # torch makes integers of no pixel
        annotated = torch.zeros_like(shares)
        for region in highest:
            annotated += torch.bincount(bins_of(region, self._edges), minlength=num_bins) / len(region)
        counts = [self._count(scores.reshape(-1) if ignored is None else scores[~ignored]) - found, found]
        numbers = torch.tensor([num_regions, len(highest)], dtype=torch.int32, device="cpu")
        self._rows.append((*(each.int() for each in counts), shares, numbers[0], annotated, numbers[1]))

    def _count(self, scores: Tensor) -> Tensor:
        """Count scores (n,) in each bin: (b,); and look at the lowest and the highest in each."""
        ordered = torch.from_numpy(np.sort(scores.numpy()))  # faster than to search each score among the edges
        ends = torch.cat([torch.searchsorted(ordered, self._edges), torch.tensor([len(ordered)], device="cpu")])
        counts = torch.diff(ends, prepend=ends.new_zeros(1))
        is_used = counts > 0
        self._lowest[is_used] = torch.minimum(self._lowest[is_used], ordered[(ends - counts)[is_used]])
        self._highest[is_used] = torch.maximum(self._highest[is_used], ordered[ends[is_used] - 1])
        return counts

    def counts(self) -> PixelCounts:
        """Return what was counted of all images."""
        is_single = self._lowest >= self._highest
        return PixelCounts(*map(torch.stack, zip(*self._rows, strict=True)), is_single=is_single)  # type: ignore[misc]


def bins_of(scores: Tensor, edges: Tensor) -> Tensor:
    """Give the number of the bin of each score (n,): (n,) int64."""
    return torch.bucketize(scores, edges, right=True)


def are_single(bins: Tensor, scores: Tensor, edges: Tensor) -> Tensor:
    """Whether the scores (n,) of each bin are equal to its edge: (b,) bool, true for an empty one."""
    own_edges = torch.cat([edges.new_full((1,), -math.inf), edges])[bins]
    return torch.bincount(bins, (scores != own_edges).double(), len(edges) + 1) == 0


def counts_of_scores(scores: Tensor, is_anomalous: Tensor) -> ImageCounts:
    """Count one score (N,) of each image: metrics of images are those of pixels of images of one pixel."""
    edges = bin_edges(scores[~is_anomalous], scores[is_anomalous], len(scores))
    bins = bins_of(scores, edges)
    is_in_bin = bins[:, None] == torch.arange(len(edges) + 1, device="cpu")
    normal, mask = ((is_in_bin & is_of_class[:, None]).double() for is_of_class in (~is_anomalous, is_anomalous))
    return ImageCounts(normal, normal.sum(1), mask, mask, mask.sum(1), are_single(bins, scores, edges))


def counts_of_kept(kept: PixelScores) -> ImageCounts:
    """Count what was kept of images for AUPIMO: all pixels of normal images, and the mask pixels of anomalous ones.

    AUPIMO is of the form of AUPRO, with images in place of regions, and the mean of the shares of images as FPR.
    """
    kept = PixelScores(*(part.cpu() for part in kept))
    edges = bin_edges(kept.normal_scores, kept.mask_scores, len(kept.num_pixels))
    scores = torch.cat([kept.normal_scores, kept.mask_scores])
    images = torch.cat([kept.image_of_normal_score(), kept.image_of_mask_score()])
    bins = bins_of(scores, edges)
    num_images, num_bins = len(kept.num_pixels), len(edges) + 1
    of_pixel = kept.num_pixels.double().reciprocal()[images]
    shares = torch.bincount(images * num_bins + bins, of_pixel, num_images * num_bins).view(num_images, num_bins)
    is_anomalous = kept.is_anomalous.double()
    normal, mask = shares * (1 - is_anomalous[:, None]), shares * is_anomalous[:, None]
    return ImageCounts(normal, 1 - is_anomalous, mask, mask, is_anomalous, are_single(bins, scores, edges))
