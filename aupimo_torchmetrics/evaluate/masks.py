"""Masks on disk: which pixels are a defect, and which do not count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._files import BadDataError
from aupimo_torchmetrics._untrusted import open_image, refusing

__all__ = ["MaskRule", "read_mask"]


class MaskRule(NamedTuple):
    """What the values of mask files mean, where the files do not say it clearly themselves."""

    threshold: float | None = None
    """Values above it are a defect; None if the files themselves have to say it."""
    ignore_value: int | None = None
    """Value of the pixels that do not count; None if there are none."""


def read_mask(
    paths: Sequence[str | os.PathLike[str]], rule: MaskRule, *, has_classes: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Read the union of masks.

    Args:
        paths: One or more images of the same size.
        rule: Which values are a defect, and which do not count.
        has_classes: Whether the layout says that a mask holds a number for each type of defect, so that each value but 0
            is a defect.

    Returns:
        (H, W) bool, true in a defect; and (H, W) bool, true for a pixel that does not count, or None if all count.

    Raises:
        BadDataError: If a mask cannot be read, or the masks differ in size.

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
    masks = [_read_mask_file(path) for path in paths]
    if len({mask.shape for mask in masks}) > 1:
        raise BadDataError(f"masks of several sizes: {sorted({tuple(mask.shape) for mask in masks})}")
    return torch.stack(masks).any(0), None


def _read_mask_file(path: str | os.PathLike[str]) -> Tensor:
    """Read one mask (H, W) bool."""
    with refusing(), open_image(path) as image:
        has_one_band = len(image.getbands()) == 1
        pixels = np.asarray(image if has_one_band else image.convert("RGB"))
        return torch.from_numpy(pixels != 0 if has_one_band else pixels.any(2))
