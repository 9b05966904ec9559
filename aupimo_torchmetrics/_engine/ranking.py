"""Pixel AUROC, average precision, F1-max and AUPRO: means and maxima over the ranks of the mask pixels.

Of each mask score, `above` normal pixels lie above, `at_least` lie at or above, and `found` mask pixels lie at or above
it. With P normal pixels and T mask pixels, a threshold at the score has the false positive rate `at_least / P`, the
recall `found / T` and the precision `found / (found + at_least)`, so that

    AUROC  = mean of 1 - (above + at_least) / (2 * P)
    AP     = mean of found / (found + at_least)
    F1-max = maximum of 2 * found / (T + found + at_least)

over the mask pixels. AUPRO is the mean over the regions of the mean over their pixels of `area_shares`. No index of a
pixel is needed, and nothing is sorted but mask scores and the normal scores near to them.

Conventions: a normal pixel is one outside of all masks, of normal and of anomalous images. m distinct mask scores,
ascending; all arithmetic is float64, on the CPU.

Sources: T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006 (AUROC, and its straight
lines across ties); scikit-learn's `average_precision_score` (AP without interpolation); P. Bergmann et al., "The MVTec
Anomaly Detection Dataset", IJCV 129, 2021 (AUPRO, there PRO).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._engine.histogram import lower_edges
from aupimo_torchmetrics._engine.kept import true_indices

_NUM_BINS = 2**18
"""Bins that tell which normal scores are near to a mask score."""
_CHUNK_SIZE = 2**18
"""Scores that are put into bins at once: the arrays of one step fit into the cache."""
_MIN_SORTED = 2**20
"""Least number of scores to sort at once, unless there are fewer: so the sorted ones are few arrays."""

_Array: TypeAlias = NDArray[Any]


class Ranks(NamedTuple):
    """Where the m distinct mask scores, ascending, lie among all scores."""

    scores: Tensor
    """(m,) distinct scores of mask pixels."""
    counts: Tensor
    """(m,) float64, number of mask pixels with each of the scores."""
    above: Tensor
    """(m,) float64, number of normal pixels above each of the scores."""
    at_least: Tensor
    """(m,) float64, number of normal pixels at or above each of the scores."""
    num_normal: int
    """P, number of normal pixels."""

    @property
    def found(self) -> Tensor:
        """(m,) float64, number of mask pixels at or above each of the scores."""
        return self.counts.flip(0).cumsum(0).flip(0)

    @property
    def is_defined(self) -> bool:
        """Whether there are mask pixels and normal pixels."""
        return len(self.scores) > 0 and self.num_normal > 0

    def mean(self, values: Tensor) -> float:
        """Mean over the mask pixels of values (m,) that belong to the scores."""
        return float((self.counts * values).sum() / self.counts.sum())


def auroc(ranks: Ranks) -> float:
    """Area under the ROC curve of all pixels: the chance that a mask pixel scores above a normal one; a tie is half."""
    return ranks.mean(1 - (ranks.above + ranks.at_least) / (2 * ranks.num_normal))


def average_precision(ranks: Ranks) -> float:
    """Mean precision of the thresholds at the scores of the mask pixels."""
    found = ranks.found
    return ranks.mean(found / (found + ranks.at_least))


def f1_max(ranks: Ranks) -> tuple[float, float]:
    """Highest F1 score of any threshold, and the lowest threshold that reaches it."""
    found = ranks.found
    scores = 2 * found / (found[0] + found + ranks.at_least)
    best = int(scores.argmax())
    return float(scores[best]), float(ranks.scores[best])


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


def region_means(ranks: Ranks, values: Tensor, mask_scores: Tensor, regions: Tensor) -> Tensor:
    """Mean of values (m,), which belong to the scores, over the pixels of each region: (R,) float64.

    Args:
        ranks: Ranks of these mask scores.
        values: A value for each distinct score.
        mask_scores: (T,) scores of the mask pixels, on the CPU.
        regions: (T,) int64 number of the region of each, from 0 to R - 1.

    """
    indices = torch.from_numpy(np.searchsorted(ranks.scores.numpy(), mask_scores.to(ranks.scores).numpy()))
    return torch.bincount(regions, values[indices]) / torch.bincount(regions)


def with_all_above(ranks: Ranks) -> Ranks:
    """Ranks of the best case, in which all mask pixels of a bin lie above its normal pixels."""
    return ranks._replace(at_least=ranks.above)


def with_all_below(ranks: Ranks) -> Ranks:
    """Ranks of the worst case, in which all mask pixels of a bin lie below its normal pixels."""
    return ranks._replace(above=ranks.at_least)


def lowest_average_precision(ranks: Ranks) -> float:
    """Lower bound of the average precision if only the bins of the scores are known.

    At worst all mask pixels of a bin have different scores below its normal pixels. Then the precision of the k-th of
    its n mask pixels is `(f + k) / (f + k + at_least)`, where `f` mask pixels are found above the bin. The sum of these
    is at least `n - at_least * log(1 + n / (f + at_least + 1/2))`, as 1/x is convex, and no term is below the first.
    """
    found_above = ranks.found - ranks.counts
    of_first = (found_above + 1) / (found_above + 1 + ranks.at_least)
    missed = ranks.at_least * torch.log1p(ranks.counts / (found_above + ranks.at_least + 0.5)) / ranks.counts
    return ranks.mean(torch.maximum(of_first, 1 - missed))


def rank(normal_parts: Sequence[Tensor], mask_parts: Sequence[Tensor]) -> Ranks:
    """Rank the mask scores among the normal scores, both kept in parts of any floating dtypes and lengths."""
    mask_scores = _sorted(mask_parts)
    scores, counts = torch.unique_consecutive(mask_scores, return_counts=True)
    num_normal = sum(map(len, normal_parts))
    below, at_most = count_below(normal_parts, scores)
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


def count_below(parts: Sequence[Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    """How many scores of all parts are below, and at or below, each of some ascending scores: two of (m,) int64."""
    below, at_most = torch.zeros(2, len(scores), dtype=torch.int64)
    if len(scores) == 0:
        return below, at_most
    if scores.device.type != "cpu":
        for piece in _joined(iter(parts), max(_MIN_SORTED, len(scores))):
            ordered = piece.to(scores).sort().values
            below += torch.searchsorted(ordered, scores).cpu()
            at_most += torch.searchsorted(ordered, scores, right=True).cpu()
        return below, at_most
    wanted, chunks = scores.numpy(), _chunks(parts, scores.dtype)
    bins = _Bins.around(wanted) if sum(map(len, parts)) > _CHUNK_SIZE else None
    near = chunks if bins is None else map(bins.near, chunks)
    for piece in filter(len, _joined(near, max(_MIN_SORTED, len(scores)))):
        ordered = np.sort(piece)
        num_below = np.searchsorted(ordered, wanted)
        below += torch.from_numpy(num_below)
        ties = np.flatnonzero(ordered.take(num_below, mode="clip") == wanted)  # the others need no second search
        num_below[ties] = np.searchsorted(ordered, wanted[ties], side="right")
        at_most += torch.from_numpy(num_below)
    num_far = 0 if bins is None else torch.from_numpy(bins.num_far_below())
    return below + num_far, at_most + num_far


class _Bins:
    """Bins of equal width over the range of some wanted scores, to find the scores that are near to one of these.

    A score is near if a wanted score lies in its bin. All others are only counted: a bin that is lower than that of a
    wanted score holds lower scores, as each step from a score to its bin is monotone.
    """

    def __init__(self, lowest: float, highest: float, scale: float, wanted: _Array) -> None:
        self._lowest, self._highest, self._scale = (wanted.dtype.type(each) for each in (lowest, highest, scale))
        self._is_near = np.zeros(_NUM_BINS, dtype=bool)
        self._wanted_bins = self._find(wanted, np.empty_like(wanted), np.empty(len(wanted), dtype=np.intp))
        self._is_near[self._wanted_bins] = True
        self._counts = np.zeros(_NUM_BINS, dtype=np.int64)
        # memory for one chunk, which would take as long to get anew as the work in it
        self._places = np.empty(_CHUNK_SIZE, dtype=wanted.dtype)
        self._bins = np.empty(_CHUNK_SIZE, dtype=np.intp)
        self._flags = np.empty(_CHUNK_SIZE, dtype=bool)

    @classmethod
    def around(cls, wanted: _Array) -> _Bins | None:
        """Make bins for ascending scores; None if these have no finite range to divide.

        A few outliers at the top do not make the bins wider: they are in the last bin, with all that is as high.
        """
        finite = wanted[np.isfinite(wanted)]
        if len(finite) == 0:
            return None
        lowest, highest = float(finite[0]), float(finite[-1 - len(finite) // 1000])
        limits, width = np.finfo(wanted.dtype), highest - lowest
        if not _NUM_BINS / float(limits.max) < width < float(limits.max) / 2:
            return None
        lowest = max(lowest - 2 * width / _NUM_BINS, float(limits.min))  # the first bin is for all that is lower
        return cls(lowest, highest, (_NUM_BINS - 2) / (highest - lowest), wanted)

    def _find(self, scores: _Array, places: _Array, bins: _Array) -> _Array:
        """Find the bin of each score; `places` and `bins` are memory of the size of the scores, `bins` is returned."""
        np.clip(scores, self._lowest, self._highest, out=places)
        places -= self._lowest
        places *= self._scale
        bins[...] = places
        return bins

    def near(self, scores: _Array) -> _Array:
        """Return the scores of a chunk that are near, and count the others."""
        size = len(scores)
        bins = self._find(scores, self._places[:size], self._bins[:size])
        self._counts += np.bincount(bins, minlength=_NUM_BINS)
        is_near = self._is_near.take(bins, out=self._flags[:size], mode="clip")
        return scores.take(np.flatnonzero(is_near))  # faster than to index by flags

    def num_far_below(self) -> _Array:
        """(m,) int64, how many scores that are not near were counted below each wanted score."""
        far = np.where(self._is_near, 0, self._counts).cumsum()
        return far[self._wanted_bins]  # its own bin holds near scores only


def _chunks(parts: Iterable[Tensor], dtype: torch.dtype) -> Iterator[_Array]:
    """Parts on the CPU, cut into chunks, as arrays of a dtype."""
    for part in parts:
        for chunk in torch.split(part, _CHUNK_SIZE):
            yield chunk.to(dtype).numpy()


def _joined(pieces: Iterator[Any], num_enough: int) -> Iterator[Any]:
    """Join arrays or tensors until they hold enough scores."""
    gathered: list[Any] = []
    num_gathered = 0
    for piece in pieces:
        gathered.append(piece)
        num_gathered += len(piece)
        if num_gathered >= num_enough:
            yield _concatenated(gathered)
            gathered, num_gathered = [], 0
    if gathered:
        yield _concatenated(gathered)


def _concatenated(pieces: list[Any]) -> Any:
    """Return one array or tensor of several."""
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat(pieces) if isinstance(pieces[0], Tensor) else np.concatenate(pieces)


def _sorted(parts: Sequence[Tensor]) -> Tensor:
    """All scores of some parts in ascending order, in float64 if they are, else in float32."""
    whole = torch.cat(list(parts)) if parts else torch.empty(0)
    whole = whole if whole.dtype == torch.float64 else whole.float()
    if whole.device.type == "cpu":  # NumPy is many times as fast
        return torch.from_numpy(np.sort(whole.numpy()))
    return whole.sort().values
