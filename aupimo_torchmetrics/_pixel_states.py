"""The states that the pixel metrics share: every score once, or a histogram of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from aupimo_torchmetrics._engine import histogram, ranking, regions
from aupimo_torchmetrics._engine.checks import Maps
from aupimo_torchmetrics._engine.kept import true_indices
from aupimo_torchmetrics._engine.pixels import SLICE_SIZE, Pixels, part_pixels
from aupimo_torchmetrics._engine.ranking import Ranks
from aupimo_torchmetrics._engine.regions import PackedMasks
from aupimo_torchmetrics._list_states import ListStatesMetric, fingerprint
from aupimo_torchmetrics._pixel_scoring import PixelScore, outward, pixel_means
from aupimo_torchmetrics._settings import check_ignore_index, check_num_bins
from aupimo_torchmetrics._warnings import ignored_images, warn

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
        aupimo_pixel_normal_scores: list[Tensor] | Tensor
        aupimo_pixel_mask_scores: list[Tensor] | Tensor
        aupimo_pixel_mask_bits: list[Tensor] | Tensor
        aupimo_pixel_mask_sizes: list[Tensor] | Tensor
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
    _is_of_regions: ClassVar[bool] = False
    """Whether the metric asks for the regions of masks."""

    def __init__(
        self,
        *,
        num_bins: int | None = None,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_bins = check_num_bins(num_bins)
        self.ignore_index = check_ignore_index(ignore_index)
        self.validate_args = validate_args
        self._scored: PixelScore | None = None
        self._add_states()

    def _add_states(self) -> None:
        """Register the states, without any image."""
        if self.num_bins is None:
            for name in self._list_dtypes:
                self.add_state(name, default=[], dist_reduce_fx="cat")
        else:
            zeros = torch.zeros(self.num_bins, dtype=torch.int64)
            self.add_state("aupimo_pixel_normal_counts", default=zeros, dist_reduce_fx="sum")
            self.add_state("aupimo_pixel_mask_counts", default=zeros.clone(), dist_reduce_fx="sum")
            if self._is_of_regions:
                self.add_state("aupimo_pixel_region_shares", default=zeros.double(), dist_reduce_fx="sum")
                self.add_state("aupimo_pixel_num_regions", default=zeros[0].clone(), dist_reduce_fx="sum")
        config = fingerprint("qq", self.num_bins or 0, self.ignore_index or 0)
        self.add_state("aupimo_config", default=config, dist_reduce_fx="max")

    def update(self, preds: Maps, target: Maps) -> None:
        """Add a batch of anomaly maps and masks.

        Args:
            preds: Anomaly maps: a tensor (N, H, W) or (N, 1, H, W), or a list of N tensors (H, W) of any sizes.
            target: Masks in the same form and of the same shape, holding only 0 and 1, and `ignore_index` if set.

        Raises:
            TypeError: If maps or masks are of the wrong type or dtype.
            ValueError: If shapes, devices or numbers of images do not fit, a map holds NaN, or a mask holds anything
                but 0 and 1.
            ModuleNotFoundError: If scipy is not installed, for the regions of AUPRO.

        """
        with self._as_before_if_it_fails():
            parted = part_pixels(preds, target, validate_args=self.validate_args, ignore_index=self.ignore_index)
            num_ignored = self._keep(list(parted)) if self.num_bins is None else self._count(parted)
            warn(filter(None, [ignored_images(type(self).__name__, num_ignored, self.ignore_index)]))

    def _keep(self, parted: list[Pixels]) -> int:
        """Keep all scores; return the number of images whose every pixel is ignored."""
        for pixels in parted:
            parts = (pixels.normal, pixels.mask, pixels.packed.bits, pixels.packed.sizes)
            for name, part in zip(self._list_dtypes, parts, strict=True):
                getattr(self, name).append(part.to(self.device))
                _join_small_parts(getattr(self, name))
        return sum(int(pixels.num_ignored_images) for pixels in parted)

    def _count(self, parted: Iterator[Pixels]) -> int:
        """Count all scores by bins; return the number of images whose every pixel is ignored."""
        num_bins, num_ignored = cast("int", self.num_bins), 0
        counter = histogram.Counter(self.aupimo_pixel_normal_counts)
        masks: list[Tensor] = []
        packed: list[PackedMasks] = []
        for pixels in parted:
            counter.add(pixels.normal)
            masks.append(pixels.mask)
            packed.append(pixels.packed)
            num_ignored += int(pixels.num_ignored_images)
        mask_scores = torch.cat(masks) if masks else torch.empty(0)
        self.aupimo_pixel_normal_counts = counter.counts
        counter = histogram.Counter(self.aupimo_pixel_mask_counts)
        counter.add(mask_scores)
        self.aupimo_pixel_mask_counts = counter.counts
        if self._is_of_regions:
            shares, num_regions = regions.shares_of_pixels(regions.number_regions(regions.join_masks(packed)))
            sums = histogram.sum_shares(mask_scores, shares, num_bins)
            self.aupimo_pixel_region_shares = self.aupimo_pixel_region_shares + sums.to(self.device)
            self.aupimo_pixel_num_regions = self.aupimo_pixel_num_regions + num_regions
        return num_ignored

    def compute(self) -> Tensor:
        """Compute the value () in float32; with `num_bins` a value between the certain bounds."""
        self._scored = self._score(self._ranks())
        self._warn(self._scored.warnings)
        return torch.tensor(self._scored.value, dtype=torch.float32, device=self.device)

    def result(self) -> PixelScore:
        """Return the value in full precision, with its bounds, texts of warnings, and the threshold of `PixelF1Max`.

        Of one process. What the texts say is not warned of.
        """
        return self._score(self._ranks())

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return a lower and an upper bound of the exact value, () float32 each.

        They are certain, whatever the scores are, and rounded outwards. Without `num_bins` both are the value. With
        several processes call it on every rank. It calls `compute` and shares its cache.
        """
        value = self.compute()
        if self.num_bins is None:
            return value, value.clone()
        low, high = (value.new_tensor(bound) for bound in outward(cast("PixelScore", self._scored).bounds))
        return low, high

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._scored = None

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

    def _score(self, ranks: Ranks) -> PixelScore:
        """Score by the ranks of the mask pixels."""
        raise NotImplementedError

    def _ranks(self) -> Ranks:
        """Ranks of the mask pixels, or as if all scores of a bin were tied."""
        if self.num_bins is None:
            return _latest.ranks(self._parts("normal_scores"), self._parts("mask_scores"))
        return ranking.rank_bins(self.aupimo_pixel_normal_counts, self.aupimo_pixel_mask_counts)

    def _region_mean(self, ranks: Ranks) -> Callable[[Tensor], float]:
        """Make a function that takes a value for each distinct mask score, and returns its mean over the regions."""
        if self.num_bins is None:
            packed = PackedMasks(self._joined("mask_bits"), self._joined("mask_sizes"))
            return pixel_means(ranks, self._joined("mask_scores"), regions.number_regions(packed))
        shares = self.aupimo_pixel_region_shares.cpu()[true_indices(self.aupimo_pixel_mask_counts.cpu())]
        num_regions = int(self.aupimo_pixel_num_regions)
        return lambda values: float((shares * values).sum()) / num_regions

    def _parts(self, name: str) -> list[Tensor]:
        """Parts of a list state, all on one device; with `compute_on_cpu` earlier parts are on the CPU."""
        state = getattr(self, f"aupimo_pixel_{name}")
        parts = [state] if isinstance(state, Tensor) else state
        devices = {part.device for part in parts}
        return list(parts) if len(devices) < 2 else [part.to(self.device) for part in parts]

    def _joined(self, name: str) -> Tensor:
        """A list state as one tensor on the CPU."""
        parts = self._parts(name)
        return torch.cat(parts).cpu() if parts else torch.empty(0, dtype=self._list_dtypes[f"aupimo_pixel_{name}"])

    def _settle(self, name: str) -> None:  # noqa: ARG002  there are no ids to check
        for state in self._lists():
            _join_small_parts(getattr(self, state))


class _LatestRanks:
    """The ranks that were computed last, as long as all tensors live that they were computed from.

    The members of a compute group hold the same tensors, so that the first one ranks for all of them. An update, a
    reset, a merge or a gathering makes other tensors, of which nothing is remembered.
    """

    def __init__(self) -> None:
        self._entry: _Entry | None = None

    def ranks(self, normal_parts: list[Tensor], mask_parts: list[Tensor]) -> Ranks:
        """Rank the mask scores among the normal scores, unless that was done last."""
        parts = (*normal_parts, *mask_parts)
        entry = self._entry  # read once: another thread may replace it at any moment
        if entry is not None and entry.is_of(parts, len(normal_parts)):
            return entry.ranks
        ranks = ranking.rank(normal_parts, mask_parts)
        refs = tuple(weakref.ref(part, self._forget) for part in parts)
        self._entry = _Entry(refs, len(normal_parts), ranks)
        return ranks

    def _forget(self, _: weakref.ref[Tensor]) -> None:
        self._entry = None


class _Entry(NamedTuple):
    """Ranks, and what they were computed from."""

    refs: tuple[weakref.ref[Tensor], ...]
    num_normal_parts: int
    ranks: Ranks

    def is_of(self, parts: Sequence[Tensor], num_normal_parts: int) -> bool:
        """Whether the ranks were computed from these very tensors, of which the first hold normal scores."""
        if len(parts) != len(self.refs) or num_normal_parts != self.num_normal_parts:
            return False
        return all(ref() is part for ref, part in zip(self.refs, parts, strict=True))


_latest = _LatestRanks()


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
