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
        Of images with equal scores each statistic has another one, evenly spread over them in their order, and the text
        says how many there are: `median; one of 12 images with this score`. Empty if no image has a score.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPIMOResult
        >>> from aupimo_torchmetrics.plotting import representative_images
        >>> representative_images(AUPIMOResult(torch.tensor([0.75, 0.25]), (1e-5, 1e-4), (0.0, 1.0)))
        {1: 'low whisker, first quartile', 0: 'median, mean, third quartile, high whisker'}

    """
    indices = np.flatnonzero(~result.aupimos.isnan().cpu().numpy())
    scores = merge_equal(known_scores(result))
    score_of = dict(zip(indices.tolist(), scores.tolist(), strict=True))
    by_score: dict[float, list[ImageStatistic]] = {}
    for statistic in per_image_statistics(result):
        by_score.setdefault(score_of[statistic.image], []).append(statistic)
    roles: dict[int, list[str]] = {}
    notes = {}
    for score, statistics in by_score.items():
        alike = indices[scores == score]
        places = np.linspace(0, len(alike) - 1, len(statistics)).astype(int)
        for statistic, index in zip(statistics, alike[places].tolist(), strict=True):
            roles.setdefault(index, []).append(statistic.name)
            notes[index] = f"; one of {len(alike)} images with this score" if len(alike) > 1 else ""
    return {index: ", ".join(names) + notes[index] for index, names in roles.items()}
