"""The metrics that are reported beside AUPIMO: AUPRO, and AUROC, average precision and F1-max of all pixels.

All are functions of the ranks of the scores, and exact. Normal pixels are all that lie outside of masks, in normal and
in anomalous images, as in the evaluation of MVTec AD. In a `MetricCollection` they keep the scores once, and the first
that is computed ranks the scores for all.

Sources: P. Bergmann et al., "Uninformed Students: Student-Teacher Anomaly Detection with Discriminative Latent
Embeddings", CVPR 2020 (the per-region overlap, and its limit of 0.3); P. Bergmann et al., "The MVTec Anomaly Detection
Dataset", IJCV 129, 2021; V. Zavrtanik et al., "DRAEM", ICCV 2021 (average precision of pixels); J. Jeong et al.,
"WinCLIP", CVPR 2023 (F1-max); T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics import _warnings
from aupimo_torchmetrics._engine import histogram, ranking, regions
from aupimo_torchmetrics._engine.inputs import Group, Maps
from aupimo_torchmetrics._engine.kept import true_indices
from aupimo_torchmetrics._engine.pixels import part_pixels
from aupimo_torchmetrics._engine.ranking import Formula, Ranks
from aupimo_torchmetrics._engine.regions import PackedMasks
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._ranked import RankedMetric, ranks_of
from aupimo_torchmetrics._settings import DEFAULT_FPR_LIMIT, check_fpr_limit, check_num_bins
from aupimo_torchmetrics.results import PixelResult

__all__ = ["AUPRO", "PixelAUROC", "PixelAveragePrecision", "PixelF1Max"]


class _PixelMetric(RankedMetric):
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
        lowest, highest = self._formula().bounds(ranks, torch.tensor(False, device="cpu"))
        low, high = max(0.0, float(lowest)), min(1.0, float(highest))  # a sum of shares may round to more
        text = _warnings.wide_bounds(type(self).__name__, low, high)
        value = min(max(scored.value, low), high)
        return PixelResult(value, (low, high), scored.threshold, tuple(filter(None, [text])))

    def _reason(self, ranks: Ranks) -> str:
        return _warnings.missing_pixels(
            type(self).__name__, num_mask=len(ranks.scores), num_normal=int(ranks.num_normal)
        )

    def _ranks(self) -> Ranks:
        """Ranks of the mask pixels, or as if all scores of a bin were tied."""
        if self.num_bins is None:
            return ranks_of(self._parts("aupimo_pixel_normal_scores"), self._parts("aupimo_pixel_mask_scores"))
        return ranking.rank_bins(self.aupimo_pixel_normal_counts, self.aupimo_pixel_mask_counts)


class AUPRO(_PixelMetric):
    """Compute AUPRO, the Area Under the Per-Region Overlap curve, of an anomaly detector's maps.

        AUPRO = 1 / U * integral from 0 to U of PRO(F) dF

    is the recall within a connected region of the masks, averaged over the regions of all images and over the false
    positive rates `F` from 0 to the limit `U`. Every region counts the same, whatever its size; mask pixels that touch
    at an edge or at a corner belong to the same region. `F` is the share of the pixels outside of masks, in normal and
    in anomalous images, that are called anomalous. No threshold is sampled: the curve has a point for every score, with
    straight lines between, up to `U` itself. A model without any skill scores `U / 2`.

    `forward` and `update` take what `AUPIMO.update` takes, without ids: an image that a `DistributedSampler` repeats
    counts twice, as for other metrics of pixels. `forward` and `compute` return a float32 `Tensor` () in [0, 1]; NaN,
    with a warning, if there is no region in the masks or no pixel outside of them.

    Args:
        fpr_limit: Limit `U` of the false positive rate, in (0, 1]. The default is that of MVTec AD.
        num_bins: None for the exact value, which keeps each score once: 4 bytes a pixel, 2 for maps of 16 bits. Or the
            number of bins of a histogram, a power of two from 2 to `2**24`, which is kept instead, 6 MB for `2**18`
            whatever the number of pixels. Its bins are the highest bits of the scores, so that neither the range of the
            scores nor an outlier matters. `bounds` gives the certain bounds of the exact value, `compute` the value as
            if all scores of a bin were tied, with a warning if they are more than 1e-3 apart.
        ignore_index: As in `AUPIMO`, and so are `validate_args` and `kwargs`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.
        ModuleNotFoundError: If scipy, which finds the regions, is not installed, in `update`.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import AUPRO
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> metric = AUPRO()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.5000)

    """

    _settings: ClassVar[str] = "fpr_limit num_bins ignore_index"
    _is_of_regions: ClassVar[bool] = True

    def __init__(
        self,
        fpr_limit: float = DEFAULT_FPR_LIMIT,
        *,
        num_bins: int | None = None,
        ignore_index: int | None = None,
        validate_args: bool = True,
        **kwargs: Any,
    ) -> None:
        check_fpr_limit(fpr_limit)
        super().__init__(num_bins=num_bins, ignore_index=ignore_index, validate_args=validate_args, **kwargs)
        self.fpr_limit = float(fpr_limit)

    def update(self, preds: Maps, target: Maps) -> None:
        """Add a batch of anomaly maps and masks, see `PixelAUROC.update`; scipy must be installed."""
        require("scipy", extra="stats", needed_by="AUPRO")
        super().update(preds, target)

    def _formula(self) -> Formula:
        return ranking.aupro_up_to(self.fpr_limit)

    def _ranks(self) -> Ranks:
        """Ranks with the weight that each score has in the regions."""
        ranks = super()._ranks()
        if self.num_bins is not None:
            shares = self.aupimo_pixel_region_shares.cpu()[true_indices(self.aupimo_pixel_mask_counts.cpu())]
            return ranks._replace(weights=shares / self.aupimo_pixel_num_regions.cpu())
        places, numbers = self._places_and_regions(ranks)
        shares, num_regions = regions.shares_of_pixels(numbers)
        return ranks._replace(weights=torch.bincount(places, shares, minlength=len(ranks.scores)) / num_regions)

    def _places_and_regions(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """(T,) int64 each: of each mask pixel, the index of its score among the distinct ones, and its region."""
        scores, bits, sizes = (
            torch.cat(self._parts(f"aupimo_pixel_mask_{name}") or [torch.empty(0, device="cpu")]).cpu()
            for name in ("scores", "bits", "sizes")
        )
        return ranks.places_of(scores), regions.number_regions(PackedMasks(bits, sizes))

    def _of_regions(self) -> Tensor:
        """Value of each region (R,), in the order of the images; one NaN without any region."""
        ranks = self._ranks()
        places, numbers = self._places_and_regions(ranks)
        sizes = torch.bincount(numbers, minlength=1)
        shares = ranking.area_shares(ranks, self.fpr_limit)[places]
        values = torch.bincount(numbers, shares, minlength=1) / sizes
        return values.where(torch.tensor(ranks.is_defined, device="cpu"), torch.nan).to(self.device, self._score_dtype)


class PixelAUROC(_PixelMetric):
    """Compute the area under the ROC curve of all pixels of an anomaly detector's maps.

        AUROC = P(mask score > normal score) + P(mask score = normal score) / 2

    is the chance that a random pixel in a mask has a higher score than a random pixel outside; a tie counts half. A
    model without any skill scores 0.5. It equals scikit-learn's `roc_auc_score`.

    It takes what `AUPRO` takes, and returns a float32 `Tensor` () in [0, 1]; NaN, with a warning, if all pixels are in
    masks or none is.

    Args:
        num_bins: As in `AUPRO`, and so are `ignore_index`, `validate_args` and `kwargs`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PixelAUROC
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> metric = PixelAUROC()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.6741)

    """

    def _formula(self) -> Formula:
        return ranking.AUROC


class PixelAveragePrecision(_PixelMetric):
    """Compute the average precision of all pixels of an anomaly detector's maps, also called AP or AUPR.

        AP = sum over k of (R_k - R_(k-1)) * P_k

    is the precision `P` at each score as a threshold, weighted by the recall `R` of mask pixels that the threshold
    adds. There is no interpolation. A model without any skill scores the share of the pixels that are in masks. It
    equals scikit-learn's `average_precision_score`.

    It takes what `AUPRO` takes, and returns a float32 `Tensor` () in [0, 1]; NaN, with a warning, if all pixels are in
    masks or none is.

    Args:
        num_bins: As in `AUPRO`, and so are `ignore_index`, `validate_args` and `kwargs`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PixelAveragePrecision
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> metric = PixelAveragePrecision()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.3895)

    """

    def _formula(self) -> Formula:
        return ranking.AVERAGE_PRECISION


class PixelF1Max(_PixelMetric):
    """Compute the highest F1 score of any threshold on all pixels of an anomaly detector's maps.

        F1-max = maximum over t of 2 * P(t) * R(t) / (P(t) + R(t))

    with the precision `P` and the recall `R` of the mask pixels at the threshold `t`, of which every score is tried.
    Chosen on the test set, it flatters the model.

    `result().threshold` is the lowest threshold that reaches the value; pixels at or above it are called anomalous.
    With `num_bins` it is the lower edge of a bin, and the value the F1 score there.

    It takes what `AUPRO` takes, and returns a float32 `Tensor` () in [0, 1]; NaN, with a warning, if all pixels are in
    masks or none is.

    Args:
        num_bins: As in `AUPRO`, and so are `ignore_index`, `validate_args` and `kwargs`.

    Raises:
        TypeError: If a setting is of the wrong type.
        ValueError: If a setting is out of its range or not known.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics import PixelF1Max
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> metric = PixelF1Max()
        >>> metric.update(maps, masks)
        >>> metric.compute()
        tensor(0.4762)
        >>> metric.result().threshold
        16.0

    """

    def _formula(self) -> Formula:
        return ranking.F1_MAX


def _outward(bounds: tuple[float, float]) -> tuple[float, float]:
    """Round bounds to float32, the lower one down and the upper one up; 0 and 1 stay what they are."""
    low, high = (np.float32(bound) for bound in bounds)
    low = low if bounds[0] in {0, 1} else np.nextafter(low, np.float32(0))
    high = high if bounds[1] in {0, 1} else np.nextafter(high, np.float32(1))
    return float(low), float(high)
