"""AUPIMO, PIMO curves and the pixel metrics as functions: they take and return tensors, or take and return arrays.

Conventions: N images of size H, W; K thresholds. A threshold calls a pixel anomalous iff its score is at least the
threshold.

Source: J. P. C. Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low
Tolerance", BMVC 2024, arXiv 2401.01984.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast, overload

import torch
from torch import Tensor

from aupimo_torchmetrics._arrays import Array, ArrayMaps, as_tensors, is_numpy
from aupimo_torchmetrics._engine.checks import Maps
from aupimo_torchmetrics._engine.image_ids import ImageIds, are_texts, as_list
from aupimo_torchmetrics._engine.kept import DEFAULT_NORMAL_BUFFER, PixelScores, drop_ignored
from aupimo_torchmetrics._engine.selection import keep_scores
from aupimo_torchmetrics._engine.sweep import mean_score
from aupimo_torchmetrics._pixel_functions import aupro, pixel_auroc, pixel_average_precision, pixel_f1_max
from aupimo_torchmetrics._scoring import Images, distinct_images, draw_curves, score_images
from aupimo_torchmetrics._settings import (
    DEFAULT_FPR_BOUNDS,
    Reduction,
    SharedFPR,
    check_choice,
    check_fpr_bounds,
    check_ignore_index,
    check_num_thresholds,
)
from aupimo_torchmetrics._warnings import ignored_images, warn
from aupimo_torchmetrics.results import PIMOResult

__all__ = ["aupimo", "aupro", "pimo", "pixel_auroc", "pixel_average_precision", "pixel_f1_max"]


@overload
def aupimo(
    preds: Maps,
    target: Maps,
    num_thresholds: int | None = ...,
    fpr_bounds: Sequence[float] = ...,
    *,
    image_ids: ImageIds | None = ...,
    reduction: Reduction = ...,
    shared_fpr: SharedFPR = ...,
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> Tensor: ...


@overload
def aupimo(
    preds: ArrayMaps,
    target: ArrayMaps,
    num_thresholds: int | None = ...,
    fpr_bounds: Sequence[float] = ...,
    *,
    image_ids: ImageIds | None = ...,
    reduction: Reduction = ...,
    shared_fpr: SharedFPR = ...,
    ignore_index: int | None = ...,
    validate_args: bool = ...,
) -> Array: ...


def aupimo(
    preds: Maps | ArrayMaps,
    target: Maps | ArrayMaps,
    num_thresholds: int | None = None,
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    *,
    image_ids: ImageIds | None = None,
    reduction: Reduction = "mean",
    shared_fpr: SharedFPR = "mean",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Tensor | Array:
    """Compute AUPIMO, the Area Under the Per-IMage Overlap curve, of anomaly maps.

        AUPIMO_i = 1 / log(U / L) * integral from L to U of TPR_i(F) / F dF

    is the score of the anomalous image `i`: how much of its defect is found at thresholds so strict that normal images
    show (nearly) no false positive. `TPR_i` is the recall within the mask of the image. It is averaged over the
    thresholds whose shared FPR `F` lies between `L` and `U`, evenly in the logarithm of `F`. `F` is the mean false
    positive rate of the normal images (or the highest, see `shared_fpr`). An image is normal iff its mask is empty. A
    model without any skill scores `(U - L) / log(U / L)`, 3.9e-5 at the default bounds.

    Scores are used as they are: no sigmoid, no clamping, no rescaling. Only their order matters to the exact score.

    Args:
        preds: Anomaly maps: a tensor or array (N, H, W) or (N, 1, H, W), or a list of N tensors or arrays (H, W) of any
            sizes; of dtype float16, bfloat16, float32 or float64. A higher score means more anomalous.
        target: Masks in the same form and of the same shape, bool, integer or floating, holding only 0 and 1, and
            `ignore_index` if one is set.
        num_thresholds: None for the exact score, or how many thresholds to sample evenly between the lowest and the
            highest normal score, at least 2. 300000 is the protocol of the paper.
        fpr_bounds: Bounds `(L, U)` of the shared FPR, `0 < L < U <= 1`. The default is that of the paper.
        image_ids: One id for each image, integers of at least 0 or texts such as file paths. Of images with the same id
            only the first counts, and the scores are in ascending order of the ids. None if every image counts; the
            scores are then in the order of the images.
        reduction: `"mean"` for the mean over the anomalous images, `"none"` for one score per image.
        shared_fpr: How the FPRs of the normal images make one shared FPR. `"mean"`: their mean, so every normal image
            counts the same, whatever its size. `"max"`: their maximum, which is stricter.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. An image without any other pixel is skipped, with
            a warning. None if every pixel counts.
        validate_args: Whether to check maps and masks.

    Returns:
        The mean score (), or with `reduction="none"` the scores (N,): element `i` is the score of image `i`, NaN for a
        normal image. In [0, 1]; float64 for float64 maps, float32 otherwise; on the device of the maps. NaN, with a
        warning, if there is no image, no normal image or no anomalous image.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If shapes do not fit, a map holds NaN, a mask holds anything but 0 and 1, or a setting is out of
            its range.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import aupimo
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> aupimo(maps, masks, fpr_bounds=(0.1, 0.5))
        tensor(1.)
        >>> aupimo(-maps, masks, fpr_bounds=(0.1, 0.5), reduction="none")
        tensor([nan, 0.])

    """
    bounds = check_fpr_bounds(fpr_bounds)
    check_num_thresholds(num_thresholds)
    check_choice("reduction", reduction, Reduction)
    check_choice("shared_fpr", shared_fpr, SharedFPR)
    ignore_index = check_ignore_index(ignore_index)
    kept, images = _select(preds, target, image_ids, bounds[1], ignore_index, validate_args=validate_args)
    scored = score_images(images.kept, bounds, num_thresholds, shared_fpr)
    warn((*images.warnings, *(scored.undefined or scored.uncertain)))
    score = mean_score(scored.aupimos) if reduction == "mean" else scored.aupimos
    score = score.to(kept.floor)
    return score.numpy() if is_numpy(preds) else score


def pimo(
    preds: Maps | ArrayMaps,
    target: Maps | ArrayMaps,
    num_thresholds: int | None = None,
    *,
    image_ids: ImageIds | None = None,
    shared_fpr: SharedFPR = "mean",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> PIMOResult:
    """Compute PIMO curves: the recall within each anomalous image's mask against the FPR on the normal images.

    Args:
        preds: Anomaly maps: a tensor or array (N, H, W) or (N, 1, H, W), or a list of N tensors or arrays (H, W) of any
            sizes; of dtype float16, bfloat16, float32 or float64. A higher score means more anomalous.
        target: Masks in the same form and of the same shape, bool, integer or floating, holding only 0 and 1, and
            `ignore_index` if one is set.
        num_thresholds: How many thresholds K to sample evenly between the lowest and the highest normal score, at least
            2. None for 1,000 thresholds whose shared FPRs are evenly spaced in log, from that of one normal pixel to 1.
        image_ids: One id for each image, integers of at least 0 or texts such as file paths. Of images with the same id
            only the first counts, and the curves are in ascending order of the ids. None if every image counts; the
            curves are then in the order of the images.
        shared_fpr: How the FPRs of the normal images make one shared FPR. `"mean"`: their mean, so every normal image
            counts the same, whatever its size. `"max"`: their maximum, which is stricter.
        ignore_index: Value of the target pixels that do not count, for example 255 for unlabelled borders: any integer
            but 0 and 1. They are neither normal nor part of a mask. An image without any other pixel is skipped, with
            a warning. None if every pixel counts.
        validate_args: Whether to check maps and masks.

    Returns:
        A named tuple of three. `thresholds` (K,) is ascending. Element `k` of `shared_fpr` (K,) is the mean (or
        maximum) over the normal images of the share of their pixels at or above `thresholds[k]`. Element `(i, k)` of
        `per_image_tprs` (N, K) is the share of the mask pixels of image `i` at or above `thresholds[k]`, NaN for a
        normal image. float64 for float64 maps, float32 otherwise; on the device of the maps. All NaN, with a warning,
        if there is no normal image.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If shapes do not fit, a map holds NaN, a mask holds anything but 0 and 1, or a setting is out of
            its range.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pimo
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = True
        >>> curves = pimo(maps - 8 * masks, masks, num_thresholds=4)
        >>> curves.thresholds
        tensor([ 0.,  5., 10., 15.])
        >>> curves.shared_fpr
        tensor([1.0000, 0.6875, 0.3750, 0.0625])
        >>> curves.per_image_tprs
        tensor([[   nan,    nan,    nan,    nan],
                [1.0000, 1.0000, 0.5000, 0.0000]])

    """
    check_num_thresholds(num_thresholds)
    check_choice("shared_fpr", shared_fpr, SharedFPR)
    ignore_index = check_ignore_index(ignore_index)
    kept, images = _select(preds, target, image_ids, None, ignore_index, validate_args=validate_args)
    drawn, warnings = draw_curves(images.kept, num_thresholds, shared_fpr)
    warn((*images.warnings, *warnings))
    curves = PIMOResult(*(part.to(kept.floor.device) for part in drawn))
    return PIMOResult(*(cast("Tensor", part.numpy()) for part in curves)) if is_numpy(preds) else curves


def _select(
    preds: Maps | ArrayMaps,
    target: Maps | ArrayMaps,
    image_ids: ImageIds | None,
    upper_fpr: float | None,
    ignore_index: int | None,
    *,
    validate_args: bool,
) -> tuple[PixelScores, Images]:
    """Select the scores that matter up to a shared FPR, all if that is None; float64 if a map is, else float32.

    Returns:
        What is kept, on the device of the maps, and the first image of each id.

    """
    preds, target, image_ids = as_tensors(preds), as_tensors(target), as_list(image_ids)
    maps = preds if isinstance(preds, list | tuple) else [preds]
    is_double = any(getattr(each, "dtype", None) == torch.float64 for each in maps)
    kept = keep_scores(
        preds,
        target,
        image_ids,
        floor=torch.tensor(-math.inf, dtype=torch.float64 if is_double else torch.float32),
        normal_buffer=None if upper_fpr is None else DEFAULT_NORMAL_BUFFER,
        upper_fpr=upper_fpr or 1.0,
        validate_args=validate_args,
        ignore_index=ignore_index,
    )
    num_dropped = 0
    if ignore_index is not None:
        kept, image_ids, num_dropped = drop_ignored(kept, image_ids)
    images = distinct_images(kept, cast("Sequence[str]", image_ids) if are_texts(image_ids) else None)
    texts = (ignored_images("AUPIMO", num_dropped, ignore_index), *images.warnings)
    return kept, images._replace(warnings=tuple(filter(None, texts)))
