"""What a model finds in one image, at each step of the slider.

Conventions: S thresholds, ascending. The *level* of a pixel is how many of them it reaches, so it is called anomalous
at threshold s iff its level is above s.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aupimo_torchmetrics._errors import BadDataError
from aupimo_torchmetrics._html.pictures import NUM_COLORS, Picture, draw_picture
from aupimo_torchmetrics.results import AUPIMOResult

__all__ = ["ImageContent", "Model", "View", "characters_for_each", "view_image"]

MAX_CHARACTERS = 14_000_000
"""Of the pictures of all images together, as far as `MIN_CHARACTERS` allows."""
MIN_CHARACTERS = 12_000
CHARACTERS_AT_MOST = 90_000
"""Of the pictures of one image."""
MAX_DIFFERENCE = 1e-6
"""A score that differs by more from that of a map is not of this map."""


class ImageContent(NamedTuple):
    """An image with its map and its mask, all of one height and width."""

    photograph: Tensor
    """(1, H, W) float32 in [0, 1], grey."""
    anomaly_map: Tensor
    """(H, W) floating, as it was scored."""
    mask: Tensor
    """(H, W) bool."""
    is_counted: Tensor
    """(H, W) bool, true for a pixel that counts."""
    note: str = ""
    """Why there is no photograph."""


class Model(NamedTuple):
    """A model, and what its view of an image is made of."""

    name: str
    """Empty if there is only one model."""
    result: AUPIMOResult
    thresholds: list[float]
    """At the steps of the slider, and the chosen one, ascending; empty if they are not known."""
    chosen: int | None
    """Index of the chosen threshold; None if there is none."""
    num_false_positives: list[int]
    """(N,) pixels of each normal image that are called anomalous at the upper FPR bound; 0 for an anomalous one."""

    @classmethod
    def of(cls, name: str, result: AUPIMOResult, thresholds: Sequence[float], chosen: float | None = None) -> Model:
        """Make a model of its result, with the thresholds of the slider, ascending, and a chosen one."""
        steps = [] if result._scoring is None else [*thresholds]  # noqa: SLF001  of the same package
        place = None if chosen is None or not steps else bisect_left(steps, chosen)
        if place is not None and chosen is not None:
            steps.insert(place, chosen)
        return cls(name, result, steps, place, _num_false_positives(result))

    def has_scored(self, index: int, content: ImageContent) -> bool:
        """Whether map and mask lead to the score of an image, or on a normal one to its false positives."""
        table = self.result._known().table  # noqa: SLF001  of the same package
        anomaly_map, score = content.anomaly_map.to(table.scores), float(self.result.aupimos[index])
        if not bool(content.mask.any()):
            is_found = (anomaly_map >= self.result.threshold_bounds[0]) & content.is_counted
            return math.isnan(score) and int(is_found.sum()) == self.num_false_positives[index]
        shares = table.look_up(anomaly_map[content.mask])
        return abs(float(shares.mean().clamp(0, 1)) - score) < MAX_DIFFERENCE  # False for NaN


class View(NamedTuple):
    """What one model says of one image."""

    model: str
    """Name of the model; empty if there is only one."""
    score: float
    """AUPIMO; NaN for a normal image."""
    note: str = ""
    """Why there is no picture, or no photograph on it."""
    picture: Picture | None = None
    """None if it cannot be made."""
    steps: Mapping[str, Any] = MappingProxyType({})
    """What the slider needs, as JSON can hold it. At each of S thresholds: `thresholds`, as text; `tprs`, the share of
    the mask pixels that it calls anomalous, None for a normal image; and `numFalsePositives`, the number of pixels
    outside of the mask that it does. `chosen` is the index of the chosen one, None if there is none, and `levels` that
    of the picture."""


def view_image(model: Model, index: int, read: Callable[[], ImageContent], max_characters: float) -> View:
    """Read one image, count what each threshold finds in all of its pixels, and draw it.

    Args:
        model: The model.
        index: Index of the image in its result.
        read: Reads image, map and mask.
        max_characters: How many characters the pictures may take, as far as the smallest ones take less.

    Returns:
        The view. If map or image cannot be read any longer, or are not those that were scored, it says so.

    """
    view = View(model.name, float(model.result.aupimos[index]))
    if not model.thresholds:
        return view._replace(note="No picture, as no threshold is known.")
    try:
        content = read()
    except (BadDataError, OSError) as error:
        return view._replace(note=f"No picture: {error}")
    if not model.has_scored(index, content):
        return view._replace(note="No picture: map or mask are not those that were scored.")
    thresholds = content.anomaly_map.new_tensor(model.thresholds)  # a chosen one is rounded, as scores are
    levels = torch.bucketize(content.anomaly_map, thresholds, right=True) * content.is_counted
    num_found, num_false = (
        _num_above(levels[where], len(model.thresholds)) for where in (content.mask, content.is_counted & ~content.mask)
    )
    num_masked = int(content.mask.sum())
    is_high = content.is_counted & (content.anomaly_map >= model.result.threshold_bounds[0])
    marks = torch.zeros(4, *content.mask.shape, dtype=torch.uint8, device="cpu")
    marks[0] = content.mask
    marks[1:3] = torch.stack([levels * content.mask, levels * ~content.mask])
    shares = model.result.pixel_aupimo(content.anomaly_map[is_high])
    marks[3, is_high] = 1 + (shares * (NUM_COLORS - 1)).round().byte()
    picture = draw_picture(content.photograph, marks.numpy(), max_characters)
    steps = {
        "thresholds": [str(np.float32(threshold)).removesuffix(".0") for threshold in model.thresholds],
        "tprs": [number / num_masked if num_masked else None for number in num_found],
        "numFalsePositives": num_false,
        "chosen": model.chosen,
        "levels": picture.levels,
    }
    return view._replace(note=content.note, picture=picture, steps=steps)


def characters_for_each(num_pictures: int) -> float:
    """Return how many characters the pictures of one image may take, of a number of images in all."""
    return min(max(MAX_CHARACTERS / max(num_pictures, 1), MIN_CHARACTERS), CHARACTERS_AT_MOST)


def _num_false_positives(result: AUPIMOResult) -> list[int]:
    """(N,) how many pixels of each normal image are called anomalous at the upper FPR bound; 0 for an anomalous one."""
    scored, threshold = result._scoring, result.threshold_bounds[0]  # noqa: SLF001  of the same package
    if scored is None or math.isnan(threshold):
        return [0] * len(result.aupimos)
    images = scored.kept.image_of_normal_score()[scored.kept.normal_scores >= threshold]
    return [int(number) for number in torch.bincount(images, minlength=len(result.aupimos))]


def _num_above(levels: Tensor, num_thresholds: int) -> list[int]:
    """(S,) how many of the levels (n,) are above 0, 1, ..., S - 1."""
    counts = torch.bincount(levels, minlength=num_thresholds + 1)[1:]
    return [int(number) for number in counts.flip(0).cumsum(0).flip(0)]
