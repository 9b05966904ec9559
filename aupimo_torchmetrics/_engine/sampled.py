"""The paper's protocol: thresholds are sampled, and scores follow by the trapezoid rule from those between the bounds.

It is a table lookup like the exact score; only the table differs.

Conventions: K thresholds, ascending. FPRs and tables are float64.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984, and the official package.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities.data import _cumsum

from aupimo_torchmetrics._engine import sweep
from aupimo_torchmetrics._engine.kept import PixelScores
from aupimo_torchmetrics._engine.sweep import NormalLevels, PixelTable, Samples, Scoring
from aupimo_torchmetrics._settings import SharedFPR

_EQUALLY_NEAR = 1e-12
"""Shared FPRs whose distances to a bound differ by at most this count as equally near: it may be rounding."""


def sampled_thresholds(kept: PixelScores, num_thresholds: int) -> Tensor:
    """Thresholds (K,) of the paper's protocol: evenly spaced from the lowest to the highest normal score.

    All are NaN if there is no normal score, or if one of the two is infinite.

    The grid is NumPy's, as in the official package; torch's differs in the last bit. On tied scores, as in quantised
    maps, the last bit decides on which side of a tie a threshold lies, and so changes its shared FPR.
    """
    highest = float(kept.normal_scores.amax()) if len(kept.normal_scores) else math.nan
    lowest = float(kept.normal_min)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return kept.floor.new_full((num_thresholds,), math.nan)
    return torch.from_numpy(np.linspace(lowest, highest, num_thresholds)).to(kept.floor)


def sample(
    kept: PixelScores, levels: NormalLevels, thresholds: Tensor, fpr_bounds: tuple[float, float], shared_fpr: SharedFPR
) -> Samples:
    """Find the thresholds (K,) of the paper's protocol that lie between the FPR bounds."""
    lower, upper = fpr_bounds
    fpr_below = 1.0 if levels.fpr_below >= 1 else math.inf  # an FPR of at least 1 is 1; any other is not known
    fpr = torch.where(thresholds > levels.below, sweep.shared_fpr_at(levels, thresholds), fpr_below)
    for bound in fpr_bounds if shared_fpr == "mean" else ():
        fpr = _with_official_rounding(kept, thresholds, fpr, bound)
    samples = Samples(thresholds, fpr, levels.fpr_below, first=0, last=0, num_points=0)
    first, last = samples.nearest(upper), samples.nearest(lower)
    num_points = int((fpr[first : last + 1] > 0).sum())
    return samples._replace(first=first, last=last, num_points=num_points)


def _with_official_rounding(kept: PixelScores, thresholds: Tensor, fpr: Tensor, wanted: float) -> Tensor:
    """Round shared FPRs (K,) as the official package does, where the last bit decides which one is nearest to a wanted.

    Two may be equally near to it, one below and one above, as 0.25 and 0.35 are to 0.3. The official package takes the
    mean of the images' FPRs, each of them rounded. Its last bit may differ from that of the share of all pixels.
    """
    distances = (fpr - wanted).abs()
    nearest = torch.unique_consecutive(fpr[distances <= distances.amin() + _EQUALLY_NEAR])
    if len(nearest) < 2:
        return fpr
    for level in nearest:
        is_level = fpr == level
        rates = sweep.share_at_least(kept, float(thresholds[is_level][0]))[~kept.is_anomalous]
        mean = np.cumsum(rates.cpu().numpy())[-1] / len(rates)  # adds image after image, as NumPy adds rows
        fpr = torch.where(is_level, float(mean), fpr)
    return fpr


def sampled_scoring(samples: Samples, fpr_bounds: tuple[float, float]) -> Scoring:
    """Score by the trapezoid rule over the sampled thresholds between those nearest to the FPR bounds.

    A threshold whose shared FPR is not known may be nearer to the upper bound than the nearest known one. Then the
    trapezoids between the two are missing. Its shared FPR is at most as far above the bound as the known one is below.
    """
    lower, upper = fpr_bounds
    max_missing = 0.0
    nearest = float(samples.fpr[samples.first])
    if nearest < upper and not samples.is_nearest(samples.first, upper):
        max_missing = sweep.share_of_range(nearest, 2 * upper - nearest, fpr_bounds)

    inner = slice(samples.first, samples.last + 1)
    inner_thresholds, inner_fpr = samples.thresholds[inner], samples.fpr[inner]
    inner_thresholds, inner_fpr = inner_thresholds[inner_fpr > 0], inner_fpr[inner_fpr > 0]
    half_steps = -inner_fpr.log().diff() / 2
    nothing = half_steps.new_zeros(1)
    shares = (torch.cat([half_steps, nothing]) + torch.cat([nothing, half_steps])) / math.log(upper / lower)
    sums = _cumsum(shares)

    is_last = sweep.is_last_of_tie(inner_thresholds)
    weights = torch.cat([nothing, sums[is_last].repeat_interleave(2)])
    table = PixelTable(inner_thresholds[is_last], weights)
    threshold_bounds = samples.threshold_at(upper), samples.threshold_at(lower)
    return Scoring(table, threshold_bounds, max_missing, samples)
