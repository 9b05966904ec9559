"""Pixel AUROC, average precision, F1-max and AUPRO: means and maxima over the ranks of the mask pixels.

Of each mask score, `above` normal pixels lie above, `at_least` lie at or above, and `found` mask pixels lie at or above
it. With P normal pixels and T mask pixels, a threshold at the score has the false positive rate `at_least / P`, the
recall `found / T` and the precision `found / (found + at_least)`, so that

    AUROC  = mean of 1 - (above + at_least) / (2 * P)
    AP     = mean of found / (found + at_least)
    F1-max = maximum of 2 * found / (T + found + at_least)

over the mask pixels. AUPRO is the mean over the regions of the mean over their pixels of `area_shares`: a sum over the
distinct scores, each with the weight that its pixels have in their regions. No index of a pixel is needed, and nothing
is sorted but scores. Ranks of the bins of a histogram are as if all scores of a bin were tied.

Conventions: a normal pixel is one outside of all masks, of normal and of anomalous images. m distinct mask scores,
ascending; all arithmetic is float64, on the CPU.

Sources: T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006 (AUROC, and its straight
lines across ties); scikit-learn's `average_precision_score` (AP without interpolation); P. Bergmann et al., "The MVTec
Anomaly Detection Dataset", IJCV 129, 2021 (AUPRO, there PRO).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._engine.histogram import lower_edges
from aupimo_torchmetrics._engine.kept import true_indices

_SORTED_AT_ONCE = 2**20
"""Least number of scores to sort at once, unless there are fewer."""
_SORTED_PER_WANTED = 8
"""The same, for each distinct mask score: each of these is searched in all that is sorted at once."""


class Ranks(NamedTuple):
    """Where the m distinct mask scores, ascending, lie among all scores; or the same of B sets of images, (B, m)."""

    scores: Tensor
    """(m,) distinct scores of mask pixels."""
    counts: Tensor
    """(m,) float64, number of mask pixels with each of the scores."""
    above: Tensor
    """(m,) float64, number of normal pixels above each of the scores."""
    at_least: Tensor
    """(m,) float64, number of normal pixels at or above each of the scores."""
    num_normal: int | Tensor
    """P, number of normal pixels; (B, 1) of B sets."""
    weights: Tensor | None = None
    """(m,) float64, mean over the regions of the share of their pixels with each of the scores; None if not asked."""

    @property
    def found(self) -> Tensor:
        """(m,) float64, number of mask pixels at or above each of the scores."""
        return sums_from(self.counts)

    @property
    def is_defined(self) -> bool:
        """Whether there are mask pixels and normal pixels."""
        return len(self.scores) > 0 and bool(self.num_normal)

    def mean(self, values: Tensor) -> Tensor:
        """Mean () over the mask pixels of values (m,) that belong to the scores."""
        return (self.counts * values).sum(-1) / self.counts.sum(-1)

    def places_of(self, mask_scores: Tensor) -> Tensor:
        """Index of each mask score (T,) among the distinct ones: (T,) int64."""
        return torch.from_numpy(np.searchsorted(self.scores.numpy(), mask_scores.to(self.scores).numpy()))


class Formula(NamedTuple):
    """How a metric follows from ranks; where these are of B sets of images, it has B values."""

    value: Callable[[Ranks], Tensor]
    """Value ()."""
    lowest: Callable[[Ranks, Tensor], Tensor] | None = None
    """Lower bound () of ranks in which bins that hold several scores (m,) are at their worst; None for the value."""
    threshold: Callable[[Ranks], float] | None = None
    """Threshold that reaches the value, if one does."""
    is_max: bool = False
    """Whether the FPR of resampled images is the maximum over the normal ones."""
    needed_fpr: float = 0.0
    """FPR that all bins together have to reach. Of a resample with less, scores that matter are not known."""

    def bounds(self, ranks: Ranks, is_tied: Tensor) -> list[Tensor]:
        """Certain bounds () of the value if only the bins of the scores are known, and which hold one score (m,) bool.

        At worst all mask pixels of a bin lie below its normal pixels, at best above.
        """
        best = ranks._replace(at_least=torch.where(is_tied, ranks.at_least, ranks.above))
        worst = ranks._replace(above=torch.where(is_tied, ranks.above, ranks.at_least))
        lowest = self.value(worst) if self.lowest is None else self.lowest(worst, is_tied)
        return [lowest, self.value(best)]


def sums_from(values: Tensor) -> Tensor:
    """Sum (..., m) of each of the values (..., m) and all that follow it."""
    return values.flip(-1).cumsum(-1).flip(-1)


def auroc(ranks: Ranks) -> Tensor:
    """Area under the ROC curve of all pixels: the chance that a mask pixel scores above a normal one; a tie is half."""
    return ranks.mean(1 - (ranks.above + ranks.at_least) / (2 * ranks.num_normal))


def average_precision(ranks: Ranks) -> Tensor:
    """Mean precision of the thresholds at the scores of the mask pixels."""
    return ranks.mean(_precision(ranks))


def lowest_average_precision(ranks: Ranks, is_tied: Tensor) -> Tensor:
    """Lower bound of the average precision if only the bins of the scores are known.

    At worst all mask pixels of a bin have different scores below its normal pixels. Then the precision of the k-th of
    its n mask pixels is `(f + k) / (f + k + at_least)`, where `f` mask pixels are found above the bin. The sum of these
    is at least `n - at_least * log(1 + n / (f + at_least + 1/2))`, as 1/x is convex, and no term is below the first. It
    is that of a tie for bins (m,) of which it is known that they hold one score.
    """
    found_above = ranks.found - ranks.counts
    of_first = (found_above + 1) / (found_above + 1 + ranks.at_least)
    missed = torch.log1p(ranks.counts / (found_above + ranks.at_least + 0.5)) / ranks.counts.clamp(min=1)
    lowest = torch.maximum(of_first, 1 - ranks.at_least * missed)
    return ranks.mean(torch.where(is_tied, _precision(ranks), lowest))


def _precision(ranks: Ranks) -> Tensor:
    """Precision (m,) of the thresholds at the scores; 0 where no pixel is found, as in a bin of one of B sets."""
    return ranks.found / (ranks.found + ranks.at_least).clamp(min=1)


def f1_scores(ranks: Ranks) -> Tensor:
    """F1 score of the threshold at each mask score: (m,) float64."""
    found = ranks.found
    return 2 * found / (found[..., :1] + found + ranks.at_least)


def f1_max(ranks: Ranks) -> Tensor:
    """Highest F1 score of any threshold."""
    return f1_scores(ranks).amax(-1)


def f1_threshold(ranks: Ranks) -> float:
    """Lowest threshold that reaches the highest F1 score."""
    return float(ranks.scores[f1_scores(ranks).argmax()])


def area_shares(ranks: Ranks, fpr_limit: float) -> Tensor:
    """Share of the FPR range from 0 to a limit `U` in which thresholds recall a pixel with each score: (m,) float64.

    With the FPRs `a` above and `b` at or above the score, the share is `(U - b) / U`; a tie adds the area under its
    straight line from `a` to `min(b, U)`, divided by `U`.
    """
    above, at_least = ranks.above / ranks.num_normal, ranks.at_least / ranks.num_normal
    end = at_least.clamp(max=fpr_limit)
    width = (end - above).clamp(min=0)
    on_tie = torch.where(width > 0, width.square() / (2 * (at_least - above)), 0)
    return ((fpr_limit - end + on_tie) / at_least.new_tensor(fpr_limit)).clamp(0, 1)


def aupro(ranks: Ranks, fpr_limit: float) -> Tensor:
    """Mean over the regions of the mean over their pixels of the area shares, from ranks with weights."""
    shares = area_shares(ranks, fpr_limit)
    # a mean of equal numbers is that number
    return shares[..., 0] + (cast("Tensor", ranks.weights) * (shares - shares[..., :1])).sum(-1)


AUROC = Formula(auroc)
AVERAGE_PRECISION = Formula(average_precision, lowest_average_precision)
F1_MAX = Formula(f1_max, threshold=f1_threshold)


def aupro_up_to(fpr_limit: float) -> Formula:
    """The formula of AUPRO up to a limit of the FPR."""
    return Formula(partial(aupro, fpr_limit=fpr_limit))


def rank(normal_parts: Sequence[Tensor], mask_parts: Sequence[Tensor]) -> Ranks:
    """Rank the mask scores among the normal scores, both kept in parts of any floating dtypes and lengths."""
    is_double = any(part.dtype == torch.float64 for part in (*normal_parts, *mask_parts))
    whole = torch.cat(list(mask_parts)) if mask_parts else torch.empty(0, device="cpu")
    in_order = _sort(whole.to(torch.float64 if is_double else torch.float32, copy=True))
    scores, counts = torch.unique_consecutive(in_order, return_counts=True)
    num_normal = sum(map(len, normal_parts))
    below, at_most = torch.zeros(2, len(scores), dtype=torch.int64, device="cpu")
    for ordered in _in_order(normal_parts, scores) if len(scores) else ():
        num_below = torch.searchsorted(ordered, scores)
        below += num_below.cpu()
        ties = true_indices(ordered[num_below.clamp(max=len(ordered) - 1)] == scores)  # others need no second search
        num_below[ties] = torch.searchsorted(ordered, scores[ties], right=True)
        at_most += num_below.cpu()
    return Ranks(
        scores=scores.cpu(),
        counts=counts.cpu().double(),
        above=num_normal - at_most.double(),
        at_least=num_normal - below.double(),
        num_normal=num_normal,
    )


def rank_bins(normal_counts: Tensor, mask_counts: Tensor) -> Ranks:
    """Rank the mask pixels as if all scores of a bin were tied, from the numbers of either in each bin (B,) int64."""
    normal_counts, mask_counts = normal_counts.cpu(), mask_counts.cpu()
    used = true_indices(mask_counts)
    num_normal = int(normal_counts.sum())
    above = num_normal - normal_counts.cumsum(0)[used]
    return Ranks(
        scores=lower_edges(used, len(mask_counts)),
        counts=mask_counts[used].double(),
        above=above.double(),
        at_least=(above + normal_counts[used]).double(),
        num_normal=num_normal,
    )


def _in_order(parts: Sequence[Tensor], wanted: Tensor) -> Iterator[Tensor]:
    """All scores of some parts, in pieces each of which is in ascending order, in the dtype of the wanted scores."""
    most = max(_SORTED_AT_ONCE, _SORTED_PER_WANTED * len(wanted))
    row = wanted.new_empty(min(most, sum(map(len, parts))))  # memory for one piece, which would take long to get anew
    num_filled = 0
    for part in parts:
        rest = part
        while len(rest):
            taken, rest = rest[: len(row) - num_filled], rest[len(row) - num_filled :]
            row[num_filled : num_filled + len(taken)] = taken
            num_filled += len(taken)
            if num_filled == len(row):
                yield _sort(row)
                num_filled = 0
    if num_filled:
        yield _sort(row[:num_filled])


def _sort(scores: Tensor) -> Tensor:
    """Sort scores in place."""
    if scores.device.type != "cpu":
        return scores.copy_(scores.sort().values)
    as_array: NDArray[Any] = scores.numpy()
    as_array.sort()  # NumPy is many times as fast
    return scores
