"""TIFF files of numbers by tifffile, which is imported where it is used: it comes with extras."""

from __future__ import annotations

import lzma
import math
import os
import sys
import zlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files.images import ORIENTATION_TAG, open_image
from aupimo_torchmetrics._files.limits import check_size

PHOTOMETRIC_TAG = 262
WHITE_IS_ZERO = 0
"""Value of that tag if 0 is white."""
_PALETTE = 3
_UNPACKERS: dict[int, Callable[[], Any]] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: partial(lzma.LZMADecompressor, memlimit=2**28),
}
"""Compressions of TIFF that tifffile unpacks without limit, by their number in the standard, and what unpacks them."""
_LZW = 5
_PACKBITS = 32773
_LIMITED_COMPRESSIONS = (1, _LZW, _PACKBITS)
"""Compressions of TIFF that cannot unpack to more than their pixels: none, LZW (by imagecodecs or Pillow), PackBits."""
_FLOAT_PREDICTOR = 3
_PILLOW_TYPES = ("uint8", "uint16", "int16", "int32", "float32")
"""What Pillow reads right of compressed TIFF in little-endian order: not int8, uint32, float16 and float64."""
_PILLOW_TYPES_BIG_ENDIAN = ("uint8", "uint16")
"""What it reads right in big-endian order: of int16, int32 and float32 it swaps the bytes twice."""


def read_tiff(path: str | os.PathLike[str], *, may_invert: bool = False) -> NDArray[Any]:
    """Read a TIFF file of one page, of any bits a pixel: the numbers as they are stored.

    tifffile is asked for a page. Asked for a series, it would open other files that are named in this one.

    Args:
        path: File to read.
        may_invert: Whether to read a file whose tags say that 0 is white, too. Some readers invert its numbers.

    Returns:
        The pixels, in the shape of the page.

    Raises:
        BadDataError: If there are several pages or too many pixels, if readers disagree about the numbers, if the
            compression is not known or unpacks to more than the pixels, or if it needs imagecodecs, which is missing.

    """
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        if file.pages.is_multipage:
            raise BadDataError("several pages, not one")
        page = file.pages.first
        check_size(page.shape)
        check_size(page.chunks)
        if page.tags.valueof(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and not may_invert:
            raise BadDataError("0 is white by its tags, for which some readers invert the numbers and some do not")
        _check_meaning(page)
        _check_segments(page)
        is_beyond_tifffile = page.compression == _LZW or page.predictor == _FLOAT_PREDICTOR
        if is_beyond_tifffile and find_spec("imagecodecs") is None:
            return _read_tiff_by_pillow(path, page)
        return np.asarray(page.asarray())


def _check_meaning(page: Any) -> None:
    """Raise if a TIFF page has no numbers of which every reader says the same."""
    if page.tags.valueof(PHOTOMETRIC_TAG) == _PALETTE:
        raise BadDataError("colours by a palette, not numbers")
    orientation = page.tags.valueof(ORIENTATION_TAG, default=1)
    if orientation != 1:
        raise BadDataError(f"turned by its tag of orientation {orientation}, which some readers obey and some do not")


def _read_tiff_by_pillow(path: str | os.PathLike[str], page: Any) -> NDArray[Any]:
    """Read what tifffile cannot unpack without imagecodecs, if it is of a kind that Pillow reads correctly."""
    dtype = page.dtype
    is_read_right = dtype in (_PILLOW_TYPES if page.parent.byteorder == "<" else _PILLOW_TYPES_BIG_ENDIAN)
    if not is_read_right or page.compression == _PACKBITS or sys.byteorder == "big":
        compression, predictor = page.compression.name, page.predictor.name if page.predictor != 1 else "no"
        raise BadDataError(
            f"a TIFF of {dtype} with {compression} compression and {predictor} predictor expects imagecodecs to be "
            "installed. Please install with `pip install imagecodecs`"
        )
    with open_image(path) as image:
        pixels = np.asarray(image)
    if pixels.shape != page.shape:
        raise BadDataError(f"an image of mode {image.mode} is no map with one score a pixel")
    return pixels.astype(dtype)


def _check_segments(page: Any) -> None:
    """Raise if a TIFF page is compressed in a way that is not known here, or unpacks to more than its pixels.

    A segment is a strip or a tile. tifffile unpacks some compressions without limit: a file of a thousandth of the
    memory is enough to fill it.
    """
    if page.compression in _UNPACKERS:
        limit = math.prod(page.chunks) * page.dtype.itemsize
        for data, _ in page.parent.filehandle.read_segments(page.dataoffsets, page.databytecounts):
            if data is not None and len(_UNPACKERS[page.compression]().decompress(data, limit + 1)) > limit:
                raise BadDataError("more compressed data than pixels")
    elif page.compression not in _LIMITED_COMPRESSIONS:
        known = ", ".join(map(str, (*_LIMITED_COMPRESSIONS, *_UNPACKERS)))
        raise BadDataError(f"compression {int(page.compression)}, not {known}; please save it without compression")
