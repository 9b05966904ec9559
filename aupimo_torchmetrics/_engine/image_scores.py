"""Score each image by its anomaly map: the highest score, or the mean of the highest ones.

Conventions: n images of one size with P pixels each. Pixels that are ignored count nowhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import Group


def score_images(group: Group, share: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Score the images of a group that have a pixel that counts, see `mean_of_top`.

    Returns:
        Scores (m,) in `dtype`, and classes (m,) bool, whether the mask of an image holds a pixel.

    """
    maps, masks, ignored, _ = group
    if ignored is None:
        return mean_of_top(maps, share).to(dtype), masks.any(1)
    counted = (~ignored.all(1)).nonzero().flatten().tolist()
    scores = [mean_of_top(maps[index][~ignored[index]].view(1, -1), share).to(dtype) for index in counted]
    return torch.cat([maps.new_empty(0, dtype=dtype), *scores]), masks[counted].any(1)


def mean_of_top(scores: Tensor, share: float) -> Tensor:
    """Mean of a share of the scores of each map, the highest ones: (n,), of scores (n, P).

    The share is rounded down to whole pixels, at least one.
    """
    number = max(1, math.floor(scores.shape[1] * share + 1e-9))
    if number == 1:
        return scores.amax(1)
    highest = torch.topk(scores, number, dim=1, sorted=False).values if number < scores.shape[1] else scores
    return highest.to(torch.float32 if scores.device.type == "mps" else torch.float64).mean(1)
