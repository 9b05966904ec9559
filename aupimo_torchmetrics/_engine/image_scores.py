"""Score each image of a batch by its anomaly map: the highest score, or the mean of the highest ones.

Conventions: n images of one size with P pixels each. Pixels that are ignored count nowhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.inputs import Group, Maps, checked_groups


class ImageScores(NamedTuple):
    """The images of a batch that have a pixel that counts."""

    scores: Tensor
    """(N,) one score for each."""
    is_anomalous: Tensor
    """(N,) bool, whether its mask holds a pixel."""
    num_ignored: int
    """Number of images whose every pixel is ignored; they are left out."""


def score_images(
    preds: Maps, target: Maps, share: float, *, validate_args: bool, ignore_index: int | None, dtype: torch.dtype
) -> ImageScores:
    """Check one batch and score its images, in `dtype`; raise if maps or masks hold invalid values.

    Args:
        preds: Anomaly maps.
        target: Masks.
        share: See `mean_of_top`.
        validate_args: Whether to check.
        ignore_index: Value of the target pixels that do not count.
        dtype: Dtype of the scores.

    """
    groups = checked_groups(preds, target, validate_args=validate_args, ignore_index=ignore_index, dtype=dtype)
    parts = [_score_group(group, share, dtype) for group, _ in groups]
    if not parts:
        return ImageScores(torch.empty(0, dtype=dtype, device="cpu"), torch.empty(0, dtype=torch.bool, device="cpu"), 0)
    scores, are_anomalous, num_ignored = zip(*parts, strict=True)
    return ImageScores(torch.cat(scores), torch.cat(are_anomalous), sum(num_ignored))


def _score_group(group: Group, share: float, dtype: torch.dtype) -> ImageScores:
    """Score images of one size."""
    maps, masks, ignored, _ = group
    if ignored is None:
        return ImageScores(mean_of_top(maps, share).to(dtype), masks.any(1), 0)
    counted = (~ignored.all(1)).nonzero().flatten().tolist()
    scores = [mean_of_top(maps[index][~ignored[index]].view(1, -1), share).to(dtype) for index in counted]
    joined = torch.cat([maps.new_empty(0, dtype=dtype), *scores])
    return ImageScores(joined, masks[counted].any(1), len(maps) - len(counted))


def mean_of_top(scores: Tensor, share: float) -> Tensor:
    """Mean of a share of the scores of each map, the highest ones: (n,), of scores (n, P).

    The share is rounded down to whole pixels, at least one.
    """
    number = max(1, math.floor(scores.shape[1] * share + 1e-9))
    if number == 1:
        return scores.amax(1)
    highest = torch.topk(scores, number, dim=1, sorted=False).values if number < scores.shape[1] else scores
    return highest.to(torch.float32 if scores.device.type == "mps" else torch.float64).mean(1)
