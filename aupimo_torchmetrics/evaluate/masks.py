"""Masks on disk: which pixels are a defect, and which do not count.

A mask is clear if, seen on black, it is black and one other colour, the same in all masks of a category; or one grey
alone: 0, 1 or the largest of its type. Transparency is laid on black, and palettes count by their colours; arrays and
images of one number of more than 8 bits a pixel count as stored, and one bit is 0 or 255. Anything else is settled by a
rule of the user, or the file is refused with its values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files import open_image, orientation_of, read_npy, read_tiff, refusing
from aupimo_torchmetrics.evaluate.bad_files import BadFileError
from aupimo_torchmetrics.evaluate.photographs import NUMBERS, has_wide_channels

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DefectValue", "MaskRule", "read_mask"]

MAX_CLASSES = 10  # types of defects in one file at most; more values are noise. MVTec LOCO has one a file, VisA a few
MAX_SHOWN = 5  # values that a reason lists
WHITE = 255
CHANNELS = 256 * 256, 256, 1  # what the levels of red, green and blue are multiplied with in the number of a colour
COLOURS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
FAX = ("tiff_ccitt", "group3", "group4")  # compressions of TIFF whose tag of white all programs obey
PHOTOMETRIC_TAG, WHITE_IS_ZERO = 262, 0
SAMPLE_FORMAT_TAG, SIGNED = 339, (2,)
SETTLED_BY = "`mask_threshold` says which are a defect, `ignore_index` which do not count"
SAVE_GREY = "please save the mask in grey, 255 in a defect and 0 elsewhere"


@dataclass(frozen=True)
class MaskRule:
    """What the values of mask files mean, where the files do not say it clearly themselves.

    Attributes:
        threshold: Values above it are a defect, of colours the largest of the three channels; None if the files
            themselves have to say it.
        ignore_index: Value of the pixels that do not count; None if there are none.

    Raises:
        TypeError: If a value is no number.
        ValueError: If the threshold is not finite.

    Example:
        >>> from aupimo_torchmetrics.evaluate import MaskRule
        >>> MaskRule(threshold=127)  # values above 127 are a defect
        MaskRule(threshold=127, ignore_index=None)

    """

    threshold: float | None = None
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        """Check the values, by the names that they have in `evaluate`."""
        threshold, index = self.threshold, self.ignore_index
        if threshold is not None and (not isinstance(threshold, Real) or isinstance(threshold, bool)):
            raise TypeError(f"Expected `mask_threshold` to be None or a number, but got {type(threshold).__name__}.")
        if threshold is not None and not math.isfinite(threshold):
            raise SettingError(f"Expected `mask_threshold` to be None or a finite number, but got {threshold}.")
        if index is not None and (not isinstance(index, Integral) or isinstance(index, bool)):
            raise TypeError(f"Expected `ignore_index` to be None or an integer, but got {type(index).__name__}.")


class DefectValue:
    """The value that is a defect in masks that belong together, as the first of them says it.

    With 1 in some files and 255 in others, either may be a label of pixels that do not count.
    """

    def __init__(self) -> None:
        self._first: tuple[str, str, str] | None = None

    def check(self, value: str, meaning: str, path: str) -> None:
        """Remember the value of the first file; raise a BadDataError if that of another file means something else."""
        self._first = self._first or (value, meaning, path)
        first, first_meaning, first_path = self._first
        if meaning != first_meaning:
            raise BadDataError(f"its defect is {value}, but that of {first_path} is {first}; {SETTLED_BY}")


def read_mask(
    paths: Sequence[str | os.PathLike[str]],
    rule: MaskRule,
    *,
    has_classes: bool = False,
    defect_value: DefectValue | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Read the union of masks.

    Args:
        paths: One or more images, or `.npy` arrays, of the same size.
        rule: Which values are a defect, and which do not count.
        has_classes: Whether the layout says that a mask holds a number for each type of defect, so that each value but
            0 is a defect.
        defect_value: The value that is a defect in other masks, with which these have to agree; None if there are none.

    Returns:
        (H, W) bool, true in a defect; and (H, W) bool, true for a pixel that does not count, or None if all count. Of
        several masks, a pixel that is a defect in one is a defect, and another that does not count in one does not.

    Raises:
        BadFileError: If a mask cannot be read or does not say clearly what is a defect, or the masks differ in size.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from aupimo_torchmetrics.evaluate.masks import MaskRule, read_mask
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "000_mask.png")
        ...     Image.new("L", (3, 2), 255).save(file)
        ...     read_mask([file], MaskRule())
        (tensor([[True, True, True],
                [True, True, True]]), None)

    """
    known = DefectValue() if defect_value is None else defect_value
    masks, ignored = [], []
    for path in paths:
        try:
            with refusing():
                pixels = _read_pixels(Path(path))
            is_defect, is_ignored = _find_defect(pixels, rule, has_classes, known, str(path))
        except BadDataError as error:
            raise BadFileError(str(path), str(error)) from error
        masks.append(is_defect)
        ignored.append(is_ignored)
    if len({mask.shape for mask in masks}) > 1:
        raise BadFileError(str(paths[0]), f"masks of several sizes: {sorted({mask.shape for mask in masks})}")
    mask = np.logical_or.reduce(masks)
    without = np.logical_or.reduce(ignored) & ~mask
    return torch.from_numpy(mask), torch.from_numpy(without) if without.any() else None


def _read_pixels(path: Path) -> NDArray[Any]:
    """Read (H, W) numbers, or (H, W, 3) colours as seen on black."""
    from PIL import UnidentifiedImageError  # noqa: PLC0415

    if path.suffix.lower() == ".npy":
        return _of_array(read_npy(path))
    try:
        with open_image(path) as image:
            return _of_image(path, image)
    except UnidentifiedImageError:
        if path.suffix.lower() not in {".tif", ".tiff"}:
            raise
        return _of_array(read_tiff(path))  # of a type that Pillow does not know, as float64


def _of_image(path: Path, image: Image) -> NDArray[Any]:
    """Read the pixels of an image that can be seen in one way only."""
    tags = getattr(image, "tag_v2", {})
    is_fax = image.info.get("compression") in FAX
    reasons = {
        "several images in one file": getattr(image, "is_animated", False),
        "turned by its EXIF orientation, which some programs obey": orientation_of(image) != 1,
        "0 is white by its tags, which some programs obey": tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO and not is_fax,
        "16 bits a channel": has_wide_channels(image) and image.mode not in NUMBERS,
        f"an image of mode {image.mode}": image.mode not in {*NUMBERS, *COLOURS},
    }
    for reason in (reason for reason, is_given in reasons.items() if is_given):
        raise BadDataError(f"{reason}; {SAVE_GREY}")
    if image.format == "TIFF" and (image.mode in NUMBERS or tags.get(SAMPLE_FORMAT_TAG) == SIGNED):
        return _of_array(read_tiff(path))  # Pillow does not read every type and order of bytes right
    if image.mode in NUMBERS:  # integers have 16 bits here, which Pillow may make 32
        return _of_array(np.asarray(image).astype(np.uint16) if image.mode == "I" else np.asarray(image))
    return _on_black(image)


def _on_black(image: Image) -> NDArray[np.uint8]:
    """Lay an image on black: (H, W) if all that is seen is grey, else (H, W, 3)."""
    from PIL import Image as PillowImage  # noqa: PLC0415

    stored = np.asarray(image.convert("L") if image.mode == "1" else image)
    if image.mode in {"1", "L", "RGB"} and "transparency" not in image.info:
        seen = stored
    else:
        black = PillowImage.new("RGBA", image.size, (0, 0, 0, WHITE))
        seen = np.asarray(PillowImage.alpha_composite(black, image.convert("RGBA")))[..., :3]
    if not seen.any() and bool((stored != stored[:1, :1]).any()):
        raise BadDataError(f"black as a whole, though its pixels differ in colour, index or transparency; {SAVE_GREY}")
    return seen[..., 0] if seen.ndim == 3 and (seen == seen[..., :1]).all() else seen


def _of_array(array: NDArray[Any]) -> NDArray[Any]:
    """Check an array of numbers (H, W), which may have axes of length 1."""
    shape = [length for length in array.shape if length != 1] if array.ndim > 2 else array.shape
    if len(shape) != 2 or array.size == 0:
        raise BadDataError(f"an array of shape {array.shape} is no mask (H, W)")
    if array.dtype.kind not in "bfiu":
        raise BadDataError(f"values of dtype {array.dtype}")
    if not np.isfinite([array.min(), array.max()]).all():
        raise BadDataError("NaN or infinite values, which are neither a defect nor none; please save numbers")
    return array.reshape(shape) * np.uint8(WHITE) if array.dtype.kind == "b" else array.reshape(shape)


def _find_defect(
    pixels: NDArray[Any], rule: MaskRule, has_classes: bool, known: DefectValue, path: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the defect (H, W) and the pixels that do not count (H, W) by a rule, or else if the file is clear."""
    is_colour = pixels.ndim == 3
    numbers = pixels @ CHANNELS if is_colour else pixels
    ignored = np.zeros(numbers.shape, np.bool_)
    if rule.ignore_index is not None:
        ignored = numbers == int(rule.ignore_index) * (sum(CHANNELS) if is_colour else 1)
    counting = numbers[~ignored]
    if not counting.size:
        raise BadDataError(f"no pixel counts: all are of `ignore_index={rule.ignore_index}`")
    if is_colour and numbers.all():
        raise BadDataError(f"holds {_shown(counting, is_colour)}, and no black; {SAVE_GREY}")
    if rule.threshold is not None:
        return ((pixels.max(2) if is_colour else pixels) > float(rule.threshold)) & ~ignored, ignored
    highest, full = counting.max(), 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    is_of_one = ((counting == 0) | (counting == highest)).all()
    is_clear = is_of_one and (not counting.all() or (highest in {1, full} and not is_colour))
    are_classes = has_classes and len(np.unique(counting)) <= MAX_CLASSES + 1
    if counting.min() < 0 or not (is_clear or are_classes):
        raise BadDataError(f"holds {_shown(counting, is_colour)}; {SETTLED_BY}")
    if highest != 0 and not has_classes:
        value = _text(highest, is_colour)
        is_white = highest == full and pixels.dtype.kind != "f" and not is_colour
        known.check(value, str(WHITE) if is_white else value, path)
    return (numbers != 0) & ~ignored, ignored


def _shown(numbers: NDArray[Any], is_colour: bool) -> str:
    """List the values of a file with their shares, the most frequent ones if they are many."""
    values, counts = np.unique(numbers, return_counts=True)
    frequent = np.sort(np.argsort(-counts, kind="stable")[:MAX_SHOWN])
    shown = [f"{_text(values[i], is_colour)} ({counts[i] / numbers.size:.2%})" for i in frequent]
    others = len(values) - len(shown)
    more = f" and {others} other {'colours' if is_colour else 'values'}" if others else ""
    return ", ".join(shown) + more


def _text(number: Any, is_colour: bool) -> str:
    """Write a value as it is in the file, or the levels of a colour."""
    if is_colour:
        return str(tuple(int(number) // channel % 256 for channel in CHANNELS))
    return str(int(number)) if number == int(number) else f"{number:.4g}"
