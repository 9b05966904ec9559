"""Images of all formats by Pillow, and TIFF of numbers by tifffile; both come with extras, and are imported late."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import limits

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats of images and masks. Pillow tries no other: it would read an EPS file by running Ghostscript."""
ORIENTATION_TAG = 274
"""Number of the tag in EXIF and TIFF that says how an image has to be turned."""
PHOTOMETRIC_TAG = 262
WHITE_IS_ZERO, _PALETTE = 0, 3
"""Values of that tag if 0 is white, and if numbers stand for colours of a palette."""
_PILLOW_TYPES = {"<": ("uint8", "uint16", "int16", "int32", "float32"), ">": ("uint8", "uint16")}
"""What Pillow reads right of compressed TIFF, by the order of bytes. Of other types it changes the numbers."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else it prints what is wrong with a broken file


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


def read_tiff(path: str | os.PathLike[str], *, may_invert: bool = False) -> NDArray[Any]:
    """Read a TIFF file of one page, of any bits a pixel: the numbers as they are stored.

    tifffile is asked for a page. Asked for a series, it would open other files that are named in this one.

    Args:
        path: File to read.
        may_invert: Whether to read a file whose tags say that 0 is white, too. Some readers invert its numbers.

    Returns:
        The pixels, in the shape of the page.

    Raises:
        BadDataError: If there are several pages or too many pixels, if readers disagree about the numbers, or if the
            compression needs imagecodecs, which is missing.
        Exception: Whatever tifffile raises of a broken file.

    """
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        if not file.pages:
            raise BadDataError("no page")
        page = file.pages.first
        if len(file.pages) > 1:
            shape = (len(file.pages), *page.shape)
            raise BadDataError(f"an array of shape {shape} is no map (H, W), and no mask: there are several pages")
        limits.check_size(page.shape)
        limits.check_size(page.chunks)
        if page.tags.valueof(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and not may_invert:
            raise BadDataError("0 is white by its tags, for which some readers invert the numbers and some do not")
        if page.tags.valueof(PHOTOMETRIC_TAG) == _PALETTE:
            raise BadDataError("colours by a palette, not numbers")
        orientation = page.tags.valueof(ORIENTATION_TAG, default=1)
        if orientation != 1:
            raise BadDataError(f"turned by its tag of orientation {orientation}, which only some readers obey")
        try:
            return np.asarray(page.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _read_by_pillow(path, page)


def _read_by_pillow(path: str | os.PathLike[str], page: Any) -> NDArray[Any]:
    """Read a TIFF page that tifffile cannot unpack without imagecodecs, if it is of a kind that Pillow reads right."""
    if page.dtype not in _PILLOW_TYPES[page.parent.byteorder]:
        raise BadDataError(
            f"a TIFF of {page.dtype} with {page.compression.name} compression expects imagecodecs to be installed. "
            "Please install with `pip install imagecodecs`"
        )
    with open_image(path) as image:
        pixels = np.asarray(image)
    if pixels.shape != page.shape:
        raise BadDataError(f"an image of mode {image.mode} is no map with one score a pixel")
    return pixels.astype(page.dtype)
