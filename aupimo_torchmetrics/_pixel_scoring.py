"""What `evaluate` asks of pixel metrics, until it asks the metrics themselves; then this file goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import ranking
from aupimo_torchmetrics._engine.ranking import Ranks
from aupimo_torchmetrics.results import PixelResult


def score_ranks(
    name: str,
    ranks: Ranks,
    formula: Callable[[Ranks], float],
    lowest: Callable[[Ranks], float] | None = None,
    *,
    is_binned: bool = False,
) -> PixelResult:
    """Score by a formula; if the ranks are those of bins, with the certain bounds of the exact value.

    The lowest possible value is that of `lowest`, or else of the formula, in the worst case.
    """
    if not ranks.is_defined:
        text = _warnings.missing_pixels(name, num_mask=len(ranks.scores), num_normal=ranks.num_normal)
        return PixelResult(math.nan, (math.nan, math.nan), warnings=(text,))
    value = formula(ranks)
    if not is_binned:
        return PixelResult(value, (value, value))
    low = max(0.0, (lowest or formula)(ranks.with_all_below()))
    high = min(1.0, formula(ranks.with_all_above()))  # a sum of shares of a region may round to more
    text = _warnings.wide_bounds(name, low, high)
    return PixelResult(min(max(value, low), high), (low, high), warnings=tuple(filter(None, [text])))


class PixelScore(NamedTuple):  # of `evaluate`, until that asks the metrics
    """A pixel metric, with everything that is known of it."""

    value: float
    bounds: tuple[float, float]
    warnings: tuple[str, ...] = ()
    threshold: float = math.nan


def score_auroc(ranks: Ranks, *, is_binned: bool = False, name: str = "PixelAUROC") -> PixelScore:
    result = score_ranks(name, ranks, ranking.auroc, is_binned=is_binned)
    return PixelScore(result.value, result.bounds, result.warnings)


def score_average_precision(
    ranks: Ranks, *, is_binned: bool = False, name: str = "PixelAveragePrecision"
) -> PixelScore:
    formulas = ranking.average_precision, ranking.lowest_average_precision
    result = score_ranks(name, ranks, *formulas, is_binned=is_binned)
    return PixelScore(result.value, result.bounds, result.warnings)


def score_f1_max(ranks: Ranks, *, is_binned: bool = False, name: str = "PixelF1Max") -> PixelScore:
    result = score_ranks(name, ranks, ranking.f1_max, is_binned=is_binned)
    return PixelScore(
        result.value, result.bounds, result.warnings, ranking.f1_threshold(ranks) if ranks.is_defined else math.nan
    )


def score_aupro(ranks: Ranks, fpr_limit: float, _: object, *, is_binned: bool = False) -> PixelScore:
    result = score_ranks("AUPRO", ranks, partial(ranking.aupro, fpr_limit=fpr_limit), is_binned=is_binned)
    return PixelScore(result.value, result.bounds, result.warnings)
