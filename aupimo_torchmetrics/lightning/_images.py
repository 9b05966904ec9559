"""Photographs: of each image of an update, where in the batch the user says they are, or where they usually are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from aupimo_torchmetrics.metrics import Update

USUAL_NAMES = ("image", "images")

ImageSource: TypeAlias = Callable[[Any], Any] | str
"""A function of the batch, or a name in it. LightningCLI takes the first that fits for a text in a configuration."""


class OtherImagesError(ValueError):
    """The images of an update are not those of the batch, or it cannot be told which of them."""


def checked_source(source: Any) -> ImageSource | None:
    """Return the source; raise unless it is a function, a name or None."""
    if source is None or isinstance(source, str) or callable(source):
        return source  # type: ignore[no-any-return]
    raise TypeError(f"Expected `images` to be a name in the batch or a function of the batch, but got {source!r}.")


def find_images(source: ImageSource | None, batch: Any, update: Update) -> list[Tensor | None]:
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
    found = source(batch) if callable(source) else _usual(batch) if source is None else _named(batch, source)
    num_maps = len(update.indices)
    where = "what the function `images` returns" if callable(source) else f"{source or USUAL_NAMES[0]!r} in the batch"
    if found is None and callable(source):
        return [None] * num_maps
    if isinstance(found, Mapping):
        if update.image_ids is None:
            raise ValueError(f"Expected {where} to be images in their order, as `update` got no `image_ids`.")
        by_id = {os.fsdecode(key) if isinstance(key, os.PathLike) else key: image for key, image in found.items()}
        images = [by_id.get(each) for each in update.image_ids]
    else:
        images = [*found] if isinstance(found, (Tensor, list, tuple)) else [found]
    for image in images:
        if not (_is_image(image) or (image is None and isinstance(found, Mapping))):
            got = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"Expected {where} to be a tensor of images (N, C, H, W), or a list of these, but got {got}."
            )
    if len(images) != num_maps:
        error = OtherImagesError if len(images) > num_maps else ValueError
        raise error(f"Expected {where} to be the images of an update, but got {len(images)} for {num_maps} maps.")
    return images


def _usual(batch: Any) -> Any:
    """What a batch holds under a usual name; or itself, if it is a tensor, or the first tensor that it holds."""
    for name in USUAL_NAMES:
        if (found := _named(batch, name)) is not None:
            return found
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    return next((part for part in parts if isinstance(part, Tensor)), None)


def _named(batch: Any, name: str) -> Any:
    """What a dictionary or an object holds under a name, or None."""
    return batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)


def _is_image(image: Any) -> bool:
    """Whether an image can be drawn."""
    return isinstance(image, Tensor) and image.ndim in {2, 3} and image.numel() > 0 and not image.is_complex()
