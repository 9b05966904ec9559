"""What stands for the distribution of per-image scores, and how sure one may be of their mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._settings import Outliers, check_choice
from aupimo_torchmetrics.results import AUPIMOResult

WHISKER_REACH = 1.5
"""A whisker ends at the last score within this many interquartile ranges of the box, as box plots have it."""

REPEAT_TOLERANCE = 1e-2
"""An image that already stands for one statistic gives way to another that is as near to the next, up to this."""

LOW_OUTLIER, HIGH_OUTLIER = "low outlier", "high outlier"

Scores = NDArray[np.float64]


class ImageStatistic(NamedTuple):
    """One statistic of the per-image scores, and the image that is nearest to it."""

    name: str
    """`"low whisker"`, `"first quartile"`, `"median"`, `"mean"`, `"third quartile"`, `"high whisker"`, or, if they were
    asked for, `"low outlier"` or `"high outlier"`."""
    value: float
    """Value of the statistic."""
    image: int
    """Place of the image in the scores."""
    score: float
    """Score of the image."""


def per_image_statistics(
    result: AUPIMOResult, *, outliers: Outliers = "none", tolerance: float = REPEAT_TOLERANCE
) -> list[ImageStatistic]:
    """Find the images that stand for the distribution of the scores: those nearest to the statistics of a box plot.

    A whisker is the last score within 1.5 interquartile ranges of the box; what lies beyond is an outlier.

    Args:
        result: Scores, as :meth:`~aupimo_torchmetrics.AUPIMO.result` returns them.
        outliers: Whether to list outliers too: `"none"`, `"low"`, `"high"` or `"both"`.
        tolerance: An image that already stands for a statistic gives way to another one if that is at most this far
            from the value. 0 lets only images with exactly the value take its place.

    Returns:
        The statistics in ascending order of the images' scores; nothing if no image has a score.

    Raises:
        ValueError: If `outliers` is not one of the choices, or `tolerance` is negative.

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
    images = np.flatnonzero(~np.isnan(scores))
    if len(images) == 0:
        return []
    chosen: set[int] = set()
    statistics = []
    for name, value in sorted(_box_plot(scores[images], outliers), key=lambda statistic: statistic[1]):
        distances = np.abs(scores[images] - value)
        by_distance = images[distances.argsort(kind="stable")].tolist()  # of several as near the first
        fresh = (image for image in by_distance if image not in chosen and abs(scores[image] - value) <= tolerance)
        image = by_distance[0] if by_distance[0] not in chosen else next(fresh, by_distance[0])
        chosen.add(image)
        statistics.append(ImageStatistic(name, value, image, float(scores[image])))
    return sorted(statistics, key=lambda statistic: statistic.score)


def _box_plot(scores: Scores, outliers: Outliers) -> list[tuple[str, float]]:
    """Names and values of the statistics of scores (n,) without NaN, and of the outliers that are asked for."""
    first, median, third = (float(value) for value in np.percentile(scores, [25, 50, 75]))
    reach = WHISKER_REACH * (third - first)
    # Between a quartile and the end of its whisker there may be no score at all.
    low = min(float(scores[scores >= first - reach].min()), first)
    high = max(float(scores[scores <= third + reach].max()), third)
    statistics = [
        ("low whisker", low),
        ("first quartile", first),
        ("median", median),
        ("mean", float(scores.mean())),
        ("third quartile", third),
        ("high whisker", high),
    ]
    if outliers in {"low", "both"}:
        statistics += [(LOW_OUTLIER, float(score)) for score in scores[scores < low]]
    if outliers in {"high", "both"}:
        statistics += [(HIGH_OUTLIER, float(score)) for score in scores[scores > high]]
    return statistics


def bootstrap_interval(
    result: AUPIMOResult, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Estimate how far the mean score would vary with other images of the same kind.

    The anomalous images are drawn anew with replacement, and the interval holds the given share of their means (the
    percentile bootstrap). That other normal images would give other thresholds is not part of it.

    Args:
        result: Scores, as :meth:`~aupimo_torchmetrics.AUPIMO.result` returns them.
        confidence: Share of the means that the interval holds, in (0, 1).
        num_resamples: How often to draw.
        seed: Fixes the draws: one seed gives one interval.

    Returns:
        Lower and upper end; NaN if no image has a score.

    Raises:
        ValueError: If `confidence` is not in (0, 1), or `num_resamples` less than 1.
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.statistics import bootstrap_interval
        >>> result = AUPIMOResult(torch.linspace(0, 1, 100), (1e-5, 1e-4), (0.0, 1.0))
        >>> low, high = bootstrap_interval(result)
        >>> low < result.mean < high
        True

    """
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` to be between 0 and 1, but got {confidence}.")
    if num_resamples < 1:
        raise ValueError(f"Expected `num_resamples` to be at least 1, but got {num_resamples}.")
    scores = result.aupimos.double().cpu().numpy()
    scores = scores[~np.isnan(scores)]
    if len(scores) == 0:
        return float("nan"), float("nan")
    if scores.min() == scores.max():
        return float(scores[0]), float(scores[0])
    require("scipy", extra="stats", needed_by="bootstrap_interval")
    from scipy import stats  # noqa: PLC0415

    interval = stats.bootstrap(
        (scores,),
        np.mean,
        confidence_level=confidence,
        n_resamples=num_resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(interval.confidence_interval.low), float(interval.confidence_interval.high)
