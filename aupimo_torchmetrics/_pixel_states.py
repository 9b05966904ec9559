"""The states that the pixel metrics share: every score once, or a histogram of them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import histogram, ranking, regions
from aupimo_torchmetrics._engine.inputs import Maps
from aupimo_torchmetrics._engine.pixels import SLICE_SIZE, Pixels, part_pixels
from aupimo_torchmetrics._engine.ranking import Ranks
from aupimo_torchmetrics._list_states import ListStatesMetric
from aupimo_torchmetrics._settings import check_ignore_index, check_num_bins
from aupimo_torchmetrics.results import PixelResult

__all__ = ["PixelMetric"]


class PixelMetric(ListStatesMetric):
    """Keep the scores of all pixels, in masks and outside.

    Exactly: the scores, and the masks in a bit a pixel, so that all pixel metrics keep the same and form one compute
    group, though AUPRO alone asks where the mask pixels are. Or as a histogram: the numbers of normal pixels and of
    mask pixels in each bin, and for AUPRO the sums of the shares that the mask pixels have in their regions.
    """

    higher_is_better: bool = True
    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    if TYPE_CHECKING:  # TorchScript does not understand the annotations
        aupimo_pixel_normal_counts: Tensor
        aupimo_pixel_mask_counts: Tensor
        aupimo_pixel_region_shares: Tensor
        aupimo_pixel_num_regions: Tensor

    _list_dtypes: ClassVar[dict[str, torch.dtype]] = {  # until they are gathered, parts of 16-bit scores have 16 bits
        "aupimo_pixel_normal_scores": torch.float32,
        "aupimo_pixel_mask_scores": torch.float32,
        "aupimo_pixel_mask_bits": torch.uint8,
        "aupimo_pixel_mask_sizes": torch.int64,
    }
    _settings_of_states: ClassVar[str] = "`num_bins` and `ignore_index`"
    _settings: ClassVar[str] = "num_bins ignore_index"
    _is_of_regions: ClassVar[bool] = False
    """Whether the metric asks for the regions of masks."""

    def __init__(
        self, *, num_bins: int | None = None, ignore_index: int | None = None, validate_args: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_bins = check_num_bins(num_bins)
        self.ignore_index = check_ignore_index(ignore_index)
        self.validate_args = validate_args
        self._result: PixelResult | None = None
        self._add_states()

    def _add_states(self) -> None:
        """Register the states, without any image."""
        self._add_config("qq", self.num_bins or 0, self.ignore_index or 0, with_lists=self.num_bins is None)
        if self.num_bins is None:
            return
        zeros = torch.zeros(self.num_bins, dtype=torch.int64, device=self._device)
        self.add_state("aupimo_pixel_normal_counts", default=zeros, dist_reduce_fx="sum")
        self.add_state("aupimo_pixel_mask_counts", default=zeros.clone(), dist_reduce_fx="sum")
        if self._is_of_regions:
            self.add_state("aupimo_pixel_region_shares", default=zeros.double(), dist_reduce_fx="sum")
            self.add_state("aupimo_pixel_num_regions", default=zeros[0].clone(), dist_reduce_fx="sum")

    def update(self, preds: Maps, target: Maps) -> None:
        """Add a batch of anomaly maps and masks, as `AUPIMO.update` takes them.

        Args:
            preds: Anomaly maps (N, H, W).
            target: Masks (N, H, W).

        Raises:
            TypeError: If maps or masks are of the wrong type or dtype.
            ValueError: If shapes, devices or numbers of images do not fit, a map holds NaN, or a mask holds anything
                but 0 and 1. Nothing of the batch is kept.
            ModuleNotFoundError: If scipy is not installed, for the regions of AUPRO.

        """
        with self._as_before_if_it_fails():
            parted = part_pixels(
                preds, target, validate_args=self.validate_args, ignore_index=self.ignore_index, dtype=self._score_dtype
            )
            num_ignored = self._keep(parted) if self.num_bins is None else self._count(parted, self.num_bins)
            if num_ignored:
                _warnings.warn([_warnings.ignored_images(type(self).__name__, num_ignored, self.ignore_index)])

    def _keep(self, parted: Iterable[Pixels]) -> int:
        """Keep all scores; return the number of images whose every pixel is ignored."""
        num_ignored = 0
        for pixels in parted:
            if self.aupimo_config.is_meta:  # built on the device "meta", which keeps no values
                self._begin_on(pixels.normal.device, self._score_dtype)
            parts = (pixels.normal, pixels.mask, pixels.packed.bits, pixels.packed.sizes)
            for name, part in zip(self._list_dtypes, parts, strict=True):
                getattr(self, name).append(part.to(self.device))
                _join_small_parts(getattr(self, name))
            num_ignored += pixels.num_ignored_images
        return num_ignored

    def _count(self, parted: Iterable[Pixels], num_bins: int) -> int:
        """Count all scores by bins; return the number of images whose every pixel is ignored."""
        parts = list(parted)
        if not parts:
            return 0
        if self.aupimo_config.is_meta:
            self._begin_on(parts[0].normal.device)
        normal = torch.cat([pixels.normal for pixels in parts])
        self._add("normal_counts", torch.bincount(histogram.bins_of(normal, num_bins), minlength=num_bins))
        mask_bins = histogram.bins_of(torch.cat([pixels.mask for pixels in parts]), num_bins)
        self._add("mask_counts", torch.bincount(mask_bins, minlength=num_bins))
        if self._is_of_regions:
            of_parts = [regions.shares_of_pixels(regions.number_regions(pixels.packed)) for pixels in parts]
            shares, numbers = zip(*of_parts, strict=True)
            self._add("region_shares", torch.bincount(mask_bins.cpu(), torch.cat(shares), minlength=num_bins))
            self.aupimo_pixel_num_regions = self.aupimo_pixel_num_regions + sum(numbers)
        return sum(pixels.num_ignored_images for pixels in parts)

    def _add(self, name: str, counts: Tensor) -> None:
        """Add counts to a state; out of place, as a caller may hold it."""
        state: Tensor = getattr(self, f"aupimo_pixel_{name}")
        setattr(self, f"aupimo_pixel_{name}", state + counts.to(self.device))

    def compute(self) -> Tensor:
        """Compute the value () in float32; with `num_bins` a value between the certain bounds."""
        self._result = self._score()
        self._warn(self._result.warnings)
        return torch.tensor(self._result.value, dtype=self._score_dtype, device=self.device)

    def result(self) -> PixelResult:
        """Return the value with its certain bounds, and for F1-max the threshold.

        With several processes call it on every rank. It calls `compute` and shares its cache.
        """
        self.compute()
        return self._result  # type: ignore[return-value]

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return a lower and an upper bound of the exact value, () float32 each.

        They are certain, whatever the scores are, and rounded outwards. Without `num_bins` both are the value. With
        several processes call it on every rank. It calls `compute` and shares its cache.
        """
        value = self.compute()
        if self.num_bins is None:
            return value, value.clone()
        low, high = _outward(self.result().bounds)
        return value.new_tensor(low), value.new_tensor(high)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._result = None

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot a value, or several values over steps.

        Args:
            val: What `forward` or `compute` returned, or a list of these, one per step. None for the value of this
                metric; with several processes then call it on every rank.
            ax: A matplotlib axis to draw on; None for a new figure.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
            ValueError: If `val` is an empty list.

        """
        self._check_plotted(val)
        return self._plot(val, ax)

    def _score(self) -> PixelResult:
        """Score by the ranks of the mask pixels of the states; of bins with the certain bounds of the exact value."""
        name, ranks = type(self).__name__, self._ranks()
        if not ranks.is_defined:
            text = _warnings.missing_pixels(name, num_mask=len(ranks.scores), num_normal=int(ranks.num_normal))
            return PixelResult(math.nan, (math.nan, math.nan), warnings=(text,))
        value, threshold = float(self._value(ranks)), self._threshold(ranks)
        if self.num_bins is None:
            return PixelResult(value, (value, value), threshold)
        low = max(0.0, float(self._lowest(ranks.with_all_below())))
        high = min(1.0, float(self._value(ranks.with_all_above())))  # a sum of shares of a region may round to more
        text = _warnings.wide_bounds(name, low, high)
        return PixelResult(min(max(value, low), high), (low, high), threshold, tuple(filter(None, [text])))

    def _value(self, ranks: Ranks) -> Tensor:
        """Value () of ranks that are defined."""
        raise NotImplementedError

    def _lowest(self, ranks: Ranks) -> Tensor:
        """Lowest possible value, of the ranks of bins in the worst case."""
        return self._value(ranks)

    def _threshold(self, ranks: Ranks) -> float:  # noqa: ARG002  that of a subclass looks at them
        """Threshold at which the value is reached, if it is reached at one."""
        return math.nan

    def _ranks(self) -> Ranks:
        """Ranks of the mask pixels, or as if all scores of a bin were tied."""
        if self.num_bins is None:
            return _ranks_of(self._parts("aupimo_pixel_normal_scores"), self._parts("aupimo_pixel_mask_scores"))
        return ranking.rank_bins(self.aupimo_pixel_normal_counts, self.aupimo_pixel_mask_counts)

    def _settle(self, name: str) -> None:  # noqa: ARG002  there are no ids to check
        for state in self._lists():
            _join_small_parts(getattr(self, state))


def _outward(bounds: tuple[float, float]) -> tuple[float, float]:
    """Round bounds to float32, the lower one down and the upper one up; 0 and 1 stay what they are."""
    low, high = (np.float32(bound) for bound in bounds)
    low = low if bounds[0] in {0, 1} else np.nextafter(low, np.float32(0))
    high = high if bounds[1] in {0, 1} else np.nextafter(high, np.float32(1))
    return float(low), float(high)


_latest: list[tuple[tuple[weakref.ref[Tensor], ...], int, Ranks]] = []
"""The ranks that were computed last, as long as all tensors live that they were computed from; or nothing.

The members of a compute group hold the same tensors, so that the first one ranks for all of them. An update, a reset, a
merge or a gathering makes other tensors, of which nothing is remembered.
"""


def _ranks_of(normal_parts: list[Tensor], mask_parts: list[Tensor]) -> Ranks:
    """Rank the mask scores among the normal scores, unless that was done last."""
    parts = (*normal_parts, *mask_parts)
    for refs, num_normal_parts, ranks in [*_latest]:  # a copy: another thread may replace it at any moment
        is_alike = len(parts) == len(refs) and len(normal_parts) == num_normal_parts
        if is_alike and all(ref() is part for ref, part in zip(refs, parts, strict=True)):
            return ranks
    ranks = ranking.rank(normal_parts, mask_parts)
    refs = tuple(weakref.ref(part, lambda _: _latest.clear()) for part in parts)
    _latest[:] = [(refs, len(normal_parts), ranks)]
    return ranks


def _join_small_parts(parts: list[Tensor]) -> None:
    """Join the last parts of a list while they are small and the last is as large as the one before.

    So each score is copied few times, and no update walks a long list, however many small updates there are.
    """
    while len(parts) > 1:
        last, before = parts[-1], parts[-2]
        is_alike = last.dtype == before.dtype and last.device == before.device
        if not is_alike or len(before) > len(last) or len(before) + len(last) > SLICE_SIZE:
            return
        parts[-2:] = [torch.cat([before, last])]
