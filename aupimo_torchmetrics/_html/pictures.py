"""The pictures of one image on a page: its photograph, its heat map, and what each threshold finds in it.

Conventions: a picture is a text, an address `data:...` that holds it. *Marks* (4, H, W) uint8 are what is drawn over a
photograph, in four layers: 1 in the mask; the level of a pixel in the mask, and of one outside of it (see `views`), 0
elsewhere; and the colour of the pixel AUPIMO, from 1 on, 0 for none.
"""

from __future__ import annotations

import io
from base64 import b64encode
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

__all__ = ["NUM_COLORS", "Picture", "draw_picture"]

SIDES = (640, 512, 384, 256, 192, 128, 96)
"""Longest sides of a picture in pixels. The first that is small enough in bytes is taken."""
JPEG_QUALITY = 80
NUM_COLORS = 64
"""Colours of a heat map; one more is transparent, and one is for the outline of the mask."""
OUTLINE_SHARE = 1 / 120
"""Width of the outline of a mask, as a share of the longest side."""

Marks = NDArray[np.uint8]


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


def draw_picture(photograph: Tensor, marks: Marks, max_characters: float) -> Picture:
    """Draw the largest pictures that are small enough, or else the smallest ones.

    Args:
        photograph: (1, H, W) float32 in [0, 1], grey.
        marks: (4, H, W) what to draw over it.
        max_characters: How many characters the pictures may take.

    Returns:
        The pictures, of one size.

    """
    height, width = marks.shape[1:]
    for side in SIDES:
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        grey = interpolate(photograph[None], size, mode="bilinear", antialias=True)[0, 0]
        jpeg = _address(Image.fromarray((255 * grey).round().byte().numpy()), "jpeg", quality=JPEG_QUALITY)
        if len(jpeg) > max_characters and side != SIDES[-1]:
            continue
        mask, in_mask, outside, colors = _highest(marks, size)
        levels = _address(Image.fromarray(np.stack([in_mask, outside, 255 * mask], axis=2)), "png")
        heat = _address(_heat_image(mask, colors), "png", transparency=0)
        if len(jpeg) + len(heat) + len(levels) <= max_characters:
            break
    return Picture(*size, jpeg, heat, levels)


def _highest(marks: Marks, size: tuple[int, int]) -> Marks:
    """(4, h, w) the highest of the values (4, H, W) that each pixel of a smaller picture covers."""
    for axis, length in enumerate(size, start=1):
        starts = np.arange(length) * marks.shape[axis] // length
        marks = np.maximum.reduceat(marks, starts, axis=axis)
    return marks


def _heat_image(mask: Marks, colors: Marks) -> Image.Image:
    """Image of the pixel AUPIMO and of the outline of the mask, both (h, w); its colour 0 is to be transparent."""
    width = max(1, round(OUTLINE_SHARE * max(mask.shape)))
    around = max_pool2d(torch.from_numpy(mask).float()[None], 2 * width + 1, stride=1, padding=width)[0] > 0
    is_outline = around.numpy() & (mask == 0)
    image = Image.fromarray(np.where(is_outline, np.uint8(NUM_COLORS + 1), colors)).convert("P")
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
