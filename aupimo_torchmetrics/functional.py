"""AUPIMO, PIMO curves, and metrics of pixels and of images as functions: of tensors, or of arrays.

Each is its metric, used once, and takes maps, masks and image ids as `AUPIMO.update` does. Results are on the device of
the maps; in float64 for float64 maps, which are then not rounded, else in float32. What is said of a metric, its
formula, its settings, warnings and errors, holds of its function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aupimo_torchmetrics import _settings as checks
from aupimo_torchmetrics._engine.image_ids import ImageIds
from aupimo_torchmetrics._engine.inputs import Maps, as_pairs, as_tensors, is_numpy, plain
from aupimo_torchmetrics._engine.saturation import areas_of_regions, highest_scores
from aupimo_torchmetrics._settings import DEFAULT_FPR_BOUNDS, DEFAULT_FPR_LIMIT, Reduction, SharedFPR
from aupimo_torchmetrics._warnings import missing_pixels, warn
from aupimo_torchmetrics.image_metrics import ImageAUROC, ImageAveragePrecision, ImageF1Max
from aupimo_torchmetrics.metrics import AUPIMO, PIMO
from aupimo_torchmetrics.pixel_metrics import AUPRO, PixelAUROC, PixelAveragePrecision, PixelF1Max
from aupimo_torchmetrics.results import PIMOResult

__all__ = [
    "au_spro",
    "aupimo",
    "aupro",
    "image_auroc",
    "image_average_precision",
    "image_f1_max",
    "pimo",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_f1_max",
]


def aupimo(
    preds: Maps,
    target: Maps,
    num_thresholds: int | None = None,
    fpr_bounds: Sequence[float] = DEFAULT_FPR_BOUNDS,
    *,
    image_ids: ImageIds | None = None,
    reduction: Reduction = "mean",
    shared_fpr: SharedFPR = "mean",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Any:
    """Compute AUPIMO, the Area Under the Per-IMage Overlap curve, of anomaly maps; see `AUPIMO`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        num_thresholds: None for the exact score, or how many thresholds to sample; 300000 in the paper.
        fpr_bounds: Bounds `(L, U)` of the shared FPR.
        image_ids: Ids of the images. Of images with the same id only the first counts.
        reduction: `"mean"` for the mean over the anomalous images, `"none"` for one score per image.
        shared_fpr: `"mean"` or `"max"` of the FPRs of the normal images.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The mean score (), or with `reduction="none"` the scores (N,) in the order of the ids, or of the images if they
        have none; NaN for a normal image. In [0, 1]. NaN, with a warning, if there is no image, no normal image or no
        anomalous image. A tensor, or an array for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps, masks and ids do not fit.

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
    metric = AUPIMO(
        num_thresholds, fpr_bounds, reduction=reduction, shared_fpr=shared_fpr, ignore_index=ignore_index,
        validate_args=validate_args,
    )  # fmt: skip
    return _value(metric, preds, target, image_ids=image_ids)


def pimo(
    preds: Maps,
    target: Maps,
    num_thresholds: int | None = None,
    *,
    image_ids: ImageIds | None = None,
    shared_fpr: SharedFPR = "mean",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> PIMOResult:
    """Compute PIMO curves: the recall within each anomalous image's mask against the FPR on the normal images.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        num_thresholds: How many thresholds K to sample; None for 1,000 thresholds, see `PIMO`.
        image_ids: Ids of the images. Of images with the same id only the first counts.
        shared_fpr: `"mean"` or `"max"` of the FPRs of the normal images.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        `thresholds` (K,) ascending, `shared_fpr` (K,) and `per_image_tprs` (N, K), see `PIMOResult`. All NaN, with a
        warning, if there is no normal image. Tensors, or arrays for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps, masks and ids do not fit.

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
    metric = PIMO(num_thresholds, shared_fpr=shared_fpr, ignore_index=ignore_index, validate_args=validate_args)
    return PIMOResult(*_value(metric, preds, target, image_ids=image_ids))


def aupro(
    preds: Maps,
    target: Maps,
    fpr_limit: float = DEFAULT_FPR_LIMIT,
    *,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Any:
    """Compute AUPRO, the Area Under the Per-Region Overlap curve, exactly; see `AUPRO`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        fpr_limit: Limit `U` of the false positive rate, in (0, 1]. The default is that of MVTec AD.
        reduction: `"mean"` for the mean over the regions, `"none"` for one score per region.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The mean score (), or with `reduction="none"` the scores (R,) of the regions, in the order of the images. In
        [0, 1]. NaN, with a warning, if there is no region or no pixel outside of the masks; (1,) with
        `reduction="none"` if there is no region. A tensor, or an array for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.
        ModuleNotFoundError: If scipy is not installed.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import aupro
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0, 0] = masks[1, 3, 3] = True
        >>> aupro(maps, masks, reduction="none")
        tensor([0., 1.])

    """
    checks.check_choice("reduction", reduction, Reduction)
    metric = AUPRO(fpr_limit, ignore_index=ignore_index, validate_args=validate_args)
    value = _value(metric, preds, target)
    if reduction == "mean":
        return value
    of_regions = metric._of_regions()  # noqa: SLF001
    return of_regions.numpy() if is_numpy(preds) else of_regions


def au_spro(
    preds: Sequence[Any],
    regions: Sequence[Any],
    saturation_areas: Sequence[Sequence[int]],
    fpr_limit: float = DEFAULT_FPR_LIMIT,
    *,
    reduction: Reduction = "mean",
) -> Any:
    """Compute AU-sPRO, the area under the curve of saturated per-region overlap, exactly: the metric of MVTec LOCO.

    A region is found as soon as its saturation area is: at a threshold that finds `t` of its pixels, its overlap is
    `min(t, s) / s`. The curve over the false positive rate, the share of the pixels in no region that are called
    anomalous, is integrated up to a limit and divided by it. Where `s` is the area of each region, it is AUPRO.

    Args:
        preds: N anomaly maps (H, W), floating point tensors or NumPy arrays of any sizes.
        regions: Of each image its regions (r, H, W), bool or holding only 0 and 1; none of them is empty, and r is 0
            for a normal image. They are those of the annotation, one channel each, and may overlap.
        saturation_areas: Of each image the saturation areas of its r regions in pixels, at least 1. One that is larger
            than its region counts as the area of the region.
        fpr_limit: Limit of the false positive rate, in (0, 1]. Papers on MVTec LOCO use 0.05.
        reduction: `"mean"` for the mean over the regions, `"none"` for one score per region.

    Returns:
        The mean score (), or with `reduction="none"` the scores (R,) of the regions, in the order of the images. In
        [0, 1]. NaN, with a warning, if there is no region or no pixel outside of all. A tensor, or an array
        for arrays.

    Raises:
        TypeError: If maps are not floating point, or maps or regions neither tensors nor arrays.
        ValueError: If shapes, values or numbers of images and regions do not fit, a map holds NaN, a region is empty,
            or an area or the limit is out of its range.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import au_spro
        >>> maps = torch.arange(32.0).view(2, 4, 4)
        >>> regions = torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> regions[0, :, 3] = True  # scores 19, 23, 27 and 31
        >>> [round(float(au_spro(maps, [regions[:0], regions], [[], [area]], 0.3)), 3) for area in (4, 1)]
        [0.482, 1.0]

    """
    checks.check_choice("reduction", reduction, Reduction)
    checks.check_fpr_limit(fpr_limit)
    maps, masks = (as_tensors([*images]) for images in (preds, regions))
    if not all(isinstance(each, Tensor) for each in (*maps, *masks)):
        raise TypeError("Expected `preds` and `regions` to be lists of tensors or NumPy arrays.")
    maps, masks = ([plain(each) for each in images] for images in (maps, masks))
    areas = [[*each] for each in saturation_areas]
    _check_regions(maps, masks, areas)
    normal, highest = list[Tensor](), list[Tensor]()
    for scores, of_image, areas_of in zip(maps, masks, areas, strict=True):
        in_region = of_image.bool()
        normal.append(scores[~in_region.any(0)])
        highest += [highest_scores(scores, region, area) for region, area in zip(in_region, areas_of, strict=True)]
    found = areas_of_regions(normal, highest, float(fpr_limit))
    if found is None:
        warn([missing_pixels("AU-sPRO", num_mask=len(highest), num_normal=0 if highest else 1)])
        found = torch.full((1,), math.nan, dtype=torch.float64, device="cpu")
    value = found if reduction == "none" else found.mean()
    if all(each.dtype != torch.float64 for each in maps):
        value = value.float()
    return value.numpy() if is_numpy(list(preds)) else value.to(maps[0].device if maps else value.device)


def _check_regions(maps: Sequence[Tensor], regions: Sequence[Tensor], areas: Sequence[Sequence[int]]) -> None:
    """Raise unless each image has a map without NaN, regions of its size that are not empty, and an area of each."""
    if not len(maps) == len(regions) == len(areas):
        raise ValueError(
            "Expected `preds`, `regions` and `saturation_areas` to be of as many images, but got "
            f"{len(maps)}, {len(regions)} and {len(areas)}."
        )
    for index, (scores, masks, of_image) in enumerate(zip(maps, regions, areas, strict=True)):
        if not scores.is_floating_point():
            raise TypeError(f"Expected `preds` to be floating point maps, but got {scores.dtype} for image {index}.")
        if scores.ndim != 2 or masks.ndim != 3 or masks.shape[1:] != scores.shape:
            raise ValueError(
                "Expected maps (H, W) in `preds` and regions (r, H, W) of the same size, but got "
                f"{tuple(scores.shape)} and {tuple(masks.shape)} for image {index}."
            )
        if bool(scores.isnan().any()):
            raise ValueError(f"Expected `preds` to hold no NaN, but got NaN in the map of image {index}.")
        if not bool(((masks == 0) | (masks == 1)).all()):
            raise ValueError(f"Expected `regions` to hold only 0 and 1, but got other values for image {index}.")
        if not bool((masks != 0).flatten(1).any(1).all()):
            raise ValueError(f"Expected `regions` without empty ones, but got one for image {index}.")
        if len(of_image) != len(masks) or not all(int(area) == area >= 1 for area in of_image):
            raise ValueError(
                "Expected in `saturation_areas` a whole number of pixels, 1 or more, for each of "
                f"{len(masks)} regions, but got {list(of_image)} for image {index}."
            )


def pixel_auroc(preds: Maps, target: Maps, *, ignore_index: int | None = None, validate_args: bool = True) -> Any:
    """Compute the area under the ROC curve of all pixels; see `PixelAUROC`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; NaN, with a warning, if all pixels are in masks or none is. A tensor, or an array for
        arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pixel_auroc
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> pixel_auroc(maps, masks)
        tensor(0.6741)

    """
    return _value(PixelAUROC(ignore_index=ignore_index, validate_args=validate_args), preds, target)


def pixel_average_precision(
    preds: Maps, target: Maps, *, ignore_index: int | None = None, validate_args: bool = True
) -> Any:
    """Compute the average precision of all pixels, also called AP or AUPR; see `PixelAveragePrecision`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; NaN, with a warning, if all pixels are in masks or none is. A tensor, or an array for
        arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pixel_average_precision
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> pixel_average_precision(maps, masks)
        tensor(0.3895)

    """
    return _value(PixelAveragePrecision(ignore_index=ignore_index, validate_args=validate_args), preds, target)


def pixel_f1_max(
    preds: Maps,
    target: Maps,
    *,
    return_threshold: bool = False,
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Any:
    """Compute the highest F1 score of any threshold on all pixels; see `PixelF1Max`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        return_threshold: Whether to return the lowest threshold that reaches the value, too.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; NaN, with a warning, if all pixels are in masks or none is. With `return_threshold`
        also the threshold (), as a pair. Tensors, or arrays for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import pixel_f1_max
        >>> maps, masks = torch.arange(32.0).view(2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
        >>> masks[1, 0] = masks[1, 3, 3] = True
        >>> pixel_f1_max(maps, masks, return_threshold=True)
        (tensor(0.4762), tensor(16.))

    """
    metric = PixelF1Max(ignore_index=ignore_index, validate_args=validate_args)
    return _value(metric, preds, target, return_threshold=return_threshold)


def image_auroc(
    preds: Maps, target: Maps, image_score: str = "max", *, ignore_index: int | None = None, validate_args: bool = True
) -> Any:
    """Compute the area under the ROC curve of images, each with one score; see `ImageAUROC`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        image_score: Score of an image: the `"max"` or `"mean"` of its map, or its highest pixels, as `"top_1%"`.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; NaN, with a warning, if all images are of one class. A tensor, or an array for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import image_auroc
        >>> maps, masks = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(4, 1, 1).repeat(1, 4, 4), torch.zeros(4, 4, 4)
        >>> masks[2:, 0] = 1
        >>> image_auroc(maps, masks)
        tensor(0.7500)

    """
    return _value(ImageAUROC(image_score, ignore_index=ignore_index, validate_args=validate_args), preds, target)


def image_average_precision(
    preds: Maps, target: Maps, image_score: str = "max", *, ignore_index: int | None = None, validate_args: bool = True
) -> Any:
    """Compute the average precision of images, each with one score; see `ImageAveragePrecision`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        image_score: Score of an image, see `image_auroc`.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; NaN, with a warning, if all images are of one class. A tensor, or an array for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import image_average_precision
        >>> maps, masks = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(4, 1, 1).repeat(1, 4, 4), torch.zeros(4, 4, 4)
        >>> masks[2:, 0] = 1
        >>> image_average_precision(maps, masks)
        tensor(0.8333)

    """
    metric = ImageAveragePrecision(image_score, ignore_index=ignore_index, validate_args=validate_args)
    return _value(metric, preds, target)


def image_f1_max(
    preds: Maps,
    target: Maps,
    image_score: str = "max",
    *,
    return_threshold: bool = False,
    ignore_index: int | None = None,
    validate_args: bool = True,
) -> Any:
    """Compute the highest F1 score of any threshold on images, each with one score; see `ImageF1Max`.

    Args:
        preds: Anomaly maps (N, H, W), see `AUPIMO.update`.
        target: Masks (N, H, W).
        image_score: Score of an image, see `image_auroc`.
        return_threshold: Whether to return the lowest threshold that reaches the value, too.
        ignore_index: Value of the target pixels that do not count.
        validate_args: Whether to check maps and masks.

    Returns:
        The value (), in [0, 1]; NaN, with a warning, if all images are of one class. With `return_threshold` also the
        threshold (), as a pair. Tensors, or arrays for arrays.

    Raises:
        TypeError: If an argument is of the wrong type or dtype.
        ValueError: If an argument is out of its range, or maps and masks do not fit.

    Example:
        >>> import torch
        >>> from aupimo_torchmetrics.functional import image_f1_max
        >>> maps, masks = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(4, 1, 1).repeat(1, 4, 4), torch.zeros(4, 4, 4)
        >>> masks[2:, 0] = 1
        >>> image_f1_max(maps, masks, return_threshold=True)
        (tensor(0.8000), tensor(2.))

    """
    metric = ImageF1Max(image_score, ignore_index=ignore_index, validate_args=validate_args)
    return _value(metric, preds, target, return_threshold=return_threshold)


def _value(metric: Any, preds: Maps, target: Maps, *, return_threshold: bool = False, **kwargs: Any) -> Any:
    """Value of a new metric of one batch, in the precision and on the device of the maps; arrays for arrays.

    With `return_threshold` also the threshold at which the metric reaches it, as a pair.
    The methods of the class are those that torchmetrics has not wrapped: nothing is gathered from other processes.
    """
    pairs = as_pairs(preds, target, validate_args=metric.validate_args)
    is_double = any(maps.dtype == torch.float64 for maps, _ in pairs)
    device = pairs[0][0].device if pairs else torch.device("cpu")
    metric._begin_on(device, torch.float64 if is_double else torch.float32)  # noqa: SLF001
    type(metric).update(metric, preds, target, **kwargs)
    value = type(metric).compute(metric)
    if return_threshold:
        value = value, value.new_tensor(metric._result.threshold)  # noqa: SLF001
    if not is_numpy(preds):
        return value
    return value.numpy() if isinstance(value, Tensor) else tuple(part.numpy() for part in value)
