"""What stands for the distribution of per-image scores, and how sure one may be of their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from aupimo_torchmetrics._engine.resampling import CONFIDENCE, NUM_RESAMPLES, SEED, Draws, Units, expanded_interval
from aupimo_torchmetrics._metric_counts import counts_of_result
from aupimo_torchmetrics._settings import Outliers, check_choice
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics._ties import Scores, is_at_most, merge_equal

__all__ = ["ImageStatistic", "bootstrap_interval", "per_image_statistics"]

WHISKER_REACH = 1.5
"""A whisker ends at the last score within this many interquartile ranges of the box, as in most box plots."""

REPEAT_TOLERANCE = 1e-2
"""An image is chosen a second time only if no other image lies within this distance of the statistic."""

LOW_OUTLIER, HIGH_OUTLIER = "low outlier", "high outlier"

Indices = NDArray[np.intp]


class ImageStatistic(NamedTuple):
    """One statistic of the per-image scores, and the image that is nearest to it.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import per_image_statistics
        >>> result = AUPIMOResult(torch.tensor([0.25, 0.5, 0.875]), (1e-5, 1e-4), (0.0, 1.0))
        >>> [lowest, *_] = per_image_statistics(result)
        >>> lowest
        ImageStatistic(name='low whisker', value=0.25, image=0, score=0.25)

    """

    name: str
    """`"low whisker"`, `"first quartile"`, `"median"`, `"mean"`, `"third quartile"`, `"high whisker"`, or, if they were
    asked for, `"low outlier"` or `"high outlier"`."""
    value: float
    """Value of the statistic."""
    image: int
    """Index of the image in the scores."""
    score: float
    """Score of the image."""


def per_image_statistics(
    result: AUPIMOResult, *, outliers: Outliers = "none", tolerance: float = REPEAT_TOLERANCE
) -> list[ImageStatistic]:
    """Find the images that stand for the distribution of the scores: those nearest to the statistics of a box plot.

    A whisker ends at the last score within 1.5 interquartile ranges of the box; scores beyond it are outliers. Of
    several images that are equally near to a statistic, the first is chosen. Scores that differ by less than 1e-12 are
    equal.

    Args:
        result: Scores, as `aupimo_torchmetrics.AUPIMO.result` returns them.
        outliers: Which outliers to list too: `"none"`, `"low"`, `"high"` or `"both"`.
        tolerance: If the nearest image already stands for another statistic, the next nearest image takes its place,
            but only if its score is at most this far from the value. With 0 its score must be the value itself.

    Returns:
        The statistics in ascending order of the images' scores; an empty list if no image has a score.

    Raises:
        ValueError: If `outliers` is not one of the choices, or if `tolerance` is negative or NaN.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import per_image_statistics
        >>> scores = torch.tensor([0.1, 0.8, float("nan"), 0.6, 0.7, 0.5])
        >>> result = AUPIMOResult(scores, (1e-5, 1e-4), (0.0, 1.0))
        >>> for statistic in per_image_statistics(result):
        ...     print(f"{statistic.name}: {statistic.value:.2f}, image {statistic.image}")
        low whisker: 0.50, image 5
        first quartile: 0.50, image 5
        mean: 0.54, image 5
        median: 0.60, image 3
        third quartile: 0.70, image 4
        high whisker: 0.80, image 1

    """
    check_choice("outliers", outliers, Outliers)
    if not tolerance >= 0:
        raise ValueError(f"Expected `tolerance` to be at least 0, but got {tolerance}.")
    scores = result.aupimos.double().cpu().numpy()
    anomalous = np.flatnonzero(~np.isnan(scores))
    if len(anomalous) == 0:
        return []
    names, values = _box_plot(scores[anomalous], outliers)
    chosen: set[int] = set()
    statistics = []
    for position in merge_equal(values).argsort(kind="stable"):
        index = _nearest_image(scores, anomalous, values[position], chosen, tolerance)
        chosen.add(index)
        statistics.append(ImageStatistic(names[position], float(values[position]), index, float(scores[index])))
    by_score = merge_equal(np.array([statistic.score for statistic in statistics])).argsort(kind="stable")
    return [statistics[position] for position in by_score]


def _nearest_image(scores: Scores, anomalous: Indices, value: float, chosen: set[int], tolerance: float) -> int:
    """Index of the image nearest to a value, if possible one that is not chosen yet, of scores (N,)."""
    distances = np.abs(scores[anomalous] - value)
    by_distance = merge_equal(distances).argsort(kind="stable")
    nearest = int(anomalous[by_distance[0]])
    if nearest not in chosen:
        return nearest
    near = by_distance[is_at_most(distances[by_distance], tolerance)]
    return next((index for index in anomalous[near].tolist() if index not in chosen), nearest)


def _box_plot(scores: Scores, outliers: Outliers) -> tuple[list[str], Scores]:
    """Names and values of the statistics of scores (n,) without NaN, and of the outliers that are asked for."""
    first, median, third = np.percentile(scores, [25, 50, 75])
    reach = WHISKER_REACH * (third - first)
    is_low, is_high = ~is_at_most(first - reach, scores), ~is_at_most(scores, third + reach)
    statistics = {
        # There may be no score between a quartile and the end of its whisker.
        "low whisker": min(scores[~is_low].min(), first),
        "first quartile": first,
        "median": median,
        "mean": scores.mean(),
        "third quartile": third,
        "high whisker": max(scores[~is_high].max(), third),
    }
    low = scores[is_low] if outliers in {"low", "both"} else scores[:0]
    high = scores[is_high] if outliers in {"high", "both"} else scores[:0]
    names = [*statistics, *[LOW_OUTLIER] * len(low), *[HIGH_OUTLIER] * len(high)]
    return names, np.concatenate([list(statistics.values()), low, high])


def bootstrap_interval(
    result: AUPIMOResult,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
    *,
    groups: Sequence[str] | None = None,
) -> tuple[float, float]:
    """Estimate where the mean score would lie with other images of the same kind.

    Images are drawn anew with replacement, many times: as many normal and as many anomalous ones as there are, each
    among themselves. So the thresholds vary, too. The interval is the expanded percentile interval, which makes up for
    small numbers (T. Hesterberg, "What Teachers Should Know about the Bootstrap", The American Statistician 69, 2015).
    It is computed from counts in 1,024 bins; `aupimo evaluate --intervals` says by how much they can move its ends.

    A 95 % interval held the mean of very many such images in 93 to 96 of 100 simulations, with 20 to 200 images of each
    class (`tests/benchmarks/intervals.py`). If few normal images carry the FPR, as `result.warnings` then says, it
    holds it less often: the mean itself tends to be too high.

    Args:
        result: Scores, as `aupimo_torchmetrics.AUPIMO.result` returns them. Of one that knows per-image scores only, as
            a file of the official package, the anomalous images alone are drawn. Its interval is one for these
            thresholds, and too narrow.
        confidence: Share of cases in which the interval is to hold the mean, in (0, 1).
        num_resamples: How often to draw, at least 1.
        seed: Fixes the draws: one seed gives one interval.
        groups: Name (N,) of the group of each image, as of the part of which it is a photograph. Then groups are drawn.

    Returns:
        Lower and upper end of the interval. NaN if there are fewer than five images or groups of a class, or if scores
        that matter for a resample were not kept (construct the metric with a larger `normal_buffer`).

    Raises:
        ValueError: If `confidence` is not in (0, 1), `num_resamples` is less than 1, or there is not a group for each
            image.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMO
        >>> from aupimo_torchmetrics.statistics import bootstrap_interval
        >>> maps, masks = torch.rand(60, 32, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(60, 32, 32)
        >>> masks[30:, :8, :8] = 1
        >>> metric = AUPIMO(fpr_bounds=(1e-3, 1e-2))
        >>> metric.update(maps + 0.3 * masks, masks.bool())
        >>> result = metric.result()
        >>> low, high = bootstrap_interval(result)
        >>> low < result.mean < high
        True

    """
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` to be between 0 and 1, but got {confidence}.")
    if num_resamples < 1:
        raise ValueError(f"Expected `num_resamples` to be at least 1, but got {num_resamples}.")
    if groups is not None and len(groups) != len(result.aupimos):
        raise ValueError(
            f"Expected `groups` to name one for each of {len(result.aupimos)} images, but got {len(groups)}."
        )
    counts = counts_of_result(result, groups)
    if counts is not None:
        resampled = counts.resampled(Draws(counts.units, num_resamples, seed))
        return expanded_interval(resampled, counts.units.fewest, confidence)
    scores = result.aupimos.double().cpu()
    is_anomalous = ~scores.isnan()
    units = Units.of(is_anomalous, groups)
    counted = scores.where(is_anomalous, 0)
    weights = Draws(units, num_resamples, seed).weights()
    means = torch.cat([each @ counted / (each @ is_anomalous.double()) for each in weights])
    return expanded_interval(means, units.numbers[1], confidence)
