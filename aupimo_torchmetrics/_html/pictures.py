"""One image on a page: its photograph, its heat map, and what each threshold finds in it.

Conventions: S thresholds, ascending. The *level* of a pixel is how many of them it reaches, so it is called anomalous
at threshold s iff its level is above s. Pictures are texts, addresses `data:...` that hold them.
"""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from aupimo_torchmetrics.plotting._figures import MASK_COLOR, SCORE_COLORS
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["ImageContent", "Picture", "View", "view_image"]

SIDES = (640, 512, 384, 256, 192, 128, 96)
"""Longest sides of a picture in pixels. The first that is small enough in bytes is taken."""
JPEG_QUALITY = 80
NUM_COLORS = 64
"""Colours of a heat map; one more is transparent, and one is for the outline of the mask."""
OUTLINE_SHARE = 1 / 120
"""Width of the outline of a mask, as a share of the longest side."""


class ImageContent(NamedTuple):
    """An image with its map and its mask, all of one height and width."""

    photograph: Tensor
    """(1, H, W) float32 in [0, 1], grey."""
    anomaly_map: Tensor
    """(H, W) floating."""
    mask: Tensor
    """(H, W) bool."""
    ignored: Tensor | None
    """(H, W) bool, true for a pixel that does not count; None if all count."""


class Picture(NamedTuple):
    """The pictures of one image, of one size. Each of their pixels shows the highest of the pixels that it covers."""

    height: int
    width: int
    photograph: str
    """JPEG in grey."""
    heat: str
    """PNG with the pixel AUPIMO and the outline of the mask, transparent elsewhere."""
    levels: str
    """PNG whose red is the level in the mask, whose green is the level outside of it, and whose blue is the mask."""

    @property
    def num_characters(self) -> int:
        """Characters of all pictures."""
        return len(self.photograph) + len(self.heat) + len(self.levels)


class View(NamedTuple):
    """What a model finds in one image."""

    tprs: list[float]
    """(S,) element s is the share of the mask pixels that threshold s calls anomalous; NaN for a normal image."""
    num_false_positives: list[int]
    """(S,) element s is the number of pixels outside of the mask that threshold s calls anomalous."""
    picture: Picture


def view_image(content: ImageContent, result: AUPIMOResult, thresholds: Sequence[float], max_characters: float) -> View:
    """Make the pictures of one image, and count what each threshold finds in all of its pixels.

    Args:
        content: Image, map and mask.
        result: Scores of the images, which know their normal scores.
        thresholds: S thresholds, ascending.
        max_characters: How many characters the pictures may take, as far as the smallest ones take less.

    Returns:
        Counts and pictures.

    """
    reaches_any = content.anomaly_map >= thresholds[0]
    if content.ignored is not None:
        reaches_any &= ~content.ignored
    scores = content.anomaly_map[reaches_any]
    levels = torch.bucketize(scores.double(), torch.tensor(thresholds, dtype=torch.float64), right=True)
    is_in_mask = content.mask[reaches_any]
    num_found, num_false = (_num_above(levels[where], len(thresholds)) for where in (is_in_mask, ~is_in_mask))
    num_masked = int(content.mask.sum())
    marks = _Marks(
        mask=content.mask.numpy().view(np.uint8),
        in_mask=_where(reaches_any, torch.where(is_in_mask, levels, 0)),
        outside=_where(reaches_any, torch.where(is_in_mask, 0, levels)),
        colors=_where(reaches_any, 1 + (result.pixel_aupimo(scores) * (NUM_COLORS - 1)).round()),
    )
    return View(
        tprs=[number / num_masked if num_masked else math.nan for number in num_found],
        num_false_positives=num_false,
        picture=_picture(content.photograph, marks, max_characters),
    )


class _Marks(NamedTuple):
    """What is drawn over a photograph: four layers (H, W) uint8."""

    mask: NDArray[np.uint8]
    """1 in the mask."""
    in_mask: NDArray[np.uint8]
    """Level of a pixel in the mask, 0 outside."""
    outside: NDArray[np.uint8]
    """Level of a pixel outside of the mask, 0 inside."""
    colors: NDArray[np.uint8]
    """Colour of the pixel AUPIMO, from 1 on; 0 for none."""


def _num_above(levels: Tensor, num_thresholds: int) -> list[int]:
    """(S,) how many of the levels (n,) are above 0, 1, ..., S - 1."""
    counts = torch.bincount(levels, minlength=num_thresholds + 1)[1:]
    return [int(number) for number in counts.flip(0).cumsum(0).flip(0)]


def _where(flags: Tensor, values: Tensor) -> NDArray[np.uint8]:
    """(H, W) the values (n,) where flags (H, W) are true, 0 elsewhere."""
    layer = torch.zeros(flags.shape, dtype=torch.uint8)
    layer[flags] = values.to(torch.uint8)
    return layer.numpy()


def _picture(photograph: Tensor, marks: _Marks, max_characters: float) -> Picture:
    """Draw the largest pictures that are small enough in characters, or else the smallest ones."""
    height, width = marks.mask.shape
    for side in SIDES:
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        grey = interpolate(photograph[None], size, mode="bilinear", antialias=True)[0, 0]
        jpeg = _address(Image.fromarray((255 * grey).round().byte().numpy()), "jpeg", quality=JPEG_QUALITY)
        if len(jpeg) > max_characters and side != SIDES[-1]:
            continue
        small = _Marks(*(_highest(layer, size) for layer in marks))
        levels = Image.fromarray(np.stack([small.in_mask, small.outside, 255 * small.mask], axis=2))
        heat = _address(_heat_image(small), "png", transparency=0)
        picture = Picture(*size, photograph=jpeg, heat=heat, levels=_address(levels, "png"))
        if picture.num_characters <= max_characters:
            break
    return picture


def _highest(layer: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) the highest of the values (H, W) that each pixel of a smaller picture covers."""
    for axis, length in enumerate(size):
        starts = np.arange(length) * layer.shape[axis] // length
        layer = np.maximum.reduceat(layer, starts, axis=axis)
    return layer


def _heat_image(marks: _Marks) -> Image.Image:
    """Image of the pixel AUPIMO and of the outline of the mask; its colour 0 is to be transparent."""
    width = max(1, round(OUTLINE_SHARE * max(marks.mask.shape)))
    around = max_pool2d(torch.from_numpy(marks.mask).float()[None], 2 * width + 1, stride=1, padding=width)[0] > 0
    is_outline = around.numpy() & (marks.mask == 0)
    image = Image.fromarray(np.where(is_outline, np.uint8(NUM_COLORS + 1), marks.colors)).convert("P")
    image.putpalette(_palette())
    return image


@cache
def _palette() -> bytes:
    """Colours of a heat map, three bytes each: nothing, the scores from 0 to 1, and the outline."""
    scores = colormaps[SCORE_COLORS](np.linspace(0, 1, NUM_COLORS), bytes=True)[:, :3]
    outline = np.array([round(255 * part) for part in to_rgb(MASK_COLOR)], dtype=np.uint8)
    return np.concatenate([np.zeros((1, 3), dtype=np.uint8), scores, outline[None]]).tobytes()


def _address(image: Image.Image, kind: str, **options: int) -> str:
    """Address that holds an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"
