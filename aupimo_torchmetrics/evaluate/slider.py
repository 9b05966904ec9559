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

__all__ = ["NormalSample", "slider_fprs"]

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


class NormalSample:
    """A sample of the scores of normal images, which tells thresholds of FPRs too high for the scores that are kept."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def add(self, loaded: LoadedPair) -> None:
        """Take the lowest score of a normal image, and some that are evenly spread over its pixels."""
        scores = loaded.anomaly_map if loaded.ignored is None else loaded.anomaly_map[~loaded.ignored]
        self._parts += [scores.amin()[None], scores.reshape(-1)[spread_places(scores.numel(), SAMPLE_SIZE)]]

    def thresholds_of(self, result: AUPIMOResult, fprs: Sequence[float]) -> list[float]:
        """Thresholds of shared FPRs, which fall: exact as far as the result knows them, else of the sample.

        Returns:
            Thresholds that rise. None if there is no normal image. Where there is no threshold, because too many normal
            scores are +inf, it is +inf.

        """
        if math.isnan(result.threshold_bounds[0]):
            return []
        levels = sweep.normal_levels(result._known().kept, 1.0, result.shared_fpr)  # noqa: SLF001  of the same package
        known = sweep.known_thresholds_at(levels, levels.fpr.new_tensor(fprs), result.shared_fpr).tolist()
        sample = torch.cat(self._parts).sort(descending=True).values
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
