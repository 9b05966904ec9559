"""Images that stand for all scores in pictures."""

from __future__ import annotations

import numpy as np

from aupimo_torchmetrics.plotting._figures import known_scores
from aupimo_torchmetrics.results import AUPIMOResult
from aupimo_torchmetrics.statistics import ImageStatistic, per_image_statistics
from aupimo_torchmetrics.statistics._ties import merge_equal

__all__ = ["representative_images"]


def representative_images(result: AUPIMOResult) -> dict[int, str]:
    """Choose the images nearest to the statistics of a box plot of the scores.

    Args:
        result: Scores as `aupimo_torchmetrics.AUPIMO.result` returns them.

    Returns:
        The names of the statistics that an image stands for, joined by commas, by the index of the image, worst first.
        Of images with equal scores only one is there, and its text says so: `one of 12 images that score 0.00`. Empty
        if no image has a score.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.plotting import representative_images
        >>> representative_images(AUPIMOResult(torch.tensor([0.75, 0.25]), (1e-5, 1e-4), (0.0, 1.0)))
        {1: 'low whisker, first quartile', 0: 'median, mean, third quartile, high whisker'}

    """
    is_scored = ~result.aupimos.isnan().cpu().numpy()
    merged = merge_equal(known_scores(result))
    score_of = dict(zip(np.flatnonzero(is_scored).tolist(), merged.tolist(), strict=True))
    by_score: dict[float, list[ImageStatistic]] = {}
    for statistic in per_image_statistics(result):
        by_score.setdefault(score_of[statistic.image], []).append(statistic)
    roles = {}
    for score, statistics in by_score.items():
        names = ", ".join(statistic.name for statistic in statistics)
        is_one_image = len({statistic.image for statistic in statistics}) == 1
        alike = "" if is_one_image else f"; one of {int((merged == score).sum())} images that score {score:.2f}"
        roles[statistics[0].image] = names + alike
    return roles
