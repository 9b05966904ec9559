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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError, SettingError
from aupimo_torchmetrics._files import images
from aupimo_torchmetrics._files.arrays import open_npy
from aupimo_torchmetrics._files.limits import check_size, plane_of, refusing
from aupimo_torchmetrics.evaluate.bad_files import BadFileError, naming

__all__ = ["MaskRule", "read_mask"]

MAX_CLASSES = 10  # types of defects in one file at most; more values are noise. MVTec LOCO has one a file, VisA a few
MAX_SHOWN = 5  # values that a reason lists
WHITE = 255
CHANNELS = 256 * 256, 256, 1  # what the levels of red, green and blue are multiplied with in the number of a colour
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
        numbers = {"mask_threshold": (self.threshold, Real, "a number")}
        numbers["ignore_index"] = (self.ignore_index, Integral, "an integer")
        for name, (value, kind, what) in numbers.items():
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise TypeError(f"Expected `{name}` to be None or {what}, but got {type(value).__name__}.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise SettingError(f"Expected `mask_threshold` to be None or a finite number, but got {self.threshold}.")


def read_mask(
    paths: Sequence[str | os.PathLike[str]],
    rule: MaskRule,
    *,
    has_classes: bool = False,
    known: dict[str, str] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Read the union of masks.

    Args:
        paths: One or more images, or `.npy` arrays, of the same size.
        rule: Which values are a defect, and which do not count.
        has_classes: Whether the layout says that a mask holds a number for each type of defect, so that each value but
            0 is a defect.
        known: The value that is a defect in other masks, with the path of the first of them; empty before that, and
            filled then. With 1 in some masks and 255 in others, either may be a label of pixels that do not count. None
            if these masks have to agree with each other only.

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
    known = {} if known is None else known
    found = []
    for path in map(str, paths):
        with naming(path), refusing():
            found.append(_find_defect(read_pixels(Path(path)), rule, has_classes, known, path))
    masks, ignored = zip(*found, strict=True)
    if len({mask.shape for mask in masks}) > 1:
        raise BadFileError(str(paths[0]), f"masks of several sizes: {sorted({mask.shape for mask in masks})}")
    mask = np.logical_or.reduce(masks)
    without = np.logical_or.reduce(ignored) & ~mask
    return torch.from_numpy(mask), torch.from_numpy(without) if without.any() else None


def read_pixels(path: Path) -> NDArray[Any]:
    """Read (H, W) numbers, or (H, W, 3) colours as seen on black."""
    if path.suffix.lower() == ".npy":
        array = open_npy(path)
        check_size(array.shape)
    elif images.is_tiff_of_numbers(path):
        array = images.read_tiff(path)
    else:
        with images.open_image(path) as image:
            images.check_plain(image)
            if not images.has_wide_channels(image):
                return _on_black(image)
            if image.mode not in images.NUMBERS:
                raise BadDataError(f"16 bits a channel; {SAVE_GREY}")
            array = np.asarray(image, np.uint16 if image.mode == "I" else None)  # Pillow may make 32 bits of 16
    size = plane_of(array.shape)
    if size is None:
        raise BadDataError(f"an array of shape {array.shape} is no mask (H, W)")
    if array.dtype.kind not in "bfiu" or not np.isfinite([array.min(), array.max()]).all():
        raise BadDataError(f"values of dtype {array.dtype} that are NaN, infinite or no numbers; please save numbers")
    return array.reshape(size) * np.uint8(WHITE) if array.dtype.kind == "b" else array.reshape(size)


def _on_black(image: Image.Image) -> NDArray[np.uint8]:
    """Lay an image on black: (H, W) if all that is seen is grey, else (H, W, 3)."""
    image = image.convert("L") if image.mode == "1" else image
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        seen = np.asarray(image)
    else:
        stored, black = np.asarray(image), Image.new("RGBA", image.size, "black")
        seen = np.asarray(Image.alpha_composite(black, image.convert("RGBA")))[..., :3]
        if not seen.any() and bool((stored != stored[:1, :1]).any()):
            raise BadDataError(f"black as a whole, though its pixels differ; {SAVE_GREY}")
    return seen[..., 0] if seen.ndim == 3 and (seen == seen[..., :1]).all() else seen


def _find_defect(
    pixels: NDArray[Any], rule: MaskRule, has_classes: bool, known: dict[str, str], path: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the defect (H, W) and the pixels that do not count (H, W) by a rule, or else if the file is clear."""
    is_colour = pixels.ndim == 3
    channels = pixels if is_colour else pixels[..., None]
    numbers = pixels @ CHANNELS if is_colour else pixels
    ignored = (channels == rule.ignore_index).all(-1)
    counting = numbers[~ignored]
    if not counting.size:
        raise BadDataError(f"no pixel counts: all are of `ignore_index={rule.ignore_index}`")
    if is_colour and numbers.all():
        raise BadDataError(f"holds {_shown(counting, is_colour)}, and no black; {SAVE_GREY}")
    if rule.threshold is not None:
        return (channels.max(-1) > float(rule.threshold)) & ~ignored, ignored
    highest, full = counting.max(), 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    is_of_one = ((counting == 0) | (counting == highest)).all()
    is_clear = is_of_one and (not counting.all() or (highest in {1, full} and not is_colour))
    are_classes = has_classes and len(np.unique(counting)) <= MAX_CLASSES + 1
    if counting.min() < 0 or not (is_clear or are_classes):
        raise BadDataError(f"holds {_shown(counting, is_colour)}; {SETTLED_BY}")
    if highest != 0 and not has_classes:
        is_white = highest == full and pixels.dtype.kind != "f" and not is_colour
        value = str(WHITE) if is_white else _text(highest, is_colour)
        first = next(iter(known), value)
        if value != first:
            raise BadDataError(f"its defect is {value}, but that of {known[first]} is {first}; {SETTLED_BY}")
        known.setdefault(value, path)
    return (numbers != 0) & ~ignored, ignored


def _shown(numbers: NDArray[Any], is_colour: bool) -> str:
    """List the values of a file with their shares, the most frequent ones if they are many."""
    values, counts = np.unique(numbers, return_counts=True)
    frequent = np.sort(np.argsort(-counts, kind="stable")[:MAX_SHOWN])
    shown = [f"{_text(values[i], is_colour)} ({counts[i] / numbers.size:.2%})" for i in frequent]
    return ", ".join([*shown, "and others"] if len(values) > MAX_SHOWN else shown)


def _text(number: Any, is_colour: bool) -> str:
    """Write a value as it is in the file, or the levels of a colour."""
    if is_colour:
        return str(tuple(int(number) // channel % 256 for channel in CHANNELS))
    return str(int(number)) if number == int(number) else f"{number:.4g}"
