"""Photographs on disk: their sizes, and what is drawn of them behind a map."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps, UnidentifiedImageError
from torch import Tensor

from aupimo_torchmetrics._files import images
from aupimo_torchmetrics._files.limits import refusing

__all__ = ["UNKNOWN_LEVEL", "Size", "image_size", "is_across", "read_image"]

Size = tuple[int, int]
"""Height and width in pixels."""

UNKNOWN_LEVEL = 0.5  # grey level of NaN, and of an image without a range
QUARTER_TURNS = (5, 6, 7, 8)  # orientations in EXIF by which height and width change places


def image_size(path: str | os.PathLike[str], like: Size | None = None) -> Size:
    """Read the size of an image, of which only the head is read.

    Args:
        path: File of the image.
        like: Size of the map, which may be turned as EXIF says.

    Returns:
        Height and width as stored; or as turned by EXIF, if these fit the map and those as stored do not.

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.photographs import image_size
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.jpg")
        ...     image = Image.new("L", (3, 2))
        ...     image.getexif()[274] = 6
        ...     image.save(file, exif=image.getexif())
        ...     image_size(file), image_size(file, like=(6, 4))
        ((2, 3), (3, 2))

    """
    with refusing():
        try:
            with images.open_image(path) as image:
                size = image.height, image.width
                # EXIF is asked for only where it matters: it may follow all pixels of a PNG.
                is_turned = like is not None and is_across(size, like) and images.orientation_of(image) in QUARTER_TURNS
                return size[::-1] if is_turned else size
        except UnidentifiedImageError:
            if not images.is_tiff_of_numbers(path):
                raise
            height, width = _mean(images.read_tiff(path)).shape
            return height, width


def read_image(path: str | os.PathLike[str], like: Size | None = None) -> Tensor:
    """Read an image in grey.

    Args:
        path: File of the image.
        like: Size of its map: if only the turned image fits it, the image is turned as EXIF says.

    Returns:
        (1, H, W) float32 in [0, 1]. Levels of 8 bits are divided by 255. Wider numbers, of which nothing says what is
        white, are scaled from their lowest and highest finite value; NaN becomes 0.5, and so do all of one value.

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.photographs import read_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.png")
        ...     Image.new("RGB", (3, 2), "white").save(file)
        ...     read_image(file)
        tensor([[[1., 1., 1.],
                 [1., 1., 1.]]])

    """
    with refusing():
        if images.is_tiff_of_numbers(path):
            values, is_wide = images.read_tiff(path), True
        else:
            with images.open_image(path) as image:
                is_wide = images.has_wide_channels(image)
                is_turned = like is not None and is_across((image.height, image.width), like)
                upright = ImageOps.exif_transpose(image) if is_turned else image
                values = np.asarray(upright if is_wide else upright.convert("L"))
        levels = _by_own_range(_mean(values)) if is_wide else values / np.float32(255)
    return torch.from_numpy(levels)[None]


def is_across(size: Size, map_size: Size) -> bool:
    """Return whether a map fits a size whose sides change places, and not the size as it is.

    Args:
        size: Height and width of an image or a mask.
        map_size: Height and width of its map.

    Returns:
        Whether the sides have to change places.

    Example:
        >>> from aupimo_torchmetrics.evaluate.photographs import is_across
        >>> is_across((480, 640), (20, 15)), is_across((480, 640), (20, 20))
        (True, False)

    """
    return _fits(size[::-1], map_size) and not _fits(size, map_size)


def _fits(size: Size, map_size: Size) -> bool:
    """Whether one factor makes a size that of a map, to less than a pixel of the map: rounded down, up or off.

    Side `h` of the map may come from `H` by each factor in the open interval `((h - 1) / H, (h + 1) / H)`. Those of
    both sides have to meet.
    """
    (height, width), (map_height, map_width) = size, map_size
    return (map_height - 1) * width < (map_width + 1) * height and (map_width - 1) * height < (map_height + 1) * width


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    """Take the mean of channels (H, W, C) or (C, H, W), if there are any."""
    return values if values.ndim == 2 else values.mean(int(np.argmin(values.shape)))


def _by_own_range(values: NDArray[Any]) -> NDArray[np.float32]:
    """Scale (H, W) from the lowest and highest finite value to [0, 1]."""
    finite = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    low, high = np.nanmin(finite), np.nanmax(finite)
    levels = (values - low) / (high - low)  # NaN where all are of one value
    return np.nan_to_num(levels, nan=UNKNOWN_LEVEL).clip(0, 1).astype(np.float32)
