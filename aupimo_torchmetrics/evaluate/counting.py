"""How sure the scores of an evaluation are: counts of each image in common bins, and intervals by resampled images.

Maps are read once more to be counted, since the bins follow from the scores of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from aupimo_torchmetrics._engine import resampling
from aupimo_torchmetrics._engine.binning import PixelCounter, PixelCounts, bin_edges
from aupimo_torchmetrics._engine.resampling import Draws, Interval
from aupimo_torchmetrics._engine.select import spread_places
from aupimo_torchmetrics._metric_counts import MetricCounts
from aupimo_torchmetrics.evaluate.reading import LoadedPair

__all__ = ["ScoreSample", "count_images", "intervals_of"]

SAMPLE_SIZE = 2**12
"""Pixels of an image in the sample, and mask pixels beside them."""


class ScoreSample:
    """A sample of the scores of images, from which the edges of common bins follow."""

    def __init__(self) -> None:
        self._normal: list[Tensor] = []
        self._mask: list[Tensor] = []

    def add(self, loaded: LoadedPair) -> None:
        """Take scores that are evenly spread over the pixels of an image, and over those of its mask."""
        is_normal = loaded.is_counted & ~loaded.mask
        places = _places(is_normal.numel())
        self._normal.append(loaded.anomaly_map.reshape(-1)[places][is_normal.reshape(-1)[places]])
        in_mask = loaded.anomaly_map[loaded.mask]
        if len(in_mask):
            self._mask.append(in_mask[_places(len(in_mask))])

    def edges(self) -> Tensor:
        """Return the edges of the bins."""
        nothing = torch.empty(0, device="cpu")
        return bin_edges(torch.cat([nothing, *self._normal]), torch.cat([nothing, *self._mask]), len(self._normal))


def _places(num_pixels: int) -> Tensor:
    """Places of pixels of an image: of all, or of some that are evenly spread."""
    if num_pixels <= SAMPLE_SIZE:
        return torch.arange(num_pixels, device="cpu")
    return spread_places(num_pixels, SAMPLE_SIZE)


def count_images(images: Iterable[LoadedPair], edges: Tensor, *, has_regions: bool) -> PixelCounts:
    """Count the pixels of images in bins; `has_regions` to find the connected regions of their masks, too."""
    counter = PixelCounter(edges, has_regions=has_regions)
    for loaded in images:
        counter.add(loaded.anomaly_map, loaded.mask, loaded.ignored, loaded.highest_in_regions)
    return counter.counts()


def intervals_of(categories: Sequence[Sequence[MetricCounts]]) -> tuple[list[dict[str, Interval]], dict[str, Interval]]:
    """Intervals of each metric in each category, and of the mean over the categories in which it is defined.

    All metrics of a category are of the same resamples.
    """
    found = list[dict[str, Interval]]()
    of_metrics: dict[str, list[tuple[Tensor, int]]] = {}
    for place, counts in enumerate(categories):
        draws = Draws(counts[0].units, resampling.NUM_RESAMPLES, resampling.SEED)
        found.append({})
        for each in counts:
            values, bounds, number = each.resampled(draws), each.bounds(draws), each.units.fewest
            found[-1][each.metric] = resampling.interval_of(values, bounds, number)
            if not math.isnan(each.value):
                in_order = resampling.independent(torch.stack([values, *bounds]), place)
                of_metrics.setdefault(each.metric, []).append((in_order, number))
    means = {}
    for metric, of_categories in of_metrics.items():
        every = torch.stack([each for each, _ in of_categories])
        values, lowest, highest = every.mean(0)
        of_mean = resampling.number_of_mean(every[:, 0].var(1).tolist(), [number for _, number in of_categories])
        means[metric] = resampling.interval_of(values, [lowest, highest], of_mean)
    return found, means
