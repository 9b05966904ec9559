"""Say what to do about a target that holds other values than it may, from the values it holds.

Nothing here runs unless an error is raised anyway, as it looks at every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

_MANY = 3
"""Masks of classes may hold few values; more come from interpolation or lossy files, or are scores."""

_NEAREST = "Fractions come from masks that were resized by interpolation. Resize them with mode `nearest`"


def target_remedy(preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], ignore_index: int | None) -> str:
    """Say how to pass a target that holds more than 0, 1 and `ignore_index`; the advice is right if followed."""
    values = _distinct(target)
    if bool(values.isnan().any()):
        index = 255 if ignore_index is None else ignore_index
        return (
            f"It holds NaN. If NaN marks unlabelled pixels, pass `target.nan_to_num({index})` and set "
            f"`ignore_index={index}`; otherwise find its cause."
        )
    if _are_swapped(preds, target, values):
        return (
            "`preds` holds only 0 and 1, and `target` many other values: the arguments seem to be swapped. "
            "Pass the maps as `preds` and the masks as `target`."
        )
    is_other = (values != 0) & (values != 1)
    if ignore_index is not None:
        is_other &= values != ignore_index
    others, has_zero, has_one = values[is_other], bool((values == 0).any()), bool((values == 1).any())
    if len(others) == 1 and not has_one:
        return _of_one(float(others), ignore_index, is_normal_known=has_zero)
    if bool((others != others.round()).any()):
        return _of_fractions(others, ignore_index)
    if len(others) == 1:
        return _of_one(float(others), ignore_index, is_normal_known=has_zero)
    return _of_several(others, ignore_index, has_one=has_one)


def _distinct(images: Tensor | Sequence[Tensor]) -> Tensor:
    """All distinct values, ascending: (V,) float64 on the CPU; each NaN is a value of its own."""
    parts = [images] if isinstance(images, Tensor) else images
    distinct = [torch.unique(each.detach()).cpu().double() for each in parts]
    return cast("Tensor", torch.unique(torch.cat(distinct)))


def _are_swapped(preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor], values: Tensor) -> bool:
    """Whether the maps hold only 0 and 1, and most pixels of the target one of many other values."""
    if len(values) <= _MANY:
        return False
    scores = _distinct(preds)
    if bool(((scores != 0) & (scores != 1)).any()):
        return False
    parts = [target] if isinstance(target, Tensor) else target
    num_binary = sum(int(((each == 0) | (each == 1)).sum()) for each in parts)
    return 2 * num_binary < sum(each.numel() for each in parts)


def _of_one(value: float, ignore_index: int | None, *, is_normal_known: bool) -> str:
    """Remedy for one value beside 0, 1 and `ignore_index`."""
    advice = [f"where it marks anomalous pixels, pass `{_mask(_is_marked(value), ignore_index)}`"]
    if not is_normal_known:
        advice.append(f"where it marks normal pixels, pass `{_mask(f'target != {value:.17g}', ignore_index)}`")
    if value.is_integer() and ignore_index is None:
        advice.append(f"where it marks unlabelled pixels, set `ignore_index={int(value)}`")
    return f"The other value is {value:.6g}: {'; '.join(advice)}."


def _of_fractions(others: Tensor, ignore_index: int | None) -> str:
    """Remedy for masks that were interpolated; those of 0 and 1 may overshoot these a little."""
    outside = others[(others < -0.5) | (others > 1.5)]
    if len(outside) == 0:
        return f"{_NEAREST}, or pass `{_mask('target > 0.5', ignore_index)}`."
    if ignore_index is not None:
        return f"{_NEAREST}."
    if len(outside) == 1 and float(outside).is_integer():
        value = int(outside)
        return f"{_NEAREST}. If {value} marks unlabelled pixels, {_with_ignored(value, 'target > 0.5')}."
    if float(others.amin()) > -127.5 and float(others.amax()) < 382.5:
        return f"{_NEAREST}; for masks of 0 and 255 without unlabelled pixels one may pass `target > 127.5`."
    return f"{_NEAREST}."


def _of_several(others: Tensor, ignore_index: int | None, *, has_one: bool) -> str:
    """Remedy for several integers beside 0, 1 and `ignore_index`."""
    lowest, highest = float(others.amin()), float(others.amax())
    condition = _is_marked(lowest)
    advice = [f"If all values other than 0 mark anomalous pixels, pass `{_mask(condition, ignore_index)}`."]
    if ignore_index is None:
        candidates = others.tolist() if len(others) == 2 and not has_one else [lowest if lowest < 0 else highest]
        advice += [
            f"If {value:.0f} marks unlabelled pixels, {_with_ignored(int(value), condition)}."
            for value in candidates
            if value.is_integer()
        ]
    if len(others) > _MANY and lowest > 0 and 127 < highest <= 255:
        cut = _mask("target > 127", ignore_index)
        advice.append(f"If these are masks of 0 and 255 that were interpolated or saved as JPEG, pass `{cut}`.")
    return " ".join(advice)


def _is_marked(lowest: float) -> str:
    """Condition of all pixels but those of 0, given the lowest of the other values."""
    return "target > 0" if lowest > 0 else "target != 0"


def _mask(condition: str, ignore_index: int | None) -> str:
    """Code of a mask from a condition, which keeps the pixels that are ignored."""
    if ignore_index is None:
        return condition
    return f"torch.where(target == {ignore_index}, {ignore_index}, ({condition}).long())"


def _with_ignored(value: int, condition: str) -> str:
    """Advice to ignore one value and to make a mask of the others."""
    return f"set `ignore_index={value}` and pass `{_mask(condition, value)}`"
