"""Shared FPR, what one pixel contributes to a score, per-image scores and curves.

A threshold `t` calls a pixel anomalous iff its score is at least `t`. With the *shared FPR* `F(t)`, the mean or the
maximum over the normal images of the share of their pixels at or above `t`, and `L, U` the FPR bounds,

    AUPIMO_i = 1 / log(U / L) * integral from L to U of TPR_i(F) / F dF

TPR is a mean over mask pixels, so sum and integral can be exchanged: the AUPIMO of an image is the mean over its mask
pixels of `w(s)`, the share of the log-FPR range in which thresholds recall a pixel with score `s`. `w` is a step
function of the score. It changes only at normal scores, so a table holds it, and a binary search per pixel reads it.

Conventions: N images, K thresholds, m distinct normal scores, ascending. FPRs and tables are float64.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984; the closed form by placement values is this library's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities.data import _cumsum

from aupimo_torchmetrics._engine.kept import (
    PixelScores,
    count_per_segment,
    indices_at_least,
    kth_highest,
    lowest_of,
    true_indices,
)
from aupimo_torchmetrics._settings import SharedFPR

NUM_CURVE_LEVELS = 1000
"""Points of a PIMO curve if no number of thresholds is given: 100 to 200 per decade for a million normal pixels."""


class NormalLevels(NamedTuple):
    """The shared FPR at the normal scores, from the highest score down to the last that matters."""

    scores: Tensor
    """(m,) distinct normal scores, ascending."""
    fpr: Tensor
    """(m,) float64, element j is the shared FPR of the threshold `scores[j]`; never increasing, in (0, 1]."""
    below: Tensor
    """() no normal score lies between this and `scores[0]`; -inf if no normal score is below `scores[0]`."""
    fpr_below: float
    """A threshold at or below `below` has at least this shared FPR; more is not known of it."""


class PixelTable(NamedTuple):
    """The step function `w`: what a pixel contributes to the AUPIMO of its image."""

    scores: Tensor
    """(m,) distinct scores at which `w` steps, ascending."""
    weights: Tensor
    """(2m + 1,) float64: entry 2j + 1 is `w` at `scores[j]`, entry 2j between `scores[j - 1]` and `scores[j]`."""

    def look_up(self, scores: Tensor) -> Tensor:
        """Return `w` of each score, float64, in the shape of the scores.

        Most scores lie above or below all steps. Only the others are searched.
        """
        if len(self.scores) == 0:
            return self.weights[0].expand(scores.shape).clone()
        weights = torch.where(scores > self.scores[-1], self.weights[-1], self.weights[0]).view(-1)
        inside = true_indices((scores >= self.scores[0]) & (scores <= self.scores[-1]))
        found = scores.reshape(-1).index_select(0, inside)
        num_at_most = torch.searchsorted(self.scores, found, right=True)
        is_tie = self.scores[num_at_most - 1] == found
        weights[inside] = self.weights[2 * num_at_most - is_tie.long()]
        return weights.view(scores.shape)


class Samples(NamedTuple):
    """Thresholds of the paper's protocol, and which of them lie between the FPR bounds."""

    thresholds: Tensor
    """(K,) evenly spaced, ascending."""
    fpr: Tensor
    """(K,) float64 shared FPR of each threshold, descending; +inf where it is not known."""
    fpr_below: float
    """A shared FPR that is not known is at least this."""
    first: int
    """Index of the threshold whose shared FPR is nearest to the upper bound."""
    last: int
    """Index of the threshold whose shared FPR is nearest to the lower bound."""
    num_points: int
    """Number of thresholds from `first` to `last` with a shared FPR above 0."""

    def nearest(self, wanted: float) -> int:
        """Index of the threshold whose known shared FPR is nearest to the wanted FPR; the first of equals."""
        return int((self.fpr - wanted).abs().argmin())

    def is_nearest(self, index: int, wanted: float) -> bool:
        """Whether the threshold at an index is surely nearer to the wanted FPR than all whose FPR is not known."""
        if bool(self.fpr[0].isfinite()):  # the lowest threshold has the highest FPR: if that is known, all are
            return True
        return abs(float(self.fpr[index]) - wanted) < max(0.0, self.fpr_below - wanted)

    def threshold_at(self, wanted: float) -> float:
        """Return the threshold whose shared FPR is nearest to the wanted FPR; NaN if it is not known which one."""
        index = self.nearest(wanted)
        return float(self.thresholds[index]) if self.is_nearest(index, wanted) else math.nan


class Scoring(NamedTuple):
    """How pixels are scored between the FPR bounds, exactly or by samples."""

    table: PixelTable
    threshold_bounds: tuple[float, float]
    """Thresholds at the upper and at the lower FPR bound, lower threshold first; NaN where not known."""
    max_missing: float = 0.0
    """A score may be up to this much larger if normal scores that matter were not kept; 0 if all were kept."""
    samples: Samples | None = None
    """Sampled thresholds; None for an exact scoring, and for an undefined one."""


def normal_levels(kept: PixelScores, down_to_fpr: float, shared_fpr: SharedFPR) -> NormalLevels:
    """Rank the normal scores from the highest down to one with a shared FPR of at least `down_to_fpr`."""
    is_normal = ~kept.is_anomalous
    if not bool(is_normal.any()):
        return NormalLevels(kept.floor.new_empty(0), kept.floor.new_empty(0, dtype=torch.float64), kept.floor, math.inf)
    num_pixels = kept.num_pixels[is_normal]
    whole = len(num_pixels) * int(num_pixels.amax())

    scores = kept.normal_scores
    images = None  # all images are alike for the mean, if they have the same size
    if shared_fpr == "max" or int(num_pixels.amin()) * len(num_pixels) < whole:
        images = kept.image_of_normal_score()
    if bool(lowest_of(scores) < kept.floor):  # a floor that another process brought
        scores, images = _at_least(kept.floor, scores, images)

    below, gap = torch.nextafter(kept.floor, torch.full_like(kept.floor, -math.inf)), 0.0
    # This many false positives give a mean FPR of at least `down_to_fpr`, whichever images they lie in, and the maximum
    # is never below the mean. One is added because the product may be rounded down. It also makes the maximum exceed
    # `down_to_fpr`: the maximum may be equal to it for several scores, and all of these belong to the levels.
    num_enough = math.ceil(down_to_fpr * whole) + 1
    if num_enough < len(scores):
        lowest, num_scores = kth_highest(scores, num_enough), len(scores)
        lower = scores.where(scores < lowest, -math.inf).amax()
        scores, images = _at_least(lowest, scores, images)
        if len(scores) < num_scores:
            # The next normal pixel raises the mean by at least the share of one pixel. Half of that is certain in spite
            # of rounding. It need not raise the maximum.
            below, gap = lower, 0.0 if shared_fpr == "max" else 0.5 / whole
    if images is None:
        scores = _sorted(scores).flip(0)
        fpr = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device) / scores.new_tensor(
            whole, dtype=torch.float64
        )
    else:
        scores, order = scores.sort(descending=True)
        fpr = _max_fpr(images[order], kept) if shared_fpr == "max" else _mean_fpr(images[order], kept)
    is_last = is_last_of_tie(scores)
    lowest_fpr = float(fpr[-1]) if len(fpr) else 0.0
    return NormalLevels(scores[is_last].flip(0), fpr[is_last].flip(0), below, lowest_fpr + gap)


def _at_least(threshold: Tensor, scores: Tensor, images: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scores (S,) at or above a threshold (), and the image (S,) of each, if these are given."""
    indices = indices_at_least(scores, threshold)
    return scores.index_select(0, indices), None if images is None else images.index_select(0, indices)


def _sorted(scores: Tensor) -> Tensor:
    """Scores (S,) in ascending order."""
    if scores.device.type == "cpu":  # NumPy is many times as fast
        return torch.from_numpy(np.sort(scores.numpy()))
    return scores.sort().values


def _mean_fpr(images: Tensor, kept: PixelScores) -> Tensor:
    """(n,) float64, mean FPR after each of n false positives, given the image index (n,) of each."""
    num_pixels = kept.num_pixels[~kept.is_anomalous].double()
    largest = num_pixels.amax()
    weights = largest / kept.num_pixels.double()  # exactly 1 if all images have the same size
    sums = _cumsum(weights[images])
    fpr = (sums / (len(num_pixels) * largest)).clamp(max=1)
    if len(images) == int(num_pixels.sum()):  # all normal pixels; rounded weights may add up to more or less
        fpr[-1] = 1
    return fpr


def _max_fpr(images: Tensor, kept: PixelScores) -> Tensor:
    """(n,) float64, highest FPR of an image after each of n false positives, given the image index (n,) of each."""
    by_image, order = images.sort(stable=True)
    positions = torch.arange(len(images), device=images.device)
    ranks = torch.empty_like(images)
    ranks[order] = positions - torch.searchsorted(by_image, by_image) + 1
    return (ranks.double() / kept.num_pixels[images]).cummax(0).values


def shared_fpr_at(levels: NormalLevels, thresholds: Tensor) -> Tensor:
    """Shared FPR (K,) float64 of thresholds (K,); thresholds below the lowest level get the FPR of the lowest level."""
    fpr = torch.cat([levels.fpr, levels.fpr.new_zeros(1)])
    return torch.where(thresholds.isnan(), math.nan, fpr[torch.searchsorted(levels.scores, thresholds)])


def resolves(levels: NormalLevels, fpr_bounds: tuple[float, float]) -> bool:
    """Whether a threshold has a shared FPR above 0 and down to the lower bound, and one has one between the bounds."""
    lower, upper = fpr_bounds
    is_between = (levels.fpr >= lower) & (levels.fpr <= upper)
    return float(levels.fpr[-1]) <= lower * (1 + 1e-9) and bool(is_between.any())


def thresholds_at(levels: NormalLevels, fpr: Tensor) -> Tensor:
    """Thresholds (K,) for shared FPRs (K,).

    Each is the smallest normal score whose shared FPR is at most the given one; the next float above all normal scores
    if there is none.
    """
    above_all = torch.nextafter(levels.scores[-1:], torch.full_like(levels.scores[-1:], math.inf))
    candidates = torch.cat([levels.scores, above_all])
    return candidates[torch.searchsorted(-levels.fpr, -fpr)]


def known_thresholds_at(levels: NormalLevels, fpr: Tensor, shared_fpr: SharedFPR) -> Tensor:
    """Like `thresholds_at`, but NaN where there is no such threshold, or where it is not known.

    There is none if every threshold has a larger shared FPR, as too many normal scores are +inf. It is not known if
    normal scores below the levels may have as low a shared FPR: no mean is the same at two normal scores, but a maximum
    may be.
    """
    is_within = (levels.scores[-1] < math.inf) | (levels.fpr[-1] <= fpr)
    reaches = levels.fpr[0] > fpr if shared_fpr == "max" else levels.fpr[0] >= fpr
    return thresholds_at(levels, fpr).where(is_within & (reaches | (levels.below == -math.inf)), math.nan)


def exact_table(levels: NormalLevels, fpr_bounds: tuple[float, float]) -> PixelTable:
    """Tabulate `w` by the closed form.

    A pixel with score `s` is recalled when the shared FPR is `b = F(>= s)` or more. If normal pixels have the score `s`
    too, the curve is a straight line from `a = F(> s)` to `b`, and the pixel is recalled in part on it. With the
    maximum as shared FPR, `a = b` is possible in spite of such a tie: another image may have more false positives.
    """
    at_least = levels.fpr
    above = torch.cat([at_least[1:], at_least.new_zeros(1)])[: len(at_least)]
    from_fpr = torch.cat([at_least, at_least.new_zeros(1)])
    between = recalled_between(from_fpr, fpr_bounds)
    weights = at_least.new_empty(2 * len(at_least) + 1)
    weights[0::2] = between
    weights[1::2] = between[:-1] + recalled_on_tie(above, at_least, fpr_bounds)
    return PixelTable(levels.scores, weights.clamp(0, 1))


def recalled_between(from_fpr: Tensor, fpr_bounds: tuple[float, float]) -> Tensor:
    """Share of the log-FPR range in which pixels are recalled that are so from an FPR (...) float64 on."""
    lower, upper = fpr_bounds
    # Divide tensors by tensors: torch turns other divisions into products, whose last bit may differ.
    upper_fpr, log_range = from_fpr.new_tensor([upper, math.log(upper / lower)])
    between = torch.log(upper_fpr / from_fpr.clamp(lower, upper)) / log_range
    return torch.where(from_fpr > lower, between, 1)  # exactly 1, however the logarithm is rounded


def recalled_on_tie(above: Tensor, at_least: Tensor, fpr_bounds: tuple[float, float]) -> Tensor:
    """What the straight line from one FPR to another adds to that share, both (...) float64."""
    lower, upper = fpr_bounds
    log_range = at_least.new_tensor(math.log(upper / lower))
    start, end = above.clamp(min=lower), at_least.clamp(max=upper)
    width = (end - start).clamp(min=0)
    partly = (width - above * torch.log1p(width / start)) / (at_least - above) / log_range
    return torch.where(at_least > above, partly, 0)


def undefined_scoring(levels: NormalLevels) -> Scoring:
    """Give every pixel NaN: there is no normal pixel, or no threshold can be sampled."""
    weights = levels.fpr.new_full((2 * len(levels.scores) + 1,), math.nan)
    return Scoring(PixelTable(levels.scores, weights), (math.nan, math.nan))


def exact_scoring(levels: NormalLevels, fpr_bounds: tuple[float, float], shared_fpr: SharedFPR) -> Scoring:
    """Score by the closed form. If levels that matter are missing, pixels below the known ones get 0: a lower bound."""
    lower, upper = fpr_bounds
    table = exact_table(levels, fpr_bounds)
    max_missing = 0.0
    if bool(levels.below > -math.inf):
        max_missing = share_of_range(float(levels.fpr[0]), upper, fpr_bounds)
    if max_missing > 0:
        table.weights[0] = 0
    low, high = known_thresholds_at(levels, levels.fpr.new_tensor([upper, lower]), shared_fpr).tolist()
    return Scoring(table, (low, high), max_missing)


def share_of_range(start: float, end: float, fpr_bounds: tuple[float, float]) -> float:
    """Share of the log range between the FPR bounds that lies between `start` and `end`, two FPRs; in [0, 1]."""
    lower, upper = fpr_bounds
    if start <= 0:
        return 1.0
    return min(1.0, max(0.0, math.log(end / start) / math.log(upper / lower)))


def share_at_least(kept: PixelScores, threshold: float) -> Tensor:
    """(N,) float64, share of the pixels of a normal image, or of an anomalous one's mask, at or above a threshold."""
    lowest = kept.floor.new_tensor(threshold)
    counts = count_per_segment(indices_at_least(kept.normal_scores, lowest), kept.num_normal_kept)
    counts += count_per_segment(indices_at_least(kept.mask_scores, lowest), kept.num_mask_kept)
    return counts.double() / kept.num_pixels.double()


def is_last_of_tie(values: Tensor) -> Tensor:
    """(n,) bool, true for the last of each run of equal values."""
    is_last = torch.ones_like(values, dtype=torch.bool)
    is_last[:-1] = values[1:] != values[:-1]
    return is_last


def per_image_scores(kept: PixelScores, table: PixelTable) -> Tensor:
    """Mean of `w` over the mask pixels of each image (N,) float64, in [0, 1]; NaN for a normal image.

    Mask pixels that were not kept lie below all steps of `w`. The mean of equal numbers is exactly that number.
    """
    weights, lengths = table.look_up(kept.mask_scores), kept.num_mask_kept
    num_dropped = kept.num_pixels - lengths
    sums = lowest = highest = torch.zeros_like(num_dropped, dtype=torch.float64)
    if len(weights):
        sums, lowest, highest = (
            torch.segment_reduce(weights, reduction, lengths=lengths, unsafe=True)
            for reduction in ("sum", "min", "max")
        )
    dropped = torch.where(num_dropped > 0, num_dropped * table.weights[0], 0)
    means = (sums + dropped) / kept.num_pixels.double()
    means = torch.where((lowest == highest) & (num_dropped == 0), highest, means)
    return torch.where(kept.is_anomalous, means.clamp(0, 1), math.nan)


def mean_score(scores: Tensor) -> Tensor:
    """Mean () of the scores (N,) that are not NaN; NaN if all are. The mean of equal scores is exactly that score."""
    defined = scores[~scores.isnan()]
    return defined.mean() if len(defined) == 0 else defined[0] + (defined - defined[0]).mean()


def curve_thresholds(kept: PixelScores, levels: NormalLevels, shared_fpr: SharedFPR) -> Tensor:
    """Thresholds (K,), ascending, at shared FPRs evenly spaced in log, from the highest known to that of one pixel."""
    if len(levels.scores) == 0:
        return kept.floor.new_full((NUM_CURVE_LEVELS,), math.nan)
    highest = float(levels.fpr[0])
    num_pixels = kept.num_pixels[~kept.is_anomalous]
    lowest = 1 / (int(num_pixels.amax()) * (1 if shared_fpr == "max" else len(num_pixels)))
    ends = math.log10(highest), math.log10(lowest)
    fpr = torch.logspace(*ends, NUM_CURVE_LEVELS, dtype=torch.float64, device=levels.fpr.device)
    return thresholds_at(levels, fpr.clamp(lowest, highest))  # rounding may move the ends


def per_image_tprs(kept: PixelScores, thresholds: Tensor) -> Tensor:
    """(N, K) float64, share of each image's mask pixels at or above each threshold (K,); NaN for a normal image."""
    num_images, num_bins = len(kept.num_kept), len(thresholds) + 1
    bins = torch.searchsorted(thresholds, kept.mask_scores, right=True)
    counts = torch.zeros(num_images * num_bins, dtype=torch.int64, device=bins.device)
    counts.index_add_(0, kept.image_of_mask_score() * num_bins + bins, torch.ones_like(bins))
    num_recalled = counts.view(num_images, num_bins).flip(1).cumsum(1).flip(1)[:, 1:]
    is_defined = kept.is_anomalous[:, None] & ~thresholds.isnan()
    return torch.where(is_defined, num_recalled / kept.num_pixels[:, None].double(), math.nan)
