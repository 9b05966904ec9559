"""The states that the pixel metrics share: every score once, or a histogram of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import histogram, ranking, regions
from aupimo_torchmetrics._engine.inputs import Group
from aupimo_torchmetrics._engine.pixels import part_pixels
from aupimo_torchmetrics._engine.ranking import Ranks
from aupimo_torchmetrics._ranked import RankedMetric, ranks_of
from aupimo_torchmetrics._settings import check_num_bins
from aupimo_torchmetrics.results import PixelResult

__all__ = ["PixelMetric"]


class PixelMetric(RankedMetric):
    """Keep the scores of all pixels, in masks and outside.

    Exactly: the scores, and the masks in a bit a pixel, so that all pixel metrics keep the same and form one compute
    group, though AUPRO alone asks where the mask pixels are. Or as a histogram: the numbers of normal pixels and of
    mask pixels in each bin, and for AUPRO the sums of the shares that the mask pixels have in their regions.
    """

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
        super().__init__(ignore_index, validate_args, **kwargs)
        self.num_bins = check_num_bins(num_bins)
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

    def _keep(self, groups: Iterable[tuple[Group, torch.Size]]) -> int:
        if self.num_bins is not None:
            return self._count(groups, self.num_bins)
        num_ignored = 0
        for group, size in groups:
            pixels = part_pixels(group, size)
            self._append(pixels.normal, pixels.mask, *pixels.packed)
            num_ignored += pixels.num_ignored_images
        return num_ignored

    def _count(self, groups: Iterable[tuple[Group, torch.Size]], num_bins: int) -> int:
        """Do as `_keep` does, but count all scores by bins."""
        parts = [part_pixels(group, size) for group, size in groups]
        if not parts:
            return 0
        self._begin_if_on_meta(parts[0].normal.device)
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

    def _of_ranks(self, ranks: Ranks) -> PixelResult:
        """Score by ranks; by those of bins with the certain bounds of the exact value."""
        scored = super()._of_ranks(ranks)
        if self.num_bins is None:
            return scored
        # At worst all mask pixels of a bin lie below its normal pixels, at best above.
        low = max(0.0, float(self._lowest(ranks._replace(above=ranks.at_least))))
        high = min(1.0, float(self._value(ranks._replace(at_least=ranks.above))))  # a sum of shares may round to more
        text = _warnings.wide_bounds(type(self).__name__, low, high)
        value = min(max(scored.value, low), high)
        return PixelResult(value, (low, high), scored.threshold, tuple(filter(None, [text])))

    def _reason(self, ranks: Ranks) -> str:
        return _warnings.missing_pixels(
            type(self).__name__, num_mask=len(ranks.scores), num_normal=int(ranks.num_normal)
        )

    def _lowest(self, ranks: Ranks) -> Tensor:
        """Lowest possible value, of the ranks of bins in the worst case."""
        return self._value(ranks)

    def _ranks(self) -> Ranks:
        """Ranks of the mask pixels, or as if all scores of a bin were tied."""
        if self.num_bins is None:
            return ranks_of(self._parts("aupimo_pixel_normal_scores"), self._parts("aupimo_pixel_mask_scores"))
        return ranking.rank_bins(self.aupimo_pixel_normal_counts, self.aupimo_pixel_mask_counts)


def _outward(bounds: tuple[float, float]) -> tuple[float, float]:
    """Round bounds to float32, the lower one down and the upper one up; 0 and 1 stay what they are."""
    low, high = (np.float32(bound) for bound in bounds)
    low = low if bounds[0] in {0, 1} else np.nextafter(low, np.float32(0))
    high = high if bounds[1] in {0, 1} else np.nextafter(high, np.float32(1))
    return float(low), float(high)
