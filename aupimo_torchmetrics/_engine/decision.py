"""What a threshold does to images, and how sure that is.

An image raises an *alarm* iff its highest score reaches the threshold. So the highest score of each image tells whom a
threshold stops, also where the shared FPR is not known because lower normal scores were not kept.

Conventions: N images, n of them normal.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.kept import PixelScores
from aupimo_torchmetrics._engine.resampling import NUM_RESAMPLES, SEED, expanded_interval
from aupimo_torchmetrics._engine.sweep import share_at_least
from aupimo_torchmetrics._settings import SharedFPR

MAX_DRAWS = 2**22
"""Images that are drawn at a time; with their indices they take 50 MiB."""


def num_carrying(kept: PixelScores, threshold: float, units: Tensor | None = None) -> float:
    """Number of normal images that carry the FPR of a threshold: as many if all have the same FPR, 1 if one has all.

    It is `(sum f)^2 / sum f^2` of their FPRs f (L. Kish's effective sample size). NaN if no normal pixel reaches the
    threshold, or if it is not known how many do. If units (N,) are given, it is the number of these.
    """
    if not threshold >= float(kept.floor):
        return math.nan
    shares = share_at_least(kept, threshold)[~kept.is_anomalous]
    if units is not None:
        shares = torch.bincount(units[~kept.is_anomalous.cpu()], shares.cpu())
    return float(shares.sum() ** 2 / (shares**2).sum())


def rates_at(
    kept: PixelScores, threshold: float, shared_fpr: SharedFPR
) -> tuple[float, tuple[float, float], Tensor, float, float]:
    """Say what a threshold does; what is not known of it is NaN.

    Below the floor not every score at or above the threshold was kept. Then only alarms are known.

    Returns:
        The shared FPR and its interval, the TPRs (N,) float64 of the images, NaN for a normal image, and the shares of
        the normal and of the anomalous images with an alarm.

    """
    is_normal = ~kept.is_anomalous
    shares = share_at_least(kept, threshold)
    if not threshold >= float(kept.floor):
        shares = torch.full_like(shares, math.nan)
    alarms = _alarms(kept, threshold, shares)
    normal_shares = shares[is_normal]
    shared, interval = math.nan, (math.nan, math.nan)
    if len(normal_shares):
        shared = float(normal_shares.amax() if shared_fpr == "max" else normal_shares.mean())
        interval = resampled_interval(normal_shares, shared_fpr)
    tprs = torch.where(is_normal, math.nan, shares)
    return shared, interval, tprs, float(alarms[is_normal].mean()), float(alarms[~is_normal].mean())


def _alarms(kept: PixelScores, threshold: float, shares: Tensor) -> Tensor:
    """(N,) float64, 1 for an image with an alarm, 0 for one without; NaN where it is not known."""
    if math.isnan(threshold):
        return torch.full_like(shares, math.nan)
    # A result that an earlier version saved has no highest scores. Of a normal image, the share of its pixels tells it.
    is_told = ~kept.is_anomalous & ~shares.isnan()
    of_shares = torch.where(is_told, (shares > 0).double(), math.nan)
    return torch.where(kept.max_scores.isnan(), of_shares, (kept.max_scores >= threshold).double())


def resampled_interval(values: Tensor, statistic: SharedFPR) -> tuple[float, float]:
    """95 % interval of the mean or maximum of values (n,), by resampling them; NaN for fewer than two."""
    number = len(values)
    if number < 2 or bool(values.isnan().any()):
        return math.nan, math.nan
    values, generator = values.cpu(), torch.Generator("cpu").manual_seed(SEED)
    resamples = []
    size = max(1, MAX_DRAWS // number)
    for start in range(0, NUM_RESAMPLES, size):
        shape = (min(size, NUM_RESAMPLES - start), number)
        drawn = values[torch.randint(number, shape, generator=generator, device="cpu")]
        resamples.append(drawn.amax(1) if statistic == "max" else drawn.mean(1))
    return expanded_interval(torch.cat(resamples), number)


def alarm_threshold(highest: Tensor, share: float) -> float:
    """Threshold at which a new image raises an alarm with probability `share` at most (split conformal prediction).

    Args:
        highest: Highest scores (n,) of normal images, which are exchangeable with the new one.
        share: In (0, 1), at least `1 / (n + 1)`.

    Returns:
        The next float above the score that at most `share * (n + 1)` scores, the new one included, exceed; NaN if that
        is +inf.

    """
    rank = len(highest) + 1 - math.floor(_fraction(share) * (len(highest) + 1))
    score = highest.sort().values[rank - 1]
    return float(torch.nextafter(score, torch.full_like(score, math.inf))) if bool(score < math.inf) else math.nan


def num_images_needed(share: float) -> int:
    """Return how many normal images `alarm_threshold` needs for a share."""
    return math.ceil(1 / _fraction(share)) - 1


def _fraction(share: float) -> Fraction:
    """Return the simplest fraction that a float stands for: 1/20 for 0.05, 1/3 for the float next to it."""
    simple = Fraction(share).limit_denominator(10**9)
    return simple if float(simple) == share else Fraction(share)
