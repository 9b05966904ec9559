"""Photographs on disk: their sizes, and what is drawn of them behind a map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._files import open_image, orientation_of, read_tiff, refusing

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["UNKNOWN_LEVEL", "Size", "has_wide_channels", "image_size", "is_turned", "read_image"]

Size = tuple[int, int]
"""Height and width in pixels."""

UNKNOWN_LEVEL = 0.5  # grey level of NaN, and of an image without a range
NUMBERS = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # modes of Pillow of one number a pixel that is no grey level
QUARTER_TURNS = (5, 6, 7, 8)  # orientations in EXIF by which height and width change places


def image_size(path: str | os.PathLike[str]) -> Size:
    """Read the size of an image, of which only the head is read.

    Args:
        path: File of the image.

    Returns:
        Height and width as stored.

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.photographs import image_size
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.png")
        ...     Image.new("RGB", (3, 2)).save(file)
        ...     image_size(file)
        (2, 3)

    """
    from PIL import UnidentifiedImageError  # noqa: PLC0415

    with refusing():
        try:
            with open_image(path) as image:
                return image.height, image.width
        except UnidentifiedImageError as error:
            height, width = _read_numbers(Path(path), error).shape
            return height, width


def is_turned(path: str | os.PathLike[str]) -> bool:
    """Return whether EXIF says that an image is to be turned by a quarter before it is shown.

    Of a PNG without EXIF all pixels are read, as it may follow them. So ask only where it matters.

    Args:
        path: File of the image.

    Returns:
        Whether its height and width change places.

    Raises:
        BadDataError: If the image cannot be read, or is too large.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.photographs import is_turned
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000.jpg")
        ...     image = Image.new("L", (3, 2))
        ...     image.getexif()[274] = 6
        ...     image.save(file, exif=image.getexif())
        ...     is_turned(file)
        True

    """
    from PIL import UnidentifiedImageError  # noqa: PLC0415

    with refusing():
        try:
            with open_image(path) as image:
                return orientation_of(image) in QUARTER_TURNS
        except UnidentifiedImageError:  # a TIFF of numbers, which `read_tiff` refuses if it is turned
            return False


def read_image(path: str | os.PathLike[str], *, turn: bool = False) -> Tensor:
    """Read an image in grey.

    Args:
        path: File of the image.
        turn: Whether to turn it as EXIF says.

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
        grey, is_wide = _read_grey(Path(path), turn)
        levels = _by_own_range(grey) if is_wide else grey / np.float32(255)
    return torch.from_numpy(levels)[None]


def has_wide_channels(image: Image) -> bool:
    """Whether an opened image, whose pixels are not read yet, is stored with more than 8 bits a channel."""
    return image.mode in NUMBERS or any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def _read_grey(path: Path, turn: bool) -> tuple[NDArray[Any], bool]:
    """Read grey levels (H, W), and whether they are wider than 8 bits."""
    from PIL import ImageOps, UnidentifiedImageError  # noqa: PLC0415

    try:
        with open_image(path) as image:
            is_wide = has_wide_channels(image)
            if is_wide and image.format == "TIFF":  # Pillow does not read every type and order of bytes right
                return _read_numbers(path), True
            upright = ImageOps.exif_transpose(image) if turn else image
            return _of_channels(np.asarray(upright)) if is_wide else np.asarray(upright.convert("L")), is_wide
    except UnidentifiedImageError as error:
        return _read_numbers(path, error), True


def _read_numbers(path: Path, error: Exception | None = None) -> NDArray[Any]:
    """Read the numbers (H, W) of a TIFF; raise the error if Pillow does not know a file that is no TIFF."""
    if error is not None and path.suffix.lower() not in {".tif", ".tiff"}:
        raise error
    return _of_channels(read_tiff(path))


def _of_channels(values: NDArray[Any]) -> NDArray[Any]:
    """Take the mean of channels (H, W, C) or (C, H, W), if there are any."""
    return values if values.ndim == 2 else values.mean(int(np.argmin(values.shape)))


def _by_own_range(values: NDArray[Any]) -> NDArray[np.float32]:
    """Scale (H, W) from the lowest and highest finite value to [0, 1]."""
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        return np.full(values.shape, UNKNOWN_LEVEL, np.float32)
    levels = (values - low) / (high - low)
    return np.nan_to_num(levels, nan=UNKNOWN_LEVEL).clip(0, 1).astype(np.float32)
