"""The numbers in a mask file, and what else in it speaks against them.

The *values* of a mask file are the numbers that it holds: those of its only channel, or of three equal ones, or the
grey levels of a palette of greys. Of a palette with colours they are its indices, of colours the largest of the three
channels, of a file of one bit 0 and 255.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import (
    PHOTOMETRIC_TAG,
    WHITE_IS_ZERO,
    open_image,
    orientation_of,
    read_npy,
    read_tiff,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MaskFile", "read_mask_file"]

WHITE = 255
"""What one bit stands for, and an opaque pixel."""
NUMBERS = ("L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Modes of images of one number a pixel, of more than one bit."""
FAX = ("tiff_ccitt", "group3", "group4")
"""Compressions of TIFF for which all programs obey the tag that says what is white."""
INVERTED = "0 is white by its tags, for which some programs invert the numbers; its values are those as stored"
TIFF_SUFFIXES = (".tif", ".tiff")
SAVE_GREY = "please save the mask as a grey image without transparency, in which defects are 255 and all else is 0"


class MaskFile(NamedTuple):
    """What a mask file holds."""

    values: NDArray[Any]
    """(H, W) numbers, none of which is NaN or infinite."""
    colours: NDArray[np.uint8] | None = None
    """(H, W, 3) of a file in colour; None if its channels are equal."""
    values_on_black: NDArray[Any] | None = None
    """(H, W) values as they are seen in front of black; None if no pixel is transparent."""
    contradiction: str | None = None
    """What in the file speaks against its values as they are."""
    is_bits: bool = False
    """Whether the file holds only yes and no, so that no number has to be known."""


def read_mask_file(path: str | os.PathLike[str]) -> MaskFile:
    """Read an image, or an array of a `.npy` file.

    Args:
        path: File to read.

    Returns:
        Its values, and what speaks against them.

    Raises:
        BadDataError: If it holds several images, is turned by its EXIF orientation, or holds NaN or infinite numbers.
        Exception: Whatever a reader raises of a broken file.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from aupimo_torchmetrics.evaluate.mask_files import read_mask_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/000_mask.npy", np.eye(2))
        ...     read_mask_file(f"{folder}/000_mask.npy").values
        array([[1., 0.],
               [0., 1.]])

    """
    from PIL import UnidentifiedImageError  # noqa: PLC0415

    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return _of_array(read_npy(path))
    try:
        with open_image(path) as image:
            return _of_image(path, image)
    except UnidentifiedImageError:
        if suffix not in TIFF_SUFFIXES:
            raise
        return _of_array(read_tiff(path))  # of a type that Pillow does not know, as float64


def _of_array(array: NDArray[Any]) -> MaskFile:
    """Check an array of numbers."""
    shape = [length for length in array.shape if length != 1] if array.ndim > 2 else array.shape
    if len(shape) != 2 or array.size == 0:
        raise BadDataError(f"an array of shape {array.shape} is no mask (H, W)")
    values = np.asarray(array).reshape(shape)
    if values.dtype.kind == "b":
        return MaskFile(values * np.uint8(WHITE), is_bits=True)
    if values.dtype.kind not in "fiu":
        raise BadDataError(f"values of dtype {values.dtype}")
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
        raise BadDataError("NaN or infinite values, which are neither a defect nor none; please save numbers")
    return MaskFile(values)


def _of_image(path: str | os.PathLike[str], image: Image) -> MaskFile:
    """Read the pixels of an image."""
    if getattr(image, "is_animated", False):
        raise BadDataError("several images in one file, of which it does not say which is the mask; please save one")
    if any(";16" in rawmode for rawmode in _raw_modes(image)) and not image.mode.startswith("I"):
        raise BadDataError(f"colours or transparency of 16 bits a channel; {SAVE_GREY}")
    if orientation_of(image) != 1:
        raise BadDataError(
            "turned by its EXIF orientation, which some programs obey and some do not; please save it as it is to be "
            "seen, without this orientation"
        )
    alpha = _alpha(image)
    file = _of_pixels(path, image)
    return file if alpha is None else _with_alpha(file, alpha)


def _of_pixels(path: str | os.PathLike[str], image: Image) -> MaskFile:
    """Read the pixels of an image as if all were opaque."""
    if image.mode in {"P", "PA"}:
        return _of_palette(image)
    if image.mode in {"RGB", "RGBA"}:
        return _of_colours(np.asarray(image)[..., :3])
    if image.mode == "LA":
        return _of_array(np.asarray(image)[..., 0])
    if image.mode == "1" or image.mode in NUMBERS:
        file = _of_numbers(path, image)
        return file._replace(contradiction=INVERTED) if _has_white_zero(image) else file
    raise BadDataError(f"an image of mode {image.mode}; {SAVE_GREY}")


def _of_numbers(path: str | os.PathLike[str], image: Image) -> MaskFile:
    """Read one number a pixel, as it is stored."""
    if image.mode == "1":
        shown = np.asarray(image.convert("L"))
        return MaskFile(WHITE - shown if _has_white_zero(image) else shown, is_bits=True)
    if image.format == "TIFF":  # of which Pillow does not read every type and order of bytes right
        return _of_array(read_tiff(path, may_invert=True))
    array = np.asarray(image)
    # What is not TIFF has 16 bits at most, which Pillow may make 32.
    return _of_array(array.astype(np.uint16) if image.mode == "I" else array)


def _has_white_zero(image: Image) -> bool:
    """Whether 0 is white by the tags of a TIFF file, except for a fax, of which nobody takes the numbers as stored."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and image.info.get("compression") not in FAX


def _of_colours(colours: NDArray[np.uint8]) -> MaskFile:
    """Take three equal channels for one, and keep others."""
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return MaskFile(red)
    return MaskFile(np.maximum(np.maximum(red, green), blue), colours)


def _of_palette(image: Image) -> MaskFile:
    """Take the grey levels of a palette of greys, or the indices of one with colours."""
    indices = np.asarray(image)
    indices = indices[..., 0] if image.mode == "PA" else indices
    palette = np.zeros((256, 3), np.uint8)
    entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(entries)] = entries
    used = np.flatnonzero(np.bincount(indices.reshape(-1), minlength=256))
    colours = palette[used]
    is_grey = bool((colours == colours[:, :1]).all())
    contradiction = None
    if bool(((used == 0) != ~colours.any(1)).any()):
        shown = ", ".join(f"{index} is {tuple(map(int, palette[index]))}" for index in used[:4])
        more = ", ..." if used.size > 4 else ""
        meaning = "grey levels" if is_grey else "indices"
        contradiction = (
            f"its indices and colours disagree on the background ({shown}{more}); its values are the {meaning}"
        )
    return MaskFile(palette[indices, 0] if is_grey else indices, contradiction=contradiction)


def _alpha(image: Image) -> NDArray[np.uint8] | None:
    """Return how opaque each pixel is, (H, W); None if all are."""
    if image.mode not in {"LA", "PA", "RGBA"} and "transparency" not in image.info:
        return None
    if image.mode == "F" or image.mode.startswith("I"):
        alpha = np.where(np.asarray(image) == image.info["transparency"], 0, WHITE).astype(np.uint8)
    else:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return None if bool((alpha == WHITE).all()) else alpha


def _with_alpha(file: MaskFile, alpha: NDArray[np.uint8]) -> MaskFile:
    """Add what speaks against values of which some are transparent."""
    count = f"transparent in {np.count_nonzero(alpha < WHITE):,} of {alpha.size:,} pixels, which may mean anything"
    on_black = file.values * (alpha / WHITE)
    both = count if file.contradiction is None else f"{count}; {file.contradiction}"
    return file._replace(values_on_black=on_black, contradiction=both)


def _raw_modes(image: Image) -> list[str]:
    """Return how the file stores pixels before Pillow makes its own mode of them, as `RGB;16B`."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(each[0] if isinstance(each, tuple) else each) for each in arguments if each]
