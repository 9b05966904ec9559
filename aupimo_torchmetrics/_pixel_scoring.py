"""From ranks of mask pixels to pixel metrics, with their certain bounds and the texts of warnings.

No function here warns. The texts, which begin with the `name` of the metric, travel with the numbers, and the caller
that gives these to the user warns once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import ranking
from aupimo_torchmetrics._engine.ranking import Ranks

__all__ = [
    "PixelScore",
    "outward",
    "pixel_means",
    "score_aupro",
    "score_auroc",
    "score_average_precision",
    "score_f1_max",
]


class PixelScore(NamedTuple):
    """A pixel metric, with everything that is known of it."""

    value: float
    """NaN if undefined."""
    bounds: tuple[float, float]
    """The exact value lies between these; both are the value if it is exact."""
    warnings: tuple[str, ...] = ()
    threshold: float = math.nan
    """Threshold at which the value is reached, if it is reached at one."""


def score_auroc(ranks: Ranks, *, is_binned: bool = False, name: str = "PixelAUROC") -> PixelScore:
    """Area under the ROC curve of all pixels; with bounds if the ranks are those of bins."""
    return _score(name, ranks, ranking.auroc, ranking.auroc, is_binned=is_binned)


def score_average_precision(
    ranks: Ranks, *, is_binned: bool = False, name: str = "PixelAveragePrecision"
) -> PixelScore:
    """Average precision of all pixels; with bounds if the ranks are those of bins."""
    lowest = ranking.lowest_average_precision
    return _score(name, ranks, ranking.average_precision, lowest, is_binned=is_binned)


def score_f1_max(ranks: Ranks, *, is_binned: bool = False, name: str = "PixelF1Max") -> PixelScore:
    """Highest F1 score of any threshold, and the threshold; with bounds if the ranks are those of bins."""
    score = _score(name, ranks, _f1_max, _f1_max, is_binned=is_binned)
    return score._replace(threshold=ranking.f1_max(ranks)[1] if ranks.is_defined else math.nan)


def score_aupro(
    ranks: Ranks, fpr_limit: float, region_mean: Callable[[Tensor], float], *, is_binned: bool = False
) -> PixelScore:
    """AUPRO up to an FPR limit; with bounds if the ranks are those of bins.

    Args:
        ranks: Ranks of the mask pixels.
        fpr_limit: Limit of the FPR.
        region_mean: Takes a value (m,) for each distinct mask score. Returns the mean over all regions of the mean over
            the pixels of the region.
        is_binned: Whether the ranks are those of bins.

    """

    def aupro(of: Ranks) -> float:
        return region_mean(ranking.area_shares(of, fpr_limit))

    return _score("AUPRO", ranks, aupro, aupro, is_binned=is_binned)


def outward(bounds: tuple[float, float]) -> tuple[float, float]:
    """Round bounds to float32, the lower one down and the upper one up; 0 and 1 stay what they are."""
    low, high = (np.float32(bound) for bound in bounds)
    low = low if bounds[0] in {0, 1} else np.nextafter(low, np.float32(0))
    high = high if bounds[1] in {0, 1} else np.nextafter(high, np.float32(1))
    return float(low), float(high)


def _f1_max(ranks: Ranks) -> float:
    return ranking.f1_max(ranks)[0]


def _score(
    name: str, ranks: Ranks, metric: Callable[[Ranks], float], lowest: Callable[[Ranks], float], *, is_binned: bool
) -> PixelScore:
    """Score by a metric of ranks; the lowest possible value of bins is that of `lowest` in the worst case."""
    if not ranks.is_defined:
        text = _warnings.missing_pixels(name, num_mask=len(ranks.scores), num_normal=ranks.num_normal)
        return PixelScore(math.nan, (math.nan, math.nan), (text,))
    value = metric(ranks)
    if not is_binned:
        return PixelScore(value, (value, value))
    low = max(0.0, lowest(ranking.with_all_below(ranks)))
    high = min(1.0, metric(ranking.with_all_above(ranks)))  # a sum of shares of a region may round to more
    text = _warnings.wide_bounds(name, low, high)
    return PixelScore(min(max(value, low), high), (low, high), tuple(filter(None, [text])))


def pixel_means(ranks: Ranks, mask_scores: Tensor, regions: Tensor) -> Callable[[Tensor], float]:
    """Make the `region_mean` of `score_aupro` from the scores (T,) of the mask pixels and their regions (T,) int64."""

    def region_mean(values: Tensor) -> float:
        return float(torch.mean(ranking.region_means(ranks, values, mask_scores, regions)))

    return region_mean
