"""Statistics of per-image scores: which images stand for a distribution, and which of several models is better.

A quarter of the published scores are exactly 0 and many exactly 1, so ties are the rule here and not the exception.
Scores that differ by less than 1e-12 are equal everywhere, so that rounding decides no rank, order or choice.

Conventions: N images. Normal images, whose score is NaN, do not count. The index of an image is its position in the
scores, from 0 to N - 1. The tests need the extra `stats`.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984, whose published statistics the functions reproduce.
"""

from aupimo_torchmetrics.statistics.distribution import ImageStatistic, bootstrap_interval, per_image_statistics
from aupimo_torchmetrics.statistics.paired import ModelComparison, compare_models
from aupimo_torchmetrics.statistics.ranking import ModelRanking, rank_models

__all__ = [
    "ImageStatistic",
    "ModelComparison",
    "ModelRanking",
    "bootstrap_interval",
    "compare_models",
    "per_image_statistics",
    "rank_models",
]
