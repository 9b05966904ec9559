"""Bring the maps and masks of a batch, as callers give them, into one form; refuse what is not clear.

Conventions: images of the same size H, W in one tensor form a group of n images with P pixels each; in a list, each
image is a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Maps: TypeAlias = Tensor | NDArray[Any] | Sequence[Tensor] | Sequence[NDArray[Any]]
"""Maps or masks of a batch, see `AUPIMO.update`."""

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Maps and masks (n, H, W)."""

_SCORE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

SLICE_SIZE = 2**18
"""Most pixels of a slice of several images on the CPU: the arrays of one step fit into the cache."""
_LARGE_SLICE_SIZE = 2**28
"""The same on other devices, where the host waits for each slice."""

_MAX_SHOWN = 5
"""Values of a target that an error shows."""


class Group(NamedTuple):
    """Images of one size. Their tensors are contiguous, so that all pixels of the group can be seen as one row."""

    maps: Tensor
    """(n, P) floating."""
    masks: Tensor
    """(n, P) bool, true in a defect; the bytes are 0 and 1."""
    ignored: Tensor | None
    """(n, P) bool, true for a pixel that does not count; None if every pixel counts."""
    is_binary: Tensor
    """() bool, true if the target holds nothing but 0, 1 and `ignore_index`."""


def is_numpy(maps: Any) -> bool:
    """Whether these are NumPy arrays."""
    return isinstance(maps, np.ndarray) or (
        isinstance(maps, list | tuple) and len(maps) > 0 and isinstance(maps[0], np.ndarray)
    )


def as_pairs(preds: Maps, target: Maps, *, validate_args: bool) -> list[Pair]:
    """Turn a batch into pairs of maps and masks of one size: one for a tensor, one for each image of a list.

    Raises:
        TypeError: If the types or dtypes are not those that `AUPIMO.update` accepts.
        ValueError: If shapes, devices or numbers of images are not. Values are not looked at.

    """
    maps: Any = preds if isinstance(preds, Tensor) else as_tensors(preds)
    masks: Any = target if isinstance(target, Tensor) else as_tensors(target)
    is_list = not isinstance(maps, Tensor)
    if validate_args:
        _check_kinds(maps, masks)
    pairs = []
    for each, mask in zip(maps, masks, strict=True) if is_list else [(maps, masks)]:
        if validate_args:
            _check_pair(each, mask, is_of_list=is_list)
        rows, columns = each.shape[-2:]
        pairs.append((each.reshape(-1, rows, columns), mask.reshape(-1, rows, columns)))
        if validate_args and each.device != pairs[0][0].device:
            raise ValueError(
                f"Expected the maps in `preds` to be on one device, but got {pairs[0][0].device} and {each.device}."
            )
    return pairs


def as_tensors(images: Any) -> Any:
    """Turn arrays into tensors that share their memory if possible; anything else stays as it is."""
    if isinstance(images, np.ndarray):
        return _as_tensor(images)
    if isinstance(images, list | tuple):
        return [_as_tensor(each) if isinstance(each, np.ndarray) else each for each in images]
    return images


def _as_tensor(array: NDArray[Any]) -> Tensor:
    """Turn an array of any byte order and layout into a tensor."""
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        array = np.require(native, requirements=["C", "W"])
        is_turned = min(array.strides, default=0) < 0  # possible on an axis of one item
        return torch.from_numpy(array.copy() if is_turned else array)
    except TypeError as error:
        raise TypeError(f"Expected maps and masks of numbers, but got an array of dtype {array.dtype}.") from error


def _check_kinds(maps: Any, masks: Any) -> None:
    """Raise unless both are tensors, or both lists of as many items."""
    if isinstance(maps, Tensor) != isinstance(masks, Tensor):
        raise TypeError(
            "Expected `preds` and `target` to be both tensors or both lists of tensors, "
            f"but got {type(maps).__name__} and {type(masks).__name__}."
        )
    for name, images in (("preds", maps), ("target", masks)):
        if not isinstance(images, Tensor | list):
            raise TypeError(f"Expected `{name}` to be a tensor or a list of tensors, but got {type(images).__name__}.")
    if not isinstance(maps, Tensor) and len(maps) != len(masks):
        raise ValueError(
            f"Expected `preds` and `target` to be lists of one length, but got {len(maps)} and {len(masks)} items."
        )


def _check_pair(maps: Any, masks: Any, *, is_of_list: bool) -> None:
    """Raise unless maps and masks are dense tensors of the right dtypes, fit each other and hold pixels."""
    if not (isinstance(maps, Tensor) and isinstance(masks, Tensor)):
        raise TypeError(
            "Expected the lists `preds` and `target` to hold tensors, "
            f"but got {type(maps).__name__} and {type(masks).__name__}."
        )
    _check_dense("preds", maps)
    _check_dense("target", masks)
    if maps.dtype not in _SCORE_DTYPES:
        raise TypeError(
            f"Expected `preds` to be scores of dtype float16, bfloat16, float32 or float64, but got {maps.dtype}. "
            "If these are scores, pass `preds.float()`; if they are masks, the arguments are swapped."
        )
    if masks.is_complex():
        raise TypeError(f"Expected `target` to be bool, integer or floating point, but got {masks.dtype}.")
    _check_shapes(maps.shape, masks.shape, is_of_list=is_of_list)
    if maps.device != masks.device:
        raise ValueError(
            f"Expected `preds` and `target` to be on one device, but got {maps.device} and {masks.device}."
        )


def _check_dense(name: str, images: Tensor) -> None:
    """Raise unless images are a dense tensor."""
    if images.is_nested:
        raise TypeError(f"Expected `{name}` to be dense, but got a nested tensor. Pass `list({name}.unbind())`.")
    if images.layout != torch.strided or images.is_quantized:
        kind, remedy = ("quantized", "dequantize") if images.is_quantized else (images.layout, "to_dense")
        raise TypeError(f"Expected `{name}` to be a dense tensor, but got a {kind} one. Pass `{name}.{remedy}()`.")


def _check_shapes(maps: torch.Size, masks: torch.Size, *, is_of_list: bool) -> None:
    """Raise unless both are shapes of images, with an axis of one channel or without, and of the same images."""
    num_axes = 2 if is_of_list else 3
    shape, mask_shape = [
        (*each[:-3], *each[-2:]) if each[num_axes - 2 : -2] == (1,) else tuple(each) for each in (maps, masks)
    ]
    if len(shape) != num_axes:
        what = "each map in the list `preds`" if is_of_list else "`preds`"
        shapes = "(H, W)" if is_of_list else "(N, H, W) or (N, 1, H, W)"
        raise ValueError(
            f"Expected {what} to have the shape {shapes}, but got {tuple(maps)}. For one image pass `preds[None]`, of "
            "several channels the one that says how anomalous a pixel is or the highest, `preds.amax(1)`, of a volume "
            "the slices below each other, `preds.flatten(-3, -2)`; and masks likewise."
        )
    if len(mask_shape) < num_axes:
        raise ValueError(
            "Expected `target` to be masks, which say of each pixel whether it is anomalous, of the shape of `preds`, "
            f"{tuple(maps)}, but got shape {tuple(masks)}. Labels of whole images do not say where a defect is."
        )
    if shape != mask_shape:
        raise ValueError(
            f"Expected `preds` and `target` to have the same shape, but got {tuple(maps)} and {tuple(masks)}. "
            "Resize the maps to the size of the masks first."
        )
    if 0 in maps[-2:]:
        raise ValueError(f"Expected `preds` to hold maps with pixels in them, but got shape {tuple(maps)}.")


def in_slices(pairs: Sequence[Pair], num_pixels: int) -> list[Pair]:
    """Cut pairs into such of at most `num_pixels` in several images; none is without images."""
    slices: list[Pair] = []
    for maps, masks in pairs:
        if 0 < maps.numel() <= num_pixels:
            slices.append((maps, masks))
        elif len(maps):
            num_images = max(1, num_pixels // maps[0].numel())
            slices += zip(torch.split(maps, num_images), torch.split(masks, num_images), strict=True)
    return slices


def checked_groups(
    preds: Maps, target: Maps, *, validate_args: bool, ignore_index: int | None, dtype: torch.dtype
) -> Iterator[tuple[Group, torch.Size]]:
    """Check one batch, and give it slice by slice, each with the size (H, W) of its images.

    Raise at the end if maps or masks hold invalid values. Scores keep their dtype, but those of float64 are rounded to
    `dtype`.
    """
    pairs = as_pairs(preds, target, validate_args=validate_args)
    is_on_cpu = all(maps.device.type == "cpu" for maps, _ in pairs)
    is_valid = []
    for maps, masks in in_slices(pairs, SLICE_SIZE if is_on_cpu else _LARGE_SLICE_SIZE):
        group = as_group(maps, masks, dtype, ignore_index)
        is_valid.append(group.is_binary & ~group.maps.amax().isnan())
        yield group, maps.shape[-2:]
    if validate_args and is_valid and not bool(torch.stack(is_valid).all()):
        check_values(pairs, ignore_index)


def as_group(maps: Tensor, target: Tensor, dtype: torch.dtype, ignore_index: int | None) -> Group:
    """Make a group of a pair; float64 maps are rounded to `dtype`."""
    maps, target = _in_rows(maps), _in_rows(target)
    if maps.dtype == torch.float64:
        maps = maps.to(dtype)
    if target.dtype == torch.bool:
        as_bytes = target.view(torch.uint8)
        if target.device.type != "cpu" or int(as_bytes.amax()) > 1:  # true bytes may have any bit set
            target = as_bytes != 0
        return Group(maps, target, None, target.new_ones(()))
    masks, ignored = ~_is_equal(target, 0), None
    if ignore_index is not None and _can_hold(target.dtype, ignore_index):
        ignored = _is_equal(target, ignore_index)
        masks &= ~ignored
    differs = masks.view(torch.uint8) ^ _is_equal(target, 1).view(torch.uint8)
    return Group(maps, masks, ignored, differs.amax() == 0)


def _in_rows(images: Tensor) -> Tensor:
    """(n, P) contiguous plain tensor without gradient, of images (n, H, W) of any class."""
    return plain(images).reshape(len(images), -1).contiguous()


def plain(tensor: Tensor) -> Tensor:
    """Return the same values without gradient, as a plain `Tensor` and not a subclass."""
    values = tensor.detach()
    # In torch 2.4 `as_subclass` fails for a plain tensor while operations are traced or profiled.
    return values if type(values) is Tensor else values.as_subclass(Tensor)


def _can_hold(dtype: torch.dtype, value: int) -> bool:
    """Whether a dtype has a value; torch would compare -1 in it with 255."""
    limits = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def _is_equal(target: Tensor, value: int) -> Tensor:
    """Whether each value of a target equals a value: bool of its shape."""
    if target.device.type == "cpu" and target.dtype != torch.bfloat16:  # NumPy is many times as fast
        return torch.from_numpy(np.asarray(target.numpy() == value))
    return target == value


def check_values(pairs: Sequence[Pair], ignore_index: int | None) -> None:
    """Raise if there is a NaN in a map, or a target value other than 0, 1 and `ignore_index`."""
    num_nan_maps = sum(int(maps.isnan().flatten(1).any(1).sum()) for maps, _ in pairs)
    if num_nan_maps:
        raise ValueError(
            f"Expected `preds` to hold no NaN, but got NaN in {num_nan_maps} of the maps. "
            "A NaN has no rank among the scores: find its cause, or replace it with `torch.nan_to_num`."
        )
    values = torch.unique(torch.cat([torch.unique(target.detach().double()).cpu() for _, target in pairs]))
    others = [f"{value:g}" for value in values.tolist() if value not in {0, 1, ignore_index}]
    if others:
        valid = "only 0 and 1" if ignore_index is None else f"only 0 and 1, and {ignore_index} as `ignore_index`"
        shown = ", ".join([*others[:_MAX_SHOWN], *["..."][: len(others) - _MAX_SHOWN]])
        raise ValueError(
            f"Expected `target` to hold {valid}, but got other values: {shown}. Pass what is true where "
            "a pixel is anomalous, such as `target > 0`; `ignore_index` is the value of pixels that do not count."
        )
