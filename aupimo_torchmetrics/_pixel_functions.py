"""The metrics that are reported beside AUPIMO as functions, which `functional` gives to the user.

Conventions and sources are those of `pixel_metrics`, which holds the same as metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from aupimo_torchmetrics._arrays import Array, ArrayMaps, as_tensors, is_numpy
from aupimo_torchmetrics._engine import ranking
from aupimo_torchmetrics._engine.checks import Maps
from aupimo_torchmetrics._engine.pixels import part_pixels
from aupimo_torchmetrics._engine.ranking import Ranks
from aupimo_torchmetrics._engine.regions import PackedMasks, join_masks, number_regions
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._pixel_scoring import (
    PixelScore,
    pixel_means,
    score_aupro,
    score_auroc,
    score_average_precision,
    score_f1_max,
)
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_LIMIT,
    Reduction,
    check_choice,
    check_fpr_limit,
    check_ignore_index,
)
from aupimo_torchmetrics._warnings import ignored_images, warn

__all__ = ["aupro", "pixel_auroc", "pixel_average_precision", "pixel_f1_max"]


@overload
def aupro(
    preds: Maps,
    target: Maps,
    fpr_limit: float = ...,
    *,
    reduction: Reduction = ...,
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> Tensor: ...


@overload
def aupro(
    preds: ArrayMaps,
    target: ArrayMaps,
    fpr_limit: float = ...,
    *,
    reduction: Reduction = ...,
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> Array: ...


def aupro(
    preds: Maps | ArrayMaps,
    target: Maps | ArrayMaps,
    fpr_limit: float = DEFAULT_FPR_LIMIT,
    *,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Tensor | Array:
    """Compute AUPRO, the Area Under the Per-Region Overlap curve, exactly.

        AUPRO = 1 / U * integral from 0 to U of PRO(F) dF

    is the recall within a connected region of the masks, averaged over the regions of all images and over the false
    positive rates `F` from 0 to the limit `U`. Every region counts the same, whatever its size. `F` is the share of the
    pixels outside of masks, in normal and in anomalous images, that are called anomalous. AUPRO is here for comparison;
    AUPIMO is stricter. Unlike other implementations, this one samples no thresholds and needs no rescaling.

    Args:
        preds: Anomaly maps: a tensor or array (N, H, W) or (N, 1, H, W), or a list of N tensors or arrays (H, W) of any
            sizes; of dtype float16, bfloat16, float32 or float64. A higher score means more anomalous.
        target: Masks in the same form and of the same shape, bool, integer or floating, holding only 0 and 1, and
            `ignore_index` if one is set. Mask pixels that touch at an edge or at a corner belong to the same region.
        fpr_limit: Limit `U` of the false positive rate, in (0, 1]. The default is that of MVTec AD.
        reduction: `"mean"` for the mean over the regions, `"none"` for one score per region.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. An image without any other pixel is skipped, with
            a warning. None if every pixel counts.
        validate_args: Whether to check maps and masks.

    Returns:
        The mean score (), or with `reduction="none"` the scores (R,) of the regions, in the order of the images. In
        [0, 1]; float64 for float64 maps, float32 otherwise; on the device of the maps. NaN, with a warning, if there is
        no region or no pixel outside of the masks; (1,) with `reduction="none"` if there is no region.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If shapes do not fit, a map holds NaN, a mask holds anything but 0 and 1, or a setting is out of
            its range.
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import aupro
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0, 0] = masks[1, 3, 3] = True
        >>> aupro(maps, masks, reduction="none")
        tensor([0., 1.])

    """
    check_fpr_limit(fpr_limit)
    check_choice("reduction", reduction, Reduction)
    require("scipy", extra="stats", needed_by="AUPRO")
    pixels = _rank(preds, target, ignore_index, name="AUPRO", validate_args=validate_args)
    numbers = number_regions(pixels.packed)
    scored = score_aupro(pixels.ranks, fpr_limit, pixel_means(pixels.ranks, pixels.mask_scores, numbers))
    warn(scored.warnings)
    if reduction == "mean":
        return pixels.output(torch.tensor(scored.value, dtype=torch.float64))
    if not pixels.ranks.is_defined:
        num_regions = int(numbers.amax()) + 1 if len(numbers) else 1
        return pixels.output(torch.full((num_regions,), math.nan, dtype=torch.float64))
    values = ranking.area_shares(pixels.ranks, fpr_limit)
    return pixels.output(ranking.region_means(pixels.ranks, values, pixels.mask_scores, numbers))


@overload
def pixel_auroc(preds: Maps, target: Maps, *, ignore_index: int | None = ..., validate_args: bool = ...) -> Tensor: ...


@overload
def pixel_auroc(
    preds: ArrayMaps, target: ArrayMaps, *, ignore_index: int | None = ..., validate_args: bool = ...
) -> Array: ...


def pixel_auroc(
    preds: Maps | ArrayMaps, target: Maps | ArrayMaps, *, ignore_index: int | None = None, validate_args: bool = True
) -> Tensor | Array:
    """Compute the area under the ROC curve of all pixels.

        AUROC = P(mask score > normal score) + P(mask score = normal score) / 2

    is the chance that a random pixel in a mask has a higher score than a random pixel outside; a tie counts half. A
    model without any skill scores 0.5. It equals scikit-learn's `roc_auc_score`.

    Args:
        preds: Anomaly maps: a tensor or array (N, H, W) or (N, 1, H, W), or a list of N tensors or arrays (H, W) of any
            sizes; of dtype float16, bfloat16, float32 or float64. A higher score means more anomalous.
        target: Masks in the same form and of the same shape, bool, integer or floating, holding only 0 and 1, and
            `ignore_index` if one is set.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. None if every pixel counts.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; float64 for float64 maps, float32 otherwise; on the device of the maps. NaN, with a
        warning, if all pixels are in masks or none is.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If shapes do not fit, a map holds NaN, a mask holds anything but 0 and 1, or `ignore_index` is out
            of its range.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pixel_auroc
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> pixel_auroc(maps, masks)
        tensor(0.6741)

    """
    return _score(score_auroc, preds, target, ignore_index, name="PixelAUROC", validate_args=validate_args)


@overload
def pixel_average_precision(
    preds: Maps, target: Maps, *, ignore_index: int | None = ..., validate_args: bool = ...
) -> Tensor: ...


@overload
def pixel_average_precision(
    preds: ArrayMaps, target: ArrayMaps, *, ignore_index: int | None = ..., validate_args: bool = ...
) -> Array: ...


def pixel_average_precision(
    preds: Maps | ArrayMaps, target: Maps | ArrayMaps, *, ignore_index: int | None = None, validate_args: bool = True
) -> Tensor | Array:
    """Compute the average precision of all pixels, also called AP or AUPR.

        AP = sum over k of (R_k - R_(k-1)) * P_k

    is the precision `P` at each score as a threshold, weighted by the recall `R` of mask pixels that the threshold
    adds. There is no interpolation. A model without any skill scores the share of the pixels that are in masks. It
    equals scikit-learn's `average_precision_score`.

    Args:
        preds: Anomaly maps: a tensor or array (N, H, W) or (N, 1, H, W), or a list of N tensors or arrays (H, W) of any
            sizes; of dtype float16, bfloat16, float32 or float64. A higher score means more anomalous.
        target: Masks in the same form and of the same shape, bool, integer or floating, holding only 0 and 1, and
            `ignore_index` if one is set.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. None if every pixel counts.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; float64 for float64 maps, float32 otherwise; on the device of the maps. NaN, with a
        warning, if all pixels are in masks or none is.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If shapes do not fit, a map holds NaN, a mask holds anything but 0 and 1, or `ignore_index` is out
            of its range.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pixel_average_precision
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> pixel_average_precision(maps, masks)
        tensor(0.3895)

    """
    name = "PixelAveragePrecision"
    return _score(score_average_precision, preds, target, ignore_index, name=name, validate_args=validate_args)


@overload
def pixel_f1_max(
    preds: Maps,
    target: Maps,
    *,
    return_threshold: Literal[False] = ...,
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> Tensor: ...


@overload
def pixel_f1_max(
    preds: Maps,
    target: Maps,
    *,
    return_threshold: Literal[True],
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> tuple[Tensor, Tensor]: ...


@overload
def pixel_f1_max(
    preds: ArrayMaps,
    target: ArrayMaps,
    *,
    return_threshold: Literal[False] = ...,
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> Array: ...


@overload
def pixel_f1_max(
    preds: ArrayMaps,
    target: ArrayMaps,
    *,
    return_threshold: Literal[True],
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> tuple[Array, Array]: ...


def pixel_f1_max(
    preds: Maps | ArrayMaps,
    target: Maps | ArrayMaps,
    *,
    return_threshold: bool = False,
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Tensor | Array | tuple[Tensor, Tensor] | tuple[Array, Array]:
    """Compute the highest F1 score of any threshold on all pixels.

        F1-max = maximum over t of 2 * P(t) * R(t) / (P(t) + R(t))

    with the precision `P` and the recall `R` of the mask pixels at the threshold `t`, of which every score is tried. A
    threshold calls a pixel anomalous iff its score is at least the threshold. Chosen on the test set, it flatters the
    model.

    Args:
        preds: Anomaly maps: a tensor or array (N, H, W) or (N, 1, H, W), or a list of N tensors or arrays (H, W) of any
            sizes; of dtype float16, bfloat16, float32 or float64. A higher score means more anomalous.
        target: Masks in the same form and of the same shape, bool, integer or floating, holding only 0 and 1, and
            `ignore_index` if one is set.
        return_threshold: Whether to return the lowest threshold that reaches the value, too.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. None if every pixel counts.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; float64 for float64 maps, float32 otherwise; on the device of the maps. NaN, with a
        warning, if all pixels are in masks or none is. With `return_threshold` also the threshold (), as a pair.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If shapes do not fit, a map holds NaN, a mask holds anything but 0 and 1, or `ignore_index` is out
            of its range.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pixel_f1_max
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> pixel_f1_max(maps, masks, return_threshold=True)
        (tensor(0.4762), tensor(16.))

    """
    pixels = _rank(preds, target, ignore_index, name="PixelF1Max", validate_args=validate_args)
    scored = score_f1_max(pixels.ranks)
    warn(scored.warnings)
    value, threshold = (
        pixels.output(torch.tensor(each, dtype=torch.float64)) for each in (scored.value, scored.threshold)
    )
    return (value, threshold) if return_threshold else value  # type: ignore[return-value]


class _RankedPixels(NamedTuple):
    """The pixels of a batch."""

    ranks: Ranks
    mask_scores: Tensor
    """(T,) scores of the mask pixels, on the CPU."""
    packed: PackedMasks
    """Where the mask pixels are."""
    like: Tensor
    """An empty tensor of the dtype and on the device of what is returned."""
    is_numpy: bool
    """Whether NumPy arrays are returned."""

    def output(self, value: Tensor) -> Tensor | Array:
        """Bring a value into the form that is returned."""
        returned = value.to(self.like)
        return returned.numpy() if self.is_numpy else returned


def _score(
    score: Callable[[Ranks], PixelScore],
    preds: Maps | ArrayMaps,
    target: Maps | ArrayMaps,
    ignore_index: int | None,
    *,
    name: str,
    validate_args: bool,
) -> Tensor | Array:
    """Score by a function of ranks, and warn."""
    pixels = _rank(preds, target, ignore_index, name=name, validate_args=validate_args)
    scored = score(pixels.ranks)
    warn(scored.warnings)
    return pixels.output(torch.tensor(scored.value, dtype=torch.float64))


def _rank(
    preds: Maps | ArrayMaps, target: Maps | ArrayMaps, ignore_index: int | None, *, name: str, validate_args: bool
) -> _RankedPixels:
    """Rank the mask pixels of a batch; warn of images that are skipped by the metric of a name."""
    ignore_index = check_ignore_index(ignore_index)
    maps = as_tensors(preds)
    parted = list(
        part_pixels(
            maps, as_tensors(target), validate_args=validate_args, ignore_index=ignore_index, dtype=torch.float64
        )
    )
    num_ignored = sum(int(each.num_ignored_images) for each in parted)
    warn(filter(None, [ignored_images(name, num_ignored, ignore_index)]))
    ranks = ranking.rank([each.normal for each in parted], [each.mask for each in parted])
    is_double = any(each.dtype == torch.float64 for each in maps)
    device = next((each.device for each in maps), torch.device("cpu"))
    like = torch.empty(0, dtype=torch.float64 if is_double else torch.float32, device=device)
    packed = join_masks([each.packed for each in parted])
    mask_scores = torch.cat([each.mask for each in parted] or [torch.empty(0)]).cpu()
    return _RankedPixels(ranks, mask_scores, packed, like, is_numpy(preds))
