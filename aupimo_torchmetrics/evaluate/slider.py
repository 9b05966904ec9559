"""The thresholds of the slider on a page: for shared FPRs from 1 to the lower bound, evenly spaced in log."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aupimo_torchmetrics._engine import sweep
from aupimo_torchmetrics._engine.select import spread_places
from aupimo_torchmetrics.evaluate.reading import LoadedPair
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["sample_scores", "slider_fprs", "slider_thresholds"]

NUM_STEPS = 31
"""Positions of the slider."""
MIN_BETWEEN = 11
"""Of them at least so many lie between the FPR bounds."""
SAMPLE_SIZE = 2**12
"""Pixels of a normal image in the sample."""


def slider_fprs(bounds: tuple[float, float]) -> list[float]:
    """Return the shared FPRs of the slider: from 1 to the upper bound, and from there to the lower bound."""
    lower, upper = bounds
    share = math.log(upper / lower) / math.log(1 / lower)
    num_below = min(max(round(share * NUM_STEPS), MIN_BETWEEN), NUM_STEPS) - 1
    num_above = NUM_STEPS - num_below - 1 if upper < 1 else 0
    above = [upper ** (step / num_above) for step in range(num_above)]
    return [*above, upper, *(upper * (lower / upper) ** (step / num_below) for step in range(1, num_below)), lower]


def sample_scores(loaded: LoadedPair) -> Tensor:
    """Return the lowest score of a normal image, and some that are evenly spread over its pixels."""
    scores = loaded.anomaly_map if loaded.ignored is None else loaded.anomaly_map[~loaded.ignored]
    return torch.cat([scores.amin()[None], scores.reshape(-1)[spread_places(scores.numel(), SAMPLE_SIZE)]])


def slider_thresholds(result: AUPIMOResult, samples: Sequence[Tensor]) -> list[float]:
    """Return the thresholds of the slider: exact as far as the result knows them, else of samples of scores.

    Args:
        result: Scores of a category.
        samples: A sample of each normal image, for FPRs too high for the scores that the result has kept.

    Returns:
        Thresholds that rise. None if there is no normal image. Where there is no threshold, because too many normal
        scores are +inf, it is +inf.

    """
    if math.isnan(result.threshold_bounds[0]):
        return []
    fprs = slider_fprs(result.fpr_bounds)
    levels = sweep.normal_levels(result._known().kept, 1.0, result.shared_fpr)  # noqa: SLF001  of the same package
    known = sweep.known_thresholds_at(levels, levels.fpr.new_tensor(fprs), result.shared_fpr).tolist()
    sample = torch.cat([*samples]).sort(descending=True).values
    thresholds = [math.inf]
    for fpr, exact in reversed([*zip(fprs, known, strict=True)]):
        if fpr <= result.fpr_bounds[1]:
            threshold = result.threshold_at(fpr)
        elif math.isnan(exact):
            threshold = float(sample[max(math.floor(fpr * len(sample)), 1) - 1])
        else:
            threshold = exact
        thresholds.append(thresholds[-1] if math.isnan(threshold) else min(thresholds[-1], threshold))
    return thresholds[:0:-1]
