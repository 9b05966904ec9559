"""Masks on disk: which pixels are a defect, and which do not count.

A mask file is taken as it is only if it says clearly what is a defect: if it holds 0 and one other value, or one value
alone that means all or nothing. Anything else is settled by a rule of the user, or the file is refused with its values.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._files import refusing
from aupimo_torchmetrics.evaluate.bad_files import BadFileError
from aupimo_torchmetrics.evaluate.mask_files import SAVE_GREY, WHITE, MaskFile, read_mask_file

__all__ = ["DefectValue", "MaskRule", "read_mask"]

MAX_CLASSES = 10
"""Types of defects in one mask file at most; more values are noise. MVTec LOCO has one a file, VisA a few."""
MAX_CLASS = 32
"""Largest value that looks like the number of a class rather than like a grey level, in advice."""
MAX_SHOWN = 5
"""Values that a reason lists."""


class MaskRule(NamedTuple):
    """What the values of mask files mean, where the files do not say it clearly themselves.

    Example:
        >>> from aupimo_torchmetrics.evaluate import MaskRule
        >>> MaskRule(threshold=127)  # values above 127 are a defect
        MaskRule(threshold=127, ignore_index=None)

    """

    threshold: float | None = None
    """Values above it are a defect; None if the files themselves have to say it."""
    ignore_index: int | None = None
    """Value of the pixels that do not count; None if there are none."""


class _Value(NamedTuple):
    """A value that is a defect."""

    text: str
    """The value in the file."""
    meaning: Any
    """The same for values that mean the same: the largest of their type is white in each type."""


class DefectValue:
    """The value that is a defect in masks that belong together, as the first of them says it.

    With 1 in some files and 255 in others, either may be a label of pixels that do not count.
    """

    def __init__(self) -> None:
        self._first: tuple[_Value, str] | None = None

    def check(self, value: _Value, path: str) -> None:
        """Remember the value of the first file; raise a BadDataError for another value in another file."""
        self._first = self._first or (value, path)
        first, first_path = self._first
        if value.meaning != first.meaning:
            raise BadDataError(
                f"its defect is {value.text}, but that of {first_path} is {first.text}: one may be a label of pixels "
                f"that do not count. {_above_advice(0)}{_advice_on_two(value.text, first.text)}"
            )


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
    read = [_read(path, rule, has_classes, known) for path in paths]
    masks, ignored = zip(*read, strict=True)
    if len({mask.shape for mask in masks}) > 1:
        raise BadFileError(str(paths[0]), f"masks of several sizes: {sorted({mask.shape for mask in masks})}")
    mask = np.logical_or.reduce(masks) if len(masks) > 1 else masks[0]
    some_ignored = [each for each in ignored if each is not None]
    if not some_ignored:
        return torch.from_numpy(mask), None
    return torch.from_numpy(mask), torch.from_numpy(np.logical_or.reduce(some_ignored) & ~mask)


def _read(
    path: str | os.PathLike[str], rule: MaskRule, has_classes: bool, known: DefectValue
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Read one mask (H, W), and which of its pixels do not count."""
    try:
        with refusing():
            file = read_mask_file(path)
        ignored = _ignored(file, rule)
        mask, value = _mask(file, ignored, rule, has_classes)
        if value is not None:
            known.check(value, str(path))
    except BadDataError as error:
        raise BadFileError(str(path), str(error)) from error
    return (mask, None) if ignored is None else (mask & ~ignored, ignored)


def _mask(
    file: MaskFile, ignored: NDArray[np.bool_] | None, rule: MaskRule, has_classes: bool
) -> tuple[NDArray[np.bool_], _Value | None]:
    """Mask (H, W) of a file by what settles it; and the value of its defects if the file itself does."""
    if rule.threshold is not None:
        return _above(file, rule.threshold), None
    if file.contradiction is not None:
        raise BadDataError(f"{file.contradiction}: {_advice_against(file)}")
    if has_classes:
        return _of_classes(file, ignored, rule), None
    return _of_one_value(file, ignored, rule)


def _ignored(file: MaskFile, rule: MaskRule) -> NDArray[np.bool_] | None:
    """Find the pixels that do not count, None if all count."""
    if rule.ignore_index is None:
        return None
    channels = file.values[..., None] if file.colours is None else file.colours
    ignored = (channels == rule.ignore_index).all(2)
    if bool(ignored.all()):
        raise BadDataError(f"no pixel counts: all are of `ignore_index={rule.ignore_index}`")
    return ignored if bool(ignored.any()) else None


def _above(file: MaskFile, threshold: float) -> NDArray[np.bool_]:
    """Mask of the values above a threshold; raise if colours or transparent pixels have a say in what it is."""
    mask: NDArray[np.bool_] = file.values > threshold
    if file.values_on_black is not None and not np.array_equal(mask, file.values_on_black > threshold):
        raise BadDataError(f"{file.contradiction}, since some are above `mask_threshold={threshold:g}`; {SAVE_GREY}")
    if file.colours is not None and bool(mask.all()):
        raise BadDataError(f"no colour as dark as `mask_threshold={threshold:g}` in any pixel; {SAVE_GREY}")
    return mask


def _of_one_value(
    file: MaskFile, ignored: NDArray[np.bool_] | None, rule: MaskRule
) -> tuple[NDArray[np.bool_], _Value | None]:
    """Mask of a file of 0 and one other value, or of one alone, and this value unless nothing has to be known of it."""
    pixels = file.values if file.colours is None else _numbered(file.colours)
    counting = pixels if ignored is None else pixels[~ignored]
    lowest, highest = counting.min(), counting.max()
    mask = pixels == highest
    if highest == 0 and lowest == 0:
        return np.zeros_like(mask), None
    # the common case is found without sorting the values
    is_one = lowest >= 0 and np.count_nonzero(counting) == np.count_nonzero(counting == highest)
    is_all = is_one and lowest != 0
    full = _largest(pixels.dtype)
    if not is_one or (is_all and (file.colours is not None or highest not in {1, full})):
        raise BadDataError(_unclear(file, counting, rule))
    return mask, None if file.is_bits else _value_of(file, highest, full)


def _value_of(file: MaskFile, value: Any, full: float) -> _Value:
    """Name the value that is a defect."""
    if file.colours is not None:
        colour = _colour(value)
        return _Value(str(colour), colour)
    return _Value(_text(value), WHITE if value == full else float(value))


def _of_classes(file: MaskFile, ignored: NDArray[np.bool_] | None, rule: MaskRule) -> NDArray[np.bool_]:
    """Mask of each value but 0, unless there are more values than there are types of defects."""
    pixels = file.values if file.colours is None else _numbered(file.colours)
    counting = pixels if ignored is None else pixels[~ignored]
    is_one = np.count_nonzero(counting) == np.count_nonzero(counting == counting.max())
    if counting.min() < 0 or (not is_one and len(np.unique(counting)) > MAX_CLASSES + 1):
        raise BadDataError(_unclear(file, counting, rule))
    return np.asarray(pixels != 0)


def _numbered(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Give each colour a number, 0 for black."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _colour(number: Any) -> tuple[int, int, int]:
    """Return the colour of a number."""
    return int(number) >> 16, int(number) >> 8 & WHITE, int(number) & WHITE


def _largest(dtype: np.dtype[Any]) -> float:
    """Return the largest number of a type of integers, and 1 for others."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def _text(value: Any) -> str:
    """Write a value as it is in the file."""
    return str(int(value)) if value == int(value) else f"{float(value):.4g}"


def _unclear(file: MaskFile, counting: NDArray[Any], rule: MaskRule) -> str:
    """Say which values a file holds, and what settles which of them are a defect."""
    values = np.unique(counting)
    texts = [_text(value) if file.colours is None else str(_colour(value)) for value in values]
    shown = ", ".join(texts if len(texts) <= MAX_SHOWN else [*texts[: MAX_SHOWN - 1], "...", texts[-1]])
    if file.colours is not None and len(values) > MAX_CLASSES + 1:  # noise of JPEG, or edges of resizing
        advice = _above_advice(file.values.max() // 2)
    elif file.colours is not None:
        advice = "`mask_threshold=0` takes each colour but black for a defect" if values[0] == 0 else SAVE_GREY
    else:
        advice = ", ".join(_advice(values.tolist(), may_ignore=rule.ignore_index is None))
    noun = "colour" if file.colours is not None else "value"
    count = f"one {noun} alone" if len(texts) == 1 else f"{len(texts)} {noun}s"
    return f"it is not clear what is a defect in a mask of {count} ({shown}): {advice}"


def _advice(values: list[float], *, may_ignore: bool) -> list[str]:
    """Name the options that settle which of the values of a file are a defect, the likeliest first."""
    lowest, top, others = values[0], values[-1], [value for value in values[:-1] if value != 0]
    half = top / 2 if isinstance(top, float) else top // 2
    if not others:
        return [_above_advice(half if top > 0 else top - 1), f"`mask_threshold={_text(top)}` takes none"]
    each = _above_advice(0)
    if 0 not in values and len(values) == 2:
        return [_above_advice(lowest), each]
    are_classes = max(others) <= MAX_CLASS and all(value == int(value) for value in values)
    advice = [each] if are_classes else [_above_advice(half), each]
    if not may_ignore or len(values) > MAX_SHOWN:
        return advice if len(values) <= MAX_SHOWN else advice[:1]
    label = others[0] if not are_classes else lowest if lowest < 0 else top
    ignoring = f"`ignore_index={_text(label)}` leaves pixels of {_text(label)} out"
    if are_classes and (lowest < 0 or top > MAX_CLASS):
        return [ignoring, *advice]
    # Where one of three values does not count, two are left, which are clear.
    return [advice[0], *([ignoring] if len(values) == 3 else []), *advice[1:]]


def _advice_on_two(*texts: str) -> str:
    """Name the option that ignores the larger of two values of defects; colours cannot be ignored."""
    if not all(text.isdigit() for text in texts):
        return ""
    label = max(texts, key=int)
    return f", `ignore_index={label}` leaves pixels of {label} out"


def _above_advice(threshold: float) -> str:
    """Name the threshold, and what it does."""
    return f"`mask_threshold={_text(threshold)}` takes values above {_text(threshold)} for defects"


def _advice_against(file: MaskFile) -> str:
    """Name the option by which the values of a file count in spite of what speaks against them, if one can."""
    top = file.values.max()
    threshold = 0 if top <= MAX_CLASS else top / 2 if file.values.dtype.kind == "f" else top // 2
    seen = file.values if file.values_on_black is None else file.values_on_black
    if not np.array_equal(file.values > threshold, seen > threshold):
        return SAVE_GREY
    return f"{_above_advice(threshold)}; or {SAVE_GREY}"
