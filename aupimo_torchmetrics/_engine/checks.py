"""Check a batch of anomaly maps, masks and image ids before any of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from aupimo_torchmetrics._engine.image_ids import ImageIds, check_ids

Maps: TypeAlias = Tensor | Sequence[Tensor]
"""Maps or masks of a batch: a tensor (N, H, W) or (N, 1, H, W), or a list of N tensors (H, W) of any sizes."""

_SCORE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
            f"Expected `preds` to have the shape (N, H, W) or (N, 1, H, W), but got {tuple(preds.shape)}. "
            "For one image pass `preds[None]` and `target[None]`."
        )
    if preds.ndim == 4 and preds.shape[1] != 1:
        raise ValueError(
            f"Expected `preds` to have one channel, but got shape {tuple(preds.shape)}. "
            "An anomaly map has one score per pixel: reduce the channels first, for example with `preds.amax(1)`."
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


def check_values(num_nan_maps: int, is_binary: bool) -> None:
    """Raise if there is a NaN in a map, or a target value other than 0 and 1."""
    if num_nan_maps:
        raise ValueError(
            f"Expected `preds` to hold no NaN, but got NaN in {num_nan_maps} of the maps. "
            "A NaN has no rank among the scores: find its cause, or replace it with `torch.nan_to_num`."
        )
    if not is_binary:
        raise ValueError(
            "Expected `target` to hold only 0 and 1, but got other values. "
            "For masks of 0 and 255, or of several defect classes, pass `target > 0`."
        )
