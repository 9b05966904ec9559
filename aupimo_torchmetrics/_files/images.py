"""Images of all formats by Pillow, which is imported where it is used: it comes with extras."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aupimo_torchmetrics._files import limits

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats of images and masks. Pillow tries no other: it would read an EPS file by running Ghostscript."""
ORIENTATION_TAG = 274
"""Number of the tag in EXIF and TIFF that says how an image has to be turned."""


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image]:
    """Open an image whose pixels are not read yet; raise if it has too many, or is of no format in `IMAGE_FORMATS`."""
    from PIL import Image  # noqa: PLC0415

    with Image.open(path, formats=IMAGE_FORMATS) as image:
        limit = min(limits.MAX_PIXELS, Image.MAX_IMAGE_PIXELS or limits.MAX_PIXELS)
        limits.check_size((image.height, image.width), limit)
        yield image


def orientation_of(image: Image) -> int:
    """Return how an image has to be turned before it is shown, as EXIF and TIFF number it; 1 is not at all."""
    return int(image.getexif().get(ORIENTATION_TAG, 1))
