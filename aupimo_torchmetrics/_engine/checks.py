"""Check a batch of anomaly maps, masks and image ids before any of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.image_ids import ImageIds, check_ids
from aupimo_torchmetrics._engine.remedies import target_remedy

Maps: TypeAlias = Tensor | Sequence[Tensor]
"""Maps or masks of a batch: a tensor (N, H, W) or (N, 1, H, W), or a list of N tensors (H, W) of any sizes."""

_SCORE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_SHAPE_REMEDIES = {
    2: " For one image pass `preds[None]` and `target[None]`.",
    5: " For volumes (N, 1, D, H, W) pass `preds.flatten(1, 3)` and `target.flatten(1, 3)`.",
}
"""What to do, by the number of axes of a tensor that is no batch of maps."""

_LIST_REMEDY = (
    " In a list pass a map (1, H, W) as `map[0]` and a volume (D, H, W) as `map.flatten(0, 1)`, and masks likewise. "
    "A batch (N, H, W) needs no list around it."
)


def check_form(preds: Maps, target: Maps, image_ids: ImageIds | None) -> None:
    """Raise unless `update` accepts the types, dtypes, shapes and devices of a batch; values are not looked at."""
    if isinstance(preds, Tensor) != isinstance(target, Tensor):
        raise TypeError(
            "Expected `preds` and `target` to be both tensors or both lists of tensors, "
            f"but got {type(preds).__name__} and {type(target).__name__}."
        )
    if isinstance(preds, Tensor) and isinstance(target, Tensor):
        _check_tensor_pair(preds, target)
        num_images = len(preds)
    else:
        num_images = _check_lists(preds, target)
    if image_ids is not None:
        check_ids(image_ids, num_images)


def _check_tensor_pair(preds: Tensor, target: Tensor) -> None:
    """Raise unless both are (N, H, W) or both (N, 1, H, W)."""
    _check_dtypes(preds, target)
    if preds.ndim not in (3, 4):
        raise ValueError(
            f"Expected `preds` to have the shape (N, H, W) or (N, 1, H, W), but got {tuple(preds.shape)}."
            + _SHAPE_REMEDIES.get(preds.ndim, "")
        )
    if preds.ndim == 4 and preds.shape[1] != 1:
        raise ValueError(
            f"Expected `preds` to have one channel, but got shape {tuple(preds.shape)}. "
            + _channel_remedy(preds.shape, target.shape)
        )
    _check_shapes(preds, target)


def _check_lists(preds: Maps, target: Maps) -> int:
    """Raise unless both are lists of N tensors (H, W); return N."""
    for name, value in (("preds", preds), ("target", target)):
        if not isinstance(value, list | tuple):
            raise TypeError(
                f"Expected `{name}` to be a tensor or a list of tensors, but got {type(value).__name__}. "
                "Turn a NumPy array into a tensor with `torch.from_numpy`."
            )
    if len(preds) != len(target):
        raise ValueError(
            f"Expected `preds` and `target` to be lists of one length, but got {len(preds)} and {len(target)} items."
        )
    for maps, masks in zip(preds, target, strict=True):
        if not (isinstance(maps, Tensor) and isinstance(masks, Tensor)):
            raise TypeError(
                "Expected the lists `preds` and `target` to hold tensors, "
                f"but got {type(maps).__name__} and {type(masks).__name__}."
            )
        _check_dtypes(maps, masks)
        if maps.ndim != 2:
            raise ValueError(
                f"Expected each map in the list `preds` to have the shape (H, W), but got {tuple(maps.shape)}."
                + (_LIST_REMEDY if maps.ndim == 3 else "")
            )
        _check_shapes(maps, masks)
        if maps.device != preds[0].device:
            raise ValueError(
                f"Expected the maps in `preds` to be on one device, but got {preds[0].device} and {maps.device}."
            )
    return len(preds)


def _check_dtypes(preds: Tensor, target: Tensor) -> None:
    """Raise unless both are dense, scores are floating, and targets are bool, integer or floating."""
    for name, images in (("preds", preds), ("target", target)):
        if images.is_nested:
            raise TypeError(
                f"Expected `{name}` to be a dense tensor or a list of these, but got a nested tensor. "
                f"Pass its parts as a list: `list({name}.unbind())`."
            )
        if images.layout != torch.strided or images.is_quantized:
            kind = "quantized" if images.is_quantized else images.layout
            remedy = "dequantize" if images.is_quantized else "to_dense"
            raise TypeError(f"Expected `{name}` to be a dense tensor, but got a {kind} one. Pass `{name}.{remedy}()`.")
    if preds.dtype not in _SCORE_DTYPES:
        raise TypeError(
            f"Expected `preds` to be scores of dtype float16, bfloat16, float32 or float64, but got {preds.dtype}. "
            "If these are scores, pass `preds.float()`; if they are masks, the arguments are swapped."
        )
    if target.is_complex():
        raise TypeError(f"Expected `target` to be bool, integer or floating point, but got {target.dtype}.")


def _check_shapes(preds: Tensor, target: Tensor) -> None:
    """Raise unless both have the same shape, hold pixels and are on the same device."""
    if preds.shape != target.shape:
        raise ValueError(
            "Expected `preds` and `target` to have the same shape, "
            f"but got {tuple(preds.shape)} and {tuple(target.shape)}. "
            "Resize the maps to the size of the masks first, or add or remove the channel axis of one."
        )
    if 0 in preds.shape[-2:]:
        raise ValueError(f"Expected `preds` to hold maps with pixels in them, but got shape {tuple(preds.shape)}.")
    if preds.device != target.device:
        raise ValueError(
            f"Expected `preds` and `target` to be on one device, but got {preds.device} and {target.device}."
        )


def _channel_remedy(maps_shape: torch.Size, masks_shape: torch.Size) -> str:
    """Say how to make one channel of several, or what else the second of four axes may be."""
    if maps_shape[1] == 0:
        return "An anomaly map has one score per pixel."
    if maps_shape[3] == 1:
        return "If the channel axis is the last, pass `preds[..., 0]`, and the masks as (N, H, W)."
    if maps_shape == masks_shape:
        return (
            "For volumes (N, D, H, W) pass `preds.flatten(1, 2)` and `target.flatten(1, 2)`; for maps and masks of "
            "several defect classes (N, C, H, W) pass `preds.amax(1)` and `target.amax(1)`."
        )
    keep_axis = ", keepdim=True" if len(masks_shape) == 4 else ""
    of_classes = "preds[:, 1:]" if len(masks_shape) == 4 else "preds[:, 1]"
    highest = f"pass the highest, `preds.amax(1{keep_axis})`"
    if maps_shape[1] == 2:
        return f"If the channels are the classes normal and anomalous, pass `{of_classes}`; otherwise {highest}."
    return f"If each channel holds scores that are higher for anomalous pixels, {highest}."


def check_values(
    num_nan_maps: int, is_binary: bool, preds: Maps, target: Maps, ignore_index: int | None = None
) -> None:
    """Raise if there is a NaN in a map, or a target value other than 0, 1 and `ignore_index`."""
    if num_nan_maps:
        raise ValueError(
            f"Expected `preds` to hold no NaN, but got NaN in {num_nan_maps} of the maps. "
            "A NaN has no rank among the scores: find its cause, or replace it with `torch.nan_to_num`."
        )
    if not is_binary:
        valid = "only 0 and 1" if ignore_index is None else f"only 0 and 1, and {ignore_index} as `ignore_index`"
        raise ValueError(
            f"Expected `target` to hold {valid}, but got other values. {target_remedy(preds, target, ignore_index)}"
        )
