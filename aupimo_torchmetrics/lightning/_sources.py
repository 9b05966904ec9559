"""Images, anomaly maps and masks of a batch: where the user says they are, or where they usually are.

What was only guessed is never an error: whatever does not fit together is skipped. A source that was given must fit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["HeatmapSource", "Pictures", "checked_images", "checked_source", "given_pictures", "guessed_pictures"]

IMAGE_KEYS = ("image", "images")
MAP_KEYS = ("anomaly_map", "anomaly_maps", "maps", "preds")
MASK_KEYS = ("mask", "masks", "gt_mask", "gt_masks", "target", "targets")
"""Usual names of images, maps and masks in what a step returns and in its batch."""

LOWEST_SIZE = 2
"""Pixels that a map must have in each direction to be drawn with an outline."""

Pictures: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""Images (N, C, H, W), anomaly maps (N, H, W) or (N, 1, H, W), and masks of the shape of the maps, or None."""
HeatmapSource: TypeAlias = Sequence[str] | Callable[[Any, Any], Any]
"""The names of images, maps and masks in what a step returns or in its batch, or a function of both.

LightningCLI can write a sequence to a configuration file, but not a tuple.
"""


def checked_source(source: Any) -> HeatmapSource | None:
    """Return a function or three names as a tuple; raise if it is neither, nor None."""
    if source is None or callable(source):
        return source  # type: ignore[no-any-return]
    if isinstance(source, (tuple, list)) and len(source) == 3 and all(isinstance(name, str) for name in source):
        return source[0], source[1], source[2]
    raise ValueError(
        "Expected `heatmap_source` to be a function or three names, of images, anomaly maps and masks, "
        f'but got {source!r}. For example `heatmap_source=("image", "anomaly_map", "mask")`.'
    )


def checked_images(images: Iterable[Any] | None) -> list[int] | None:
    """Return indices of images as a list of integers; raise unless they are integers of at least 0, or None."""
    if images is None:
        return None
    try:
        indices = [operator.index(each) for each in images]
    except TypeError as error:
        raise TypeError(
            f"Expected `heatmap_images` to be a list of integers, such as `[0, 5]`, but got {images!r}."
        ) from error
    if min(indices, default=0) < 0:
        raise ValueError(f"Expected `heatmap_images` to be 0 or more, but got {min(indices)}. They count from 0.")
    return indices


def given_pictures(source: HeatmapSource, outputs: Any, batch: Any, ignored: Collection[int] = ()) -> Pictures | None:
    """Find images, maps and masks where the user says they are.

    Args:
        source: The function or the names.
        outputs: What the step returned.
        batch: Its batch.
        ignored: Values of masks that are replaced by 0.

    Returns:
        Images, maps and masks; None if the function returns None, as it does for a batch that is not to be drawn.

    Raises:
        ValueError: If there are no images, maps or masks, or if they do not fit together.

    """
    if callable(source):
        found = source(outputs, batch)
        if found is None:
            return None
        if not (isinstance(found, (tuple, list)) and len(found) == 3):
            raise ValueError(
                "Expected the function `heatmap_source` to return images, anomaly maps and masks, or None, "
                f"but got {type(found).__name__}{f' of {len(found)}' if isinstance(found, (tuple, list)) else ''}."
            )
        images, maps, masks = found
    else:
        images, maps, masks = (next(_named((name,), outputs, batch), None) for name in source)
        missing = [
            part
            for part, tensor in zip(("images", "maps", "masks"), (images, maps, masks), strict=True)
            if tensor is None
        ]
        if missing:
            raise ValueError(
                f"Expected `heatmap_source` {source} to name tensors of images, anomaly maps and masks in what the "
                f"step returns or in its batch, but found no {' and no '.join(missing)}."
            )
    _check_fit(images, maps, masks)
    return images, maps, _without_ignored(masks, ignored)


def guessed_pictures(outputs: Any, batch: Any, ignored: Collection[int] = ()) -> Pictures | None:
    """Find images, maps and masks under their usual names, or by their place in a batch that is a tuple.

    Args:
        outputs: What the step returned.
        batch: Its batch.
        ignored: Values of masks that are replaced by 0.

    Returns:
        Images, maps and masks that fit together, with None in place of masks if none fit; None if nothing fits.

    """
    tensors = [part for part in batch if isinstance(part, Tensor)] if isinstance(batch, (tuple, list)) else []
    for images in (*_named(IMAGE_KEYS, outputs, batch), *tensors[:1]):
        for maps in _named(MAP_KEYS, outputs, batch):
            if _is_fit(images, maps) and min(maps.shape[-2:]) >= LOWEST_SIZE:
                candidates = (*_named(MASK_KEYS, outputs, batch), *tensors[1:])
                masks = next((each for each in candidates if _may_be_masks(each, maps, ignored)), None)
                return images, maps, _without_ignored(masks, ignored)
    return None


def _named(keys: tuple[str, ...], *sources: Any) -> Iterator[Tensor]:
    """Tensors that dictionaries or objects hold under one of the names."""
    for source in sources:
        for key in keys:
            value = source.get(key) if isinstance(source, Mapping) else getattr(source, key, None)
            if isinstance(value, Tensor):
                yield value


def _check_fit(images: Any, maps: Any, masks: Any) -> None:
    """Raise unless images, maps and masks can be drawn together."""
    are_tensors = all(isinstance(each, Tensor) for each in (images, maps)) and isinstance(masks, (Tensor, type(None)))
    if not are_tensors or not _is_fit(images, maps) or (masks is not None and not _has_shape_of(masks, maps)):
        got = " and ".join(
            f"{tuple(each.shape)} of {each.dtype}" if isinstance(each, Tensor) else type(each).__name__
            for each in (images, maps, masks)
        )
        raise ValueError(
            "Expected images (N, C, H, W), floating anomaly maps (N, H, W) or (N, 1, H, W), and masks of the same size "
            f"for heat maps, but got {got}. Say where they are with `heatmap_source`."
        )


def _is_fit(images: Tensor, maps: Tensor) -> bool:
    """Whether images and maps can be drawn together."""
    is_map = maps.is_floating_point() and maps.ndim in {3, 4}
    is_map = is_map and 0 < maps.numel() == len(maps) * maps.shape[-2:].numel()
    return is_map and images.ndim == 4 and len(images) == len(maps) and images.numel() > 0 and not images.is_complex()


def _has_shape_of(masks: Tensor, maps: Tensor) -> bool:
    """Whether the shape of a tensor is that of masks for the maps."""
    return masks.numel() == maps.numel() and masks.shape[-2:] == maps.shape[-2:] and len(masks) == len(maps)


def _may_be_masks(tensor: Tensor, maps: Tensor, ignored: Collection[int]) -> bool:
    """Whether a tensor has the shape of masks for the maps, and holds only 0, 1 and ignored values."""
    return _has_shape_of(tensor, maps) and bool(_is_any_of(tensor, [0, 1, *ignored]).all())


def _without_ignored(masks: Tensor | None, ignored: Collection[int]) -> Tensor | None:
    """Masks with 0 for values that are ignored."""
    if masks is None or not ignored:
        return masks
    return masks.masked_fill(_is_any_of(masks, ignored), 0)


def _is_any_of(tensor: Tensor, values: Collection[int]) -> Tensor:
    """Whether each number of a tensor is one of the values: bool of its shape."""
    return torch.stack([tensor == value for value in values]).any(0)
