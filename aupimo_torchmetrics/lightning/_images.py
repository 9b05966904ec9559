"""Photographs: of each image of an update, where in the batch the user says they are, or where they usually are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, TypeAlias

from torch import Tensor

from aupimo_torchmetrics.metrics import Update

USUAL_NAMES = ("image", "images")

ImageSource: TypeAlias = str | Callable[[Any], Any]
"""A name in the batch, or a function of it. LightningCLI gives both as texts: the path of a function has a dot."""


class OtherImagesError(ValueError):
    """The images of an update are not those of the batch, or it cannot be told which of them."""


def checked_source(source: Any) -> ImageSource | None:
    """Return the source, a function for its path; raise unless it is a function, a name or None."""
    if isinstance(source, str) and "." in source:
        source = resolve_name(source)
    if source is None or isinstance(source, str) or callable(source):
        return source  # type: ignore[no-any-return]
    raise TypeError(f"Expected `images` to be a name in the batch or a function of the batch, but got {source!r}.")


def find_images(source: ImageSource | None, batch: Any, update: Update) -> Sequence[Tensor | None]:
    """Find the photographs of an update.

    Args:
        source: Where they are; None for the usual places.
        batch: The batch in which the update was made.
        update: What was scored.

    Returns:
        For each image of the update a tensor (C, H, W) or (H, W), or None where there is none to draw.

    Raises:
        OtherImagesError: If the batch has more images than the update, and nothing says which of them it is of.
        ValueError: If there are no images, or if the update has more.

    """
    num_maps = len(update.indices)
    found = source(batch) if callable(source) else _usual(batch) if source is None else _named(batch, source)
    where = "what the function `images` returns" if callable(source) else f"{source or USUAL_NAMES[0]!r} in the batch"
    if found is None and callable(source):
        return [None] * num_maps
    if isinstance(found, Mapping):
        return _by_id(found, update.image_ids)
    images = _as_list(found)
    if images is None:
        got = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"Expected {where} to be images (N, C, H, W), or a list of these (C, H, W), but got {got}.")
    num_expected = num_maps if update.part is None else update.part.num_images
    if len(images) != num_expected:
        error = OtherImagesError if len(images) > num_expected else ValueError
        raise error(f"Expected {where} to be the images of an update, but got {len(images)} for {num_expected} maps.")
    return images if update.part is None else [images[place] for place in update.part.places]


def _by_id(found: Mapping[Any, Any], image_ids: list[int] | list[str] | None) -> Sequence[Tensor | None]:
    """Photograph of each image id, None where there is none."""
    if image_ids is None or _as_list([*found.values()]) is None:
        raise ValueError(
            "Expected `image_ids` in `update` for images (C, H, W) by image id, but one of them is missing."
        )
    by_id = {os.fsdecode(key) if isinstance(key, os.PathLike) else key: image for key, image in found.items()}
    if by_id and by_id.keys().isdisjoint(image_ids):
        raise OtherImagesError(f"Expected images by ids such as {image_ids[:1]}, but got them by {[*by_id][:1]}.")
    return [by_id.get(each) for each in image_ids]


def _usual(batch: Any) -> Any:
    """What a batch holds under a usual name, or the batch itself or its first part that is a tensor of images."""
    parts = [*batch] if isinstance(batch, (tuple, list)) else [batch]
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim == 4]
    found = [each for each in (*(_named(batch, name) for name in USUAL_NAMES), *tensors) if each is not None]
    return next((each for each in found if _as_list(each) is not None), found[0] if found else None)


def _named(batch: Any, name: str) -> Any:
    """What a dictionary or an object holds under a name, or None."""
    return batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)


def _as_list(found: Any) -> list[Tensor] | None:
    """Images as a list; None if these are none that can be drawn."""
    is_batch = isinstance(found, (list, tuple)) or (isinstance(found, Tensor) and found.ndim > 2)
    return [*found] if is_batch and all(map(_is_image, found)) else None


def _is_image(image: Any) -> bool:
    """Whether an image can be drawn."""
    return isinstance(image, Tensor) and image.ndim in {2, 3} and image.numel() > 0 and not image.is_complex()
