"""Images of all formats by Pillow, and TIFF of numbers by tifffile; both come with the extra `evaluate`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._extras import require
from aupimo_torchmetrics._files.limits import check_size

require("PIL", "tifffile", extra="evaluate", needed_by="aupimo_torchmetrics.evaluate")

import tifffile  # noqa: E402
from PIL import Image, UnidentifiedImageError  # noqa: E402

IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Formats of images and masks. Pillow tries no other: it would read an EPS file by running Ghostscript."""
NUMBERS = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Modes of Pillow of one number a pixel that is no grey level."""
ORIENTATION_TAG = 274
"""Number of the tag in EXIF and TIFF that says how an image has to be turned."""
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO, _PALETTE = 262, 0, 3
"""A tag of TIFF, and its values if 0 is white, and if numbers stand for colours of a palette."""
_FAX = ("tiff_ccitt", "group3", "group4")
"""Compressions of TIFF in which all programs take 0 for white if its tag says so."""
_SAMPLE_FORMAT_TAG, _SIGNED = 339, (2,)
_PILLOW_TYPES = {"<": ("uint8", "uint16", "int16", "int32", "float32"), ">": ("uint8", "uint16")}
"""What Pillow reads right of compressed TIFF, by the order of bytes. Of other types it changes the numbers."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # else it prints what is wrong with a broken file


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image whose pixels are not read yet; raise if it has too many, or is of no format in `IMAGE_FORMATS`."""
    with Image.open(path, formats=IMAGE_FORMATS) as image:
        check_size((image.height, image.width))
        yield image


def orientation_of(image: Image.Image) -> int:
    """Return how an image has to be turned before it is shown, as EXIF and TIFF number it; 1 is not at all."""
    return int(image.getexif().get(ORIENTATION_TAG, 1))


def check_plain(image: Image.Image) -> None:
    """Raise if programs do not agree on the pixels of an opened image."""
    photometric = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG)
    if getattr(image, "is_animated", False):
        raise BadDataError("several images in one file")
    _check_tags(None if image.info.get("compression") in _FAX else photometric, orientation_of(image))


def _check_tags(photometric: int | None, orientation: int) -> None:
    """Raise if the tags of an image change what is seen of it, which only some programs obey."""
    if photometric == _WHITE_IS_ZERO:
        raise BadDataError("0 is white by its tags, which some programs obey and some do not")
    if orientation != 1:
        raise BadDataError("turned by EXIF or a tag of orientation, which some programs obey and some do not")


def has_wide_channels(image: Image.Image) -> bool:
    """Whether an opened image, whose pixels are not read yet, is stored with more than 8 bits a channel."""
    return image.mode in NUMBERS or any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def is_tiff_of_numbers(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TIFF of numbers of which Pillow does not read every type and order of bytes right."""
    try:
        with open_image(path) as image:
            is_signed = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT_TAG) == _SIGNED
            return image.format == "TIFF" and (is_signed or has_wide_channels(image))
    except UnidentifiedImageError:
        return Path(path).suffix.lower() in {".tif", ".tiff"}


def read_tiff(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a TIFF file of one page, of any bits a pixel: the numbers as they are stored.

    tifffile is asked for a page. Asked for a series, it would open other files that are named in this one.

    Args:
        path: File to read.

    Returns:
        The pixels, in the shape of the page.

    Raises:
        BadDataError: If there are several pages or too many pixels, or if readers disagree about the numbers.
        Exception: Whatever tifffile raises of a broken file, or of a compression that needs imagecodecs.

    """
    with tifffile.TiffFile(path) as file:
        if not file.pages:
            raise BadDataError("no page")
        page = file.pages.first
        check_size(page.shape)
        check_size(page.chunks)
        if len(file.pages) > 1:
            raise BadDataError(f"an array of shape {(len(file.pages), *page.shape)} is no map (H, W), and no mask")
        photometric = page.tags.valueof(_PHOTOMETRIC_TAG)
        if photometric == _PALETTE:
            raise BadDataError("colours by a palette, not numbers")
        _check_tags(photometric, page.tags.valueof(ORIENTATION_TAG, default=1))
        try:
            return np.asarray(page.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error) or page.dtype not in _PILLOW_TYPES[file.byteorder]:
                raise
    with open_image(path) as image:
        return np.asarray(image).astype(page.dtype)
